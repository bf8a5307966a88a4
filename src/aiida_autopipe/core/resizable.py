"""HDF5 arrays that grow at their end."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError

CHUNK_BYTES = 1 << 18
COPY_ROWS = 1 << 18
_RANK = {"b": 0, "i": 1, "f": 2, "O": 3, "U": 3}


def create_resizable(
    group: h5py.Group,
    name: str,
    rows: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: Any,
) -> h5py.Dataset:
    """An array of which nothing is stored yet; reading gives the fill value."""
    kind = h5py.string_dtype("utf-8") if dtype.kind in "OU" else dtype
    row_bytes = max(1, int(np.prod(shape))) * (16 if dtype.kind in "OU" else dtype.itemsize)
    # Short per-structure arrays would be mostly empty chunks otherwise.
    chunk = max(1, min(CHUNK_BYTES // row_bytes, 8192))
    return group.create_dataset(
        name,
        shape=(rows, *shape),
        maxshape=(None, *shape),
        chunks=(chunk, *shape),
        dtype=kind,
        fillvalue=fill if dtype.kind == "f" else None,
        compression="gzip",
        compression_opts=1,
        shuffle=dtype.kind not in "OU",
        track_times=False,
    )


def extend(
    group: h5py.Group,
    name: str,
    values: NDArray[Any] | None,
    start: int,
    count: int,
    shape: tuple[int, ...],
    dtype: Any,
    fill: Any,
) -> None:
    """Add `count` rows to an array that has `start`: the values, or the fill value without.

    The array is made when the first rows have values; those before have the fill value.
    """
    if name not in group:
        if values is None:
            return
        create_resizable(group, name, start, shape, np.dtype(dtype), fill)
    data = group[name]
    data.resize(start + count, axis=0)
    if values is not None:
        data[start:] = values


def is_resizable(data: h5py.Dataset, dtype: np.dtype[Any] | None) -> bool:
    """True when rows can be added to it; `dtype` is the type it must have, if any."""
    grows = data.chunks is not None and data.maxshape[0] is None
    if dtype is None:
        return grows and (data.dtype.kind in "bO" or data.dtype.itemsize == 8)
    return grows and data.dtype == dtype


def joint_type(
    name: str, stored: np.dtype[Any], new: np.dtype[Any], promote: bool
) -> np.dtype[Any]:
    """Type that holds the values of a column in two datasets: float for int and float.

    Args:
        name: of the column, for messages.
        stored: type of one.
        new: type of the other.
        promote: other different types become the wider of bool, int, float and text.

    Raises:
        InputError: other different types, without `promote`.
    """
    kinds = {"O" if t.kind == "U" else t.kind for t in (stored, new)}
    if len(kinds) > 1 and kinds != {"i", "f"} and not promote:
        names = {"O": "text", "b": "bool", "i": "int", "f": "float"}
        raise InputError(
            f"Column '{name}' holds {names[min(kinds)]} in one dataset and {names[max(kinds)]} in "
            "another: convert or rename one."
        )
    widest = max(kinds, key=_RANK.__getitem__)
    return np.dtype({"b": np.bool_, "i": np.int64, "f": np.float64, "O": object}[widest])


def as_kind(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values of a column as another, wider type."""
    if dtype.kind not in "OU":
        return values.astype(dtype, copy=False)
    return values.astype(str) if values.dtype.kind != "f" else np.array([str(v) for v in values])


def convert_column(group: h5py.Group, name: str, dtype: np.dtype[Any]) -> None:
    """Give a stored column another type, block by block."""
    old = group[name]
    if old.dtype.kind == dtype.kind:
        return
    temporary = f"{name} (being converted)"
    new = create_resizable(group, temporary, len(old), (), dtype, np.nan)
    for start in range(0, len(old), COPY_ROWS):
        values = as_kind(old[start : start + COPY_ROWS], dtype)
        new[start : start + len(values)] = values.astype(object) if dtype.kind == "O" else values
    del group[name]
    group.move(temporary, name)
