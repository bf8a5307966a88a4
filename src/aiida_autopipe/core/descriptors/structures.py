"""Many structures as flat arrays, after all checks, for kernels that want nothing but arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.ace.neighbours import check_geometry
from aiida_autopipe.core.ace.pair_kernels import MOST_NEIGHBOURS
from aiida_autopipe.core.errors import DataError

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# Atoms whose structures are looked through together.
_BATCH_ATOMS = 65536
# Images of a cell to look through for the neighbours of one atom.
_MOST_IMAGES = 1e7
# Cells and coordinates within these limits are sound; others get a closer look. Å.
_SHORT, _LONG, _FLAT = 1e-2, 1e8, 1e-3


class Batch(NamedTuple):
    """Structures from index `start` on, with the atoms first[s] : first[s + 1] of the flat arrays.

    types: index of the element of each atom; boxes (S, 3, 3): cells, completed where a direction is
    not periodic, and their inverses.
    """

    start: int
    first: Ints
    types: Ints
    points: Array
    boxes: Array
    inverses: Array
    periodic: NDArray[np.bool_]


class Known:
    """The elements that a descriptor knows, and how far it looks."""

    def __init__(self, elements: Sequence[str], cutoff: float) -> None:
        self.elements, self.cutoff = tuple(elements), cutoff
        self._type = np.full(len(chemical_symbols), -1, dtype=np.int64)
        self._type[[atomic_numbers[symbol] for symbol in elements]] = range(len(elements))

    def batches(self, structures: Sequence[Atoms], sizes: Ints) -> Iterator[Batch]:
        """All structures, of `sizes` atoms, many at a time.

        Raises:
            DataError: an element that is not known, no atoms, NaN, or an unusable cell; the index
                of the structure is named.
        """
        ends = np.cumsum(sizes)
        begin = 0
        while begin < len(sizes):
            limit = (ends[begin - 1] if begin else 0) + _BATCH_ATOMS
            end = max(begin + 1, int(np.searchsorted(ends, limit, side="right")))
            yield self._batch(begin, structures[begin:end], sizes[begin:end])
            begin = end

    def check_crowd(self, batch: Batch, atom: int, fine: bool) -> None:
        """Refuse an atom of a batch that has too many neighbours, unless all is `fine`."""
        if fine:
            return
        s = int(np.searchsorted(batch.first, atom, side="right")) - 1
        raise DataError(
            f"Structure {batch.start + s}: Atom {atom - batch.first[s]} "
            f"({self.elements[batch.types[atom]]}) has more than {MOST_NEIGHBOURS} neighbours "
            f"within {self.cutoff:.3g} Å; give positions and cell in Å."
        )

    def _batch(self, start: int, structures: Sequence[Atoms], sizes: Ints) -> Batch:
        numbers = np.concatenate([atoms.numbers for atoms in structures])
        points = np.concatenate([atoms.positions for atoms in structures]).astype(np.float64)
        boxes = np.array([atoms.cell.array for atoms in structures], dtype=np.float64)
        periodic = np.array([atoms.pbc for atoms in structures], dtype=bool)
        first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        for s in _doubtful(points, first, boxes, periodic).tolist():
            try:
                check_geometry(structures[s])
            except DataError as error:
                raise DataError(f"Structure {start + s}: {error}") from error
        types = self._types(numbers, first, start)
        for s in np.nonzero(~periodic.all(axis=1))[0].tolist():
            boxes[s] = structures[s].cell.complete()[:] if periodic[s].any() else np.eye(3)
        inverses = np.ascontiguousarray(np.linalg.inv(boxes))
        self._check_widths(inverses, periodic, boxes, start)
        return Batch(start, first, types, points, boxes, inverses, periodic)

    def _types(self, numbers: Ints, first: Ints, start: int) -> Ints:
        """Index of the element of each atom."""
        real = (numbers >= 0) & (numbers < len(self._type))
        types = np.where(real, self._type[np.where(real, numbers, 0)], -1)
        if types.min() < 0:
            atom = int(np.argmin(types))
            s = int(np.searchsorted(first, atom, side="right")) - 1
            name = chemical_symbols[numbers[atom]] if real[atom] else f"Z = {numbers[atom]}"
            raise DataError(
                f"Structure {start + s}: Atom {atom - first[s]} is {name}, but the descriptor "
                f"knows only {', '.join(self.elements)}."
            )
        return types

    def _check_widths(
        self, inverses: Array, periodic: NDArray[np.bool_], boxes: Array, start: int
    ) -> None:
        """Refuse cells so narrow that finding neighbours would not end."""
        around = 2.0 * np.ceil(self.cutoff * np.linalg.norm(inverses, axis=1)) + 1.0
        images = np.where(periodic, around, 1.0).prod(axis=1)
        if images.max() > _MOST_IMAGES:
            s = int(np.argmax(images))
            raise DataError(
                f"Structure {start + s}: The periodic cell {boxes[s][periodic[s]].tolist()} is too "
                f"narrow for neighbours within {self.cutoff:.3g} Å; give it in Å."
            )


def _doubtful(points: Array, first: Ints, cells: Array, periodic: NDArray[np.bool_]) -> Ints:
    """Structures that need a closer look, which is slow, before they are used."""
    sound = np.diff(first) > 0
    sound[np.repeat(np.arange(len(cells)), np.diff(first))[~_within(points).all(axis=1)]] = False
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(cells, axis=2)
        volume = np.abs(np.linalg.det(cells)) / lengths.prod(axis=1)
    cell = (lengths > _SHORT).all(axis=1) & (volume > _FLAT)
    sound &= _within(cells).all(axis=(1, 2)) & (cell | ~periodic.any(axis=1))
    return np.nonzero(~sound)[0]


def _within(values: Array) -> NDArray[np.bool_]:
    """Where values are finite and not too large; NaN is not."""
    return np.abs(values) < _LONG
