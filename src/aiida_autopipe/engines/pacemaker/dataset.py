"""A dataset as Pacemaker reads it: a compressed pickle of a pandas table.

Columns: `ase_atoms`, `energy_corrected` (eV, the energies of the isolated atoms taken off),
`forces` (eV/Å), `w_energy` and `w_forces` (weights; Pacemaker normalises each of them).

A pickle names the modules of what it holds. NumPy 2 moved its core, and pandas 3 gives names of
columns a new type; both would make the table unreadable for the Python of a Pacemaker that is a few
years old, so the table is written in the way that all versions read.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.ace.references import resolve_reference_energies
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.files import complete_file
from aiida_autopipe.engines.pacemaker.settings import HIGHEST_ENERGY, LOWEST_ENERGY

# The last protocol that names modules in plain text lines.
_PROTOCOL = 3
_MOVED = {b"cnumpy._core.multiarray\n": b"cnumpy.core.multiarray\n",
          b"cnumpy._core.numeric\n": b"cnumpy.core.numeric\n"}  # fmt: skip


def write_table(
    path: Path,
    dataset: Dataset,
    reference_energies: Mapping[str, float],
    cutout_energies: bool = False,
) -> None:
    """Write the labelled structures of a dataset for Pacemaker.

    The weights are those of the structures, for forces times the `force_mask`. Energies of
    structures with some masked forces get the weight 0 unless asked for.

    Args:
        path: the .pckl.gzip file; it appears when it is complete.
        dataset: structures with energies and forces.
        reference_energies: eV by element.
        cutout_energies: learn the energies of cut-outs as well.

    Raises:
        DataError: a structure without forces, or an energy that Pacemaker would refuse.
    """
    rows = [_row(dataset, k, reference_energies, cutout_energies) for k in range(len(dataset))]
    names = ["ase_atoms", "energy_corrected", "forces", "w_energy", "w_forces"]
    table = pd.DataFrame({name: pd.Series([r[k] for r in rows], dtype=_TYPES.get(name, object))
                          for k, name in enumerate(names)})  # fmt: skip
    table.columns = pd.Index(names, dtype=object)
    content = pickle.dumps(table, protocol=_PROTOCOL)
    for new, old in _MOVED.items():
        content = content.replace(new, old)
    # Without a time of writing the same data give the same file.
    with complete_file(path) as partial:
        partial.write_bytes(gzip.compress(content, mtime=0))


def reference_energies(train: Dataset) -> dict[str, float]:
    """Energies of the isolated atoms in eV, which Pacemaker does not know of."""
    return resolve_reference_energies(train, None)[0]


_TYPES = {"energy_corrected": "float64", "w_energy": "float64"}


def _row(
    dataset: Dataset, index: int, references: Mapping[str, float], cutout_energies: bool
) -> tuple[Atoms, float, NDArray[np.float64], float, NDArray[np.float64]]:
    labels, full = dataset.labels(index), dataset.atoms(index)
    if labels.forces is None:
        raise DataError(f"Structure {index} has no forces, which Pacemaker needs; leave it out.")
    mask = np.ones(len(full)) if labels.force_mask is None else np.asarray(labels.force_mask)
    weight = float(labels.weight)
    cut = bool(np.any(mask == 0))
    energy, used = 0.0, 0.0
    if labels.energy is not None and (cutout_energies or not cut):
        energy = labels.energy - sum(references[s] for s in full.get_chemical_symbols())
        used = weight
        if not LOWEST_ENERGY <= energy / len(full) <= HIGHEST_ENERGY:
            raise DataError(
                f"Structure {index} has an energy of {energy / len(full):.6g} eV/atom without "
                f"that of its isolated atoms; Pacemaker takes {LOWEST_ENERGY:g} to "
                f"{HIGHEST_ENERGY:g} eV/atom: correct the reference energies or leave it out."
            )
    forces = np.where(mask[:, None] > 0, labels.forces, 0.0)
    if not np.isfinite(forces).all():
        raise DataError(f"Structure {index} has NaN or infinite forces; mask or remove them.")
    bare = Atoms(full.numbers, full.positions, cell=full.cell.array, pbc=full.pbc)
    return bare, energy, np.ascontiguousarray(forces), used, weight * mask
