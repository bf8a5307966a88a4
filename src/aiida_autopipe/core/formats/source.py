"""Any file of structures as a stream of datasets that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from aiida_autopipe.core.dataset import BLOCK_ATOMS, HDF5_SUFFIXES, Dataset
from aiida_autopipe.core.dataset_checks import check_block
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.formats.ase_files import (
    count_rows,
    open_trajectory,
    read_database,
    read_trajectory,
)
from aiida_autopipe.core.formats.columns import ColumnCollector
from aiida_autopipe.core.formats.extxyz import read_extxyz
from aiida_autopipe.core.formats.foreign import GroupNames, count_foreign, read_foreign
from aiida_autopipe.core.formats.frames import Frame, FrameRange
from aiida_autopipe.core.formats.lammps_dump import read_lammps_dump
from aiida_autopipe.core.hdf5 import FORMAT, open_committed
from aiida_autopipe.core.labels import LabelKeys, Labels, flat_arrays, read_labels
from aiida_autopipe.core.structure_files import read_structures

BLOCK_FRAMES = 4096

READABLE = ("hdf5", "extxyz", "traj", "db", "json", "lammps", "ase")
"""Formats that are read; 'hdf5' is ours or that of another program, 'ase' any that ASE knows."""

_SUFFIXES = {
    **dict.fromkeys(HDF5_SUFFIXES, "hdf5"),
    ".xyz": "extxyz", ".extxyz": "extxyz", ".traj": "traj", ".db": "db", ".json": "json",
    ".dump": "lammps", ".lammpstrj": "lammps", ".lammpsdump": "lammps",
}  # fmt: skip


def format_of(path: Path) -> str | None:
    """Format of a file by its ending, also before .gz, .bz2 or .xz; None if it tells nothing."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".bz2", ".xz"):
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


class Block(NamedTuple):
    """Structures in memory, and what has been read of the file, in the unit of `Source.total`."""

    data: Dataset
    progress: int


@dataclass
class Source:
    """A file of structures.

    Attributes:
        path: the file.
        format: one of `READABLE`; None goes by the ending.
        wanted: which frames.
        keys: names of the labels.
        elements: chemical symbols of the atom types of LAMMPS.
        names: groups and datasets in HDF5 files of other programs; None takes the root group.
    """

    path: Path
    format: str | None = None
    wanted: FrameRange = field(default_factory=FrameRange)
    keys: LabelKeys = field(default_factory=LabelKeys)
    elements: tuple[str, ...] | None = None
    names: GroupNames | None = None
    attributes: dict[str, Any] = field(default_factory=dict, init=False)
    """Values about the whole set, from a dataset file."""
    left_out: set[str] = field(default_factory=set, init=False)
    """What structures had and datasets do not keep; complete when all blocks were read."""

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise DataError(f"There is no file '{self.path}'.")
        self.format = self.format or format_of(self.path) or "ase"
        if self.format not in READABLE:
            raise InputError(f"the format '{self.format}' is none of {', '.join(READABLE)}")

    @property
    def is_dataset(self) -> bool:
        """True for our own layout, read without the names of another program's."""
        if self.format != "hdf5" or self.names is not None:
            return False
        with open_committed(self.path) as handle:
            return bool(handle.attrs.get("format") == FORMAT)

    @property
    def total(self) -> int:
        """Size of the whole in the unit of `Block.progress`: bytes of text, else frames."""
        if self.format in ("extxyz", "lammps", "ase"):
            return self.path.stat().st_size
        return self._count_stored()

    def count(self) -> int:
        """Number of wanted frames; text files are read through for it.

        Raises:
            DataError: as `blocks`, for what is seen without reading the frames.
        """
        if self.format == "ase":
            return len(self.wanted.indices(len(read_structures(self.path))))
        if self.format in ("extxyz", "lammps"):
            nothing = FrameRange(start=1 << 62)
            last = -1
            for frame in self._frames(nothing):
                last = frame.number
            return len(self.wanted.indices(last + 1))
        return len(self.wanted.indices(self._count_stored()))

    def _count_stored(self) -> int:
        if self.format == "traj":
            with open_trajectory(self.path) as trajectory:
                return len(trajectory)
        if self.format in ("db", "json"):
            return count_rows(self.path)
        if self.is_dataset:
            with Dataset.open(self.path) as dataset:
                return len(dataset)
        return count_foreign(self.path, self.names or GroupNames())

    def blocks(self) -> Iterator[Block]:
        """The wanted structures, block by block, each checked.

        Raises:
            DataError: with the file and the frame, for what cannot be read or used.
            InputError: a name under which the file has nothing, or no frame is wanted.
        """
        found = False
        for block in self._dataset_blocks() if self.is_dataset else self._frame_blocks():
            found = True
            yield block
        if not found:
            raise InputError(f"no structure of '{self.path}' is in the range that was asked for")

    def _dataset_blocks(self) -> Iterator[Block]:
        with Dataset.open(self.path) as dataset:
            self.attributes = dataset.attributes
            chosen = self.wanted.indices(len(dataset))
            done = 0
            while done < len(chosen):
                count = _fitting(dataset, chosen, done)
                part = chosen[done : done + count]
                selected = slice(part[0], part[-1] + 1) if part.step == 1 else list(part)
                block = dataset[selected]
                self._check(block, part)
                done += count
                yield Block(block, part[-1] + 1)

    def _frame_blocks(self) -> Iterator[Block]:
        collector, seen = (
            ColumnCollector(self.keys),
            {"energy": False, "forces": False, "stress": False},
        )
        self.left_out = collector.left_out
        pending: list[Frame] = []
        n_atoms = 0
        for frame in self._frames(self.wanted):
            if frame.atoms is None:
                continue
            pending.append(frame)
            n_atoms += len(frame.atoms)
            if n_atoms >= BLOCK_ATOMS or len(pending) >= BLOCK_FRAMES:
                yield self._block(pending, collector, seen)
                pending, n_atoms = [], 0
        if pending:
            yield self._block(pending, collector, seen)
        for name, has in seen.items():
            key = getattr(self.keys, name)
            if key is not None and not has:
                raise InputError(f"'{self.path}' has no {name} under the key '{key}'")

    def _block(
        self, frames: list[Frame], collector: ColumnCollector, seen: dict[str, bool]
    ) -> Block:
        structures = [frame.atoms for frame in frames if frame.atoms is not None]
        found: list[Labels] = []
        for frame, atoms in zip(frames, structures, strict=True):
            try:
                found.append(read_labels(frame.number, atoms, self.keys))
            except DataError as error:
                raise DataError(f"'{self.path}': {error}") from error
        for name in seen:
            seen[name] = seen[name] or any(getattr(f, name) is not None for f in found)
        columns = collector.columns(structures)
        data = Dataset(**flat_arrays(structures, found), columns=columns)
        self._check(data, [frame.number for frame in frames])
        return Block(data, frames[-1].progress)

    def _check(self, block: Dataset, indices: Any) -> None:
        """Check a block; messages have the number of the frame in the file."""
        try:
            check_block(block, indices[0])
        except DataError:
            for k, index in enumerate(indices):
                try:
                    check_block(block[k : k + 1], index)
                except DataError as error:
                    raise DataError(f"'{self.path}': {error}") from error
            raise

    def _frames(self, wanted: FrameRange) -> Iterator[Frame]:
        if self.format == "extxyz":
            return read_extxyz(self.path, wanted)
        if self.format == "lammps":
            return read_lammps_dump(self.path, wanted, self.elements)
        if self.format == "traj":
            return read_trajectory(self.path, wanted)
        if self.format in ("db", "json"):
            return read_database(self.path, wanted)
        if self.format == "hdf5":
            return read_foreign(self.path, wanted, self.names or GroupNames(), self.keys)
        return self._with_ase(wanted)

    def _with_ase(self, wanted: FrameRange) -> Iterator[Frame]:
        structures: list[Atoms] = read_structures(self.path)
        size = self.path.stat().st_size
        for index in wanted.indices(len(structures)):
            yield Frame(index, structures[index], size * (index + 1) // len(structures))


def _fitting(dataset: Dataset, chosen: range, done: int) -> int:
    """How many of the chosen structures from `done` on make a block."""
    part = np.asarray(chosen[done : done + BLOCK_FRAMES])
    sizes = dataset.offsets[part + 1] - dataset.offsets[part]
    return max(1, int(np.searchsorted(np.cumsum(sizes), BLOCK_ATOMS, "right")))
