"""Many small structures for pw.x in one job: their inputs, in one archive, and their order.

The inputs are those that aiida-quantumespresso writes for one structure, to the letter; writing
them through its nodes would cost more than a small calculation itself.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_autopipe.core.ace.neighbours import check_geometry
from aiida_autopipe.core.errors import AutopipeError, DataError
from aiida_autopipe.engines.espresso.pw import (
    PwSettings,
    estimated_seconds,
    in_box,
    kpoints,
    parameters,
)
from aiida_autopipe.engines.espresso.sanity import SENTENCES, check_structure

SCRIPT = Path(__file__).with_name("batch.sh")
"""The runner; it says what it expects and leaves."""

SCRIPT_FILE = "batch.sh"
ORDER_FILE = "order"
INPUTS_FILE = "inputs.tar.gz"
REFUSED_FILE = "refused.json"
LOG_FILE = "batch.log"
RESULTS = "results/*.tgz"
PSEUDO_FOLDER = "pseudo"
INPUT_FILE = "pw.in"

TYPICAL_IONIC_STEPS = 8
"""How much a relaxation costs in single points; only used to start the long ones first."""


@dataclass(frozen=True)
class Batch:
    """What is to be run.

    Attributes:
        inputs: input text by position in the dataset.
        order: the same positions, longest calculation first, so that no slot ends up alone with it.
        refused: reason by position of the structures that pw.x cannot be asked about.
    """

    inputs: dict[int, str]
    order: list[int]
    refused: dict[int, str]


def structure_name(position: int) -> str:
    """Name of a structure's files and folder."""
    return f"{position:06d}"


def pseudo_file(element: str) -> str:
    """Name of an element's pseudopotential in the job, whatever it is called elsewhere."""
    return f"{element}.UPF"


def relaxed(atoms: Atoms) -> bool:
    """True for a structure whose positions are to be relaxed before it is labelled."""
    return bool(atoms.info.get("relax", False))


def plan_batch(settings: PwSettings, structures: Sequence[Atoms]) -> Batch:
    """Inputs and order of the structures; what has no meaning is refused with its reason."""
    inputs: dict[int, str] = {}
    refused: dict[int, str] = {}
    cost: dict[int, float] = {}
    for position, atoms in enumerate(structures):
        try:
            check(settings, atoms)
            inputs[position] = input_text(settings, atoms)
            cost[position] = estimated_seconds(settings, atoms) * ionic_steps(atoms)
        except AutopipeError as error:
            refused[position] = str(error)
    order = sorted(cost, key=lambda position: (-cost[position], position))
    return Batch(inputs, order, refused)


def check(settings: PwSettings, atoms: Atoms) -> None:
    """Raise an error for a structure that pw.x should never see."""
    boxed = in_box(atoms)
    check_geometry(boxed)
    mesh, _ = kpoints(settings, atoms)
    refusal = check_structure(boxed, crystal=bool(np.prod(mesh) > 1))
    if refusal is not None:
        raise DataError(SENTENCES[refusal.reason].format(**refusal.values))


def ionic_steps(atoms: Atoms) -> int:
    """Single points that a label costs, roughly."""
    return TYPICAL_IONIC_STEPS if relaxed(atoms) else 1


def input_text(settings: PwSettings, atoms: Atoms) -> str:
    """The input of pw.x for one structure, run in a folder two levels below the job's."""
    boxed = in_box(atoms)
    symbols = boxed.get_chemical_symbols()
    masses = dict(zip(symbols, boxed.get_masses(), strict=True))
    kinds = {symbol: number for number, symbol in enumerate(sorted(masses), start=1)}
    namelists = parameters(settings, atoms, relax=relaxed(atoms))
    namelists["CONTROL"] |= {
        "pseudo_dir": f"../../{PSEUDO_FOLDER}/",
        "outdir": "./out/",
        "prefix": "aiida",
        "verbosity": "high",
    }
    namelists["SYSTEM"] |= {"ibrav": 0, "nat": len(boxed), "ntyp": len(kinds)}
    lines = []
    for name, entries in namelists.items():
        lines.append(f"&{name}")
        for key, value in sorted(entries.items()):
            lines += _entry(key, value, kinds)
        lines.append("/")
    lines.append("ATOMIC_SPECIES")
    lines += [f"{el.ljust(6)} {float(masses[el])} {pseudo_file(el)}" for el in kinds]
    lines.append("ATOMIC_POSITIONS angstrom")
    for symbol, (x, y, z) in zip(symbols, boxed.positions, strict=True):
        lines.append(f"{symbol.ljust(6)} {x:18.10f} {y:18.10f} {z:18.10f}")
    mesh, offset = kpoints(settings, atoms)
    lines.append("K_POINTS automatic")
    lines.append(" ".join(str(n) for n in (*mesh, *(0 if x == 0 else 1 for x in offset))))
    lines.append("CELL_PARAMETERS angstrom")
    lines += [f"{x:18.10f} {y:18.10f} {z:18.10f}" for x, y, z in boxed.cell.array]
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, kinds: Mapping[str, int]) -> list[str]:
    """Lines of one namelist entry; a dictionary by element becomes one line per kind."""
    if isinstance(value, Mapping):
        items = sorted((kinds[element], item) for element, item in value.items())
        return [f"  {key}({number}) = {_fortran(item)}" for number, item in items]
    return [f"  {key} = {_fortran(value)}"]


def _fortran(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return ".true." if value else ".false."
    if isinstance(value, int | np.integer):
        return f"{value:d}"
    if isinstance(value, float | np.floating):
        return f"{value:18.10e}".replace("e", "d")
    return f"'{value}'"


def inputs_archive(inputs: Mapping[int, str]) -> bytes:
    """NAME/pw.in of all structures as one tar.gz, the same bytes for the same inputs."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for position, text in sorted(inputs.items()):
            content = text.encode()
            member = tarfile.TarInfo(f"{structure_name(position)}/{INPUT_FILE}")
            member.size = len(content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def order_text(order: Sequence[int]) -> str:
    """One name per line, as the runner reads them."""
    return "".join(f"{structure_name(position)}\n" for position in order)
