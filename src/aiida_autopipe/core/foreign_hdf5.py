"""Structures and trajectories in a group of an HDF5 file that another program wrote.

What is read is a dataset of positions with one of atomic numbers and one of cells, under the usual
names or names the user gives::

    positions  (T, n, 3)  a trajectory           numbers (n,) or (T, n)  cell (3, 3) or (T, 3, 3)
    positions  (n, 3)     one structure          numbers (n,)            cell (3, 3)
    positions  (N, 3)     with 'offsets' (T+1,)  numbers (N,)            cell (T, 3, 3) or (3, 3)

The last is the layout of `aiida_autopipe.core.hdf5`. A cell may also be three edges of a box,
(3,) or (T, 3), as H5MD has them. Numbers may be chemical symbols. Names may be paths, such as
``position/value`` or ``/atoms/Z``. Frames are read in blocks, never all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.foreign_arrays import (
    CELLS,
    MAX_ATOMS,
    NUMBERS,
    PBC,
    POSITIONS,
    FrameArray,
    as_atomic_numbers,
    contents,
    find,
    follow,
    frame_array,
    length_scale,
    place,
    read,
)

BLOCK_ATOMS = 65_536


@dataclass(frozen=True, eq=False)
class ForeignGroup:
    """Frames of one group; make it with `open`.

    Attributes:
        group: the group.
        offsets: (T+1,) rows of the flat arrays that are frame i, or None where all frames have the
            same number of atoms.
        shape: number of frames and of atoms per frame; the latter is 0 with offsets.
        positions: dataset of positions.
        scale: Å per unit of the positions.
        numbers: atomic numbers by frame, or the dataset (N,) with offsets.
        cell: cells by frame; None without.
        pbc: periodic directions by frame.
    """

    group: h5py.Group
    offsets: NDArray[np.int64] | None
    shape: tuple[int, int]
    positions: h5py.Dataset
    scale: float
    numbers: FrameArray | h5py.Dataset
    cell: FrameArray | None
    pbc: FrameArray | NDArray[np.bool_]

    @classmethod
    def open(
        cls,
        handle: h5py.Group,
        positions: str | None = None,
        numbers: str | None = None,
        cell: str | None = None,
        pbc: str | bool | Sequence[bool] | None = None,
    ) -> ForeignGroup:
        """Find the arrays of a group and check that they fit together.

        Args:
            handle: the group, or the open file.
            positions: name of the positions; None looks for a usual one.
            numbers: the same for the atomic numbers.
            cell: the same for the cells.
            pbc: name of the periodic directions, or their value for all frames; None reads 'pbc',
                and without that takes whatever has a cell as periodic.

        Raises:
            InputError: a name under which the group has nothing.
            DataError: something is missing, of another length, absurd, or stored in another file;
                no cells although `pbc` is not False.
        """
        data = find(handle, positions, POSITIONS, "positions")
        if data is None:
            raise DataError(
                f"{place(handle)} has no positions under a usual name; name the group and the "
                "dataset (--key, --positions). "
                f"It holds: {contents(handle)}."
            )
        offsets = _read_offsets(handle, data)
        shape = _frames_of(handle, data, offsets)
        types = find(handle, numbers, NUMBERS, "atomic numbers")
        if types is None:
            raise DataError(
                f"{place(handle)} has no atomic numbers under a usual name; name them (--numbers). "
                f"It holds: {contents(handle)}."
            )
        cells = _find_cells(handle, cell, shape[0])
        return cls(
            group=handle,
            offsets=offsets,
            shape=shape,
            positions=data,
            scale=length_scale(handle, data),
            numbers=_check_numbers(handle, types, data, offsets, shape),
            cell=cells,
            pbc=_find_pbc(handle, pbc, cells, shape[0]),
        )

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """(T,) atoms of each frame."""
        if self.offsets is not None:
            return np.diff(self.offsets)
        return np.broadcast_to(np.asarray(self.shape[1], dtype=np.int64), (self.shape[0],))

    def elements(self) -> list[str]:
        """Chemical symbols that occur, sorted alphabetically; positions are not read.

        Raises:
            DataError: something that is no atomic number, or damaged data.
        """
        found: set[int] = set()
        is_shared = isinstance(self.numbers, FrameArray) and self.numbers.shared is not None
        for start, stop in self._frame_ranges(BLOCK_ATOMS, 0, 1 if is_shared else len(self)):
            found.update(np.unique(self._numbers(start, stop)).tolist())
        return sorted(chemical_symbols[z] for z in found)

    def atoms(self, index: int) -> Atoms:
        """Frame `index`.

        Raises:
            DataError: NaN positions or cell, no volume although periodic, or damaged data.
            IndexError: there is no such frame.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of a group with {len(self)}")
        return self._read(index, index + 1)[0]

    def blocks(
        self, max_atoms: int = BLOCK_ATOMS, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, list[Atoms]]]:
        """Index of the first frame, and the frames, of each block of at most `max_atoms` atoms.

        A block has at least one frame. Only frames `start` to `stop` are read.

        Raises:
            DataError: as `atoms`.
        """
        end = len(self) if stop is None else min(stop, len(self))
        for first, following in self._frame_ranges(max_atoms, start, end):
            yield first, self._read(first, following)

    def _frame_ranges(self, max_atoms: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """First frame and first frame behind, of each block of at most `max_atoms` atoms."""
        while start < end:
            if self.offsets is None:
                count = max(1, max_atoms // self.shape[1])
            else:
                last = self.offsets[start] + max_atoms
                count = max(1, int(np.searchsorted(self.offsets, last, "right")) - 1 - start)
            following = min(start + count, end)
            yield start, following
            start = following

    def _read(self, start: int, stop: int) -> list[Atoms]:
        edges = self._edges(start, stop)
        positions = self._positions(start, stop)
        numbers = self._numbers(start, stop)
        cells = None if self.cell is None else _matrices(self.cell.read(start, stop))
        pbc = self.pbc.read(start, stop) if isinstance(self.pbc, FrameArray) else self.pbc
        periodic = np.broadcast_to(np.reshape(pbc, (-1, pbc.shape[-1])), (stop - start, 3))
        frames = []
        for k in range(stop - start):
            rows = slice(edges[k], edges[k + 1])
            cell = np.zeros((3, 3)) if cells is None else cells[k]
            self._check_frame(start + k, positions[rows], cell, periodic[k])
            frames.append(Atoms(numbers[rows], positions[rows], cell=cell, pbc=periodic[k] != 0))
        return frames

    def _edges(self, start: int, stop: int) -> NDArray[np.int64]:
        if self.offsets is None:
            return np.arange(stop - start + 1, dtype=np.int64) * self.shape[1]
        return np.asarray(self.offsets[start : stop + 1] - self.offsets[start])

    def _rows(self, start: int, stop: int) -> slice:
        """Rows or frames of the positions that belong to the frames."""
        if self.offsets is not None:
            return slice(int(self.offsets[start]), int(self.offsets[stop]))
        return slice(start, stop) if self.positions.ndim == 3 else slice(None)

    def _positions(self, start: int, stop: int) -> NDArray[np.float64]:
        values = read(self.group, self.positions, self._rows(start, stop)).astype(np.float64)
        return np.asarray(values.reshape(-1, 3) * self.scale)

    def _numbers(self, start: int, stop: int) -> NDArray[np.int32]:
        if not isinstance(self.numbers, FrameArray):
            values = read(self.group, self.numbers, self._rows(start, stop))
            where = f", frames {start} to {stop - 1},"
            return as_atomic_numbers(self.group, self.numbers, values, where)
        values = self.numbers.read(start, stop).reshape(-1)
        if self.numbers.shared is not None:  # checked when it was opened
            return np.asarray(values, dtype=np.int32)
        where = f", frames {start} to {stop - 1},"
        return as_atomic_numbers(self.group, self.numbers.data, values, where)

    def _check_frame(
        self, index: int, positions: NDArray[Any], cell: NDArray[Any], pbc: NDArray[Any]
    ) -> None:
        if not np.all(np.isfinite(positions)):
            raise DataError(f"{place(self.group)}, frame {index}: NaN or infinite positions.")
        if not np.all(np.abs(cell) < 1e50):  # the volume overflows beyond
            raise DataError(f"{place(self.group)}, frame {index}: NaN or infinite cell.")
        if np.all(pbc) and abs(np.linalg.det(cell)) < 1e-6:
            raise DataError(
                f"{place(self.group)}, frame {index}: periodic, but the cell has no volume; name "
                "other cells (--cell), or say that it is not periodic (--no-pbc)."
            )


def _read_offsets(group: h5py.Group, positions: h5py.Dataset) -> NDArray[np.int64] | None:
    data = follow(group, "offsets") if positions.ndim == 2 else None
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "iu" or data.ndim != 1:
        return None
    if data.external or data.is_virtual:
        raise DataError(f"{place(group, 'offsets')} is stored in another file, which is refused.")
    if not 2 <= data.size <= positions.shape[0] + 1:
        raise DataError(
            f"{place(group, 'offsets')} has {data.size} values: no frames, or too many."
        )
    offsets = read(group, data, ...).astype(np.int64)
    empty = np.flatnonzero(np.diff(offsets) == 0)
    if len(empty):
        raise DataError(f"{place(group)}, frame {empty[0]}: no atoms.")
    if offsets[0] != 0 or offsets[-1] != positions.shape[0] or np.any(np.diff(offsets) < 0):
        raise DataError(
            f"{place(group, 'offsets')} does not partition the {positions.shape[0]} rows of the "
            "positions."
        )
    return offsets


def _frames_of(
    group: h5py.Group, data: h5py.Dataset, offsets: NDArray[np.int64] | None
) -> tuple[int, int]:
    """Number of frames, and of atoms per frame; the latter is 0 with offsets."""
    if data.ndim not in (2, 3) or data.shape[-1] != 3 or data.dtype.kind not in "fiu":
        raise DataError(
            f"{place(group, data.name)} has shape {data.shape} and type {data.dtype}; positions "
            "are numbers of shape (frames, atoms, 3) or (atoms, 3)."
        )
    if data.size == 0:
        missing = "frames" if data.ndim == 3 and data.shape[0] == 0 else "atoms"
        raise DataError(f"{place(group, data.name)} has no {missing}: its shape is {data.shape}.")
    if data.id.get_storage_size() == 0:
        raise DataError(f"{place(group, data.name)} claims shape {data.shape} but holds nothing.")
    largest = data.shape[-2] if offsets is None else int(np.diff(offsets).max())
    if largest > MAX_ATOMS:
        raise DataError(f"{place(group, data.name)} claims {largest} atoms in one frame.")
    if offsets is not None:
        return len(offsets) - 1, 0
    return (data.shape[0] if data.ndim == 3 else 1), data.shape[-2]


def _check_numbers(
    group: h5py.Group,
    data: h5py.Dataset,
    positions: h5py.Dataset,
    offsets: NDArray[np.int64] | None,
    shape: tuple[int, int],
) -> FrameArray | h5py.Dataset:
    if offsets is not None:
        if data.shape != positions.shape[:1]:
            raise DataError(
                f"{place(group, data.name)} for the atomic numbers has shape {data.shape}; with "
                f"these positions it must be {positions.shape[:1]}."
            )
        return data
    found = frame_array(group, data, [(shape[1],)], shape[0], "atomic numbers")
    if found.shared is None:
        return found
    return FrameArray(group, data, found.shape, as_atomic_numbers(group, data, found.shared))


def _find_cells(group: h5py.Group, name: str | None, n_frames: int) -> FrameArray | None:
    data = find(group, name, CELLS, "cells")
    if data is None:
        return None
    if data.dtype.kind not in "fiu":
        raise DataError(f"{place(group, data.name)} for the cells holds {data.dtype}.")
    return frame_array(group, data, [(3, 3), (3,), (9,)], n_frames, "cells")


def _matrices(cells: NDArray[Any]) -> NDArray[np.float64]:
    """(T, 3, 3) from matrices, rows of nine or edges of rectangular boxes."""
    values = cells.astype(np.float64)
    if values.shape[1:] == (3,):
        return np.asarray(values[:, :, None] * np.eye(3))
    return values.reshape(-1, 3, 3)


def _find_pbc(
    group: h5py.Group,
    pbc: str | bool | Sequence[bool] | None,
    cells: FrameArray | None,
    n_frames: int,
) -> FrameArray | NDArray[np.bool_]:
    found: FrameArray | NDArray[np.bool_]
    if pbc is not None and not isinstance(pbc, str):
        found = np.broadcast_to(np.asarray(pbc, dtype=bool), (3,))
    else:
        data = find(group, pbc, PBC, "periodic directions")
        if data is not None:
            if data.dtype.kind not in "biu":
                raise DataError(
                    f"{place(group, data.name)} for the periodic directions holds {data.dtype}."
                )
            found = frame_array(group, data, [(3,), (1,), ()], n_frames, "periodic directions")
            if found.shape == ():
                shared = None if found.shared is None else found.shared.reshape(1)
                found = FrameArray(group, data, (1,), shared)
        else:
            found = _h5md_boundary(cells)
    value = found.shared if isinstance(found, FrameArray) else found
    if cells is None and (value is None or np.any(value)):
        raise DataError(
            f"{place(group)} has no cells under a usual name; name them (--cell), or say that the "
            f"structures are not periodic (--no-pbc). It holds: {contents(group)}."
        )
    return found


def _h5md_boundary(cells: FrameArray | None) -> NDArray[np.bool_]:
    """Periodic directions from the attribute 'boundary' of a box; all where there is none."""
    box = None if cells is None else cells.data.parent
    for _ in range(2):
        words = None if box is None else box.attrs.get("boundary")
        if words is not None and np.shape(words) == (3,):
            texts = [w.decode("utf-8", "replace") if isinstance(w, bytes) else w for w in words]
            return np.array([text == "periodic" for text in texts])
        box = None if box is None else box.parent
    return np.ones(3, dtype=bool)
