"""Writing and appending to a dataset file with memory that does not grow with the file.

The layout is that of `aiida_autopipe.core.hdf5`, with arrays in chunks that can be extended. A file
is always what the last `DatasetWriter.flush` left, also after kill -9 or a loss of power; see
`aiida_autopipe.core.journal`.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.columns import join_attributes
from aiida_autopipe.core.dataset import BLOCK_ATOMS, Dataset
from aiida_autopipe.core.dataset_checks import check_block
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.files import complete_file
from aiida_autopipe.core.hdf5 import (
    DTYPES,
    FILL,
    FORMAT,
    PER_ATOM,
    PER_STRUCTURE,
    REQUIRED,
    VERSION,
    open_hdf5,
    read_attributes,
)
from aiida_autopipe.core.joining import MergedAttributes
from aiida_autopipe.core.journal import JournaledFile, uninterrupted
from aiida_autopipe.core.labels import LabelKeys
from aiida_autopipe.core.resizable import (
    as_kind,
    convert_column,
    create_resizable,
    extend,
    is_resizable,
    joint_type,
)

COMMIT_SECONDS = 10.0


class DatasetWriter:
    """Appends structures to a dataset file; use it in a ``with`` statement.

    Structures are collected and written in blocks. When the ``with`` block ends, also by an error
    of the program around it or Ctrl-C, what was appended is in the file. When writing itself fails,
    as on a full disk, the file is what the last `flush` left.

    Args:
        path: the file.
        append: add to the file if it exists. Without, it must not exist.
        attributes: values about the whole set, merged with those of the file and of appended
            datasets.
        commit_seconds: a flush is made when a block is full and the last was longer ago; None
            leaves it to `flush` and the end.
        promote: what to do with a column whose type differs: True turns numbers into text, False
            refuses it.

    Raises:
        InputError: the file exists and `append` is not set.
        DataError: the file is no dataset, or another process uses it.
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        append: bool = False,
        attributes: Mapping[str, Any] | None = None,
        commit_seconds: float | None = COMMIT_SECONDS,
        promote: bool = False,
    ) -> None:
        self.path = Path(path)
        self._commit_seconds = commit_seconds
        self._promote = promote
        self._pending: list[Dataset] = []
        self._pending_atoms = 0
        self._pending_structures = 0
        exists = self.path.exists()
        if exists and not append:
            raise InputError(f"'{path}' exists; append to it, or remove it first.")
        if exists:
            _make_appendable(self.path)
        else:
            _create_empty(self.path)
        self._file = JournaledFile(self.path, writable=True)
        try:
            self._handle = h5py.File(self._file, "r+")
            self._offsets = self._handle["offsets"]
            self._n = len(self._offsets) - 1
            self._n_atoms = int(self._offsets[-1])
            stored = read_attributes(self.path, self._handle)
            self._merged = MergedAttributes(stored, "energy" in self._handle and self._n > 0)
            columns = self._handle.get("columns", {})
            self._types: dict[str, np.dtype[Any]] = {n: d.dtype for n, d in columns.items()}
        except BaseException:
            self._file.abandon()
            self._file.close()
            raise
        self._committed_at = time.monotonic()
        self._stored_attributes = stored
        if attributes:
            self.set_attributes(attributes)

    # ------------------------------------------------------------------ what users call

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._n + self._pending_structures

    @property
    def attributes(self) -> dict[str, Any]:
        """Values about the whole set."""
        return dict(self._merged.values)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Merge values about the whole set; reference energies element by element.

        Raises:
            InputError: reference energies that differ.
        """
        self._merged.values = join_attributes([self._merged.values, attributes])

    def append(
        self,
        structures: Dataset | Atoms | Sequence[Atoms],
        columns: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
        keys: LabelKeys | None = None,
    ) -> None:
        """Add structures behind those of the file; an open dataset is read block by block.

        A label, mask or column that only some have is filled as by `Dataset.concatenate`. A column
        of int that becomes one of float later keeps the zeros of those that lacked it.

        Args:
            structures: what to add; labels and columns of Atoms as by `Dataset.from_atoms`.
            columns: per-structure values of Atoms.
            keys: names of the labels of Atoms.

        Raises:
            DataError: no atoms, NaN positions, or an unusable label, with the number of the
                structure.
            InputError: another label method, other reference energies, or a column of another type;
                the writer can go on without these structures.
            OSError: the disk is full; the file is what the last flush left.
        """
        self._check_open()
        if isinstance(structures, Dataset):
            self._check_columns(structures)
            self._merged.add(structures)
            for block in structures.iter_blocks():
                self._add(block)
            return
        atoms = [structures] if isinstance(structures, Atoms) else list(structures)
        if atoms:
            self._add(Dataset.from_atoms(atoms, columns, keys))

    def flush(self) -> None:
        """Write everything appended so far and make it survive whatever happens from now on.

        Raises:
            OSError: the disk is full; the file is what the last flush left.
        """
        self._check_open()
        self._guarded(self._commit)

    def close(self) -> None:
        """Flush, and close the file."""
        if not self._file.closed:
            self._guarded(self._finish)

    # ------------------------------------------------------------------ how it is done

    def _check_open(self) -> None:
        if self._file.closed:
            raise InputError(f"The writer of '{self.path}' is closed.")

    def _add(self, block: Dataset) -> None:
        check_block(block, len(self))
        self._types |= self._check_columns(block)
        self._pending.append(block)
        self._pending_structures += len(block)
        self._pending_atoms += block.n_atoms
        if self._pending_atoms >= BLOCK_ATOMS:
            self._guarded(self._write_pending)
            seconds = self._commit_seconds
            if seconds is not None and time.monotonic() - self._committed_at > seconds:
                self._guarded(self._commit)

    def _check_columns(self, dataset: Dataset) -> dict[str, np.dtype[Any]]:
        """Types of the columns with those of the dataset."""
        return {
            name: joint_type(name, self._types.get(name, v.dtype), v.dtype, self._promote)
            for name, v in dataset.columns.items()
        }

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something to the file; if that fails, it returns to the last flush."""
        with uninterrupted():
            try:
                action()
                if self._file.failure is not None:
                    raise self._file.failure
            except BaseException as error:
                self._file.abandon()
                with suppress(Exception):
                    self._handle.close()
                self._file.close()
                if isinstance(error, OSError) and error.errno is not None:
                    raise OSError(error.errno, error.strerror, str(self.path)) from error
                raise

    def _finish(self) -> None:
        self._commit()
        self._handle.close()
        self._file.commit()  # closing may have changed bookkeeping of the file
        self._file.close()

    def _commit(self) -> None:
        self._write_pending()
        if self._merged.values != self._stored_attributes:
            self._stored_attributes = dict(self._merged.values)
            text = json.dumps(self._stored_attributes, sort_keys=True)
            self._handle.attrs["attributes"] = text
        self._handle.flush()
        self._file.commit()
        self._committed_at = time.monotonic()

    def _write_pending(self) -> None:
        blocks = [self._converted(block) for block in self._pending]
        if blocks:
            self._write(blocks[0] if len(blocks) == 1 else Dataset.concatenate(blocks))
        self._pending, self._pending_structures, self._pending_atoms = [], 0, 0

    def _converted(self, block: Dataset) -> Dataset:
        """The block with its columns in the types that hold those of all structures."""
        columns = {name: as_kind(v, self._types[name]) for name, v in block.columns.items()}
        return replace(block, columns=columns)

    def _write(self, block: Dataset) -> None:
        handle, n, n_atoms = self._handle, len(block), block.n_atoms
        for name, shape in PER_ATOM.items():
            values, dtype = getattr(block, name), DTYPES[name]
            extend(handle, name, values, self._n_atoms, n_atoms, shape, dtype, FILL[name])
        for name, shape in PER_STRUCTURE.items():
            values, dtype = getattr(block, name), DTYPES[name]
            extend(handle, name, values, self._n, n, shape, dtype, FILL[name])
        self._write_columns(block)
        self._offsets.resize(self._n + n + 1, axis=0)
        self._offsets[self._n + 1 :] = self._n_atoms + block.offsets[1:]
        self._n += n
        self._n_atoms += n_atoms

    def _write_columns(self, block: Dataset) -> None:
        if not block.columns and "columns" not in self._handle:
            return
        group = self._handle.require_group("columns")
        for name in sorted({*group, *block.columns}):
            values, kind = block.columns.get(name), self._types[name]
            if name in group:
                convert_column(group, name, kind)
            if values is not None and kind.kind in "OU":
                if any("\0" in value for value in values):
                    raise DataError(f"Column '{name}' holds text with NUL characters.")
                values = values.astype(object)
            fill = np.nan if kind.kind == "f" else None
            extend(group, name, values, self._n, len(block), (), kind, fill)


def _create_empty(path: Path) -> None:
    """A dataset without structures; the file appears when it is complete."""
    content = io.BytesIO()
    with h5py.File(content, "w", libver=("earliest", "v110")) as file:
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        file.attrs["attributes"] = "{}"
        offsets = create_resizable(file, "offsets", 1, (), np.dtype(np.int64), None)
        offsets[0] = 0
        for name in REQUIRED[1:]:
            shape = PER_ATOM[name] if name in PER_ATOM else PER_STRUCTURE[name]
            create_resizable(file, name, 0, shape, np.dtype(DTYPES[name]), FILL[name])
    with complete_file(path) as target:
        target.write_bytes(content.getvalue())


def _make_appendable(path: Path) -> None:
    """Rewrite a file whose arrays cannot grow, such as one of `Dataset.write_hdf5`.

    Objects that are no part of the dataset, such as descriptors, are copied as they are.
    """
    if not path.is_file():
        raise DataError(f"'{path}' is not a file.")
    with open_hdf5(path) as handle:
        names = {"offsets": np.dtype(np.int64)} | {n: np.dtype(t) for n, t in DTYPES.items()}
        arrays = [is_resizable(handle[n], t) for n, t in names.items() if n in handle]
        if all(arrays) and all(is_resizable(d, None) for d in handle.get("columns", {}).values()):
            return
        others = [name for name in handle if name not in (*names, "columns")]
        with complete_file(path) as target:
            with Dataset.open(path) as source:
                target.unlink(missing_ok=True)
                with DatasetWriter(target, commit_seconds=None) as writer:
                    writer.append(source)
            with h5py.File(target, "r+") as copy:
                for name in others:
                    link = handle.get(name, getlink=True)
                    if isinstance(link, h5py.HardLink):
                        handle.copy(name, copy, name)
                    else:
                        copy[name] = link
