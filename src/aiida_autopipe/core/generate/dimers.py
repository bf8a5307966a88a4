"""Pairs of atoms at short distances, alone and in a crystal, so that a potential repels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.cells import Repeat, check_count, check_positive, repeated
from aiida_autopipe.core.generate.radii import bond_length, element_pairs, spaced
from aiida_autopipe.core.generate.strain import mark


def dimers(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    elements: Sequence[str] | None = None,
    n: int = 8,
    shortest: float = 0.6,
    longest: float = 2.0,
    distances: Sequence[float] | None = None,
    box: float = 12.0,
) -> list[Atoms]:
    """Two atoms of each pair of elements at growing distances, not periodic, in a cubic box.

    Args:
        crystal: names the elements.
        rng: not used.
        elements: instead of those of the crystal.
        n: distances for each pair, each longer than the one before by the same factor.
        shortest, longest: in sums of the covalent radii.
        distances: in Å, instead of n, shortest and longest.
        box: edge in Å, for programs that need a cell; at least twice the distance.

    Raises:
        InputError: unknown elements, or a distance that is not above zero.
    """
    check_count("n", n, 1)
    check_positive("box", box)
    structures = []
    for one, other in element_pairs(crystal, elements):
        chosen = distances
        if chosen is None:
            bond = bond_length(one, other)
            chosen = spaced(shortest * bond, longest * bond, n)
        for distance in chosen:
            if not distance > 0:
                raise InputError(f"The distance of a dimer must be above zero, not {distance} Å.")
            edge = max(box, 2.0 * distance)
            half = np.array([0.0, 0.0, distance / 2])
            centre = np.full(3, edge / 2)
            pair = Atoms(
                [one, other],
                positions=[centre - half, centre + half],
                cell=np.eye(3) * edge,
                pbc=False,
            )
            structures.append(mark(pair, "dimer", elements=[one, other], distance_A=distance))
    return structures


def short_pairs(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    elements: Sequence[str] | None = None,
    repeat: Repeat | None = None,
    width: float = 5.0,
    factors: Sequence[float] = (0.85, 0.75, 0.65, 0.55),
    amplitude: float = 0.03,
) -> list[Atoms]:
    """Crystals with one pair of neighbours pushed together, for each pair of elements.

    Both atoms move towards each other by the same length; all others are rattled a little.

    Args:
        crystal: primitive cell.
        rng: source of randomness.
        elements: only pairs of these.
        repeat: of the crystal; null makes the faces of the supercell `width` apart.
        width: in Å.
        factors: new distances, in shortest distances of the two elements in the crystal.
        amplitude: standard deviation of the displacements of the other atoms, Å.

    Raises:
        InputError: not a crystal, elements it does not have, or factors outside 0 to 1.
    """
    for factor in factors:
        if not 0 < factor < 1:
            raise InputError(f"A factor of {factor} pushes no atoms together: keep 0 to 1.")
    if amplitude < 0:
        raise InputError(f"amplitude is a standard deviation: {amplitude} must not be negative.")
    cell = repeated(crystal, repeat, width)
    structures = []
    for one, other in element_pairs(crystal, elements):
        first, second, vector = _closest(cell, one, other)
        for factor in factors:
            pushed: Atoms = cell.copy()
            moved = rng.normal(scale=amplitude, size=(len(cell), 3))
            shift = 0.5 * (1.0 - factor) * vector
            moved[first], moved[second] = shift, -shift
            pushed.positions += moved
            length = float(factor * np.linalg.norm(vector))
            parameters = {"elements": [one, other], "sites": [first, second], "factor": factor}
            structures.append(
                mark(pushed, "short_pair", **parameters, distance_A=length, amplitude_A=amplitude)
            )
    return structures


def _closest(cell: Atoms, one: str, other: str) -> tuple[int, int, np.ndarray]:
    """Two atoms of these elements that are no images of one atom, and the vector between them."""
    symbols = np.array(cell.get_chemical_symbols())
    for element in (one, other):
        if element not in symbols:
            raise InputError(f"{element} is not in {cell.get_chemical_formula()}: leave it out.")
    cutoff = 3.0
    while cutoff < 25.0:
        neighbours = full_neighbour_list(cell, cutoff)
        wanted = (symbols[neighbours.centre] == one) & (symbols[neighbours.neighbour] == other)
        wanted &= neighbours.centre != neighbours.neighbour
        if wanted.any():
            lengths = np.linalg.norm(neighbours.vectors[wanted], axis=1).round(6)
            i, j = neighbours.centre[wanted], neighbours.neighbour[wanted]
            vectors = neighbours.vectors[wanted]
            k = np.lexsort((*vectors.T.round(6), j, i, lengths))[0]
            return int(i[k]), int(j[k]), np.asarray(vectors[k])
        cutoff *= 1.5
    raise InputError(
        f"{cell.get_chemical_formula()} has no two atoms {one} and {other} to push together: give "
        "a larger repeat."
    )
