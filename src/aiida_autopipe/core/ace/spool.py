"""Basis values of all training atoms, kept for the search of the active set."""

import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.ace.active_set import (
    BLOCK_ROWS,
    ActiveSet,
    column_scale,
    select_active_set,
)
from aiida_autopipe.core.ace.basis import Basis

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

    def active_sets(self, tol: float, floor: float) -> dict[str, ActiveSet]:
        """The active set of each element; environments are numbered as they were added."""
        return {
            element: select_active_set(
                lambda element=element: self._blocks(element),  # type: ignore[misc]
                column_scale(self._squares[element], self._counts[element]),
                tol,
                floor,
            )
            for element in self._columns
        }

    def _blocks(self, element: str) -> Iterator[Array]:
        width = len(self._squares[element])
        file = self._files[element]
        file.seek(0)
        while content := file.read(BLOCK_ROWS * width * 8):
            yield np.frombuffer(content).reshape(-1, width)
