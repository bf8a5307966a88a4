"""Features of the structures of a file: stored in it, or computed; for `select`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError, InputError

if TYPE_CHECKING:
    import h5py

    from aiida_autopipe.core.dataset import Dataset
    from aiida_autopipe.core.descriptors.base import Descriptor

Per = Literal["structure", "environment"]
BLOCK_ATOMS = 65_536


@dataclass(frozen=True)
class Source:
    """Where features come from: a name of stored ones, or a descriptor with its model."""

    name: str | None
    kind: str
    model: Path | None
    trust: bool
    per: Per
    threads: int


@contextmanager
def open_dataset(path: Path) -> Iterator[Dataset]:
    """The structures of a file; those of a dataset file of ours stay in it until needed."""
    from aiida_autopipe.core.dataset import HDF5_SUFFIXES, Dataset, read_dataset

    if not path.is_file():
        raise DataError(f"There is no file '{path}'.")
    if path.suffix.lower() in HDF5_SUFFIXES:
        with Dataset.open(path) as dataset:
            yield dataset
    else:
        yield read_dataset(path)


@contextmanager
def stored_features(path: Path, dataset: Dataset, source: Source) -> Iterator[Any]:
    """Rows of features that `mlip-auto describe` wrote, read from the file block by block.

    Raises:
        InputError: there are none of that name, or only means where environments are asked for.
        DataError: their number is not that of the structures or atoms.
    """
    from aiida_autopipe.core.descriptors.stored import FEATURES, is_features, list_features
    from aiida_autopipe.core.foreign_arrays import follow
    from aiida_autopipe.core.hdf5_edit import open_read_only

    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise InputError(
            f"'{path}' is no dataset file and holds no features; leave --features out."
        )
    with open_read_only(path) as handle:
        data = follow(handle, f"{FEATURES}/{source.name}")
        if not is_features(data):
            there = ", ".join(sorted(list_features(path))) or "none"
            raise InputError(f"'{path}' has no features '{source.name}'; it has: {there}.")
        averaged = bool(data.attrs["average"])
        expected = len(dataset) if averaged else dataset.n_atoms
        if data.ndim != 2 or data.shape[0] != expected:
            raise DataError(
                f"'{path}': the features '{source.name}' have shape {data.shape}, but there are "
                f"{expected} {'structures' if averaged else 'atoms'}."
            )
        if averaged and source.per == "environment":
            raise InputError(
                f"The features '{source.name}' of '{path}' are means over the atoms of structures; "
                "--per environment needs those of atoms."
            )
        yield data if averaged or source.per == "environment" else _means(data, dataset.offsets)


def _means(data: h5py.Dataset, offsets: NDArray[np.int64]) -> NDArray[Any]:
    """(structures, F) means over atoms, read in blocks of whole structures."""
    result = np.empty((len(offsets) - 1, data.shape[1]), dtype=data.dtype)
    first = 0
    while first < len(result):
        last = int(np.searchsorted(offsets, offsets[first] + BLOCK_ATOMS, side="right")) - 1
        last = min(max(last, first + 1), len(result))
        block = data[offsets[first] : offsets[last]]
        starts = offsets[first:last] - offsets[first]
        sizes = np.diff(offsets[first : last + 1])[:, None]
        result[first:last] = np.add.reduceat(block, starts, axis=0) / sizes
        first = last
    return result


def make_descriptor_for(source: Source, elements: list[str]) -> Descriptor:
    """The descriptor of a source, for the elements of all files together."""
    from aiida_autopipe.core.descriptors.make import make_descriptor

    chosen = elements if source.model is None else []
    return make_descriptor(source.kind, {}, chosen, source.model, source.trust)


def computed_features(
    dataset: Dataset, path: Path, descriptor: Descriptor, source: Source
) -> NDArray[np.float64]:
    """Rows of features, (atoms, F) or their means (structures, F).

    Raises:
        DataError: a structure that cannot be described, with the file.
    """
    parts = []
    try:
        for block in dataset.iter_blocks():
            structures = list(block.iter_atoms())
            features = descriptor.compute(structures, threads=source.threads)
            if source.per == "structure":
                sizes = np.array([len(atoms) for atoms in structures])
                starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
                features = np.add.reduceat(features, starts, axis=0) / sizes[:, None]
            parts.append(features)
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error
    return np.concatenate(parts)
