"""Datasets one behind the other: labels, columns and attributes that only some have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aiida_autopipe.core.columns import fingerprint, join_arrays, join_attributes, join_columns
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.hdf5 import FILL, PER_ATOM, PER_STRUCTURE

if TYPE_CHECKING:
    from aiida_autopipe.core.dataset import Dataset


def join_datasets(parts: Sequence[Dataset]) -> dict[str, Any]:
    """Fields of the dataset that holds all structures of all parts; see `Dataset.concatenate`.

    Raises:
        InputError: as `Dataset.concatenate`.
    """
    if not parts:
        raise InputError("Nothing to concatenate: the list of datasets is empty.")
    sources = {p.method_fingerprint: p for p in parts if p.energy is not None and len(p)}
    methods = sorted(name for name in sources if name is not None)
    refuse_methods(methods)
    attributes = join_attributes([p.attributes for p in parts])
    if methods:
        attributes["method"] = sources[methods[0]].attributes["method"]
    arrays: dict[str, Any] = {}
    for name, shape in (PER_ATOM | PER_STRUCTURE).items():
        counts = [p.n_atoms if name in PER_ATOM else len(p) for p in parts]
        arrays[name] = join_arrays([getattr(p, name) for p in parts], counts, shape, FILL[name])
    names = sorted({name for p in parts for name in p.columns})
    stores, lengths = [p.columns for p in parts], [len(p) for p in parts]
    columns = {name: join_columns(name, stores, lengths) for name in names}
    sizes = np.concatenate([p.sizes for p in parts])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return {"offsets": offsets, **arrays, "columns": columns, "attributes": attributes}


def refuse_methods(methods: Sequence[str]) -> None:
    """Refuse more than one label method.

    Raises:
        InputError: with the fingerprints.
    """
    if len(methods) > 1:
        raise InputError(
            f"Datasets labelled with different methods ({', '.join(methods)}) cannot be "
            "merged: their energies are not comparable; relabel one of them."
        )


class MergedAttributes:
    """Attributes of datasets that are added one after the other.

    Args:
        attributes: those of what is there before.
        labelled: True when that has labels.
    """

    def __init__(self, attributes: Mapping[str, Any] | None = None, labelled: bool = False) -> None:
        self.values = dict(attributes or {})
        self._labelled = labelled

    def add(self, dataset: Dataset) -> None:
        """Merge the attributes of a dataset; the method is that of the labelled structures.

        Raises:
            InputError: another label method, or other reference energies; nothing is merged then.
        """
        labelled = dataset.energy is not None and len(dataset) > 0
        known = fingerprint(self.values) if self._labelled else None
        found = dataset.method_fingerprint if labelled else None
        refuse_methods(sorted({name for name in (known, found) if name is not None}))
        joined = join_attributes([self.values, dataset.attributes])
        if known is not None:
            joined["method"] = self.values["method"]
        self.values = joined
        self._labelled |= labelled
