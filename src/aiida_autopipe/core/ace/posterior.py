"""What a Bayesian linear regression knows of its coefficients: uncertainty and committees.

With rows X, row weights W and prior precision P, all relative to a noise s, the coefficients have a
normal posterior with the fitted mean and the covariance s^2 (X^T W X + P)^-1 (Bishop, Pattern
Recognition and Machine Learning, section 3.3). Predictions are linear in the coefficients, so their
variances follow in closed form; a committee is a number of samples of the posterior.

The noise is estimated from the errors of the cross validation. These are errors of the model more
than of the labels, so the noise that is added to a prediction is the one of its own kind of label.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from aiida_autopipe.core.ace.basis import Basis
from aiida_autopipe.core.ace.equations import (
    Choice,
    Equations,
    column_scaling,
    scaled_matrix,
    scaled_prior,
)
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.errors import FitError, InputError, PotentialFileError
from aiida_autopipe.core.files import complete_file

Array = NDArray[np.float64]

_LARGEST_SIZE = 20_000
_ATTEMPTS = 8


class Uncertainty(NamedTuple):
    """Standard deviations of one structure of n atoms.

    energy, forces (n, 3) in eV and eV/Å: of the model alone, because its coefficients are not known
    better; energy_total, forces_total (n, 3): with the noise of the labels it was fitted to, to be
    compared with an error against a label.
    """

    energy: float
    forces: Array
    energy_total: float
    forces_total: Array


@dataclass(frozen=True, eq=False)
class Posterior:
    """Normal distribution of the coefficients of a linear potential.

    Attributes:
        mean: (F,) coefficients of the potential.
        factor: (F, F) with covariance = factor factor^T; zero rows for functions no label touches.
        energy_noise: standard deviation of energies per atom in eV.
        force_noise: standard deviation of force components in eV/Å.
    """

    mean: Array
    factor: Array
    energy_noise: float
    force_noise: float

    def samples(self, n: int, rng: np.random.Generator) -> Array:
        """(n, F) coefficients drawn from the posterior: a committee."""
        return np.asarray(self.mean + rng.normal(size=(n, len(self.mean))) @ self.factor.T)

    def std(self, rows: Array) -> Array:
        """(k,) standard deviations of the predictions rows (k, F) @ coefficients."""
        return np.asarray(np.linalg.norm(rows @ self.factor, axis=1))

    def force_std(self, force_rows: Array) -> Array:
        """(n,) standard deviation of the force vector of each atom in eV/Å, from rows (3 n, F).

        The square root of the summed variances of the components, so that it does not depend on
        the orientation: what a committee of infinitely many samples gives in `core.committee`.
        """
        return np.asarray(np.linalg.norm(self.std(force_rows).reshape(-1, 3), axis=1))

    def uncertainty(self, basis: Basis, atoms: Atoms) -> Uncertainty:
        """Predictive standard deviations of energy and forces of a structure."""
        block = basis.design_block(atoms)
        energy = float(self.std(block.energy_row[None])[0])
        forces = self.std(block.force_rows).reshape(-1, 3)
        return Uncertainty(
            energy,
            forces,
            float(np.hypot(energy, len(atoms) * self.energy_noise)),
            np.hypot(forces, self.force_noise),
        )

    def save(self, path: str | Path) -> None:
        """Write a .npz file of mean, factor and noise."""
        noise = np.array([self.energy_noise, self.force_noise])
        with complete_file(Path(path)) as target, target.open("wb") as stream:
            np.savez(stream, allow_pickle=False, mean=self.mean, factor=self.factor, noise=noise)

    @classmethod
    def load(cls, path: str | Path, n_functions: int) -> Posterior:
        """Read what `save` wrote for a potential of so many functions.

        Raises PotentialFileError for a file that cannot be read or belongs to another potential.
        """
        expected = {
            "mean": (n_functions,), "factor": (n_functions, n_functions), "noise": (2,)
        }  # fmt: skip
        arrays = {}
        try:
            with zipfile.ZipFile(path) as archive:
                sizes = {info.filename: info.file_size for info in archive.infolist()}
            if n_functions > _LARGEST_SIZE or any(
                sizes.get(f"{name}.npy", 0) > 8 * int(np.prod(shape)) + 4096
                for name, shape in expected.items()
            ):
                raise PotentialFileError(f"{path}: this posterior belongs to another potential.")
            with np.load(path, allow_pickle=False) as content:
                for name, shape in expected.items():
                    arrays[name] = np.asarray(content[name], dtype=np.float64)
                    if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
                        raise PotentialFileError(
                            f"{path}: {name} has the shape {arrays[name].shape}, expected finite "
                            f"numbers of {shape}; it belongs to another potential."
                        )
        except (OSError, zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
            raise PotentialFileError(f"{path}: not a readable posterior ({error}).") from error
        noise = arrays["noise"].tolist()
        return cls(arrays["mean"], arrays["factor"], noise[0], noise[1])


def posterior_path(path: str | Path) -> Path:
    """Where the posterior of the potential in ``path`` is kept: NAME.posterior.npz beside it."""
    return Path(path).with_suffix(".posterior.npz")


def load_posterior(path: str | Path, potential: ACEPotential) -> Posterior:
    """The posterior kept beside the file ``path`` of a linear potential with its B functions.

    Raises InputError when there is none or the potential cannot have one, PotentialFileError for a
    file that cannot be read or belongs to another potential.
    """
    file = posterior_path(path)
    if not file.is_file():
        raise InputError(
            f"'{path}' has no posterior '{file.name}' beside it, from which uncertainties are "
            "computed; fit it again with --posterior."
        )
    if not potential.basis.coupled:
        name = Path(path).stem
        raise InputError(
            f"'{path}' holds no B functions, which uncertainties need; keep {name}.yaml and "
            f"{name}.asi beside it, or name {name}.yaml."
        )
    if potential.coefficients.shape[1] > 1 or not all(
        embedding.is_linear for embedding in potential.embeddings.values()
    ):
        raise InputError(f"'{path}' is not linear; only linear potentials have a posterior.")
    found = Posterior.load(file, potential.basis.n_functions)
    mean = potential.coefficients[:, 0]
    if not np.allclose(found.mean, mean, rtol=1e-9, atol=1e-12 * np.abs(mean).max()):
        raise PotentialFileError(
            f"{file}: its coefficients are not those of '{path}'; this posterior belongs to "
            "another potential."
        )
    return found


def posterior_of(
    equations: Equations,
    choice: Choice,
    mean: Array,
    energy_noise: float,
    force_noise: float,
) -> Posterior:
    """The posterior of a fit with its mean and the noise found by cross validation.

    The noise common to all weighted rows is the root mean square of both kinds over their rows.
    Raises FitError when the posterior precision is not positive definite to rounding.
    """
    matrix, _ = equations.assemble(choice.weights)
    scale = column_scaling(np.diag(matrix), choice.penalty(equations.degrees))
    touched = scale > 0
    factor = np.zeros_like(matrix)
    prior = scaled_prior(np.diag(matrix), scale, equations.prior_metric)
    inverse = _inverse_factor(matrix, scale, choice.regularisation, prior)
    squares, count = 0.0, 0
    for kind, noise in (("energy", energy_noise), ("forces", force_noise)):
        rows = equations.count(kind)
        squares += rows * (choice.weights.of(kind) * noise) ** 2
        count += rows
    noise = np.sqrt(squares / max(count, 1))
    factor[np.ix_(touched, touched)] = noise * scale[touched][:, None] * inverse
    return Posterior(mean, factor, energy_noise, force_noise)


def _inverse_factor(
    matrix: Array, scale: Array, regularisation: float, prior: Array | None
) -> Array:
    """U with U U^T the inverse of the scaled precision, whose rounding may need a larger ridge."""
    for attempt in range(_ATTEMPTS):
        ridge = max(regularisation, 1e-15) * 10.0**attempt
        try:
            lower = cholesky(scaled_matrix(matrix, scale, ridge, prior), lower=True)
        except np.linalg.LinAlgError:
            continue
        identity = np.eye(len(lower))
        return np.asarray(solve_triangular(lower, identity, lower=True).T)
    raise FitError(
        "The posterior of the fit is not positive definite; use fewer functions or a larger "
        "regularisation."
    )
