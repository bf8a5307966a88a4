"""`autopipe.embed`: small periodic cells around the uncertain atoms of frames."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from aiida.engine import calcfunction
from aiida.orm import Dict
from ase import Atoms

from aiida_autopipe.calculations.functions import bare_atoms, stated
from aiida_autopipe.core.ace.calculator import ACECalculator
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.embed import embed as cut
from aiida_autopipe.core.embed_sanity import make_sane
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData


@calcfunction
@stated
def embed(
    frames: DatasetData, crystal: DatasetData, potential: PotentialData, settings: Dict
) -> dict[str, Any]:
    """Cut a small periodic cell out of each frame around its most uncertain atom.

    A frame that is no larger than its cut-out is kept as it is, with all of its forces.

    Args:
        frames: with the column `gamma_atom`, the atom in the middle.
        crystal: the primitive cell is the first structure; a cell commensurate with its lattice is
            taken where a frame is a strained supercell of it.
        potential: the current ACE potential, which relaxes what is absurd at the new boundary.
        settings: `radius_A` of the core and thickness `buffer_A` of what surrounds it.

    Returns:
        `cells`, with `force_mask`, the columns of the frames and `frame` (index), and `summary`:
        what was cut, and what should be known of it, by frame.
    """
    data = frames.get_dataset()
    if "gamma_atom" not in data.columns:
        raise DataError("The frames have no column gamma_atom: it names the atom to embed.")
    reference = crystal.get_dataset().atoms(0)
    calculator = ACECalculator(potential.get_potential(), gamma=False)
    cells, notes = [], []
    for index in range(len(data)):
        frame = bare_atoms(data, index)
        cell, note = _cut(frame, reference, calculator, settings.get_dict())
        cell.info |= {**{k: v for k, v in frame.info.items() if k not in cell.info}, "frame": index}
        cells.append(cell)
        notes.append({"frame": index, "frame_atoms": len(frame), **note})
    return {
        "cells": DatasetData(Dataset.from_atoms(cells)),
        "summary": Dict(
            {
                "cells": notes,
                "atoms": sum(note["atoms"] for note in notes),
                "frame_atoms": sum(note["frame_atoms"] for note in notes),
            }
        ),
    }


def _cut(
    frame: Atoms, crystal: Atoms, calculator: ACECalculator, settings: dict[str, Any]
) -> tuple[Atoms, dict[str, Any]]:
    atom = int(frame.info["gamma_atom"])
    reference = crystal if np.all(crystal.pbc) else None
    found = make_sane(
        cut(frame, atom, settings["radius_A"], settings["buffer_A"], reference), frame, calculator
    )
    embedding = found.embedding
    note = {
        "cell": embedding.shape,
        "atoms": len(embedding.atoms),
        "core": embedding.n_core,
        "density_ratio": None if np.isnan(embedding.density_ratio) else embedding.density_ratio,
        "excess": embedding.excess,
        "odd_electrons": embedding.odd_electrons,
        "pushed": found.pushed,
        "still_close": found.still_close,
    }
    if embedding.shape == "whole":  # it has no new boundary: all of it can be learned
        whole: Atoms = frame.copy()
        whole.arrays["force_mask"] = np.ones(len(whole))
        return whole, {**note, "core": len(whole)}
    atoms = embedding.atoms
    # What the frame says of this atom, in the numbering of the cell.
    atoms.info |= {"gamma_atom": 0, "parameters": json.dumps(settings, sort_keys=True)}
    atoms.arrays.pop("source_index")
    return atoms, note
