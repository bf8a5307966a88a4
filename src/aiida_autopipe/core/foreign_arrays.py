"""Arrays in HDF5 files that other programs wrote: finding them by name, and reading them by frames.

Nothing outside the file is ever opened: external links, external storage and virtual datasets are
refused, and so are shapes and chunks that would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.units import Bohr
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError, InputError

POSITIONS = ("positions", "pos", "coords", "coordinates", "position/value", "position", "R")
NUMBERS = (
    "numbers", "atomic_numbers", "species", "species/value", "symbols", "elements", "Z", "z",
)  # fmt: skip
CELLS = (
    "cell", "cells", "lattice", "box", "cell_vectors", "lattice_vectors", "box/edges/value",
    "box/edges",
)  # fmt: skip
PBC = ("pbc",)

MAX_ATOMS = 100_000_000
"""Atoms of one frame; a file that claims more is damaged or malicious."""

MAX_CHUNK_BYTES = 1 << 30
MAX_LINKS = 16

LENGTHS = {
    "": 1.0, "a": 1.0, "å": 1.0, "angstrom": 1.0, "angstroms": 1.0, "ang": 1.0,
    "nm": 10.0, "nanometer": 10.0, "nanometers": 10.0, "pm": 0.01,
    "bohr": Bohr, "a0": Bohr, "au": Bohr, "a.u.": Bohr,
}  # fmt: skip
"""Å per unit, for the attribute 'unit' or 'units' that some programs write."""


def place(group: h5py.Group, name: str | None = None) -> str:
    """How messages call a group, or a dataset in it."""
    text = f"'{group.file.filename}', group '{group.name}'"
    return text if name is None else f"{text}, dataset '{name}'"


def follow(group: h5py.Group, path: str) -> Any:
    """The object under a path, through hard links and soft links inside the file; None if absent.

    Raises:
        DataError: the path leads to another file, or in a circle.
    """
    here: Any = group.file if path.startswith("/") else group
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for _ in range(MAX_LINKS * (1 + len(parts))):
        if not parts:
            return here
        if not isinstance(here, h5py.Group):
            return None
        part = parts.pop(0)
        link = here.get(part, getlink=True)
        if link is None:
            return None
        if isinstance(link, h5py.SoftLink):
            target = link.path
            parts = [piece for piece in target.split("/") if piece not in ("", ".")] + parts
            here = here.file if target.startswith("/") else here
        elif isinstance(link, h5py.HardLink):
            here = here[part]
        else:
            raise DataError(f"{place(group, path)} is a link to another file, which is refused.")
    raise DataError(f"{place(group, path)} is a link that leads in a circle.")


def find(
    group: h5py.Group, given: str | None, usual: Sequence[str], what: str
) -> h5py.Dataset | None:
    """The dataset of a given name, or the first of the usual names that exists.

    Raises:
        InputError: the group has nothing of the given name.
        DataError: it is stored in another file.
    """
    for name in usual if given is None else (given,):
        found = follow(group, name)
        if given is not None and isinstance(found, h5py.Group):  # an element of H5MD
            found = follow(found, "value") or follow(found, "edges")
            found = follow(found, "value") if isinstance(found, h5py.Group) else found
        if isinstance(found, h5py.Dataset):
            _check_storage(group, name, found)
            return found
    if given is not None:
        raise InputError(
            f"{place(group)} has no dataset '{given}' for the {what}; it holds: {contents(group)}."
        )
    return None


def contents(group: h5py.Group, limit: int = 12) -> str:
    """Names in a group with the shapes of the datasets, for messages."""
    texts = []
    for name in list(group)[:limit]:
        data = follow(group, name) if _is_local(group, name) else None
        shape = f" {data.shape}" if isinstance(data, h5py.Dataset) else "/"
        texts.append(f"{name}{shape}")
    more = len(group) - limit
    return (", ".join(texts) or "nothing") + (f" and {more} more" if more > 0 else "")


def _is_local(group: h5py.Group, name: str) -> bool:
    return not isinstance(group.get(name, getlink=True), h5py.ExternalLink)


def _check_storage(group: h5py.Group, name: str, data: h5py.Dataset) -> None:
    if data.external or data.is_virtual:
        raise DataError(f"{place(group, name)} is stored in another file, which is refused.")
    if data.shape is None:
        raise DataError(f"{place(group, name)} is empty.")
    chunk_bytes = 0 if data.chunks is None else int(np.prod(data.chunks)) * data.dtype.itemsize
    if chunk_bytes > MAX_CHUNK_BYTES:
        raise DataError(f"{place(group, name)} is stored in chunks of {chunk_bytes} bytes.")


@dataclass(frozen=True)
class FrameArray:
    """A dataset of which each frame has one entry, or all frames share the only one.

    Attributes:
        group: where it was looked for, for messages.
        data: the dataset.
        shape: shape of the entry of one frame.
        shared: the value of all frames; None where each has its own.
        scale: factor to our units.
    """

    group: h5py.Group
    data: h5py.Dataset
    shape: tuple[int, ...]
    shared: NDArray[Any] | None
    scale: float = 1.0

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """(stop-start, *shape) entries of frames start to stop.

        Raises:
            DataError: the data are damaged.
        """
        if self.shared is not None:
            return np.broadcast_to(self.shared, (stop - start, *self.shape))
        values = read(self.group, self.data, slice(start, stop))
        return (values * self.scale if self.scale != 1.0 else values).reshape(-1, *self.shape)


def frame_array(
    group: h5py.Group,
    data: h5py.Dataset,
    shapes: Sequence[tuple[int, ...]],
    n_frames: int,
    what: str,
) -> FrameArray:
    """A dataset whose shape is one of `shapes`, or one such entry for each frame.

    Raises:
        DataError: another shape, such as other numbers of atoms or frames than the positions have.
    """
    for shape in shapes:
        if data.shape in (shape, (1, *shape)) and data.shape != (n_frames, *shape):
            values = read(group, data, ...).reshape(shape)
            scale = length_scale(group, data) if what in ("cells", "positions") else 1.0
            return FrameArray(group, data, shape, values * scale if scale != 1.0 else values)
        if data.shape == (n_frames, *shape):
            scale = length_scale(group, data) if what in ("cells", "positions") else 1.0
            return FrameArray(group, data, shape, None, scale)
    expected = " or ".join(str(s) for shape in shapes for s in (shape, (n_frames, *shape)))
    raise DataError(
        f"{place(group, data.name)} for the {what} has shape {data.shape}; with these positions "
        f"it must be {expected}."
    )


def read(group: h5py.Group, data: h5py.Dataset, selection: Any) -> NDArray[Any]:
    """Part of a dataset.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return np.asarray(data[selection])
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise DataError(f"{place(group, data.name)} is damaged: {error}") from error


def length_scale(group: h5py.Group, data: h5py.Dataset) -> float:
    """Å per unit of a dataset of lengths, from its attribute 'unit' or 'units'; 1 without one.

    Raises:
        DataError: a unit that is not known.
    """
    unit = data.attrs.get("unit", data.attrs.get("units", ""))
    unit = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else str(unit)
    if unit.strip().lower() not in LENGTHS:
        raise DataError(
            f"{place(group, data.name)} is in the unit '{unit}', which is not known; known are "
            "Angstrom, nm, pm and Bohr."
        )
    return LENGTHS[unit.strip().lower()]


def as_atomic_numbers(
    group: h5py.Group, data: h5py.Dataset, values: NDArray[Any], where: str = ""
) -> NDArray[np.int32]:
    """Atomic numbers from numbers, chemical symbols, or an enumeration of symbols.

    Raises:
        DataError: something that is no element.
    """
    label = place(group, data.name) + where
    enumeration = h5py.check_enum_dtype(data.dtype)
    if enumeration is not None:
        names = {value: name for name, value in enumeration.items()}
        values = np.array([names.get(v, str(v)) for v in values.ravel()]).reshape(values.shape)
    if values.dtype.kind in "OSU":
        return _from_symbols(label, values)
    if values.dtype.kind not in "iuf" or not np.all(values == np.floor(values)):
        raise DataError(f"{label} does not hold atomic numbers or chemical symbols.")
    if values.size and not 1 <= values.min() <= values.max() < len(chemical_symbols):
        wrong = values[(values < 1) | (values >= len(chemical_symbols))].ravel()[0]
        raise DataError(f"{label} holds {wrong}, which is no atomic number.")
    return values.astype(np.int32)


def _from_symbols(label: str, values: NDArray[Any]) -> NDArray[np.int32]:
    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.flat]
    wrong = sorted({t for t in texts if atomic_numbers.get(t.strip(), 0) == 0})
    if wrong:
        raise DataError(f"{label} holds '{wrong[0]}', which is no chemical symbol.")
    numbers = [atomic_numbers[t.strip()] for t in texts]
    return np.array(numbers, dtype=np.int32).reshape(values.shape)
