"""Features of structures that are in an HDF5 file already, added to that file.

Whoever ran molecular dynamics with a calculator that has no descriptors has trajectories and no
features. `add_descriptors` reads positions, numbers and cells of a group, whatever program wrote
them (`aiida_autopipe.core.foreign_hdf5`), and writes one dataset beside them::

    positions (T, n, 3)      ->  GROUP/NAME (T, n, F), averaged over atoms (T, F)
    positions (n, 3)         ->  GROUP/NAME (n, F),    averaged (F,)
    positions (N, 3), offsets    GROUP/NAME (N, F),    averaged (T, F)
    a dataset file of ours   ->  /features/NAME (N, F), averaged (T, F)

By the attributes of the new dataset (`aiida_autopipe.core.descriptors.stored`) a second call
recognises that there is nothing to do.

Everything else in the file stays as it is, and the file is at every moment the old or the new one:
see `aiida_autopipe.core.hdf5_edit`. All structures are checked before anything is computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe import __version__
from aiida_autopipe.core.descriptors.base import AveragingDescriptor, Descriptor
from aiida_autopipe.core.descriptors.stored import FEATURES, difference, is_features
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.foreign_arrays import contents, follow, place
from aiida_autopipe.core.foreign_hdf5 import ForeignGroup
from aiida_autopipe.core.hdf5 import FORMAT
from aiida_autopipe.core.hdf5_edit import (
    check_writable,
    edited,
    file_state,
    finish_commit,
    open_read_only,
)

Precision = Literal["float32", "float64"]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, 'check' or 'describe', frames done, and frames in all."""

BLOCK_ATOMS = 4096
BLOCK_BYTES = 1 << 25


@dataclass(frozen=True)
class Added:
    """What became of one group.

    key: the group; dataset: path of the features in the file; shape: of the features; frames:
    structures described; written: False where the same features were there already.
    """

    key: str
    dataset: str
    shape: tuple[int, ...]
    frames: int
    written: bool


@dataclass(frozen=True)
class _Plan:
    """Features to be written for one group."""

    source: ForeignGroup
    key: str
    parent: str
    name: str
    shape: tuple[int, ...]
    attributes: dict[str, Any]
    is_there: bool

    @property
    def dataset(self) -> str:
        return f"{self.parent.rstrip('/')}/{self.name}"


def add_descriptors(
    path: str | Path,
    key: str | Sequence[str],
    descriptor: Descriptor,
    *,
    name: str | None = None,
    average: bool = False,
    overwrite: bool = False,
    threads: int = 1,
    positions: str | None = None,
    numbers: str | None = None,
    cell: str | None = None,
    pbc: str | bool | Sequence[bool] | None = None,
    dtype: Precision = "float64",
    progress: Progress | None = None,
) -> list[Added]:
    """Describe the structures of one or more groups of an HDF5 file, and add the features to it.

    Several groups are written together: the file gets the features of all, or of none.

    Args:
        path: the file.
        key: path of a group in it, or several.
        descriptor: what describes.
        name: of the new dataset; None takes the kind of the descriptor, such as 'soap'.
        average: the mean over the atoms of each structure instead of a row for each atom.
        overwrite: replace features of other settings, or of structures that have changed since.
        threads: threads of the descriptor; they do not change the result.
        positions, numbers, cell, pbc: names of the datasets, see `ForeignGroup.open`.
        dtype: type of the stored numbers; they are computed in double precision.
        progress: called as the work goes on.

    Returns:
        One entry for each key, in order.

    Raises:
        InputError: no such group, the file is read-only, or there are other features of that name
            and `overwrite` is False.
        DataError: the file is damaged or in use; no atoms, no cells, arrays that do not fit
            together, NaN, or an element that the descriptor does not know. The file is untouched.
    """
    keys = [key] if isinstance(key, str) else list(key)
    name = descriptor.kind if name is None else name
    _check_request(keys, name)
    report = progress or _no_progress
    names: dict[str, Any] = {"positions": positions, "numbers": numbers, "cell": cell, "pbc": pbc}
    finish_commit(path)
    with open_read_only(path) as handle:
        since = file_state(path)
        groups = [open_group(handle, k) for k in keys]
        sources = [ForeignGroup.open(group, **names) for group in groups]
        total = sum(len(source) for source in sources)
        plans: list[_Plan] = []
        for one, source in zip(keys, sources, strict=True):
            tick = _counter(
                report, "check", sum(plan.attributes["frames"] for plan in plans), total
            )
            plan = _plan(source, one, name, descriptor, average, dtype, tick)
            plans.append(plan)
            _check_present(plan, dtype, overwrite)
        open_plans = [plan for plan in plans if not plan.is_there]
        if open_plans:
            check_writable(path)
            more = sum(int(np.prod(plan.shape)) for plan in open_plans) * np.dtype(dtype).itemsize
            with edited(path, since, more) as copy:
                _write_all(copy, open_plans, descriptor, average, dtype, threads, report)
    return [Added(p.key, p.dataset, p.shape, p.attributes["frames"], not p.is_there) for p in plans]


def _no_progress(_what: str, _done: int, _total: int) -> None:
    return None


def _counter(report: Progress, what: str, before: int, total: int) -> Callable[[int], None]:
    return lambda done: report(what, before + done, total)


def _check_request(keys: Sequence[str], name: str) -> None:
    if not keys:
        raise InputError("Nothing to describe: no group was named.")
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise InputError(f"The group '{repeated[0]}' was named twice.")
    if not name or "/" in name or name == "." or not name.isprintable():
        raise InputError(f"'{name}' is no name for a dataset; take letters and digits.")


def open_group(handle: h5py.File, key: str) -> h5py.Group:
    """A group by its path.

    Raises:
        InputError: there is none.
    """
    group = follow(handle, key)
    if isinstance(group, h5py.Dataset):
        raise InputError(f"'{key}' in '{handle.filename}' is a dataset; give the group it is in.")
    if not isinstance(group, h5py.Group):
        raise InputError(
            f"'{handle.filename}' has no group '{key}'; at the top it holds: {contents(handle)}."
        )
    return group


# ---------------------------------------------------------------------- what is to be done


def _plan(
    source: ForeignGroup,
    key: str,
    name: str,
    descriptor: Descriptor,
    average: bool,
    dtype: Precision,
    tick: Callable[[int], None],
) -> _Plan:
    """Read and check all structures of a group; compare with the features that are there."""
    group = source.group
    settings = descriptor.settings()
    attributes: dict[str, Any] = {
        "type": descriptor.kind,
        "settings": json.dumps(settings),
        "average": average,
        "frames": len(source),
        "source_sha256": _survey(source, descriptor, tick),
        "program": f"aiida-autopipe {__version__}",
    }
    if "model_sha256" in settings:
        attributes["model_sha256"] = settings["model_sha256"]
    is_ours = group.attrs.get("format") == FORMAT
    parent = f"{group.name.rstrip('/')}/{FEATURES}" if is_ours else group.name
    shape = _shape(source, descriptor.n_features, average)
    plan = _Plan(source, key, parent, name, shape, attributes, is_there=False)
    present = follow(group.file, plan.dataset)
    if present is None or difference(present, plan.attributes, plan.shape, dtype):
        return plan
    return _Plan(source, key, parent, name, shape, attributes, is_there=True)


def _shape(source: ForeignGroup, n_features: int, average: bool) -> tuple[int, ...]:
    leading = source.positions.shape[:-1]
    if average:
        leading = leading[:-1] if source.offsets is None else (len(source),)
    return (*leading, n_features)


def _survey(source: ForeignGroup, descriptor: Descriptor, tick: Callable[[int], None]) -> str:
    """Hash of all structures, after a check that each can be described."""
    known = np.zeros(len(chemical_symbols), dtype=bool)
    known[[chemical_symbols.index(symbol) for symbol in descriptor.elements]] = True
    digest = hashlib.sha256()
    for start, frames in source.blocks():
        for index, atoms in enumerate(frames, start):
            unknown = sorted({chemical_symbols[z] for z in atoms.numbers[~known[atoms.numbers]]})
            if unknown:
                raise DataError(
                    f"{place(source.group)}, frame {index}: contains {', '.join(unknown)}, but the "
                    f"descriptor knows only {_listed(descriptor.elements)}."
                )
            digest.update(np.int64(len(atoms)).tobytes())
            for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
                digest.update(np.ascontiguousarray(array).tobytes())
        tick(start + len(frames))
    return digest.hexdigest()


def _listed(elements: Sequence[str], most: int = 12) -> str:
    more = f" and {len(elements) - most} more" if len(elements) > most else ""
    return ", ".join(elements[:most]) + more


def _check_present(plan: _Plan, dtype: Precision, overwrite: bool) -> None:
    """Refuse to replace what is there, unless it is features and that is asked for."""
    present = follow(plan.source.group.file, plan.dataset)
    if present is None or plan.is_there:
        return
    where = f"'{plan.source.group.file.filename}', '{plan.dataset}'"
    if not is_features(present):
        raise InputError(
            f"{where} is there already and was not written by this command; give the features "
            "another name (--name)."
        )
    if not overwrite:
        what = difference(present, plan.attributes, plan.shape, dtype)
        raise InputError(
            f"{where} {what}; replace the features (--overwrite), or give the new ones another "
            "name (--name)."
        )


# ---------------------------------------------------------------------- writing


def _write_all(
    copy: h5py.File,
    plans: Sequence[_Plan],
    descriptor: Descriptor,
    average: bool,
    dtype: Precision,
    threads: int,
    report: Progress,
) -> None:
    total, done = sum(len(plan.source) for plan in plans), 0
    report("describe", 0, total)
    for plan in plans:
        data = _make(copy, plan, dtype)
        row = 0
        for start, n_frames, block in _features(plan.source, descriptor, average, threads):
            _put(data, plan, start, row, block.astype(dtype))
            row += len(block)
            report("describe", done + start + n_frames, total)
        done += len(plan.source)


def _make(copy: h5py.File, plan: _Plan, dtype: Precision) -> h5py.Dataset:
    """The dataset of a plan with its attributes, without features yet."""
    parent = copy.require_group(plan.parent)
    data = parent.get(plan.name)
    # HDF5 does not give space back that a deleted dataset leaves: take its place where it fits.
    if data is None or data.shape != plan.shape or data.dtype != np.dtype(dtype):
        if data is not None:
            del parent[plan.name]
        data = parent.create_dataset(plan.name, plan.shape, dtype=dtype, track_times=False)
    for name in set(data.attrs) - set(plan.attributes):
        del data.attrs[name]
    for name, value in plan.attributes.items():
        data.attrs[name] = value
    return data


def _put(
    data: h5py.Dataset, plan: _Plan, start: int, row: int, block: NDArray[np.floating]
) -> None:
    """Write a block of rows: of atoms or frames in a flat dataset, else of whole frames."""
    if len(plan.shape) == 3:
        frames = block.reshape(-1, *plan.shape[1:])
        data[start : start + len(frames)] = frames
    elif len(plan.shape) == 1:
        data[...] = block[0]
    else:
        data[row : row + len(block)] = block


def _features(
    source: ForeignGroup, descriptor: Descriptor, average: bool, threads: int
) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    """First frame, number of frames, and features or averages, of one block after the other."""
    fitting = BLOCK_BYTES // (8 * descriptor.n_features)
    for start, frames in source.blocks(max(1, min(BLOCK_ATOMS, fitting))):
        try:
            features = (
                _averages(descriptor, frames, threads)
                if average
                else (descriptor.compute(frames, threads=threads))
            )
        except DataError as error:
            _blame(source, start, frames, descriptor)
            raise DataError(f"{place(source.group)}: {error}") from error
        if not np.all(np.isfinite(features)):
            raise DataError(
                f"{place(source.group)}, frames {start} to {start + len(frames) - 1}: the features "
                "are not finite."
            )
        yield start, len(frames), features


def _averages(descriptor: Descriptor, frames: Sequence[Atoms], threads: int) -> NDArray[np.float64]:
    """(T, F) means over the atoms of each frame."""
    if isinstance(descriptor, AveragingDescriptor):
        return descriptor.averages(frames, threads=threads)
    features = descriptor.compute(frames, threads=threads)
    sizes = np.array([len(atoms) for atoms in frames], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return np.asarray(np.add.reduceat(features, starts, axis=0) / sizes[:, None])


def _blame(
    source: ForeignGroup, start: int, frames: Sequence[Atoms], descriptor: Descriptor
) -> None:
    """Say which frame of a block cannot be described."""
    for index, atoms in enumerate(frames, start):
        try:
            descriptor.compute([atoms])
        except DataError as error:
            reason = str(error).removeprefix("Structure 0: ")
            raise DataError(f"{place(source.group)}, frame {index}: {reason}") from error
