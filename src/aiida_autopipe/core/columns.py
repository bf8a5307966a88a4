"""Arrays, columns and attributes of datasets: checking, picking rows, joining."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError

RESERVED = ("energy", "forces", "stress", "force_mask", "weight")
"""Names of labels and weights; a column of that name would be taken for one of them."""

HASH_ROWS = 1 << 18

REFERENCE_TOLERANCE = 1e-6
"""eV; reference energies of one element that differ by more come from different methods."""


def column_array(name: str, values: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """A column as a float64, int64, bool or str array.

    Raises:
        InputError: a name that cannot be stored, values that fit none of these types, or not one
            value per structure.
    """
    if name in ("", ".") or "/" in name or "\0" in name or name in RESERVED:
        raise InputError(
            f"A column cannot be called '{name}': use a name without '/' other than "
            f"{', '.join(RESERVED)}."
        )
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(
            f"Column '{name}' must hold one value per structure, not shape {array.shape}."
        )
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    if array.dtype.kind in "bU":
        return array
    if array.dtype.kind == "O" and all(isinstance(v, str) for v in array):
        return array.astype(str)
    raise InputError(
        f"Column '{name}' holds {array.dtype}; only float, int, bool and str are stored."
    )


def take(read: Callable[[int, int], NDArray[Any]], rows: NDArray[Any]) -> NDArray[Any]:
    """Rows in the order asked for, of what `read(start, stop)` reads from a file.

    HDF5 reads ranges fast and scattered rows very slowly: one read per run of neighbours.
    """
    if len(rows) == 0:
        return read(0, 0)
    unique, inverse = np.unique(rows, return_inverse=True)
    ends = np.flatnonzero(np.diff(unique) != 1)
    starts = unique[np.concatenate([[0], ends + 1])]
    stops = unique[np.concatenate([ends, [len(unique) - 1]])] + 1
    parts = [read(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]
    return np.concatenate(parts)[inverse]


def join_arrays(arrays: list[Any], counts: list[int], shape: tuple[int, ...], fill: float) -> Any:
    """Arrays one behind the other; where one is None, `count` rows of the fill value."""
    if all(array is None for array in arrays):
        return None
    return np.concatenate(
        [
            np.full((count, *shape), fill) if array is None else array[:]
            for array, count in zip(arrays, counts, strict=True)
        ]
    )


def join_columns(
    name: str, parts: Sequence[Mapping[str, NDArray[Any]]], counts: Sequence[int]
) -> NDArray[Any]:
    """One column of all parts; a part without it is filled with NaN, 0, False or ''.

    Raises:
        InputError: the column holds text in one part and numbers in another.
    """
    present = [part[name] for part in parts if name in part]
    kinds = {array.dtype.kind for array in present}
    if len(kinds) > 1 and kinds != {"i", "f"}:
        raise InputError(
            f"Column '{name}' has different types in the datasets to merge "
            f"({', '.join(sorted(str(array.dtype) for array in present))}): convert or rename one."
        )
    fill: Any = np.nan if "f" in kinds else {"i": 0, "b": False}.get(kinds.pop(), "")
    return np.concatenate(
        [part.get(name, np.full(n, fill)) for part, n in zip(parts, counts, strict=True)]
    )


def fingerprint(attributes: Mapping[str, Any]) -> str | None:
    """Fingerprint of the label method in the attributes of a dataset; None when unknown."""
    method = attributes.get("method")
    if not method:
        return None
    return str(method.get("fingerprint", method) if isinstance(method, Mapping) else method)


def join_attributes(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Attributes of all parts, the later ones winning; reference energies element by element.

    Raises:
        InputError: the parts have different reference energies of an element.
    """
    joined: dict[str, Any] = {}
    references: dict[str, float] = {}
    for part in parts:
        joined |= part
        references = join_references(references, part.get("reference_energies") or {})
    if references:
        joined["reference_energies"] = references
    return joined


def join_references(known: Mapping[str, float], more: Mapping[str, Any]) -> dict[str, float]:
    """Reference energies (eV by element) of two sources.

    Raises:
        InputError: both know an element and differ by more than 1e-6 eV.
    """
    joined = dict(known)
    for element, value in more.items():
        energy = float(value)
        if abs(joined.setdefault(element, energy) - energy) > REFERENCE_TOLERANCE:
            raise InputError(
                f"The reference energy of {element} is {joined[element]:.6f} eV in one dataset and "
                f"{energy:.6f} eV in another: they come from different methods and cannot be "
                "merged."
            )
    return joined


def content_hash(
    arrays: Mapping[str, Any], columns: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]
) -> str:
    """SHA-256 over arrays in the given order, columns and attributes; None arrays are left out."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        if array is not None:
            digest.update(name.encode())
            for start in range(0, len(array), HASH_ROWS):
                digest.update(np.ascontiguousarray(array[start : start + HASH_ROWS]).tobytes())
    for name in sorted(columns):
        digest.update(name.encode() + b"[")
        for start in range(0, len(columns[name]), HASH_ROWS):
            part = columns[name][start : start + HASH_ROWS].tolist()
            digest.update((", " if start else "").encode() + json.dumps(part)[1:-1].encode())
        digest.update(b"]")
    digest.update(json.dumps(attributes, sort_keys=True).encode())
    return digest.hexdigest()
