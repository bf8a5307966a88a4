"""Delta learning: a fit that starts from the coefficients of another potential."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.bbasis import read_bbasis
from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError

Array = NDArray[np.float64]


def load_prior(path: str | Path) -> ACEPotential:
    """A potential to start from, with its B functions.

    A .yace does not hold them: the .yaml of the same name is read then, and the active set (.asi)
    with it where there is one. Raises PotentialFileError for files that cannot be read and
    InputError when there is no .yaml.
    """
    path = Path(path)
    potential = ACEPotential.load(path)
    if potential.basis.coupled:
        return potential
    b_file = path.with_suffix(".yaml")
    if not b_file.is_file():
        raise InputError(
            f"The prior '{path}' has no B functions, which a fit needs: put the B-basis file "
            f"'{b_file.name}' beside it, or name that file."
        )
    basis, coefficients, embeddings, zbl = read_bbasis(b_file)
    references = potential.reference_energies
    return ACEPotential(basis, coefficients, references, None, embeddings, zbl)


def check_prior(prior: ACEPotential, train: Dataset, settings: FitSettings) -> None:
    """Raise InputError for a prior that cannot be fitted to this data with these settings."""
    if not prior.basis.coupled:
        raise InputError(
            "The prior has no B functions: it was read from a .yace alone; read its B-basis .yaml."
        )
    for element, embedding in prior.embeddings.items():
        if not embedding.is_linear or embedding.n_densities > 1:
            raise InputError(
                f"The prior is not linear: {element} has {embedding.n_densities} densities with "
                f"the exponents {embedding.exponents.tolist()}; only linear potentials can be "
                "priors."
            )
    unknown = [e for e in train.elements if e not in prior.elements]
    if unknown:
        raise InputError(
            f"The training set contains {', '.join(unknown)}, but the prior knows only "
            f"{', '.join(prior.elements)}."
        )
    defaults = FitSettings()
    basis = ("cutoff", "max_rank", "radial", "max_functions", "candidates_per_function")
    for name in basis:
        if getattr(settings, name) != getattr(defaults, name):
            raise InputError(
                f"The fit setting {name} cannot be given with a prior, whose basis is used."
            )
    if settings.zbl and prior.zbl is None:
        raise InputError(
            "The prior has no ZBL repulsion, so zbl cannot be asked for: its coefficients stand "
            "for the whole energy."
        )


def prior_energies(prior: ACEPotential, train: Dataset, threads: int) -> Array:
    """(n,) energies in eV that the prior gives the structures, without reference energies."""

    def energy(index: int) -> float:
        atoms = train.atoms(index)
        references = sum(prior.reference_energies.get(s, 0.0) for s in atoms.get_chemical_symbols())
        return prior.evaluate(atoms).energy - references

    return np.array(list(in_threads(energy, range(len(train)), threads)))


def prior_metric(prior: ACEPotential) -> Array | None:
    """(F, F) matrix M: c^T M c is the mean square energy (eV) of the active environments.

    None without a usable active set of every element.
    """
    inverses, offsets = prior.inverse_active_set or {}, prior.basis.offsets
    metric = np.zeros((prior.basis.n_functions,) * 2)
    for k, element in enumerate(prior.elements):
        part = slice(offsets[k], offsets[k + 1])
        size = part.stop - part.start
        if element not in inverses or inverses[element].shape != (size, size):
            return None
        rows = np.linalg.inv(inverses[element])
        metric[part, part] = rows.T @ rows / size
    return metric if (np.diag(metric) > 0).all() else None
