"""The most informative frames of an exploration, by what is known already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.descriptors.base import AveragingDescriptor, Descriptor
from aiida_autopipe.core.descriptors.make import make_descriptor
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.explore.parts import ATTRIBUTE
from aiida_autopipe.core.select.coverage import coverage
from aiida_autopipe.core.select.rows import as_rows
from aiida_autopipe.core.select.selectors import check_method, select_at_most


@dataclass(frozen=True, eq=False)
class Choice:
    """Chosen frames without the surrogate's labels, and what they cover next to random choices.

    indices: (n,) of the pool, ascending; structures: the frames; coverage: numbers of
    `select.coverage`.
    """

    indices: NDArray[np.int64]
    structures: Dataset
    coverage: dict[str, Any]


def choose(
    pool: Dataset,
    n: int,
    method: str = "direct",
    known: Dataset | None = None,
    seed: int = 0,
    descriptor: Descriptor | None = None,
    threads: int = 1,
) -> Choice:
    """Choose frames by the mean of their atoms' features.

    Args:
        pool: the frames; an open file is read block by block.
        n: how many; fewer where the pool has fewer different ones.
        method: 'direct', 'fps' or a registered selector.
        known: structures that are labelled or will be; what is near to them is not chosen.
        seed: of what is random in the method.
        descriptor: None takes SOAP.
        threads: results do not depend on it.

    Raises:
        InputError: an unknown method, or n below 1.
        DataError: a structure that cannot be described.
    """
    check_method(method)
    if n < 1:
        raise InputError(f"At least one frame must be chosen, not {n}.")
    elements = {*pool.elements, *(known.elements if known is not None else ())}
    descriptor = descriptor or make_descriptor("soap", {}, sorted(elements))
    features = _averages(pool, descriptor, threads)
    before = None
    if known is not None and len(known):
        before = _averages(known, descriptor, threads)
    indices = np.sort(select_at_most(method, features, min(n, len(pool)), before, seed))
    numbers: dict[str, Any] = {}
    if len(indices):
        rows = None if before is None else as_rows(before, "covered set")
        numbers = coverage(as_rows(features), indices, rows, seed, threads).numbers()
    return Choice(indices, without_labels(pool[indices]), numbers)


def without_labels(frames: Dataset) -> Dataset:
    """The structures alone: labels of a surrogate are no labels to learn from unasked."""
    kept = {k: v for k, v in frames.attributes.items() if k not in ("method", ATTRIBUTE)}
    return replace(frames, energy=None, forces=None, stress=None, attributes=kept)


def _averages(dataset: Dataset, descriptor: Descriptor, threads: int) -> NDArray[np.float64]:
    """(structures, F) means over the atoms of each structure."""
    parts = []
    for block in dataset.iter_blocks():
        structures: Sequence[Atoms] = list(block.iter_atoms())
        if isinstance(descriptor, AveragingDescriptor):
            parts.append(descriptor.averages(structures, threads=threads))
            continue
        features = descriptor.compute(structures, threads=threads)
        sums = np.add.reduceat(features, block.offsets[:-1], axis=0)
        parts.append(sums / block.sizes[:, None])
    return np.concatenate(parts)
