"""What a potential makes of the frames that its own simulations asked labels for."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida.engine import calcfunction
from aiida.orm import ArrayData
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.calculations.functions import stated
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.rdf import BINS, Pair, bin_middles, distribution, element_pairs
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData

COLUMNS = ("step", "generation", "simulation")
"""Where a frame is from; -1 where its columns do not say."""


@calcfunction
@stated
def judge_unlearned(labelled: DatasetData, potential: PotentialData) -> ArrayData:
    """Errors of a potential on labelled frames that it has not learned, and their structure.

    A small cell cut out around an atom counts with the forces that are to be learned; only whole
    frames have an energy and a structure that are the simulation's.

    Args:
        labelled: frames of simulations with this potential, labelled since.
        potential: an ACE potential.

    Returns:
        Arrays by frame (n,): `step`, `generation`, `simulation` (index of its conditions), `whole`,
        `atoms`, `energy_reference` and `energy_potential` in eV/atom, `forces_rmse` and
        `forces_size` (root mean square of the reference) in eV/Å over components; and with
        `r` (bins,) in Å and `pairs` (p, 2): `g` and `coordination` (n, p, bins). NaN is unknown.
    """
    data, ace = labelled.get_dataset(), potential.get_potential()
    pairs = element_pairs(data.elements)
    rows = [_judge(data, index, ace, pairs) for index in range(len(data))]
    node = ArrayData()
    for name in COLUMNS:
        known = data.columns.get(name, np.full(len(data), -1))
        node.set_array(name, np.asarray(known, dtype=np.int64))
    node.set_array("atoms", np.asarray(data.sizes, dtype=np.int64))
    for name in rows[0]:
        node.set_array(name, np.array([row[name] for row in rows]))
    node.set_array("r", bin_middles())
    node.set_array("pairs", np.array(pairs))
    return node


def _judge(
    data: Dataset, index: int, ace: ACEPotential, pairs: tuple[Pair, ...]
) -> dict[str, float | bool | NDArray[np.float64]]:
    atoms, labels = data.atoms(index), data.labels(index)
    mask = np.ones(len(atoms)) if labels.force_mask is None else labels.force_mask
    found, counts = ace.evaluate(atoms), mask > 0
    whole, nan = bool(counts.all()), float("nan")
    row: dict[str, Any] = {
        "whole": whole,
        "energy_reference": nan if labels.energy is None else labels.energy / len(atoms),
        "energy_potential": found.energy / len(atoms),
        "forces_rmse": nan,
        "forces_size": nan,
    }
    if not whole:
        row |= {"energy_reference": nan, "energy_potential": nan}
    if labels.forces is not None and counts.any():
        error = (found.forces - labels.forces)[counts]
        row["forces_rmse"] = float(np.sqrt(np.mean(error**2)))
        row["forces_size"] = float(np.sqrt(np.mean(labels.forces[counts] ** 2)))
    row |= _structure(atoms, pairs, whole)
    return row


def _structure(
    atoms: Atoms, pairs: tuple[Pair, ...], whole: bool
) -> dict[str, NDArray[np.float64]]:
    if not whole or not np.all(atoms.pbc):
        unknown = np.full((len(pairs), BINS), np.nan)
        return {"g": unknown, "coordination": unknown}
    found = distribution([atoms], pairs)
    return {"g": found.g, "coordination": found.coordination}
