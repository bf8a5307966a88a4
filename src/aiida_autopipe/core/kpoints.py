"""Meshes of k-points from a spacing in reciprocal space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError

Mesh = tuple[int, int, int]

# A strain component up to which a cell still counts as a strained one of the reference crystal.
# Half a lattice vector would be ambiguous; pools and NPT runs stay below 0.15.
MAX_STRAIN = 0.25


def mesh_from_spacing(
    cell: NDArray[np.float64], pbc: Sequence[bool] | NDArray[np.bool_], kspacing: float
) -> Mesh:
    """Divisions n_i = max(1, ceil(|b_i| / kspacing)), and 1 along directions without periodicity.

    The ratio is rounded to five decimals first, as AiiDA does, so that 4.0000001 stays 4.

    Args:
        cell: (3, 3) lattice vectors in rows, Å; zero vectors are allowed where not periodic.
        pbc: (3,) periodic directions.
        kspacing: largest distance between neighbouring k-points in 1/Å, the factor 2 pi included.

    Raises:
        InputError: a spacing that is not positive, or periodic vectors without volume.
    """
    if not kspacing > 0:
        raise InputError(f"The k-point spacing is {kspacing} 1/Å; it must be positive.")
    completed = complete_cell(np.asarray(cell, dtype=float))
    periodic = np.asarray(pbc, dtype=bool)
    if np.any(~np.any(np.asarray(cell)[periodic], axis=1)) or not np.linalg.det(completed):
        raise InputError(f"The cell {np.asarray(cell).tolist()} has no volume to put k-points in.")
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(completed).T, axis=1)
    divisions = np.maximum(1, np.ceil(np.round(lengths / kspacing, 5))).astype(int)
    n1, n2, n3 = np.where(periodic, divisions, 1).tolist()
    return int(n1), int(n2), int(n3)


def unstrained_cell(structure: Atoms, crystal: Atoms) -> NDArray[np.float64] | None:
    """The supercell of a crystal that the cell of a structure is a strained copy of.

    With the vectors R of the crystal in rows, cell = s M R (1 + strain) for an integer matrix M and
    the cube root s of the volume per atom against the crystal's; M is the rounded cell R^-1 / s.
    Supercells, also with a few atoms missing, their strained copies and the cells of an NPT run are
    found as long as they keep the orientation of the crystal.

    Args:
        structure: periodic in three directions, else there is no such supercell.
        crystal: the unstrained crystal.

    Returns:
        M R, (3, 3) in Å; None when the cell is no strained supercell of the crystal.
    """
    volumes = [abs(float(np.linalg.det(a.cell.array))) for a in (structure, crystal)]
    if not (structure.pbc.all() and len(structure) and min(volumes) > 1e-9):
        return None
    cell, vectors = structure.cell.array, crystal.cell.array
    scale = (volumes[0] / len(structure) / (volumes[1] / len(crystal))) ** (1 / 3)
    repeats = np.round(cell @ np.linalg.inv(vectors) / scale)
    if abs(np.linalg.det(repeats)) < 0.5:
        return None
    ideal: NDArray[np.float64] = repeats @ vectors
    strain = np.linalg.inv(ideal) @ cell - np.eye(3)
    return ideal if np.max(np.abs(strain)) <= MAX_STRAIN else None


def mesh_of_strained(structure: Atoms, crystal: Atoms, kspacing: float) -> Mesh | None:
    """The mesh of the unstrained supercell, for a structure that is a strained copy of one.

    A mesh that followed the spacing in each strained cell would jump from one number of divisions
    to the next within a set of strains, and the energies would jump with it.

    Args:
        structure: structure to be labelled.
        crystal: the unstrained crystal.
        kspacing: largest distance between neighbouring k-points in 1/Å, 2 pi included.

    Returns:
        Divisions; None when the structure is not periodic in three directions or is no strained
        supercell of the crystal: then its own spacing decides.

    Raises:
        InputError: a spacing that is not positive.
    """
    ideal = unstrained_cell(structure, crystal)
    return None if ideal is None else mesh_from_spacing(ideal, structure.pbc, kspacing)
