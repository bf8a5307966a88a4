"""The HDF5 layout of a dataset, version 1.

::

    /                    attributes: format="autopipe-dataset", version=1, attributes=<JSON object>
    /offsets             (n+1,) int64    atoms of structure i are rows offsets[i] .. offsets[i+1]
    /numbers             (N,)   int32
    /positions           (N, 3) float64  Å
    /cell                (n, 3, 3) float64  Å, rows are lattice vectors
    /pbc                 (n, 3) bool
    /energy              (n,)   float64  eV, total energy                       optional
    /forces              (N, 3) float64  eV/Å                                   optional
    /stress              (n, 6) float64  eV/Å^3, ASE sign, xx yy zz yz xz xy    optional
    /force_mask          (N,)   float64  1 = learn from this force, 0 = ignore  optional
    /weight              (n,)   float64                                         optional
    /columns/<name>      (n,)   float64, int64, bool or UTF-8 string            optional

A label that a structure lacks is NaN. Arrays may be stored whole, as `Dataset.write_hdf5` does, or
in chunks that can grow, as `DatasetWriter` does. Other objects in the file, such as descriptors,
are no part of the dataset and are left alone. Links, external storage and virtual datasets, which
lead to other files, are refused when reading: a dataset file may come from a stranger.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.journal import JournaledFile, has_journal
from aiida_autopipe.core.stored_arrays import StoredArray, column_type, reading

FORMAT = "autopipe-dataset"
VERSION = 1

CHUNK_CACHE_BYTES = 1 << 20
"""For each array; HDF5's own default is larger, and files are read once and in order."""

PER_ATOM = {"numbers": (), "positions": (3,), "forces": (3,), "force_mask": ()}
PER_STRUCTURE = {"cell": (3, 3), "pbc": (3,), "energy": (), "stress": (6,), "weight": ()}
DTYPES: dict[str, type] = {
    **dict.fromkeys((*PER_ATOM, *PER_STRUCTURE), np.float64),
    "numbers": np.int32,
    "pbc": np.bool_,
}
FILL = {
    **dict.fromkeys((*PER_ATOM, *PER_STRUCTURE), np.nan),
    "force_mask": 1.0,
    "weight": 1.0,
}
"""What a structure without it has, where others have it."""
REQUIRED = ("offsets", "numbers", "positions", "cell", "pbc")


def write_hdf5(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    columns: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Any],
) -> None:
    """Write a dataset file; it appears under ``path`` only when it is complete.

    Timestamps are not tracked, so the same content gives the same bytes and AiiDA's hash of the
    node is a hash of the content.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with h5py.File(partial, "w", track_order=False) as handle:
            handle.attrs["format"] = FORMAT
            handle.attrs["version"] = VERSION
            handle.attrs["attributes"] = json.dumps(attributes, sort_keys=True)
            for name, array in arrays.items():
                _create(handle, name, np.asarray(array))
            if columns:
                group = handle.create_group("columns")
                for name in sorted(columns):
                    _create(group, name, np.asarray(columns[name]))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _create(group: h5py.Group, name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind == "U":
        array = array.astype(object)
        group.create_dataset(name, data=array, dtype=h5py.string_dtype("utf-8"), track_times=False)
    else:
        compression = "gzip" if array.nbytes > 65536 else None
        group.create_dataset(name, data=array, compression=compression, track_times=False)


def open_hdf5(path: Path) -> h5py.File:
    """Open a dataset file for reading and check its layout.

    Raises:
        DataError: not HDF5, not a dataset of ours, a newer version, links, or shapes or types that
            contradict the layout.
    """
    handle = open_committed(path)
    with ExitStack() as on_error:
        on_error.callback(handle.close)
        with reading(path):
            _check_header(path, handle)
            _check_storage(path, handle)
            _check_shapes(path, handle)
            read_attributes(path, handle)
        on_error.pop_all()
    return handle


def open_committed(path: Path) -> h5py.File:
    """Open any HDF5 file for reading, in the state of the last commit if a writer was killed.

    Raises:
        DataError: missing, not HDF5, truncated, or in use by a writer.
    """
    try:
        if has_journal(path):
            return h5py.File(
                JournaledFile(path, writable=False), "r", rdcc_nbytes=CHUNK_CACHE_BYTES
            )
        return h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
    except BlockingIOError as error:
        raise DataError(
            f"'{path}' is in use by another process; wait until it has ended."
        ) from error
    except OSError as error:
        raise DataError(f"'{path}' is not a readable HDF5 file: {error}") from error


def layout_of(path: Path) -> dict[str, Any]:
    """'layout_version' of a dataset file, and 'other_objects' in it by name, with their shapes.

    Raises:
        DataError: as `open_hdf5`.
    """
    with open_hdf5(path) as handle:
        known = ("offsets", *PER_ATOM, *PER_STRUCTURE, "columns")
        others: dict[str, Any] = {}
        for name in (n for n in handle if n not in known):
            is_hard = isinstance(handle.get(name, getlink=True), h5py.HardLink)
            found = handle[name] if is_hard else None
            others[name] = list(found.shape) if isinstance(found, h5py.Dataset) else "group"
        return {"layout_version": int(handle.attrs["version"]), "other_objects": others}


def read_attributes(path: str | Path, handle: h5py.File) -> dict[str, Any]:
    """Attributes of the whole dataset.

    Raises:
        DataError: the attribute is not a JSON object.
    """
    text = handle.attrs.get("attributes", "{}")
    try:
        attributes = json.loads(text)
    except (TypeError, ValueError) as error:
        raise DataError(f"'{path}': the attribute 'attributes' is not JSON: {error}") from error
    if not isinstance(attributes, dict):
        raise DataError(f"'{path}': the attribute 'attributes' is not a JSON object.")
    return attributes


def stored_arrays(path: str | Path, handle: h5py.File) -> dict[str, StoredArray]:
    """All arrays but the offsets, by name; they read what is indexed from the open file."""
    names = [name for name in (*PER_ATOM, *PER_STRUCTURE) if name in handle]

    def check_numbers(values: NDArray[Any]) -> None:
        if values.size and not 0 <= np.min(values) <= np.max(values) < len(chemical_symbols):
            raise DataError(f"'{path}': 'numbers' holds values that are not atomic numbers.")

    checks = {"numbers": check_numbers}
    return {n: StoredArray(path, handle[n], DTYPES[n], checks.get(n)) for n in names}


def stored_columns(path: str | Path, handle: h5py.File) -> dict[str, StoredArray]:
    """All columns by name, as `stored_arrays`."""
    group = handle.get("columns", {})
    return {name: StoredArray(path, data, column_type(data)) for name, data in group.items()}


def _check_header(path: Path, handle: h5py.File) -> None:
    found = handle.attrs.get("format")
    if found != FORMAT:
        raise DataError(
            f"'{path}' is HDF5 but not an autopipe dataset: its attribute 'format' is {found!r}."
        )
    version = handle.attrs.get("version")
    if not isinstance(version, int | np.integer) or not 1 <= version <= VERSION:
        raise DataError(
            f"'{path}' has dataset version {version}; this program reads 1 to {VERSION}."
        )


def _check_storage(path: Path, handle: h5py.File) -> None:
    """What the layout names must be stored in the file itself, as plain arrays.

    Other objects, such as descriptors, are no part of the dataset and never looked at.
    """
    names = [
        name for name in ("offsets", *PER_ATOM, *PER_STRUCTURE) if handle.get(name, getlink=True)
    ]
    link = handle.get("columns", getlink=True)
    if isinstance(link, h5py.HardLink) and isinstance(handle["columns"], h5py.Group):
        names += [f"columns/{name}" for name in handle["columns"]]
    elif link is not None:
        names.append("columns")
    for name in names:
        if not isinstance(handle.get(name, getlink=True), h5py.HardLink):
            raise DataError(f"'{path}': '{name}' is a link to elsewhere, which is refused.")
        data = handle[name]
        if not isinstance(data, h5py.Dataset):
            raise DataError(f"'{path}': '{name}' is not an array.")
        if data.external or data.is_virtual:
            raise DataError(f"'{path}': '{name}' is stored in another file, which is refused.")


def _check_shapes(path: Path, handle: h5py.File) -> None:
    missing = [name for name in REQUIRED if name not in handle]
    if missing:
        raise DataError(f"'{path}' lacks the arrays {', '.join(missing)}.")
    if handle["offsets"].ndim != 1 or handle["offsets"].size == 0 or handle["numbers"].ndim != 1:
        raise DataError(f"'{path}': 'offsets' and 'numbers' must be lists of numbers.")
    kinds = {name: "fiu" if dtype == np.float64 else "iu" for name, dtype in DTYPES.items()}
    kinds |= {"offsets": "iu", "pbc": "b"}
    columns = [f"columns/{name}" for name in handle.get("columns", ())]
    kinds |= dict.fromkeys(columns, "fiubO")
    n_atoms, n_structures = handle["numbers"].shape[0], handle["offsets"].shape[0] - 1
    expected = {name: (n_atoms, *shape) for name, shape in PER_ATOM.items()}
    expected |= {name: (n_structures, *shape) for name, shape in PER_STRUCTURE.items()}
    expected |= dict.fromkeys(columns, (n_structures,)) | {"offsets": (n_structures + 1,)}
    for name, shape in expected.items():
        if name not in handle:
            continue
        if handle[name].shape != shape:
            raise DataError(f"'{path}': '{name}' has shape {handle[name].shape}, expected {shape}.")
        if handle[name].dtype.kind not in kinds[name]:
            raise DataError(f"'{path}': '{name}' holds values of type {handle[name].dtype}.")
    offsets = handle["offsets"][...].astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != n_atoms or np.any(np.diff(offsets) < 0):
        raise DataError(f"'{path}': 'offsets' does not partition the {n_atoms} atoms.")
