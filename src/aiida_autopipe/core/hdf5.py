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

A label that a structure lacks is NaN. Links to other files are refused when reading: a dataset file may
come from a stranger.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError

FORMAT = "autopipe-dataset"
VERSION = 1

PER_ATOM = {"numbers": (), "positions": (3,), "forces": (3,), "force_mask": ()}
PER_STRUCTURE = {"cell": (3, 3), "pbc": (3,), "energy": (), "stress": (6,), "weight": ()}
REQUIRED = ("offsets", "numbers", "positions", "cell", "pbc")


def write_hdf5(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    columns: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Any],
) -> None:
    """Write a dataset file; it appears under ``path`` only when it is complete.

    Timestamps are not tracked, so the same content gives the same bytes and AiiDA's hash of the node is
    a hash of the content.
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
        DataError: not HDF5, not a dataset of ours, a newer version, or shapes that contradict each other.
    """
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"'{path}' is not a readable HDF5 file: {error}") from error
    try:
        _check(path, handle)
    except DataError:
        handle.close()
        raise
    return handle


def _check(path: Path, handle: h5py.File) -> None:
    if handle.attrs.get("format") != FORMAT:
        raise DataError(
            f"'{path}' is HDF5 but not an autopipe dataset (attribute 'format' is missing)."
        )
    version = int(handle.attrs.get("version", 0))
    if not 1 <= version <= VERSION:
        raise DataError(
            f"'{path}' has dataset version {version}; this program reads 1 to {VERSION}."
        )
    for name in _all_names(handle):
        if isinstance(handle.get(name, getlink=True), h5py.ExternalLink | h5py.SoftLink):
            raise DataError(f"'{path}': '{name}' is a link to elsewhere, which is refused.")
    missing = [name for name in REQUIRED if name not in handle]
    if missing:
        raise DataError(f"'{path}' lacks the arrays {', '.join(missing)}.")
    offsets = handle["offsets"][...]
    n_atoms = handle["numbers"].shape[0]
    if (
        offsets.ndim != 1
        or offsets[0] != 0
        or offsets[-1] != n_atoms
        or np.any(np.diff(offsets) < 0)
    ):
        raise DataError(f"'{path}': 'offsets' does not partition the {n_atoms} atoms.")
    expected = {name: (n_atoms, *shape) for name, shape in PER_ATOM.items()}
    expected |= {name: (len(offsets) - 1, *shape) for name, shape in PER_STRUCTURE.items()}
    expected |= {f"columns/{name}": (len(offsets) - 1,) for name in handle.get("columns", ())}
    for name, shape in expected.items():
        if name in handle and handle[name].shape != shape:
            raise DataError(f"'{path}': '{name}' has shape {handle[name].shape}, expected {shape}.")


def _all_names(handle: h5py.File) -> list[str]:
    names = list(handle)
    link = handle.get("columns", getlink=True)
    if isinstance(link, h5py.HardLink) and isinstance(handle["columns"], h5py.Group):
        names += [f"columns/{name}" for name in handle["columns"]]
    return names
