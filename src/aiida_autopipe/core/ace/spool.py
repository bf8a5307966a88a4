"""Basis values of all training atoms, kept for the search of the active set."""

import tempfile
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import IO

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.ace.active_set import (
    BLOCK_ROWS,
    FLOOR,
    TOLERANCE,
    ActiveSet,
    column_scale,
    select_active_set,
)
from aiida_autopipe.core.ace.basis import Basis
from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.dataset import Dataset

Array = NDArray[np.float64]

_MEMORY_BYTES = 256 * 2**20


class Spool:
    """Rows of basis values by element: in memory while few, in an unnamed file when many.

    Used as a context manager; the file is gone afterwards.
    """

    def __init__(self, basis: Basis) -> None:
        self._columns = {element: basis.columns(element) for element in basis.elements}
        self._squares = {e: np.zeros(c.stop - c.start) for e, c in self._columns.items()}
        self._counts = dict.fromkeys(basis.elements, 0)
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> "Spool":
        for element in self._columns:
            self._files[element] = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def add(self, values: Array, numbers: NDArray[np.int32]) -> None:
        """Add the values (n, F) of atoms with these atomic numbers (n,)."""
        for element, columns in self._columns.items():
            rows = np.ascontiguousarray(values[numbers == atomic_numbers[element], columns])
            self._squares[element] += np.einsum("ij,ij->j", rows, rows)
            self._counts[element] += len(rows)
            self._files[element].write(rows.tobytes())

    def active_sets(
        self,
        tol: float,
        floor: float,
        start: Mapping[str, ActiveSet] | None = None,
        threads: int = 1,
    ) -> dict[str, ActiveSet]:
        """The active set of each element; environments are numbered as they were added.

        ``start`` holds active sets that the new environments are added to, by element.
        """
        chosen = {}
        for element in self._columns:
            earlier = None if start is None else start.get(element)
            squares, count = self._squares[element], self._counts[element]
            if earlier is not None:
                # An element without new environments still has the scale of the earlier ones.
                squares = squares + np.einsum("ij,ij->j", earlier.rows, earlier.rows)
                count += len(earlier.rows)
            chosen[element] = select_active_set(
                lambda element=element: self._blocks(element),  # type: ignore[misc]
                column_scale(squares, count),
                tol,
                floor,
                earlier,
                threads,
            )
        return chosen

    def _blocks(self, element: str) -> Iterator[Array]:
        width = len(self._squares[element])
        file = self._files[element]
        file.seek(0)
        while content := file.read(BLOCK_ROWS * width * 8):
            yield np.frombuffer(content).reshape(-1, width)


def active_sets(
    dataset: Dataset,
    basis: Basis,
    tol: float = TOLERANCE,
    floor: float = FLOOR,
    start: Mapping[str, NDArray[np.float64]] | None = None,
    threads: int = 1,
) -> dict[str, ActiveSet]:
    """Active sets {symbol: ActiveSet} of the environments of a data set that are learned from.

    Atoms that are masked, in structures without an energy to learn, are not known afterwards: the
    boundary of a cut-out must not count as a place the potential has seen.

    ``start`` are inverse active sets {symbol: (N, N)} of the same basis, such as a potential has
    them: the search continues from there, so that adding environments costs only their own share.
    """
    earlier = {
        element: ActiveSet.from_inverse(inverse) for element, inverse in (start or {}).items()
    }

    def values(index: int) -> Array:
        return basis.values(dataset.atoms(index))

    with Spool(basis) as spool:
        for index, block in enumerate(in_threads(values, range(len(dataset)), threads)):
            rows = slice(int(dataset.offsets[index]), int(dataset.offsets[index + 1]))
            learned = _learned(dataset, index)
            spool.add(block[learned], np.asarray(dataset.numbers[rows])[learned])
        return spool.active_sets(tol, floor, earlier, threads)


def _learned(dataset: Dataset, index: int) -> NDArray[np.bool_]:
    """(n,) which atoms of a structure have a force or, all together, an energy to learn."""
    labels = dataset.labels(index)
    if labels.force_mask is None or labels.forces is None or labels.energy is not None:
        return np.ones(int(dataset.offsets[index + 1] - dataset.offsets[index]), dtype=np.bool_)
    return np.asarray(labels.force_mask > 0)
