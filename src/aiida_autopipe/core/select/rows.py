"""Rows of features, in memory or in a file, read block by block.

Features of ten million environments do not fit into memory, and selection needs only a few passes
over them. What the selectors need of a source is its shape, its type and `read(start, stop)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_autopipe.core.errors import DataError, InputError

Values = NDArray[Any]
"""float32 or float64."""

BLOCK_BYTES = 1 << 22


class TooFewRowsError(InputError):
    """More rows were asked for than there are different ones.

    Attributes:
        available: how many could be chosen.
    """

    def __init__(self, message: str, available: int) -> None:
        super().__init__(message)
        self.available = available


class Rows(Protocol):
    """Features (n, d) that are read in blocks."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64: the type of what is read, and of what is computed with it."""
        ...

    def read(self, start: int, stop: int) -> Values:
        """Rows start to stop, C-contiguous; not to be changed."""
        ...


class ArrayRows:
    """Rows of an array in memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self.shape: tuple[int, int] = (array.shape[0], array.shape[1])
        self.dtype = _computed_in(array.dtype)

    def read(self, start: int, stop: int) -> Values:
        """A view where the type and the layout allow it."""
        return np.ascontiguousarray(self._array[start:stop], dtype=self.dtype)


class StoredRows:
    """Rows of an open HDF5 dataset of two dimensions or, for atoms of a trajectory, more.

    All dimensions but the last are counted as one.
    """

    def __init__(self, data: h5py.Dataset) -> None:
        self._data = data
        self._frame = int(np.prod(data.shape[1:-1], dtype=np.int64))
        self.shape: tuple[int, int] = (data.shape[0] * self._frame, data.shape[-1])
        self.dtype = _computed_in(data.dtype)

    def read(self, start: int, stop: int) -> Values:
        """A copy of the rows."""
        first = start // self._frame
        block = self._data[first : -(-stop // self._frame)].reshape(-1, self.shape[1])
        skip = start - first * self._frame
        return np.ascontiguousarray(block[skip : skip + stop - start], dtype=self.dtype)


class NpyRows:
    """Rows of a .npy file.

    They are read, not mapped: pages of a mapping would count as memory of this process.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        try:
            mapped = np.load(self._path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"'{path}' is not a readable .npy file: {error}") from error
        if not isinstance(mapped, np.memmap) or not mapped.flags.c_contiguous:
            raise DataError(f"'{path}' is not a .npy file with an array in C order.")
        _check_shape("pool", mapped)
        self.shape: tuple[int, int] = (mapped.shape[0], mapped.shape[1])
        self._stored, self._offset = mapped.dtype, int(mapped.offset)
        self.dtype = _computed_in(mapped.dtype)

    def read(self, start: int, stop: int) -> Values:
        """A copy of the rows."""
        width = self.shape[1]
        offset = self._offset + start * width * self._stored.itemsize
        count = (stop - start) * width
        values = np.fromfile(self._path, self._stored, count=count, offset=offset)
        if values.size != count:
            raise DataError(f"'{self._path}' ends before row {stop}.")
        return values.reshape(-1, width).astype(self.dtype, copy=False)


def as_rows(features: ArrayLike | Rows | h5py.Dataset | Path, name: str = "pool") -> Rows:
    """A source of rows from an array, an open HDF5 dataset or the path of a .npy file.

    float32 stays float32; other numbers are computed in float64.

    Raises:
        DataError: not numbers, or not of two dimensions.
    """
    if isinstance(features, Path):
        return NpyRows(features)
    if isinstance(features, h5py.Dataset):
        if features.ndim < 2 or features.dtype.kind not in "fiu":
            raise DataError(
                f"The features of the {name} have shape {features.shape} and type "
                f"{features.dtype}; numbers in at least two dimensions are needed."
            )
        return StoredRows(features)
    if hasattr(features, "read") and hasattr(features, "shape"):
        return cast(Rows, features)
    try:
        array = np.asarray(features)
        if array.dtype.kind not in "fiub":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"The features of the {name} are not numbers: {error}.") from error
    _check_shape(name, array)
    return ArrayRows(array)


def blocks(rows: Rows, size: int | None = None) -> Iterator[tuple[int, int]]:
    """Starts and stops of consecutive blocks of about four megabytes."""
    size = size or block_size(rows)
    for start in range(0, rows.shape[0], size):
        yield start, min(start + size, rows.shape[0])


def block_size(rows: Rows) -> int:
    """Rows of one block."""
    return max(256, BLOCK_BYTES // (rows.dtype.itemsize * max(1, rows.shape[1])))


def gather(rows: Rows, indices: NDArray[np.int64]) -> Values:
    """Some rows (k, d), in the given order; each block that holds one is read once."""
    result = np.empty((len(indices), rows.shape[1]), dtype=rows.dtype)
    order = np.argsort(indices, kind="stable")
    ascending = indices[order]
    for start, stop in blocks(rows):
        first, last = np.searchsorted(ascending, [start, stop])
        if last > first:
            result[order[first:last]] = rows.read(start, stop)[ascending[first:last] - start]
    return result


def check_finite(block: Values, start: int, name: str = "pool") -> None:
    """Raise DataError, with the row, where a block has NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if bad.size:
        raise DataError(
            f"Row {start + bad[0]} of the {name} holds NaN or infinity; remove that structure "
            "first."
        )


def check_number(n: int, pool: int) -> None:
    """Raise InputError when ``n`` rows cannot be chosen from a pool of that many."""
    if not 0 <= n <= pool:
        raise InputError(
            f"Cannot choose {n} points from a pool of {pool}; "
            f"ask for a number between 0 and {pool}."
        )


def check_same_width(rows: Rows, covered: Rows) -> None:
    """Raise DataError when the covered set has other features than the pool."""
    if covered.shape[0] and covered.shape[1] != rows.shape[1]:
        raise DataError(
            f"The pool has {rows.shape[1]} features but the covered set has {covered.shape[1]}; "
            "compute both with the same descriptor."
        )


def _check_shape(name: str, array: NDArray[Any]) -> None:
    if array.ndim != 2:
        raise DataError(
            f"The features of the {name} have shape {array.shape}; two dimensions are needed, "
            "one row per point."
        )


def _computed_in(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32 if dtype == np.float32 else np.float64)
