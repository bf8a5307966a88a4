"""Inputs that no setting can rescue, refused before pw.x is started.

pw.x runs for hours, aborts without a word, or worse, converges to a number for them: two silicon
atoms 0.95 Å apart give a perfectly converged energy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.engines.espresso.upf_header import UpfHeader

MIN_DISTANCE = 0.5
"""Å; two nuclei closer than this are a mistake in the structure, for every element."""
MIN_BOND = 0.5
"""Part of the sum of two covalent radii below which atoms overlap: no pressure that
pseudopotentials are made for reaches it."""
MAX_PACKING = 3.5
"""Volume of the atoms' covalent spheres over that of the cell; dense metals have about 1."""
MAX_BOND = 2.2
"""Nearest neighbours of a crystal in sums of covalent radii; beyond it is a gas, not a crystal."""
MAX_VOLUME_PER_ATOM = 50000.0
"""Å^3; a box of 37 Å for one atom."""
NOBLE = frozenset({2, 10, 18, 36, 54, 86})


class Reason(StrEnum):
    """Why an input is refused; the names of the exit codes."""

    OVERLAPPING_ATOMS = "ERROR_OVERLAPPING_ATOMS"
    UNUSABLE_STRUCTURE = "ERROR_UNUSABLE_STRUCTURE"
    ABSURD_VOLUME = "ERROR_ABSURD_VOLUME"
    LEFT_HANDED_CELL = "ERROR_LEFT_HANDED_CELL"
    PSEUDO_MISMATCH = "ERROR_PSEUDO_MISMATCH"
    MIXED_FUNCTIONALS = "ERROR_MIXED_FUNCTIONALS"
    INVALID_PARAMETERS = "ERROR_INVALID_PARAMETERS"


SENTENCES = {
    Reason.OVERLAPPING_ATOMS: "Atoms {first} and {second} are {distance} Å apart, less than "
    "{limit} Å; pw.x was not started.",
    Reason.UNUSABLE_STRUCTURE: "pw.x was not started: {reason}",
    Reason.ABSURD_VOLUME: "The cell has {volume} Å^3 per atom, {words}; pw.x was not started.",
    Reason.LEFT_HANDED_CELL: "The cell vectors are left-handed (a x b . c = {volume} Å^3); swap "
    "two of them. pw.x was not started.",
}
"""What is said of a structure that is refused."""


@dataclass(frozen=True)
class Refusal:
    """Why pw.x is not started: the exit code and the values of its message."""

    reason: Reason
    values: dict[str, Any] = field(default_factory=dict)


def check_structure(atoms: Atoms, crystal: bool) -> Refusal | None:
    """Positions and cell.

    Args:
        atoms: the structure, periodic as pw.x will treat it.
        crystal: it is sampled by more than one k-point; a molecule may have all the space it wants.
    """
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return Refusal(
            Reason.UNUSABLE_STRUCTURE, {"reason": "a position or cell vector is not a number."}
        )
    determinant = float(np.linalg.det(atoms.cell.array))
    lengths = float(np.prod(np.linalg.norm(atoms.cell.array, axis=1)))
    if abs(determinant) < 1e-3 * max(lengths, 1e-3):
        text = f"the cell has no volume ({abs(determinant):.3g} Å^3)."
        return Refusal(Reason.UNUSABLE_STRUCTURE, {"reason": text})
    if determinant < 0:
        return Refusal(Reason.LEFT_HANDED_CELL, {"volume": f"{determinant:.3f}"})
    try:
        return _check_volume(atoms) or _check_distances(atoms, crystal)
    except DataError as error:
        return Refusal(Reason.UNUSABLE_STRUCTURE, {"reason": str(error)})


def _check_volume(atoms: Atoms) -> Refusal | None:
    per_atom = atoms.get_volume() / len(atoms)
    spheres = 4 / 3 * np.pi * float(np.mean(covalent_radii[atoms.numbers] ** 3))
    if spheres / per_atom > MAX_PACKING:
        limit = spheres / MAX_PACKING
        words = f"below the {limit:.1f} Å^3 that any pressure leaves to these elements"
    elif per_atom > MAX_VOLUME_PER_ATOM:
        words = f"above the {MAX_VOLUME_PER_ATOM:.0f} Å^3 of any useful box"
    else:
        return None
    return Refusal(Reason.ABSURD_VOLUME, {"volume": f"{per_atom:.2f}", "words": words})


def _check_distances(atoms: Atoms, crystal: bool) -> Refusal | None:
    radii = covalent_radii[atoms.numbers]
    reach = 2 * float(radii.max()) * (MAX_BOND if crystal else MIN_BOND)
    pairs = full_neighbour_list(atoms, max(reach, MIN_DISTANCE))
    distances = np.linalg.norm(pairs.vectors, axis=1)
    bonds = radii[pairs.centre] + radii[pairs.neighbour]
    if len(distances):
        k = int(np.argmin(distances / np.maximum(MIN_BOND * bonds, MIN_DISTANCE)))
        limit = max(MIN_BOND * float(bonds[k]), MIN_DISTANCE)
        if distances[k] < limit:
            values = {
                "first": int(pairs.centre[k]),
                "second": int(pairs.neighbour[k]),
                "distance": f"{distances[k]:.3f}",
                "limit": f"{limit:.2f}",
            }
            return Refusal(Reason.OVERLAPPING_ATOMS, values)
    noble = bool(set(atoms.numbers.tolist()) & NOBLE)
    if crystal and not noble and not np.any(distances < MAX_BOND * bonds):
        per_atom = atoms.get_volume() / len(atoms)
        words = (
            f"so much that no two atoms are within {MAX_BOND} bond lengths, yet several k-points "
            "are asked for: this is no crystal"
        )
        return Refusal(Reason.ABSURD_VOLUME, {"volume": f"{per_atom:.2f}", "words": words})
    return None


def check_pseudos(
    symbols: Mapping[str, str], headers: Mapping[str, UpfHeader | None], overridden: bool
) -> Refusal | None:
    """One usable file for every kind, all made with one functional.

    Args:
        symbols: chemical symbol by kind.
        headers: header of the file by kind.
        overridden: the input names a functional itself (`input_dft`).
    """
    for kind, symbol in symbols.items():
        if kind not in headers:
            return _mismatch(f"there is none for {kind}")
        header = headers[kind]
        if header is None:
            return _mismatch(f"the file for {kind} has no UPF header")
        if header.element and header.element != symbol:
            return _mismatch(f"the file for {kind} is one of {header.element}, not of {symbol}")
    names = {kind: h.functional for kind, h in headers.items() if h and h.functional}
    if not overridden and len(set(names.values())) > 1:
        listed = ", ".join(f"{kind}: {name}" for kind, name in sorted(names.items()))
        return Refusal(Reason.MIXED_FUNCTIONALS, {"functionals": listed})
    return None


def _mismatch(words: str) -> Refusal:
    return Refusal(Reason.PSEUDO_MISMATCH, {"reason": words})


def check_parameters(parameters: Mapping[str, Mapping[str, Any]]) -> Refusal | None:
    """Numbers that are finite, and cutoffs that are positive."""
    for namelist, values in parameters.items():
        for key, value in values.items():
            if isinstance(value, float) and not np.isfinite(value):
                words = f"{namelist}.{key} is {value}"
                return Refusal(Reason.INVALID_PARAMETERS, {"reason": words})
    cutoff = parameters.get("SYSTEM", {}).get("ecutwfc")
    if not isinstance(cutoff, int | float) or cutoff <= 0:
        words = f"SYSTEM.ecutwfc is {cutoff}, which must be a positive number of Ry"
        return Refusal(Reason.INVALID_PARAMETERS, {"reason": words})
    rho = parameters.get("SYSTEM", {}).get("ecutrho")
    if isinstance(rho, int | float) and rho < cutoff:
        words = f"SYSTEM.ecutrho is {rho} Ry, below SYSTEM.ecutwfc of {cutoff} Ry"
        return Refusal(Reason.INVALID_PARAMETERS, {"reason": words})
    return None
