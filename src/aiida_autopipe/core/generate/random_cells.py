"""Random crystals: random cells and positions, with atoms no closer than their radii allow.

The idea is that of random structure searching (Pickard and Needs, J. Phys.: Condens. Matter 23,
053201 (2011)): sensible volumes and distances, everything else by chance, optionally with the
operations of a random space group.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.cells import check_count, check_positive, widths
from aiida_autopipe.core.generate.radii import bond_length, check_elements
from aiida_autopipe.core.generate.random_symmetry import random_symmetric
from aiida_autopipe.core.generate.strain import mark

CELLS = 400
"""Cells that are tried for one structure."""
SYMMETRIC_CELLS = 25
"""Of these, those with a space group where one is wanted: not every composition fits into one."""
PLACES = 60
"""Places that are tried for one atom before another cell is drawn."""


def random_structures(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    n: int = 10,
    atoms: tuple[int, int] = (4, 12),
    composition: Mapping[str, float] | None = None,
    volume: tuple[float, float] = (0.8, 1.5),
    volume_per_atom: float | None = None,
    closeness: float = 0.8,
    symmetric: float = 0.5,
) -> list[Atoms]:
    """Random cells with random positions.

    Args:
        crystal: gives composition and volume where they are not given.
        rng: source of randomness.
        n: structures.
        atoms: smallest and largest number in a cell.
        composition: amounts of the elements, such as {Si: 1, O: 2}; cells have it exactly. null is
            that of the crystal.
        volume: smallest and largest volume, in volumes of the crystal or of `volume_per_atom`.
        volume_per_atom: Å^3; null is that of the crystal.
        closeness: least distance of two atoms in sums of their covalent radii.
        symmetric: part of the structures that have a random space group, 0 to 1; where none fits
            in 25 draws, the structure has none.

    Raises:
        InputError: unknown elements, ranges upside down, a composition that no cell of the size can
            have, or no structure in 400 cells.
    """
    check_count("n", n)
    check_positive("closeness", closeness)
    if not 0 <= symmetric <= 1:
        raise InputError(f"symmetric is a part of the structures, 0 to 1, not {symmetric}.")
    amounts = _amounts(crystal, composition)
    sizes = _sizes(amounts, atoms)
    low, high = _volumes(crystal, volume, volume_per_atom)
    structures = []
    for copy in range(n):
        numbers = np.repeat(
            [atomic_numbers[s] for s in amounts],
            np.array(list(amounts.values())) * int(rng.choice(sizes)),
        )
        numbers.sort()
        with_symmetry = bool(rng.random() < symmetric)
        made, group = _draw(numbers, (low, high), closeness, with_symmetry, rng)
        structures.append(
            mark(
                made,
                "random",
                copy=copy,
                spacegroup=group,
                volume_per_atom_A3=round(made.get_volume() / len(made), 4),
                closeness=closeness,
            )
        )
    return structures


def _amounts(crystal: Atoms, composition: Mapping[str, float] | None) -> dict[str, int]:
    """The smallest whole numbers in the ratio of the composition."""
    if composition is None:
        symbols = crystal.get_chemical_symbols()
        composition = {s: float(symbols.count(s)) for s in sorted(set(symbols))}
    check_elements(composition)
    values = np.array(list(composition.values()), dtype=float)
    if not np.all(values > 0):
        raise InputError(f"The amounts of the composition {dict(composition)} must be positive.")
    for factor in range(1, 101):
        scaled = values / values.min() * factor
        if np.max(np.abs(scaled - np.round(scaled))) < 1e-3 * factor:
            whole = np.round(scaled).astype(int)
            whole //= np.gcd.reduce(whole)
            return dict(zip(composition, whole.tolist(), strict=True))
    raise InputError(
        f"The composition {dict(composition)} has no small whole amounts: give such as 1 and 3."
    )


def _sizes(amounts: Mapping[str, int], atoms: tuple[int, int]) -> list[int]:
    """How often the composition fits into a cell."""
    low, high = atoms
    if not 1 <= low <= high:
        raise InputError(f"atoms {[low, high]} must be a smallest and a largest number above zero.")
    least = sum(amounts.values())
    sizes = [k for k in range(1, high // least + 1) if k * least >= low]
    if not sizes:
        told = " ".join(f"{s}{c}" for s, c in amounts.items())
        raise InputError(f"No cell of {low} to {high} atoms has whole formula units of {told}.")
    return sizes


def _volumes(
    crystal: Atoms, volume: tuple[float, float], per_atom: float | None
) -> tuple[float, float]:
    low, high = volume
    if not 0 < low <= high:
        raise InputError(f"volume {[low, high]} must be a smallest and a largest factor.")
    if per_atom is None:
        if not np.all(crystal.pbc):
            raise InputError("A molecule has no volume: give volume_per_atom.")
        per_atom = crystal.get_volume() / len(crystal)
    check_positive("volume_per_atom", per_atom)
    return low * per_atom, high * per_atom


def _draw(
    numbers: NDArray[np.int64],
    volumes: tuple[float, float],
    closeness: float,
    symmetric: bool,
    rng: np.random.Generator,
) -> tuple[Atoms, int]:
    """A structure that keeps its distances, and its space group (1 without symmetry)."""
    least = least_distances(numbers, closeness)
    for attempt in range(CELLS):
        volume = float(rng.uniform(*volumes)) * len(numbers)
        if symmetric and attempt < SYMMETRIC_CELLS:
            found = random_symmetric(numbers, volume, rng)
            if found is not None and _inflate(found[0], least, volumes, rng):
                return found
            continue
        cell = random_cell(volume, rng)
        positions = _positions(numbers, cell, least, rng)
        if positions is not None:
            return Atoms(numbers=numbers, positions=positions, cell=cell, pbc=True), 1
    raise InputError(
        f"No random cell of {len(numbers)} atoms with {volumes[0]:.1f} to {volumes[1]:.1f} Å^3 for "
        f"each keeps them {closeness} sums of their radii apart: raise volume or lower closeness."
    )


def _inflate(
    atoms: Atoms,
    least: NDArray[np.float64],
    volumes: tuple[float, float],
    rng: np.random.Generator,
) -> bool:
    """Draw a volume at which the atoms keep their distances; False when there is none."""
    fractional = atoms.get_scaled_positions()
    distances = image_distances(fractional, fractional, atoms.cell.array)
    volume = atoms.get_volume() / len(atoms)
    low = max(volumes[0], volume * float(np.max(least / distances)) ** 3)
    if low > volumes[1]:
        return False
    scale = (float(rng.uniform(low, volumes[1])) / volume) ** (1.0 / 3.0)
    atoms.set_cell(atoms.cell.array * (scale + 1e-9), scale_atoms=True)
    return True


def random_cell(volume: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A cell of a volume (Å^3) with edges within a factor of two, angles of 60 to 120 degrees."""
    while True:
        edges = rng.uniform(1.0, 2.0, size=3)
        angles = rng.uniform(60.0, 120.0, size=3)
        if not 200.0 < angles.sum() < 345.0:
            continue
        cell = Atoms(cell=[*edges, *angles]).cell.array
        cell *= (volume / abs(np.linalg.det(cell))) ** (1.0 / 3.0)
        # Flat cells hold atoms that only see their own images.
        if np.min(widths(Atoms(cell=cell, pbc=True))) > 0.45 * volume ** (1.0 / 3.0):
            return np.asarray(cell, dtype=np.float64)


def least_distances(numbers: NDArray[np.int64], closeness: float) -> NDArray[np.float64]:
    """(n, n) least distances of the atoms, Å.

    Raises:
        InputError: an element without a radius.
    """
    symbols = Atoms(numbers=numbers).get_chemical_symbols()
    known = {(a, b): bond_length(a, b) for a in set(symbols) for b in set(symbols)}
    return closeness * np.array([[known[a, b] for b in symbols] for a in symbols])


def keeps_distances(atoms: Atoms, least: NDArray[np.float64]) -> bool:
    """True when no two atoms, images included, are closer than (n, n) least distances."""
    fractional = atoms.get_scaled_positions()
    distances = image_distances(fractional, fractional, atoms.cell.array)
    return bool(np.all(distances >= least))


def image_distances(
    one: NDArray[np.float64], other: NDArray[np.float64], cell: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n, m) distances between nearest images, Å; of an atom and itself, its nearest image.

    Right for the cells of this module, whose angles are not far from right ones.

    Args:
        one, other: (n, 3) and (m, 3) in fractional coordinates.
        cell: (3, 3) rows are lattice vectors.
    """
    difference = other[None, :, :] - one[:, None, :]
    difference -= np.round(difference)
    lengths = np.linalg.norm((difference[:, :, None] + _STEPS) @ cell, axis=3)
    lengths[lengths < 1e-6] = np.inf
    return np.asarray(lengths.min(axis=2), dtype=np.float64)


_STEPS = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)


def _positions(
    numbers: NDArray[np.int64],
    cell: NDArray[np.float64],
    least: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64] | None:
    """Positions one after the other, each tried until it fits; None when one never does."""
    if np.any(image_distances(np.zeros((1, 3)), np.zeros((1, 3)), cell) < least.diagonal().max()):
        return None
    placed = np.zeros((0, 3))
    # Large atoms first: they find no room later.
    order = np.argsort(-least.diagonal(), kind="stable")
    for k, atom in enumerate(order):
        tries = rng.random((PLACES, 3))
        if k:
            distances = image_distances(tries, placed, cell)
            tries = tries[np.all(distances >= least[atom, order[:k]], axis=1)]
            if not len(tries):
                return None
        placed = np.vstack([placed, tries[:1]])
    positions = np.empty_like(placed)
    positions[order] = placed @ cell
    return positions
