"""Arrays that stay in an HDF5 file until a part of them is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.columns import take
from aiida_autopipe.core.errors import DataError

BLOCK_ROWS = 1 << 18

COLUMN_TYPES: dict[str, Any] = {"f": np.float64, "i": np.int64, "u": np.int64, "b": np.bool_}


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn what h5py raises for damaged data into DataError."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is damaged: {error}") from error


class StoredArray:
    """Looks like a numpy array, reads from the file what is indexed, and nothing else.

    Args:
        path: the file, for messages.
        data: the array in the file.
        dtype: type of what is returned; str for text.
        check: is given every part that was read, and raises what is wrong with it.
    """

    def __init__(
        self,
        path: str | Path,
        data: h5py.Dataset,
        dtype: Any,
        check: Callable[[NDArray[Any]], None] | None = None,
    ) -> None:
        self._path = path
        self._data = data
        self.dtype = np.dtype(dtype)
        self._check = check

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return tuple(self._data.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, selection: Any) -> Any:
        if isinstance(selection, int | np.integer):
            return self._read(int(selection))
        if isinstance(selection, slice) and selection.step in (None, 1):
            return self._read(selection)
        if selection is Ellipsis:
            return self._read(slice(None))
        rows = np.arange(len(self))[selection]
        return take(self._read_range, rows)

    def _read_range(self, start: int, stop: int) -> NDArray[Any]:
        return np.asarray(self._read(slice(start, stop)))

    def _read(self, selection: int | slice) -> Any:
        with reading(self._path):
            source = self._data.asstr() if self.dtype.kind == "U" else self._data
            values = np.asarray(source[selection])
        values = values.astype(str if self.dtype.kind == "U" else self.dtype, copy=False)
        if self._check is not None:
            self._check(values)
        return values[()] if values.ndim == 0 else values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        values = np.asarray(self[:])
        return values if dtype is None else values.astype(dtype, copy=False)

    def tolist(self) -> list[Any]:
        """All values as plain Python values."""
        return list(np.asarray(self).tolist())


def row_blocks(array: Any, rows: int = BLOCK_ROWS) -> Iterator[NDArray[Any]]:
    """Consecutive parts of an array in memory or in a file."""
    return (np.asarray(array[i : i + rows]) for i in range(0, len(array), rows))


def column_type(data: h5py.Dataset) -> Any:
    """Type of a column in memory: float64, int64, bool or str."""
    return np.str_ if data.dtype.kind == "O" else COLUMN_TYPES[data.dtype.kind]
