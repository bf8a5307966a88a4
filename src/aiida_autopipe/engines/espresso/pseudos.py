"""The pseudopotentials of Debian's data package: which file, which functional, which cutoffs.

Debian's folder mixes functionals, fully relativistic files, files in formats older than UPF and
headers with cutoffs of zero. `debian_pseudos.yaml` therefore names one usable file per element
and functional, and everything here works from that table, never from the folder's listing.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from aiida_autopipe.core.errors import InputError

FUNCTIONALS = ("PZ", "PBE")
"""Functionals of the table, in the order of preference: the PZ files are the cheapest."""


@dataclass(frozen=True)
class Pseudo:
    """One pseudopotential file with the cutoffs (Ry) it needs."""

    element: str
    functional: str
    file: str
    cutoff_wfc_Ry: float
    cutoff_rho_Ry: float


@cache
def debian_table() -> dict[str, dict[str, Pseudo]]:
    """Return the curated table as {functional: {element: Pseudo}}."""
    text = resources.files(__package__).joinpath("debian_pseudos.yaml").read_text(encoding="utf-8")
    return {
        functional: {
            element: Pseudo(
                element=element,
                functional=functional,
                file=row["file"],
                cutoff_wfc_Ry=float(row["cutoff_wfc_Ry"]),
                cutoff_rho_Ry=float(row["cutoff_rho_Ry"]),
            )
            for element, row in rows.items()
        }
        for functional, rows in yaml.safe_load(text).items()
    }


def candidate_folders() -> list[Path]:
    """Return the folders in which Debian's files are looked for, the most specific first."""
    folders = [
        Path(sys.prefix) / "share" / "espresso" / "pseudo",
        Path("/usr/share/espresso/pseudo"),
    ]
    chosen = os.environ.get("ESPRESSO_PSEUDO")
    return [Path(chosen), *folders] if chosen else folders


def find_debian_folder(folders: Iterable[Path] | None = None) -> Path | None:
    """Return the first folder that holds at least one file of the table, or None.

    The folders default to `candidate_folders()`: $ESPRESSO_PSEUDO, the environment's own
    `share/espresso/pseudo`, and Debian's `/usr/share/espresso/pseudo`.
    """
    for folder in candidate_folders() if folders is None else folders:
        if any(available_pseudos(folder, functional) for functional in FUNCTIONALS):
            return folder
    return None


def available_pseudos(folder: Path, functional: str) -> dict[str, Pseudo]:
    """Return {element: Pseudo} for the files of one functional that are present in `folder`.

    Raises InputError for a functional the table does not have.
    """
    table = debian_table()
    if functional not in table:
        raise InputError(
            f"Functional '{functional}' is not one of {', '.join(table)}: choose one of these."
        )
    return {
        element: pseudo
        for element, pseudo in table[functional].items()
        if (folder / pseudo.file).is_file()
    }
