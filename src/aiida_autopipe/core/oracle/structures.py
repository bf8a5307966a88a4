"""A dataset as the lines that a job of an oracle reads, senseless structures sorted out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from ase import Atoms

from aiida_autopipe.core.ace.neighbours import check_geometry
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.distances import closest_pair
from aiida_autopipe.core.errors import AutopipeError, DataError
from aiida_autopipe.core.oracle.settings import AseSettings

TOO_CLOSE = 0.2
"""Å; no calculator means anything at such a distance, and many divide by it."""

PER_ATOM_COLUMNS = ("initial_magmoms", "initial_charges")
"""Text columns with one number for each atom, such as '2.2 -2.2'."""

_NOT_INFO = {"energy", "forces", "stress", "force_mask", "weight", *PER_ATOM_COLUMNS}


def structure_lines(dataset: Dataset, settings: AseSettings) -> Iterator[str]:
    """One JSON object per structure, the largest structures first so that none ends alone.

    A structure that no calculator should see carries its `problem` instead of its atoms.
    """
    for index in np.argsort(-dataset.sizes, kind="stable"):
        position = int(index)
        atoms = dataset.atoms(position)
        try:
            _check(atoms)
            yield json.dumps(_plain(position, atoms, settings))
        except AutopipeError as error:
            yield json.dumps({"position": position, "problem": str(error)})


def _check(atoms: Atoms) -> None:
    check_geometry(atoms)
    pair = closest_pair(atoms, within=TOO_CLOSE)
    if pair is not None:
        raise DataError(
            f"Atoms {pair.first} and {pair.second} are {pair.distance:.2g} Å apart; below "
            f"{TOO_CLOSE} Å no label means anything."
        )


def _plain(position: int, atoms: Atoms, settings: AseSettings) -> dict[str, Any]:
    info = {name: value for name, value in atoms.info.items() if name not in _NOT_INFO}
    moments = _per_atom(atoms, "initial_magmoms")
    if moments is None and settings.initial_magmoms:
        symbols = atoms.get_chemical_symbols()
        moments = [float(settings.initial_magmoms.get(symbol, 0.0)) for symbol in symbols]
    return {
        "position": position,
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "info": info,
        "relax": bool(info.get("relax", False)),
        "magmoms": moments,
        "charges": _per_atom(atoms, "initial_charges"),
    }


def _per_atom(atoms: Atoms, name: str) -> list[float] | None:
    """Numbers from a text column, None where it is empty."""
    text = str(atoms.info.get(name, ""))
    if not text.strip():
        return None
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != len(atoms) or not np.all(np.isfinite(values)):
        raise DataError(
            f"The column {name} is '{text}'; it must hold {len(atoms)} numbers, one for each atom."
        )
    return values
