"""Structures and labels that cannot be used, or are not wanted, found for blocks of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError, InputError

if TYPE_CHECKING:
    from aiida_autopipe.core.dataset import Dataset


def check_block(block: Dataset, first: int = 0, name: str = "Structure") -> None:
    """Refuse what no later stage can use.

    A label that is NaN altogether is missing and no error; one that is so in part is. Forces may be
    NaN where the mask is 0.

    Args:
        block: structures in memory.
        first: number of the first of them, for messages.
        name: how messages call a structure.

    Raises:
        DataError: with the number of the structure.
    """
    problems = [*_geometry_problems(block), *_label_problems(block)]
    found = [(int(np.flatnonzero(bad)[0]), text) for bad, text in problems if np.any(bad)]
    if found:
        index, text = min(found, key=lambda problem: problem[0])
        raise DataError(f"{name} {first + index} {text}")


def _geometry_problems(block: Dataset) -> list[tuple[NDArray[np.bool_], str]]:
    empty = block.sizes == 0
    if np.any(empty):  # sums over atoms are meaningless then
        return [(empty, "has no atoms.")]
    with np.errstate(invalid="ignore", over="ignore"):
        wild = ~np.all(np.abs(block.cell) < 1e50, axis=(1, 2))  # the volume overflows beyond
        cells = np.where(wild[:, None, None], np.eye(3), block.cell)
        flat = np.all(block.pbc, axis=1) & (np.abs(np.linalg.det(cells)) < 1e-6)
    return [
        (_any_atom(block, ~np.isfinite(block.positions)), "has NaN or infinite positions."),
        (wild, "has a NaN or infinite cell."),
        (flat, "is periodic but its cell has no volume."),
    ]


def _label_problems(block: Dataset) -> list[tuple[NDArray[np.bool_], str]]:
    if np.any(block.sizes == 0):
        return []
    problems = []
    if block.energy is not None:
        problems.append((np.isinf(block.energy), "has a NaN or infinite energy."))
    if block.forces is not None:
        wrong = ~np.isfinite(block.forces)
        if block.force_mask is not None:
            wrong &= (block.force_mask > 0)[:, None]
        present = _any_atom(block, ~np.isnan(block.forces))
        problems.append((_any_atom(block, wrong) & present, "has NaN or infinite forces."))
    if block.stress is not None:
        wrong = np.any(~np.isfinite(block.stress), axis=1)
        present = ~np.all(np.isnan(block.stress), axis=1)
        problems.append((wrong & present, "has a NaN or infinite stress."))
    if block.force_mask is not None:
        wrong = _any_atom(block, ~np.isfinite(block.force_mask))
        problems.append((wrong, "has a NaN or infinite force_mask."))
    if block.weight is not None:
        problems.append((~np.isfinite(block.weight), "has a NaN or infinite weight."))
    return problems


def _any_atom(block: Dataset, rows: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) True where any atom of a structure has something True."""
    flags = rows.reshape(len(rows), -1).any(axis=1)
    if not len(block):
        return np.zeros(0, dtype=bool)
    return np.asarray(np.logical_or.reduceat(flags, block.offsets[:-1]))


def filtered(
    blocks: Iterable[Dataset],
    block: Callable[[Dataset], NDArray[np.bool_]] | None,
    structure: Callable[[Atoms], bool] | None,
) -> Iterator[Dataset]:
    """Of each block the structures that pass; see `Dataset.filter`."""
    for part in blocks:
        keep = np.ones(len(part), dtype=bool)
        if block is not None:
            keep = np.asarray(block(part))
            if keep.shape != (len(part),) or keep.dtype != bool:
                raise InputError(
                    f"A filter gave {keep.dtype} of shape {keep.shape} for {len(part)} structures; "
                    "it must give True or False for each."
                )
        if structure is not None:
            chosen = [bool(keep[i]) and structure(part.atoms(i)) for i in range(len(part))]
            keep = np.array(chosen, dtype=bool)
        if np.any(keep):
            yield part[keep]
