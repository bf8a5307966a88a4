"""Crystal symmetry in the form generators and validation need: Cartesian rotations and Voigt
orbits.

spglib finds the operations; everything here is expressed in the Cartesian frame of the structure
that was given, so a strain or a stress can be rotated directly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.spacegroup.symmetrize import check_symmetry
from numpy.typing import NDArray
from spglib import SpglibError

from aiida_autopipe.core.errors import InputError

TOLERANCE = 1e-3  # Å; structure files carry three to four decimals

_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Space-group information of one structure.

    Attributes:
        number: space-group number, 1 to 230.
        rotations: (g, 3, 3) point-group operations as Cartesian matrices acting on column vectors.
        fractional_rotations: (k, 3, 3) rotations of all space-group operations, in fractional
            coordinates; those of a supercell include its inner translations.
        fractional_translations: (k, 3) their translations.
        equivalent_atoms: (n,) index of the first atom symmetry-equivalent to each atom.
        atoms_per_conventional_cell: number of atoms in the conventional cell.
        orientation: (3, 3) rotation from the structure's frame to the conventional axes.
    """

    number: int
    rotations: NDArray[np.float64]
    fractional_rotations: NDArray[np.int32]
    fractional_translations: NDArray[np.float64]
    equivalent_atoms: NDArray[np.int64]
    atoms_per_conventional_cell: int
    orientation: NDArray[np.float64]

    @property
    def cubic(self) -> bool:
        """True for the cubic crystal system."""
        return self.number >= 195


def find_symmetry(atoms: Atoms, tolerance: float = TOLERANCE) -> Symmetry:
    """Symmetry of a structure periodic in three directions.

    Args:
        atoms: n atoms.
        tolerance: largest distance in Å at which two positions count as the same.

    Raises:
        InputError: the structure is not periodic in three directions, or has overlapping atoms.
    """
    if not np.all(atoms.pbc):
        raise InputError(
            f"{atoms.get_chemical_formula()} is not periodic in three directions, so it has no "
            "space group: give a crystal."
        )
    try:
        found = check_symmetry(atoms, tolerance)
    except SpglibError as error:
        raise InputError(
            f"The symmetry of {atoms.get_chemical_formula()} cannot be found ({error}): "
            "check its cell and look for overlapping atoms."
        ) from error
    lattice = np.asarray(atoms.cell.array).T
    inverse = np.linalg.inv(lattice)
    point_group = np.unique(found.rotations, axis=0)
    return Symmetry(
        number=int(found.number),
        rotations=np.einsum("ij,gjk,kl->gil", lattice, point_group, inverse),
        fractional_rotations=np.asarray(found.rotations, dtype=np.int32),
        fractional_translations=np.asarray(found.translations, dtype=np.float64),
        equivalent_atoms=np.asarray(found.equivalent_atoms, dtype=np.int64),
        atoms_per_conventional_cell=len(found.std_positions),
        orientation=np.asarray(found.std_rotation_matrix, dtype=np.float64),
    )


def strain_tensor(voigt: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 6) engineering strains xx yy zz yz xz xy -> (..., 3, 3) symmetric tensors."""
    return _tensor(np.asarray(voigt, dtype=np.float64), shear=0.5)


def stress_tensor(voigt: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 6) Voigt stresses -> (..., 3, 3) symmetric tensors."""
    return _tensor(np.asarray(voigt, dtype=np.float64), shear=1.0)


def rotate_strain(
    voigt: NDArray[np.float64], rotations: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(6,) engineering strain under each of (g, 3, 3) rotations -> (g, 6)."""
    rotated = rotations @ strain_tensor(voigt) @ rotations.transpose(0, 2, 1)
    return _voigt(rotated, shear=2.0)


def rotate_stress(
    voigt: NDArray[np.float64], rotations: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(6,) stress under each of (g, 3, 3) rotations -> (g, 6)."""
    rotated = rotations @ stress_tensor(voigt) @ rotations.transpose(0, 2, 1)
    return _voigt(rotated, shear=1.0)


def in_orbit(
    candidate: NDArray[np.float64], strain: NDArray[np.float64], rotations: NDArray[np.float64]
) -> bool:
    """True when some rotation turns one (6,) engineering strain into the other."""
    orbit = rotate_strain(strain, rotations)
    scale = float(np.max(np.abs(strain)))
    return bool(np.any(np.all(np.abs(orbit - candidate) < 1e-3 * scale + 1e-12, axis=1)))


def independent_strains(symmetry: Symmetry) -> list[NDArray[np.float64]]:
    """The fewest unit Voigt strains (6,) whose rotations span all six components.

    Cubic: xx and yz. Hexagonal: xx, zz and yz. Triclinic: all six. A linear response known for
    these is known for every strain, because the response to a rotated strain is the rotated
    response.
    """
    span = np.zeros((0, 6))
    chosen = []
    for unit in np.eye(6):
        combined = np.vstack([span, rotate_strain(unit, symmetry.rotations)])
        if _rank(combined) > _rank(span):
            chosen.append(unit)
            span = combined
    return chosen


def has_internal_freedom(atoms: Atoms, symmetry: Symmetry | None = None) -> bool:
    """True when atoms can move relative to each other without breaking the structure's symmetry.

    Without such freedom all forces vanish by symmetry and relaxing the ions changes nothing.
    """
    symmetry = symmetry or find_symmetry(atoms)
    lattice = np.asarray(atoms.cell.array).T
    fractional = np.linalg.solve(lattice, atoms.positions.T).T
    operations = zip(symmetry.fractional_rotations, symmetry.fractional_translations, strict=True)
    # The number of free displacement patterns is the mean character of the operations on all
    # displacements: the trace of the rotation for each atom that stays in place. Uniform shifts,
    # whose character is one trace, do not count.
    characters = [np.trace(w) * (_stationary(fractional, w, t, lattice) - 1) for w, t in operations]
    return bool(np.mean(characters) > 0.5)


def align_to_conventional_axes(atoms: Atoms) -> Atoms:
    """The same crystal turned so that Cartesian axes follow its conventional axes.

    Elastic constants are named in that frame (C11 of a cubic crystal means along a cube edge). A
    cubic crystal that is already aligned is returned unchanged.
    """
    symmetry = find_symmetry(atoms)
    turned: Atoms = atoms.copy()
    if symmetry.cubic and _is_signed_permutation(symmetry.rotations):
        return turned
    turned.set_cell(atoms.cell.array @ symmetry.orientation.T)
    turned.positions = atoms.positions @ symmetry.orientation.T
    return turned


def _tensor(voigt: NDArray[np.float64], shear: float) -> NDArray[np.float64]:
    tensor = np.zeros((*voigt.shape[:-1], 3, 3))
    for k, (i, j) in enumerate(_VOIGT):
        tensor[..., i, j] = tensor[..., j, i] = voigt[..., k] * (1.0 if i == j else shear)
    return tensor


def _voigt(tensor: NDArray[np.float64], shear: float) -> NDArray[np.float64]:
    columns = [tensor[..., i, j] * (1.0 if i == j else shear) for i, j in _VOIGT]
    return np.stack(columns, axis=-1)


def _rank(vectors: NDArray[np.float64]) -> int:
    return int(np.linalg.matrix_rank(vectors, tol=1e-3)) if len(vectors) else 0


def _is_signed_permutation(rotations: NDArray[np.float64]) -> bool:
    # 1e-6: an axis tilted by more shows up in the elastic constants' last digits.
    return bool(np.all(np.minimum(np.abs(rotations), np.abs(np.abs(rotations) - 1.0)) < 1e-6))


def _stationary(
    fractional: NDArray[np.float64],
    rotation: NDArray[np.int32],
    translation: NDArray[np.float64],
    lattice: NDArray[np.float64],
) -> int:
    """Number of atoms that an operation maps onto themselves or their own periodic images."""
    difference = fractional @ rotation.T + translation - fractional
    difference -= np.round(difference)
    # An operation moves an atom by nothing or by an interatomic distance: 0.5 Å tells them apart.
    return int(np.sum(np.linalg.norm(difference @ lattice.T, axis=1) < 0.5))
