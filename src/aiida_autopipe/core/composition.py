"""Disordered alloys: the common lattice of a composition, and a small cell that stands for it.

A composition has no unit cell. Its lattice follows from its elements (`common_lattice`), its
lattice constant from their volumes per atom, which mix linearly to a few per cent (Zen's law, E-an
Zen, Am. Mineral. 41, 523 (1956)). The cell that runs take for "the crystal" has the exact
composition, is as compact as its number of atoms allows, and of several hundred random decorations
has the pair correlations of its first three shells nearest to those of perfect disorder (the idea
of special quasirandom structures, Zunger et al., Phys. Rev. Lett. 65, 353 (1990)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, chemical_symbols, reference_states
from ase.geometry import minkowski_reduce
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError

LATTICES = ("fcc", "hcp", "bcc", "diamond")
"""Lattices of alloys; of two that are equally common among the atoms, the first."""
MOST_ATOMS = 32
"""Largest cell of an alloy, unless the material asks for another."""
USUAL_ATOMS = 8
"""An alloy's cell has at least so many atoms."""
TOLERANCE = 0.005
"""Largest difference of a fraction from the one the cell holds."""

_PACKING = {"fcc": 4, "bcc": 2, "diamond": 8}
"""Atoms in the cubic cell."""
_OTHER_VOLUMES = {"Mn": 12.2, "Ga": 19.6, "U": 20.7, "B": 7.3, "Hg": 23.1, "Pa": 24.9, "Np": 19.3}
"""Volume per atom in Å^3 of elements whose own crystal is none of ASE's simple ones."""
_VALENCE = {
    symbol: group
    for row in (21, 39, 72)
    for group, symbol in enumerate(chemical_symbols[row : row + 9], start=3 if row < 72 else 4)
    if group <= 11
}
"""Electrons outside the noble-gas core (group numbers) of the transition metals."""
_FCC_FROM, _BCC_BELOW = 8.0, 6.87
_COMPACT, _SHAPES = 0.75, 40
"""Cells with a shortest vector of at least this part of the longest possible, at most so many."""
_DECORATIONS = 600
_DECORATION_SEED = 1990


@dataclass(frozen=True)
class Lattice:
    """A lattice with its constants in Å; c of hcp only."""

    name: str
    a: float
    c: float | None = None

    def primitive(self, symbol: str) -> Atoms:
        """The primitive cell with one element on all sites."""
        atoms: Atoms = bulk(symbol, self.name, a=self.a, c=self.c)
        return atoms


@dataclass(frozen=True)
class Alloy:
    """A composition on a lattice.

    :param composition: fraction of each element, exactly as the cell holds them.
    :param lattice: where its atoms sit.
    :param cell: the decorated cell.
    """

    composition: dict[str, float]
    lattice: Lattice
    cell: Atoms

    def describe(self) -> str:
        """In words, such as 'disordered on fcc, a = 3.57 Å, a cell of 8 atoms'."""
        c = f", c = {self.lattice.c:.4g} Å" if self.lattice.c else ""
        return (
            f"disordered on {self.lattice.name}, a = {self.lattice.a:.4g} Å{c}, "
            f"a cell of {len(self.cell)} atoms"
        )


def check_fractions(composition: Mapping[str, object]) -> dict[str, float]:
    """The fractions as numbers.

    :raises InputError: an unknown element, a value that is no fraction, or a sum other than 1.
    """
    fractions: dict[str, float] = {}
    for symbol, value in composition.items():
        if symbol not in atomic_numbers or symbol == "X":
            raise InputError(f"material: {symbol!r} is no chemical element")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise InputError(
                f"material.{symbol}: {value!r} must be a fraction of the atoms, above 0 and at "
                "most 1"
            )
        fractions[symbol] = float(value)
    total = sum(fractions.values())
    if abs(total - 1) > TOLERANCE:
        raise InputError(
            f"material: the fractions of {', '.join(fractions)} add up to {total:g}, not to 1"
        )
    if len(fractions) < 2:
        only = next(iter(fractions))
        raise InputError(
            f"material: a composition has two elements or more; write 'material: {only}'"
        )
    return {symbol: value / total for symbol, value in fractions.items()}


def alloy(
    composition: Mapping[str, float],
    lattice: str | None = None,
    a: float | None = None,
    atoms: int | None = None,
) -> Alloy:
    """The cell of a composition.

    :param composition: fractions from `check_fractions`.
    :param lattice: one of `LATTICES`; None chooses.
    :param a: lattice constant in Å; None takes the mean of the volumes.
    :param atoms: number of atoms of the cell; None chooses the smallest from 8 to 32.
    :raises InputError: an unknown lattice, or a composition that no such cell holds.
    """
    if lattice is not None and lattice not in LATTICES:
        raise InputError(
            f"material.lattice: {lattice!r} is not a valid choice; valid: {', '.join(LATTICES)}"
        )
    chosen = lattice_of(composition, lattice or common_lattice(composition), a)
    primitive = chosen.primitive(next(iter(composition)))
    counts = _counts(composition, atoms, len(primitive))
    total = sum(counts.values())
    decorated = _decorated(_compact_supercells(primitive, total // len(primitive)), counts)
    exact = {symbol: count / total for symbol, count in counts.items()}
    return Alloy(exact, chosen, decorated)


def common_lattice(composition: Mapping[str, float]) -> str:
    """The lattice of an alloy, from its elements.

    Where all elements share one lattice, that one. For other alloys of transition metals the mean
    number of valence electrons decides: fcc from 8, bcc below 6.87 (Guo et al., J. Appl. Phys.
    109, 103505 (2011)). In between, and with other metals, the lattice on which most of the atoms
    crystallise as elements; fcc when none of them has a simple one.
    """
    weights = dict.fromkeys(LATTICES, 0.0)
    for symbol, fraction in composition.items():
        kind = (reference_states[atomic_numbers[symbol]] or {}).get("symmetry")
        if kind in weights:
            weights[kind] += fraction
    if max(weights.values()) < 1 - TOLERANCE and set(composition) <= set(_VALENCE):
        electrons = sum(x * _VALENCE[symbol] for symbol, x in composition.items())
        if electrons >= _FCC_FROM - 1e-9 or electrons < _BCC_BELOW:
            return "fcc" if electrons >= _FCC_FROM - 1e-9 else "bcc"
    # max takes the first of equals, so the order of LATTICES decides.
    return max(weights, key=lambda name: round(weights[name], 6))


def lattice_of(composition: Mapping[str, float], name: str, a: float | None = None) -> Lattice:
    """The lattice constants of a composition on a lattice, from the volumes of its elements.

    :raises InputError: an element whose volume is not known, and no lattice constant.
    """
    ratio = _axial_ratio(composition) if name == "hcp" else None
    if a is None:
        volume = sum(x * volume_per_atom(symbol) for symbol, x in composition.items())
        if ratio is not None:
            a = (volume * 4 / (math.sqrt(3) * ratio)) ** (1 / 3)
        else:
            a = (volume * _PACKING[name]) ** (1 / 3)
        a = round(a, 3)
    return Lattice(name, a, None if ratio is None else round(a * ratio, 3))


def volume_per_atom(symbol: str) -> float:
    """Volume per atom of an element in its own crystal, Å^3.

    :raises InputError: the crystal is not known.
    """
    if symbol in _OTHER_VOLUMES:
        return _OTHER_VOLUMES[symbol]
    try:
        crystal = bulk(symbol)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"material: the volume of {symbol} in an alloy is not known; give the lattice, as in "
            f"{{composition: {{{symbol}: 0.5, ...}}, lattice: fcc, a_A: 4.0}}"
        ) from error
    return float(crystal.get_volume()) / len(crystal)


def _axial_ratio(composition: Mapping[str, float]) -> float:
    """c/a: the mean of the hcp elements, weighted; the ideal one without any."""
    total, weight = 0.0, 0.0
    for symbol, fraction in composition.items():
        state: dict[str, Any] = dict(reference_states[atomic_numbers[symbol]] or {})
        if state.get("symmetry") == "hcp":
            total += fraction * float(state["c/a"])
            weight += fraction
    return total / weight if weight else math.sqrt(8 / 3)


def _counts(composition: Mapping[str, float], atoms: int | None, multiple: int) -> dict[str, int]:
    """Atoms of each element in the cell."""
    candidates = range(USUAL_ATOMS, MOST_ATOMS + 1) if atoms is None else (atoms,)
    for total in candidates:
        counts = {symbol: round(x * total) for symbol, x in composition.items()}
        close = all(abs(counts[s] / total - x) <= TOLERANCE for s, x in composition.items())
        whole = sum(counts.values()) == total and total % multiple == 0
        if close and whole and min(counts.values()) > 0:
            return counts
    text = ", ".join(f"{symbol}: {x:g}" for symbol, x in composition.items())
    if atoms is not None:
        raise InputError(f"material.atoms: a cell of {atoms} atoms cannot hold {{{text}}}")
    near = ", ".join(
        f"{symbol}: {Fraction(x).limit_denominator(MOST_ATOMS)}"
        for symbol, x in composition.items()
    )
    raise InputError(
        f"material: no cell of at most {MOST_ATOMS} atoms holds {{{text}}}; near are {near}, or "
        "ask for a larger cell, as in {composition: {...}, atoms: 100}"
    )


def _compact_supercells(primitive: Atoms, size: int) -> list[Atoms]:
    """Supercells of `size` primitive cells, the most compact ones, the best first.

    All sublattices of that index are compared (Hermite normal forms, Hart and Forcade, Phys. Rev. B
    77, 224115 (2008)): those with the longest shortest vector, of equals with the smallest surface.
    """
    forms = np.array(_hermite_forms(size))
    shortest = np.round(_shortest_vectors(primitive.cell.array, forms), 6)
    order = np.argsort(-shortest, kind="stable")
    kept = [k for k in order if shortest[k] > _COMPACT * shortest.max()][:_SHAPES]
    reduced = [minkowski_reduce(forms[k] @ primitive.cell.array)[0] for k in kept]
    surfaces = [round(_surface(cell), 6) for cell in reduced]
    ranked = sorted(range(len(kept)), key=lambda n: (-shortest[kept[n]], surfaces[n], n))
    # Mirror images and rotations of one cell share its lengths and surface: one of them will do.
    seen: set[tuple[float, ...]] = set()
    cells = []
    for n in ranked:
        lengths = np.sort(np.linalg.norm(reduced[n], axis=1))
        key = (*np.round(lengths, 4), surfaces[n])
        if key not in seen:
            seen.add(key)
            cells.append(_filled(primitive, reduced[n]))
    return cells


def _shortest_vectors(
    lattice: NDArray[np.float64], forms: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Length of the shortest vector of each sublattice `form @ lattice`, Å."""
    size = round(abs(float(np.linalg.det(forms[0]))))
    # No vector is shortest in a sublattice of this index unless it lies within this many cells.
    reach = 2 + int(np.ceil(size ** (1 / 3) * 1.5))
    grid = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1)
    points = grid.reshape(-1, 3)
    lengths = np.linalg.norm(points @ lattice, axis=1)
    order = np.argsort(lengths, kind="stable")[1:]
    points, lengths = points[order], lengths[order]
    shortest = np.empty(len(forms))
    for number, form in enumerate(forms):
        inside = points @ np.linalg.inv(form)
        member = np.all(np.abs(inside - np.rint(inside)) < 1e-6, axis=1)
        shortest[number] = lengths[np.argmax(member)]
    return shortest


def _surface(cell: NDArray[np.float64]) -> float:
    pairs = ((0, 1), (1, 2), (2, 0))
    return sum(float(np.linalg.norm(np.cross(cell[i], cell[j]))) for i, j in pairs)


def _hermite_forms(size: int) -> list[NDArray[np.float64]]:
    forms = []
    for first in (d for d in range(1, size + 1) if size % d == 0):
        rest = size // first
        for second in (d for d in range(1, rest + 1) if rest % d == 0):
            third = rest // second
            for b in range(second):
                for d in range(third):
                    for e in range(third):
                        forms.append(
                            np.array([[first, b, d], [0, second, e], [0, 0, third]], float)
                        )
    return forms


def _filled(primitive: Atoms, cell: NDArray[np.float64]) -> Atoms:
    """All atoms of a lattice in one of its supercells, in a fixed order."""
    matrix = np.rint(cell @ np.linalg.inv(primitive.cell.array))
    reach = np.abs(matrix).sum(axis=0).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1)
    offsets = grid.reshape(-1, 3) @ primitive.cell.array
    points = (offsets[:, None, :] + primitive.positions[None, :, :]).reshape(-1, 3)
    scaled = points @ np.linalg.inv(cell)
    inside = np.all((scaled > -1e-8) & (scaled < 1 - 1e-8), axis=1)
    kept = np.round(scaled[inside], 12) + 0.0
    kept = kept[np.lexsort(kept.T[::-1])]
    symbols = [str(primitive.symbols[0])] * len(kept)
    return Atoms(symbols, scaled_positions=kept, cell=cell, pbc=True)


def _decorated(cells: Sequence[Atoms], counts: Mapping[str, int]) -> Atoms:
    """The decoration of one of the cells whose nearest shells look most disordered.

    One with a smaller period than its cell is an ordered compound, and left out.
    """
    numbers = np.repeat([atomic_numbers[symbol] for symbol in counts], list(counts.values()))
    fractions = {atomic_numbers[s]: n / len(numbers) for s, n in counts.items()}
    rng = np.random.default_rng(_DECORATION_SEED)
    best: Atoms | None = None
    best_error = math.inf
    for cell in cells:
        shells = _shells(cell)
        for _ in range(_DECORATIONS // len(cells)):
            drawn = rng.permutation(numbers)
            error = _disorder_error(drawn, shells, fractions)
            if error < best_error - 1e-12 and not _has_smaller_period(cell, drawn):
                best, best_error = cell.copy(), error
                best.set_chemical_symbols([chemical_symbols[z] for z in drawn])
    if best is None:
        raise InputError(
            f"material.atoms: a cell of {len(numbers)} atoms is too small to be disordered; ask "
            "for more"
        )
    return best


def _has_smaller_period(cell: Atoms, numbers: NDArray[np.int64]) -> bool:
    """True when a shift from one atom to another maps the decorated cell onto itself."""
    scaled = cell.get_scaled_positions()
    for shift in scaled[1:] - scaled[0]:
        difference = (scaled + shift)[:, None, :] - scaled[None, :, :]
        match = np.all(np.abs(difference - np.rint(difference)) < 1e-4, axis=2)
        target = match.argmax(axis=1)
        if match.any(axis=1).all() and np.array_equal(numbers, numbers[target]):
            return True
    return False


def _shells(cell: Atoms) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs (i, j) of the three nearest neighbour shells, images included."""
    spacing = (cell.get_volume() / len(cell)) ** (1 / 3)
    first, second, distance = neighbor_list("ijd", cell, 2.3 * spacing)
    order = np.unique(np.round(distance, 3))
    return [
        (first[np.abs(distance - d) < 2e-3], second[np.abs(distance - d) < 2e-3]) for d in order[:3]
    ]


def _disorder_error(
    numbers: NDArray[np.int64],
    shells: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    fractions: Mapping[int, float],
) -> float:
    """Sum of squared differences of the pair probabilities from x_a x_b; the nearer shell first."""
    error = 0.0
    for weight, (first, second) in zip((1.0, 0.5, 0.25), shells, strict=False):
        for a, x_a in fractions.items():
            for b, x_b in fractions.items():
                found = np.mean((numbers[first] == a) & (numbers[second] == b))
                error += weight * float(found - x_a * x_b) ** 2
    return error
