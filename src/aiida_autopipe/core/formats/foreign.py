"""Groups of HDF5 files of other programs as frames with labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.foreign_arrays import (
    FrameArray,
    contents,
    find,
    follow,
    frame_array,
    place,
    read,
)
from aiida_autopipe.core.foreign_hdf5 import ForeignGroup
from aiida_autopipe.core.formats.frames import Frame, FrameRange
from aiida_autopipe.core.hdf5 import open_committed
from aiida_autopipe.core.labels import ENERGY_KEYS, FORCES_KEYS, LabelKeys

_UNITS = {"energy": ("", "ev"), "forces": ("", "ev/å", "ev/a", "ev/ang", "ev/angstrom")}


@dataclass(frozen=True)
class GroupNames:
    """Where the structures are in a file of another program; None looks for the usual names.

    Attributes:
        keys: groups, read one after the other.
        positions: name of the positions in each group.
        numbers: the same for the atomic numbers.
        cell: the same for the cells.
        pbc: False for molecules; None reads it from the file.
    """

    keys: Sequence[str] = ("/",)
    positions: str | None = None
    numbers: str | None = None
    cell: str | None = None
    pbc: bool | None = None


def read_foreign(
    path: Path, wanted: FrameRange, names: GroupNames, labels: LabelKeys
) -> Iterator[Frame]:
    """Frames of all groups, numbered through.

    Energies (T,) and forces (T, n, 3) are taken along when the group has them under the usual or
    the given names and in eV and Å.

    Raises:
        InputError: a group or dataset of that name does not exist.
        DataError: as `ForeignGroup.open` and `ForeignGroup.blocks`.
    """
    first = 0
    with open_committed(path) as handle:
        for key in names.keys:
            group = _group(handle, key)
            found = ForeignGroup.open(group, names.positions, names.numbers, names.cell, names.pbc)
            extra = _labels(found, labels)
            yield from _frames(found, extra, wanted, first)
            first += len(found)


def count_foreign(path: Path, names: GroupNames) -> int:
    """Number of frames in all groups.

    Raises:
        InputError, DataError: as `read_foreign`.
    """
    with open_committed(path) as handle:
        groups = [_group(handle, key) for key in names.keys]
        arguments = (names.positions, names.numbers, names.cell, names.pbc)
        return sum(len(ForeignGroup.open(group, *arguments)) for group in groups)


def _group(handle: h5py.File, key: str) -> h5py.Group:
    group = follow(handle, key)
    if not isinstance(group, h5py.Group):
        raise InputError(f"'{handle.filename}' has no group '{key}'; it holds: {contents(handle)}.")
    return group


def _frames(
    found: ForeignGroup, extra: dict[str, FrameArray], wanted: FrameRange, first: int
) -> Iterator[Frame]:
    start = max(0, wanted.start - first)
    stop = None if wanted.stop is None else wanted.stop - first
    for begin, block in found.blocks(start=start, stop=stop):
        values = {name: array.read(begin, begin + len(block)) for name, array in extra.items()}
        for k, atoms in enumerate(block):
            index = first + begin + k
            if index in wanted:
                _attach(atoms, {name: array[k] for name, array in values.items()})
                yield Frame(index, atoms, index + 1)


def _attach(atoms: Atoms, values: dict[str, np.ndarray]) -> None:
    if "energy" in values:
        atoms.info["energy"] = float(values["energy"])
    if "forces" in values:
        atoms.arrays["forces"] = np.asarray(values["forces"], dtype=np.float64)


def _labels(found: ForeignGroup, keys: LabelKeys) -> dict[str, FrameArray]:
    """Datasets of labels, where all frames have the same number of atoms."""
    if keys.stress is not None:
        raise InputError(f"{place(found.group)}: stresses of other programs' files are not read.")
    if found.offsets is not None:
        return {}
    labels = {}
    for name, given, usual, shape in (
        ("energy", keys.energy, ENERGY_KEYS, ()),
        ("forces", keys.forces, FORCES_KEYS, (found.shape[1], 3)),
    ):
        data = find(found.group, given, usual, name)
        if data is None or (given is None and not _fits(found, data, name, shape)):
            continue
        if not _fits(found, data, name, shape):
            raise DataError(
                f"{place(found.group, data.name)} for the {name} has shape {data.shape} and unit "
                f"'{_unit(data)}'; it must be {(len(found), *shape)} in eV and Å."
            )
        if len(found) == 1 and data.shape == shape:
            shared = read(found.group, data, ...).reshape(shape)
            labels[name] = FrameArray(found.group, data, shape, shared)
        else:
            labels[name] = frame_array(found.group, data, [shape], len(found), name)
    return labels


def _fits(found: ForeignGroup, data: h5py.Dataset, name: str, shape: tuple[int, ...]) -> bool:
    right = data.shape == (len(found), *shape) or (len(found) == 1 and data.shape == shape)
    return right and data.dtype.kind in "fiu" and _unit(data).lower() in _UNITS[name]


def _unit(data: h5py.Dataset) -> str:
    unit = data.attrs.get("unit", data.attrs.get("units", ""))
    return unit.decode("utf-8", "replace") if isinstance(unit, bytes) else str(unit)
