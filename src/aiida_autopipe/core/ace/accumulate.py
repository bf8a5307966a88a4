"""From structures to the sums of a fit, on all cores and with the same result on any number.

Structures are taken in chunks of one fold, a chunk is turned into sums by one thread, and the sums
of chunks are added in order: neither memory nor rounding depends on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.basis import Basis
from aiida_autopipe.core.ace.equations import KINDS, Equations, FewRows
from aiida_autopipe.core.ace.fit_data import TrainingSet
from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.ace.sums import Sums

Array = NDArray[np.float64]
StressJudge = Callable[[int, Array, Array], tuple[Array, NDArray[np.bool_]]]

# Rows of one chunk: enough for BLAS to work at full speed, few enough to bound memory.
_CHUNK_ROWS = 2000
# A thread holds the rows of one chunk and sums of its own; together they stay below this.
_CHUNK_BYTES = 2**30


class Chunk(NamedTuple):
    """What one chunk adds: sums by kind, and rows of the kinds that are kept."""

    fold: int
    sums: dict[str, Sums]
    kept: dict[str, FewRows]


def accumulate(
    data: TrainingSet,
    indices: NDArray[np.int64],
    basis: Basis,
    folds: NDArray[np.int64],
    equations: Equations,
    *,
    summed: Collection[str] = KINDS,
    kept: Mapping[str, int] | None = None,
    stress_judge: StressJudge | None = None,
    threads: int = 1,
) -> None:
    """Add the structures ``indices`` of ``data`` to ``equations``.

    ``folds`` (n,) is the fold of every structure of ``data``. ``summed`` are the kinds of label to
    add up, ``kept`` those whose rows are kept as they are, with a stride: 3 keeps the force rows
    of every third atom, 1 all rows. ``stress_judge(index, rows (6, F), targets (6,))`` gives the
    corrected label of a structure, in eV per atom, and which of its components to use; without it
    labels are used as they are.
    """
    strides = dict(kept or {})

    def add_chunk(members: NDArray[np.int64]) -> Chunk:
        rows = _rows_of(data, members, basis, {*summed, *strides}, stress_judge)
        fold = int(folds[members[0]])
        sums = {}
        for kind in rows.keys() & set(summed):
            sums[kind] = equations.empty()
            sums[kind].add_rows(rows[kind].matrix, rows[kind].targets, rows[kind].weight)
        held = {k: _thinned(r, fold, strides[k]) for k, r in rows.items() if k in strides}
        return Chunk(fold, sums, held)

    limit = max(1, int(_CHUNK_BYTES / (8 * basis.n_functions * (_CHUNK_ROWS + basis.n_functions))))
    held: dict[str, list[FewRows]] = {kind: [] for kind in strides}
    for chunk in in_threads(add_chunk, _chunks(data, indices, folds), min(threads, limit)):
        for kind, sums in chunk.sums.items():
            equations.sums[kind][chunk.fold].add(sums)
        for kind, rows in chunk.kept.items():
            held[kind].append(rows)
    equations.kept = {kind: _joined(rows) for kind, rows in held.items() if rows}


def _chunks(
    data: TrainingSet, indices: NDArray[np.int64], folds: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Indices in groups of one fold with about `_CHUNK_ROWS` force rows."""
    sizes = data.dataset.sizes
    for fold in np.unique(folds[indices]):
        mine = np.sort(indices[folds[indices] == fold])
        place = np.cumsum(3 * sizes[mine]) // _CHUNK_ROWS
        for piece in np.split(mine, np.flatnonzero(np.diff(place)) + 1):
            if len(piece):
                yield piece


def _rows_of(
    data: TrainingSet,
    members: NDArray[np.int64],
    basis: Basis,
    kinds: Collection[str],
    stress_judge: StressJudge | None,
) -> dict[str, FewRows]:
    """Rows of some structures by kind of label, with fold 0."""
    parts: dict[str, list[tuple[Array, Array, Array, int]]] = {kind: [] for kind in kinds}
    for index in members.tolist():
        labels = data.labels(index)
        block = basis.design_block(data.dataset.atoms(index))
        size = len(block.values)
        if labels.energy is not None and "energy" in kinds:
            target, weight = np.array([labels.energy / size]), np.array([labels.weight])
            parts["energy"].append((block.energy_row[None] / size, target, weight, index))
        if labels.forces is not None and "forces" in kinds:
            weight = np.repeat(labels.force_weight, 3)
            parts["forces"].append((block.force_rows, labels.forces.ravel(), weight, index))
        if labels.virial is not None and "stress" in kinds:
            rows, target = block.virial_rows / size, labels.virial / size
            weight = np.full(6, labels.weight)
            if stress_judge is not None:
                target, used = stress_judge(index, rows, target)
                weight *= used
            parts["stress"].append((rows, target, weight, index))
    return {kind: _few_rows(pieces) for kind, pieces in parts.items() if pieces}


def _few_rows(pieces: list[tuple[Array, Array, Array, int]]) -> FewRows:
    """Blocks one below the other, in Fortran order, as BLAS wants them."""
    counts = [len(targets) for _, targets, _, _ in pieces]
    matrix = np.empty((sum(counts), pieces[0][0].shape[1]), order="F")
    at = 0
    for rows, *_ in pieces:
        matrix[at : at + len(rows)] = rows
        at += len(rows)
    return FewRows(
        matrix,
        np.concatenate([targets for _, targets, _, _ in pieces]),
        np.concatenate([weight for _, _, weight, _ in pieces]),
        np.zeros(at, dtype=np.int64),
        np.repeat([index for *_, index in pieces], counts),
    )


def _thinned(rows: FewRows, fold: int, stride: int) -> FewRows:
    """The rows of one fold, or of every so many atoms of it."""
    kept = rows if stride == 1 else rows.part(np.arange(len(rows.targets)) // 3 % stride == 0)
    return replace(kept, fold=kept.fold + fold)


def _joined(parts: list[FewRows]) -> FewRows:
    """All kept rows of one kind, in the order of the structures."""
    structure = np.concatenate([part.structure for part in parts])
    order = np.argsort(structure, kind="stable")
    return FewRows(
        np.concatenate([part.matrix for part in parts])[order],
        np.concatenate([part.targets for part in parts])[order],
        np.concatenate([part.weight for part in parts])[order],
        np.concatenate([part.fold for part in parts])[order],
        structure[order],
    )
