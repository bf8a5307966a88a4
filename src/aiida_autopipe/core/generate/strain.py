"""Homogeneously strained cells: volumetric strains and symmetric uniaxial and shear strains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.symmetry import (
    find_symmetry,
    in_orbit,
    independent_strains,
    strain_tensor,
)


def mark(atoms: Atoms, origin: str, **parameters: Any) -> Atoms:
    """A bare copy of the structure with only its origin and parameters (JSON text) in `info`."""
    marked = Atoms(
        numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc
    )
    marked.info["origin"] = origin
    marked.info["parameters"] = json.dumps(parameters, sort_keys=True)
    return marked


def strain(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    volumetric: Sequence[float] = (-0.12, -0.08, -0.04, -0.02, 0.0, 0.02, 0.04, 0.08, 0.12),
    elastic: Sequence[float] = (-0.04, -0.015, 0.015, 0.04),
) -> list[Atoms]:
    """Volumes for the equation of state, and the independent strains for elastic constants.

    Args:
        crystal: primitive cell.
        rng: not used.
        volumetric: relative volume changes.
        elastic: engineering strains, uniaxial and shear, along each direction that is independent
            by symmetry.

    Raises:
        InputError: a strain that leaves no volume, or no crystal.
    """
    return [
        *volumetric_strains(crystal, volumetric),
        *(symmetric_strains(crystal, elastic) if elastic else []),
    ]


def apply_strain(atoms: Atoms, strain: NDArray[np.float64] | Sequence[float]) -> Atoms:
    """The structure with cell and positions deformed by I + strain.

    Args:
        atoms: any structure with a cell.
        strain: (6,) engineering strains xx yy zz yz xz xy, or a symmetric (3, 3) tensor.

    Raises:
        InputError: wrong shape, an unsymmetric tensor, or a strain that turns the cell inside out.
    """
    given = np.asarray(strain, dtype=np.float64)
    if given.shape == (6,):
        given = strain_tensor(given)
    if given.shape != (3, 3) or not np.allclose(given, given.T, atol=1e-12):
        raise InputError(
            f"A strain is six Voigt components or a symmetric 3x3 tensor, not {given.tolist()}."
        )
    deformation = np.eye(3) + given
    if np.min(np.linalg.eigvalsh(deformation)) <= 0:
        raise InputError(f"The strain {given.tolist()} flattens the cell: use smaller values.")
    strained: Atoms = atoms.copy()
    strained.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    return strained


def scale_volume(atoms: Atoms, factor: float) -> Atoms:
    """The structure scaled isotropically so that its volume is `factor` times the original."""
    if not factor > 0:
        raise InputError(f"A volume must be scaled by a positive factor, not {factor}.")
    scaled: Atoms = atoms.copy()
    scaled.set_cell(atoms.cell.array * factor ** (1.0 / 3.0), scale_atoms=True)
    return scaled


def volumetric_strains(atoms: Atoms, strains: Sequence[float]) -> list[Atoms]:
    """Isotropically scaled copies, one for each relative volume change (0.05 = 5 % larger).

    Raises:
        InputError: a relative volume change of -1 or less.
    """
    for strain in strains:
        if not strain > -1:
            raise InputError(
                f"A volumetric strain of {strain} leaves no volume: use values above -1."
            )
    return [
        mark(scale_volume(atoms, 1.0 + s), "strain:volumetric", strain=float(s)) for s in strains
    ]


def symmetric_strains(atoms: Atoms, magnitudes: Sequence[float]) -> list[Atoms]:
    """Uniaxial and shear strains of each magnitude along the crystal's independent directions.

    Symmetry-equivalent strains are left out: a cubic crystal gets xx with each sign, and yz once
    for each absolute value, since a rotation turns +yz into -yz. Internal coordinates follow the
    cell.

    Args:
        atoms: a crystal.
        magnitudes: engineering strains, signed.
    """
    symmetry = find_symmetry(atoms)
    structures = []
    for unit in independent_strains(symmetry):
        done: list[NDArray[np.float64]] = []
        for magnitude in magnitudes:
            strain = unit * magnitude + 0.0  # no -0.0 in the records
            if any(in_orbit(strain, other, symmetry.rotations) for other in done):
                continue
            done.append(strain)
            kind = "uniaxial" if np.any(unit[:3]) else "shear"
            structures.append(
                mark(apply_strain(atoms, strain), f"strain:{kind}", strain=strain.tolist())
            )
    return structures
