"""Slabs with the low-index surfaces of a crystal, every termination once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import spglib
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.amplitude import thermal_amplitude
from aiida_autopipe.core.generate.cells import check_count, check_positive
from aiida_autopipe.core.generate.rattle import rattle
from aiida_autopipe.core.generate.strain import mark
from aiida_autopipe.core.generate.unique import is_same
from aiida_autopipe.core.symmetry import find_symmetry

PLANE_TOLERANCE = 0.1
"""Atoms whose heights differ by less, in Å, are one plane."""

Miller = tuple[int, int, int]


def surfaces(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    max_index: int = 1,
    thickness: float = 8.0,
    vacuum: float = 10.0,
    max_atoms: int = 64,
    max_terminations: int = 2,
    copies: int = 1,
    amplitude: float | None = None,
    temperature_K: float = 300.0,
) -> list[Atoms]:
    """Slabs of the distinct low-index surfaces and their terminations: as cut, and rattled.

    Slabs are whole repeats of the crystal, so they keep its composition. They stand along the third
    lattice vector, periodic in all directions with vacuum between the images. Indices are those of
    the conventional cell.

    Args:
        crystal: primitive cell.
        rng: source of randomness.
        max_index: largest Miller index.
        thickness: least distance between the two surfaces, Å.
        vacuum: empty height between images, Å.
        max_atoms: surfaces whose slab would be larger are left out.
        max_terminations: for each pair of directions, those with the fewest broken planes first.
        copies: rattled structures for each slab.
        amplitude: standard deviation of displacements in Å; null is the thermal one.
        temperature_K: of the thermal displacements.

    Raises:
        InputError: not a crystal, or every slab would have more than `max_atoms`.
    """
    check_count("max_index", max_index, 1)
    check_count("max_terminations", max_terminations, 1)
    check_count("copies", copies)
    check_positive("thickness", thickness)
    check_positive("vacuum", vacuum)
    if amplitude is None and copies:
        amplitude = thermal_amplitude(crystal, temperature_K)
    structures = []
    smallest = math.inf
    for miller, plane in distinct_planes(crystal, max_index):
        slabs = _terminations(crystal, plane, thickness, vacuum)
        smallest = min(smallest, len(slabs[0].atoms))
        if len(slabs[0].atoms) > max_atoms:
            continue
        for number, slab in enumerate(slabs[:max_terminations]):
            facts = {
                "miller": list(miller),
                "termination": number,
                "planes": slab.planes,
                "area_A2": round(slab.area, 4),
                "thickness_A": round(slab.thickness, 4),
                "vacuum_A": float(vacuum),
            }
            structures.append(mark(slab.atoms, "surface", **facts))
            for copy in range(copies):
                (drawn,) = rattle(slab.atoms, float(amplitude or 0), 1, rng, strain_amplitude=0.0)
                structures.append(mark(drawn, "surface", **facts, amplitude_A=amplitude, copy=copy))
    if not structures:
        raise InputError(
            f"The smallest slab of {crystal.get_chemical_formula()} has {smallest} atoms, more "
            f"than max_atoms = {max_atoms}: raise it or lower thickness."
        )
    return structures


def slab_and_bulk(
    crystal: Atoms, miller: Miller, thickness: float, vacuum: float
) -> tuple[Atoms, Atoms]:
    """The slab of one surface, and the crystal in the same orientation without vacuum.

    Of several terminations it is the one that opens the widest gap between planes. Both have the
    same lattice vectors in the plane, along x and in xy.

    Args:
        crystal: primitive cell.
        miller: indices in the conventional cell.
        thickness: least distance between the two surfaces, Å.
        vacuum: empty height between images, Å.

    Raises:
        InputError: not a crystal, or indices that are all zero.
    """
    if not any(miller):
        raise InputError("The plane (000) does not exist: give a surface such as 111.")
    check_positive("thickness", thickness)
    check_positive("vacuum", vacuum)
    normal = np.linalg.inv(_conventional_cell(crystal)) @ np.array(miller)
    plane = _primitive_integers(np.asarray(crystal.cell.array) @ normal)
    return _terminations(crystal, plane, thickness, vacuum)[0].atoms, _oriented(crystal, plane)


def distinct_planes(crystal: Atoms, max_index: int) -> list[tuple[Miller, Miller]]:
    """Directions of planes that no symmetry of the crystal turns into one another.

    Returns:
        Miller indices in the conventional cell and in the given cell, low indices first. Opposite
        directions are one, since a slab has both.
    """
    symmetry = find_symmetry(crystal)
    cell = np.asarray(crystal.cell.array)
    conventional = _conventional_cell(crystal)
    span = range(-max_index, max_index + 1)
    indices = [(h, k, m) for h in span for k in span for m in span if math.gcd(h, k, m) == 1]
    # Of an orbit, the one with the fewest minus signs, then with the largest leading indices.
    indices.sort(key=lambda h: (sum(map(abs, h)), sum(i < 0 for i in h), [-i for i in h]))
    chosen: list[tuple[Miller, Miller]] = []
    seen: list[NDArray[np.float64]] = []
    for h in indices:
        normal = np.linalg.inv(conventional) @ np.array(h)
        turned = symmetry.rotations @ normal
        turned = np.vstack([turned, -turned])
        if any(np.min(np.linalg.norm(turned - other, axis=1)) < 1e-3 for other in seen):
            continue
        seen.append(normal)
        chosen.append((h, _primitive_integers(cell @ normal)))
    return chosen


def _conventional_cell(crystal: Atoms) -> NDArray[np.float64]:
    """Lattice vectors (rows) of the conventional cell in the crystal's own orientation."""
    spg_cell = (crystal.cell.array, crystal.get_scaled_positions(), crystal.numbers)
    found = spglib.get_symmetry_dataset(spg_cell, symprec=1e-3)
    if found is None:
        raise InputError(f"spglib finds no space group for {crystal.get_chemical_formula()}.")
    # std_lattice is turned against the crystal by std_rotation_matrix.
    return np.asarray(found.std_lattice @ found.std_rotation_matrix, dtype=np.float64)


def _primitive_integers(values: NDArray[np.float64]) -> Miller:
    """The smallest integers in the ratio of the values."""
    for factor in range(1, 25):
        scaled = values * factor
        if np.max(np.abs(scaled - np.round(scaled))) < 1e-3 * factor:
            a, b, c = (round(float(v)) for v in scaled)
            common = math.gcd(a, b, c)
            return a // common, b // common, c // common
    raise InputError(
        f"The planes {values.tolist()} have no whole indices in the given cell: give the primitive "
        "or the conventional cell."
    )


class _Slab(NamedTuple):
    atoms: Atoms
    planes: int
    area: float
    thickness: float


def _terminations(crystal: Atoms, plane: Miller, thickness: float, vacuum: float) -> list[_Slab]:
    """All distinct slabs with a surface along the plane, widest gaps between planes first."""
    unit = _oriented(crystal, plane)
    spacing = float(unit.cell.array[2, 2])
    heights = np.mod(unit.positions[:, 2] + 1e-6, spacing)
    starts = _plane_starts(heights, spacing)
    n = max(1, math.ceil((thickness + max(gap for _, gap in starts)) / spacing - 1e-9))
    starts.sort(key=lambda start: (-round(start[1], 3), start[0]))
    slabs: list[_Slab] = []
    for start, _ in starts:
        slab = _cut(unit, start, n, vacuum)
        if not any(is_same(slab.atoms, other.atoms) for other in slabs):
            slabs.append(slab)
    return slabs


def _oriented(crystal: Atoms, plane: Miller) -> Atoms:
    """The same crystal with two lattice vectors in the plane, along x and in xy, the third up."""
    cell = np.asarray(crystal.cell.array)
    first, second, third = _plane_basis(plane)
    a, b = _reduced(first @ cell, second @ cell)
    c = third @ cell
    if np.dot(np.cross(a, b), c) < 0:
        b = -b
    normal = np.cross(a, b) / np.linalg.norm(np.cross(a, b))
    x = a / np.linalg.norm(a)
    frame = np.array([x, np.cross(normal, x), normal])
    # The third vector nearest to the normal.
    lateral = np.linalg.lstsq(np.array([a, b]).T, c - np.dot(c, normal) * normal, rcond=None)[0]
    c = c - np.round(lateral[0]) * a - np.round(lateral[1]) * b
    turned = Atoms(
        numbers=crystal.numbers,
        positions=crystal.positions @ frame.T,
        cell=np.array([a, b, c]) @ frame.T,
        pbc=True,
    )
    turned.wrap(eps=1e-6)
    return turned


def _plane_basis(plane: Miller) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Integer vectors: two with h·v = 0 that span all such, and one with h·v = 1."""
    # Column operations that turn h into (0, 0, 1), collected in an integer matrix.
    h = np.array(plane, dtype=np.int64)
    basis = np.eye(3, dtype=np.int64)
    while np.count_nonzero(h) > 1:
        nonzero = [k for k in np.argsort(np.abs(h)) if h[k]]
        small, other = nonzero[0], nonzero[1]
        quotient = h[other] // h[small]
        h[other] -= quotient * h[small]
        basis[other] -= quotient * basis[small]
    last = int(np.flatnonzero(h)[0])
    rows = [basis[k] for k in range(3) if k != last]
    return rows[0], rows[1], basis[last] * int(h[last])


def _reduced(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two shortest vectors of the plane lattice (Gauss)."""
    while True:
        if np.dot(b, b) < np.dot(a, a) - 1e-9:
            a, b = b, a
        shift = np.round(np.dot(a, b) / np.dot(a, a) - 1e-9)
        if shift == 0:
            return a, b
        b = b - shift * a


def _plane_starts(heights: NDArray[np.float64], spacing: float) -> list[tuple[float, float]]:
    """(height just below a plane, gap below it) of each plane of one repeat."""
    ordered = np.sort(heights)
    gaps = np.diff(ordered, prepend=ordered[-1] - spacing)
    return [
        (float(height - min(gap, PLANE_TOLERANCE) / 2), float(gap))
        for height, gap in zip(ordered, gaps, strict=True)
        if gap > PLANE_TOLERANCE
    ] or [(float(ordered[0]) - 1e-3, spacing)]


def _cut(unit: Atoms, start: float, n: int, vacuum: float) -> _Slab:
    """n repeats above a height, with vacuum above them."""
    c = np.asarray(unit.cell.array[2])
    base = unit.positions - np.floor((unit.positions[:, 2] - start) / c[2] + 1e-9)[:, None] * c
    positions = np.concatenate([base + k * c for k in range(n)])
    numbers = np.tile(unit.numbers, n)
    heights = positions[:, 2]
    thickness = float(heights.max() - heights.min())
    planes = 1 + int(np.sum(np.diff(np.sort(heights)) > PLANE_TOLERANCE))
    cell = unit.cell.array.copy()
    cell[2] = [0.0, 0.0, thickness + vacuum]
    positions[:, 2] += vacuum / 2 - heights.min()
    order = np.lexsort((numbers, positions[:, 2].round(3)))
    atoms = Atoms(numbers=numbers[order], positions=positions[order], cell=cell, pbc=True)
    atoms.wrap(eps=1e-6)
    area = float(np.linalg.norm(np.cross(cell[0], cell[1])))
    return _Slab(atoms, planes, area, thickness)
