"""The cell of a pw.x input, from `ibrav` and its parameters or from CELL_PARAMETERS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qe_tools import CONSTANTS
from qe_tools.exceptions import InputValidationError
from qe_tools.parsers import PwInputFile

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.engines.espresso.pw_namelists import Card, fortran_float

BOHR = 0.529177210903
"""Å, as pw.x has it."""
MIN_VOLUME = 1e-3
"""Å³; below it three vectors span no cell."""

_PROBE = """&SYSTEM
 ibrav = {ibrav}
{celldm}
/
ATOMIC_SPECIES
H 1.0 H.UPF
ATOMIC_POSITIONS angstrom
H 0.0 0.0 0.0
K_POINTS gamma
"""


def lattice(system: dict[str, Any], card: Card | None) -> tuple[float, NDArray[np.float64]]:
    """The lattice parameter `alat` and the cell, both in Å.

    Raises:
        InputError: something is missing, given twice, or no cell.
    """
    ibrav = system["ibrav"]
    if not isinstance(ibrav, int) or isinstance(ibrav, bool):
        raise InputError(f"ibrav is {ibrav!r}, not a whole number")
    celldm = _celldm(system)
    if ibrav == 0:
        alat, cell = _explicit(celldm, card)
    elif card is not None:
        raise InputError(f"ibrav = {ibrav} and CELL_PARAMETERS both define the cell; keep one")
    else:
        alat, cell = _from_ibrav(ibrav, celldm)
    if not np.all(np.isfinite(cell)) or abs(np.linalg.det(cell)) < MIN_VOLUME:
        raise InputError(f"the cell {np.round(cell, 4).tolist()} Å has no volume")
    return alat, cell


def _celldm(system: dict[str, Any]) -> dict[int, float]:
    """celldm by its index, with celldm(1) in bohr, also where A, B, C and cosines are given."""
    given = system.get("celldm")
    abc = {k: system[k] for k in ("a", "b", "c", "cosab", "cosac", "cosbc") if k in system}
    if given is not None and abc:
        raise InputError(f"celldm and {next(iter(abc)).upper()} both define the cell; keep one")
    rows = given if isinstance(given, list) else [] if given is None else [[1, given]]
    values = {f"celldm({row[0]})": row[-1] for row in rows} | abc
    for key, value in values.items():
        if isinstance(value, bool | str):
            raise InputError(f"{key} is {value!r}, not a number")
    if not abc:
        return {int(row[0]): float(row[-1]) for row in rows}
    if abc.get("a", 0) <= 0:
        raise InputError("the lattice parameter A is missing in &SYSTEM")
    found = {1: abc["a"] / BOHR}
    found |= {i: abc[key] / abc["a"] for i, key in ((2, "b"), (3, "c")) if key in abc}
    triclinic = abs(system["ibrav"]) == 14
    places = {"cosab": 6 if triclinic else 4, "cosac": 5, "cosbc": 4 if triclinic else 0}
    return found | {i: abc[key] for key, i in places.items() if i and key in abc}


def _from_ibrav(ibrav: int, celldm: dict[int, float]) -> tuple[float, NDArray[np.float64]]:
    if celldm.get(1, 0.0) <= 0.0:
        raise InputError(f"ibrav = {ibrav} needs celldm(1) or A in &SYSTEM")
    # In units of alat, because qe-tools has a slightly different bohr.
    lines = "\n".join(f" celldm({i}) = {1.0 if i == 1 else v!r}" for i, v in celldm.items())
    try:
        probe = PwInputFile(
            _PROBE.format(ibrav=ibrav, celldm=lines), qe_version="6.5", validate_species_names=False
        )
    except (InputValidationError, KeyError) as error:
        words = " ".join(str(error).split())
        lacking = [f"celldm({i})" for i in range(2, 7) if f"celldm({i})" in words]
        what = f"needs {lacking[0]} or its like in &SYSTEM" if lacking else "is not one of pw.x's"
        raise InputError(f"ibrav = {ibrav} {what}") from error
    cell = np.array(probe.structure["cell"], dtype=float) / CONSTANTS.bohr_to_ang
    if ibrav == -9:
        cell = cell[[1, 0, 2]]  # qe-tools has the first two vectors the other way round.
    alat = celldm[1] * BOHR
    return alat, cell * alat


def _explicit(celldm: dict[int, float], card: Card | None) -> tuple[float, NDArray[np.float64]]:
    if card is None:
        raise InputError("ibrav = 0 needs the card CELL_PARAMETERS, which is missing")
    rows = [[fortran_float(word) for word in words] for _, words in card.lines]
    if len(rows) != 3 or any(len(row) != 3 or None in row for row in rows):
        raise InputError("CELL_PARAMETERS needs three lines of three finite numbers")
    cell = np.array(rows, dtype=float)
    given = celldm.get(1, 0.0) * BOHR
    unit = card.option or ("alat" if given else "bohr")
    if unit == "alat":
        if not given:
            raise InputError("CELL_PARAMETERS alat needs celldm(1) or A in &SYSTEM")
        return given, cell * given
    if unit not in ("bohr", "angstrom"):
        raise InputError(f"CELL_PARAMETERS {unit} is not alat, bohr or angstrom")
    if given:
        raise InputError(
            f"CELL_PARAMETERS {unit} and celldm(1) or A both set the lattice parameter; keep one"
        )
    cell = cell * (BOHR if unit == "bohr" else 1.0)
    return float(np.linalg.norm(cell[0])), cell
