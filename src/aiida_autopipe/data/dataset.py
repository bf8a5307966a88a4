"""DatasetData: one node holds one Dataset as an HDF5 file."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from aiida.orm import SinglefileData
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.descriptors.stored import list_features, read_features

FILENAME = "dataset.h5"


class DatasetData(SinglefileData):
    """Many structures in one node; its attributes make it findable without opening files.

    Attributes in the database: `n_structures`, `n_atoms`, `elements`, `labelled`, `composition`
    (atoms per element), `origins` (structures per origin), `content_hash`, `method`,
    `method_fingerprint`, and where there are any `features` (see `from_file`).
    """

    def __init__(self, dataset: Dataset | None = None, **kwargs: Any) -> None:
        """Create the node from a Dataset in memory."""
        if dataset is None:
            super().__init__(**kwargs)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / FILENAME
            dataset.write_hdf5(path)
            super().__init__(file=path, filename=FILENAME, **kwargs)
        self.base.attributes.set_many(_summary(dataset))

    @classmethod
    def from_file(cls, path: Path) -> DatasetData:
        """A node of a dataset file, with the features it may have.

        The attribute `features` names them, each with its `type` and whether it is an `average`.
        """
        node = cls(file=path, filename=FILENAME)
        with Dataset.open(path) as dataset:
            node.base.attributes.set_many(_summary(dataset))
        node.base.attributes.set("features", list_features(path))
        return node

    def get_features(self, name: str) -> NDArray[np.floating]:
        """Features by name: (atoms, F), or where they are averages (structures, F).

        Raises:
            InputError: the node has none of that name.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / FILENAME
            self.copy_to(path)
            return read_features(path, name)

    def get_dataset(self) -> Dataset:
        """The Dataset, read into memory."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / FILENAME
            self.copy_to(path)
            return Dataset.read_hdf5(path)

    def copy_to(self, path: Path) -> None:
        """Write the HDF5 file to `path`."""
        with self.open(mode="rb") as source, path.open("wb") as target:
            while block := source.read(1 << 20):
                target.write(block)

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return int(self.base.attributes.get("n_structures"))

    @property
    def elements(self) -> list[str]:
        """Chemical symbols, sorted."""
        return list(self.base.attributes.get("elements"))

    @property
    def labelled(self) -> bool:
        """True when every structure has an energy and forces."""
        return bool(self.base.attributes.get("labelled"))

    @property
    def method_fingerprint(self) -> str | None:
        """Hash of the label method, None for unlabelled datasets."""
        value = self.base.attributes.get("method_fingerprint", None)
        return None if value is None else str(value)


def _summary(dataset: Dataset) -> dict[str, Any]:
    counts = Counter(chemical_symbols[z] for z in dataset.numbers[:])
    origins = Counter(str(origin) for origin in dataset.columns.get("origin", ()))
    return {
        "n_structures": len(dataset),
        "n_atoms": dataset.n_atoms,
        "elements": dataset.elements,
        "labelled": dataset.labelled,
        "composition": dict(sorted(counts.items())),
        "origins": dict(sorted(origins.items())),
        "content_hash": dataset.content_hash(),
        "method": dataset.attributes.get("method") or {},
        "method_fingerprint": dataset.method_fingerprint,
    }
