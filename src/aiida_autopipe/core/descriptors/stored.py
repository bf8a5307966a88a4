"""Features as they are in a file: recognising, comparing and reading them.

A dataset of features has the attributes `type` (soap, ace, mace), `settings` (JSON), `model_sha256`
(of a model file), `average`, `frames`, `source_sha256` (numbers, positions and cells that were
described) and `program`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.foreign_arrays import follow, read
from aiida_autopipe.core.hdf5_edit import open_read_only

FEATURES = "features"
"""Group of the features in a dataset file of ours."""
MARKS = ("type", "settings", "average", "frames", "source_sha256")
"""Attributes by which a dataset of features is recognised."""


def list_features(path: str | Path) -> dict[str, dict[str, Any]]:
    """Features in a dataset file of ours, by name: their `type`, and whether an `average`.

    Raises:
        DataError: not a readable HDF5 file.
    """
    with open_read_only(path) as handle:
        group = follow(handle, FEATURES)
        if not isinstance(group, h5py.Group):
            return {}
        found = {name: follow(group, name) for name in group}
        return {
            name: {"type": data.attrs["type"], "average": bool(data.attrs["average"])}
            for name, data in found.items()
            if is_features(data)
        }


def read_features(path: str | Path, name: str) -> NDArray[np.floating]:
    """Features of a dataset file of ours: (atoms, F), or where they are averages (structures, F).

    Raises:
        InputError: there are none of that name.
        DataError: not a readable HDF5 file.
    """
    with open_read_only(path) as handle:
        data = follow(handle, f"{FEATURES}/{name}")
        if not is_features(data):
            raise InputError(
                f"'{path}' has no features '{name}'; add them with mlip-auto describe."
            )
        return read(handle, data, ...)


def is_features(data: Any) -> bool:
    """Whether an object in a file is features that this package wrote."""
    return isinstance(data, h5py.Dataset) and all(name in data.attrs for name in MARKS)


def difference(
    present: Any, wanted: Mapping[str, Any], shape: tuple[int, ...], dtype: DTypeLike
) -> str:
    """How features that are there differ from those asked for, '' where they do not.

    Args:
        present: the object in the file.
        wanted: attributes of the features asked for.
        shape: their shape.
        dtype: their type.
    """
    if not is_features(present):
        return "is something else"
    found = present.attrs
    if found["type"] != wanted["type"]:
        return f"holds {found['type']} features, not {wanted['type']}"
    if found["settings"] != wanted["settings"]:
        return "has other settings: " + _other_settings(found["settings"], wanted["settings"])
    if bool(found["average"]) != wanted["average"]:
        return "is " + ("averaged over atoms" if found["average"] else "not averaged over atoms")
    if found["frames"] != wanted["frames"]:
        return f"was computed for {found['frames']} frames, but there are {wanted['frames']} now"
    if found["source_sha256"] != wanted["source_sha256"]:
        return "was computed for structures that have changed since"
    if present.shape != shape or present.dtype != np.dtype(dtype):
        return f"has shape {present.shape} of {present.dtype}, not {shape} of {dtype}"
    return ""


def _other_settings(found: str, wanted: str) -> str:
    old, new = json.loads(found), json.loads(wanted)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    texts = [f"{key} {_short(old.get(key))} instead of {_short(new.get(key))}" for key in keys]
    return ", ".join(texts) or "their order"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else text[:37] + "..."
