"""Elastic constants: strained cells to compute, and the stress-strain fit that uses symmetry."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.generate.strain import apply_strain, mark
from aiida_autopipe.core.symmetry import (
    align_to_conventional_axes,
    find_symmetry,
    in_orbit,
    independent_strains,
    rotate_strain,
    rotate_stress,
)
from aiida_autopipe.core.validate.family import Family, Planned
from aiida_autopipe.core.validate.labelled import Labelled, parameters_of, rows_of
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.values import PropertyValue


def elastic_structures(atoms: Atoms, magnitude: float = 0.01) -> list[Atoms]:
    """The fewest strained cells that determine all elastic constants by central differences.

    Each symmetry-independent Voigt strain is applied with both signs, unless a rotation of the
    crystal turns one sign into the other. Cubic: +xx, -xx and +yz. Triclinic: twelve cells.

    Args:
        atoms: a crystal cell at its equilibrium volume.
        magnitude: engineering strain.

    Raises:
        InputError: a magnitude outside (0, 0.1).
    """
    if not 0 < magnitude < 0.1:
        raise InputError(
            f"Elastic constants need a small positive strain below 0.1, not {magnitude}."
        )
    symmetry = find_symmetry(atoms)
    structures = []
    for unit in independent_strains(symmetry):
        signs = (1,) if in_orbit(-unit, unit, symmetry.rotations) else (1, -1)
        for sign in signs:
            strain = sign * magnitude * unit + 0.0  # no -0.0 in the records
            structures.append(
                mark(apply_strain(atoms, strain), "validate:elastic", strain=strain.tolist())
            )
    return structures


def elastic_constants(
    strains: Sequence[Sequence[float]] | NDArray[np.float64],
    stresses: Sequence[Sequence[float]] | NDArray[np.float64],
    reference_stress: Sequence[float] | NDArray[np.float64] | None = None,
    rotations: NDArray[np.float64] | None = None,
    *,
    require_pairs: bool = False,
) -> NDArray[np.float64]:
    """Elastic stiffness C of stress = stress0 + C strain, by least squares, symmetric.

    Args:
        strains: (m, 6) engineering strains xx yy zz yz xz xy.
        stresses: (m, 6) in eV/Å^3, ASE's sign (positive under tension).
        reference_stress: (6,) stress of the unstrained cell; fitted along with C when not given.
        rotations: (g, 3, 3) point group of the unstrained crystal (`Symmetry.rotations`); every
            measured pair then counts for all its rotations.
        require_pairs: refuse a strain whose opposite, or a rotation of it, was not measured: the
            fit would then be a one-sided difference.

    Returns:
        (6, 6) in eV/Å^3.

    Raises:
        DataError: non-finite values, or strains that do not determine all constants.
    """
    e = np.asarray(strains, dtype=np.float64).reshape(-1, 6)
    s = np.asarray(stresses, dtype=np.float64).reshape(-1, 6)
    if e.shape != s.shape or not (np.all(np.isfinite(e)) and np.all(np.isfinite(s))):
        raise DataError(
            f"Elastic constants need one finite stress per strain; got {len(e)} strains and "
            f"{len(s)} stresses."
        )
    if reference_stress is not None:
        s = s - np.asarray(reference_stress, dtype=np.float64)
    n_measured = len(e)
    if rotations is not None and len(e):
        e, s = (
            np.concatenate([rotate_strain(row, rotations) for row in e]),
            np.concatenate([rotate_stress(row, rotations) for row in s]),
        )
    if require_pairs:
        _check_pairs(e)
    scale = float(np.max(np.abs(e), initial=0.0)) or 1.0
    design = e / scale
    if reference_stress is None:
        design = np.hstack([design, np.ones((len(e), 1))])
    if np.linalg.matrix_rank(design, tol=1e-6 * np.sqrt(max(1, len(design)))) < design.shape[1]:
        raise DataError(
            f"The {n_measured} strains do not determine all elastic constants: a strained "
            "cell is missing."
        )
    solution = np.linalg.lstsq(design, s, rcond=None)[0]
    stiffness = solution[:6].T / scale
    return np.asarray((stiffness + stiffness.T) / 2, dtype=np.float64)


def _check_pairs(strains: NDArray[np.float64]) -> None:
    for strain in strains:
        distance = np.max(np.abs(strains + strain), axis=1)
        if np.min(distance) > 1e-3 * np.max(np.abs(strain)):
            raise DataError(
                f"The strain {strain.round(6).tolist()} was computed but not its opposite: "
                "the elastic constants need both."
            )


def named_constant(stiffness: NDArray[np.float64], name: str) -> float:
    """One constant such as 'C11' or 'C44' in GPa from a (6, 6) stiffness in eV/Å^3.

    Raises:
        InputError: not a name from C11 to C66.
    """
    match = re.fullmatch(r"C([1-6])([1-6])", name)
    if not match:
        raise InputError(f"'{name}' is not an elastic constant: use C11 to C66.")
    i, j = (int(d) - 1 for d in match.groups())
    return float(stiffness[i, j] / units.GPa)


def is_elastic(name: str) -> bool:
    """True for C11 to C66."""
    return re.fullmatch(r"C[1-6][1-6]", name) is not None


class ElasticFamily(Family):
    """Elastic constants in the frame of the conventional axes."""

    key = "elastic_constants"
    names = "C11 to C66"
    examples = ("C11", "C12", "C44")

    def owns(self, name: str) -> bool:
        """True for C11 to C66."""
        return is_elastic(name)

    def label(self, name: str) -> str:
        """The constant's symbol."""
        return f"Elastic constant {name}"

    def unit(self, name: str) -> str:
        """Unit of the value."""
        return "GPa"

    def roles(self, name: str) -> tuple[str, ...]:
        """The strained cells."""
        return ("elastic",)

    def plan(
        self,
        names: Sequence[str],
        primitive: Atoms,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> list[Planned]:
        """The fewest strained cells; they keep the mesh of the unstrained one."""
        cells = elastic_structures(equilibrium, settings.elastic_strain)
        return [Planned(cell, "elastic", primitive) for cell in cells]

    def measure(self, name: str, labelled: Labelled) -> PropertyValue:
        """One constant of the stress-strain fit."""
        stiffness = _stiffness(labelled, name)
        return PropertyValue(named_constant(stiffness, name), self.unit(name))


def _stiffness(labelled: Labelled, name: str) -> NDArray[np.float64]:
    cells = labelled.second_stage(name)
    rows = rows_of(cells, "elastic")
    strains = np.array([parameters_of(cells, i)["strain"] for i in rows])
    symmetry = find_symmetry(align_to_conventional_axes(labelled.primitive))
    stresses = []
    for i in rows:
        stress = cells.labels(i).stress
        if stress is None:
            raise DataError(f"Strained cell {i} of the elastic constants has no stress.")
        stresses.append(stress)
    return elastic_constants(
        strains, np.array(stresses), rotations=symmetry.rotations, require_pairs=True
    )
