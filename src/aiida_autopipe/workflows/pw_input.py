"""An existing input of pw.x to the inputs of `autopipe.pw`."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiida.engine import ProcessBuilder
from aiida.orm import (
    AbstractCode,
    Dict,
    Int,
    KpointsData,
    StructureData,
    WorkChainNode,
)
from aiida.orm.nodes.data.structure import Kind, Site
from aiida_pseudo.data.pseudo.upf import UpfData

from aiida_autopipe import __version__
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.engines.espresso.pw_input import (
    KPoints,
    PwInput,
    find_pseudos,
    read_pw_input,
)
from aiida_autopipe.workflows.functions import failure_reason, find_described
from aiida_autopipe.workflows.pw import PwWorkChain

DESCRIPTION = "pw.x input"
"""Begins the description of a process that runs an input; the key of the input follows."""
WALLCLOCK_SECONDS = 86400
"""Limit of one calculation; pw.x stops itself 5 % earlier unless the input has `max_seconds`."""


@dataclass(frozen=True)
class PwJob:
    """An input ready to be submitted, and the key that recognises its process again."""

    builder: ProcessBuilder
    key: str


def prepare(path: Path, code: AbstractCode, max_attempts: int | None = None) -> PwJob:
    """Read an input with its pseudopotentials.

    :raises InputError: it cannot be read, or not be run as it is.
    """
    if not path.exists():
        raise InputError("the file does not exist")
    try:
        # Comments may be in any encoding.
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror})") from error
    parsed = read_pw_input(text)
    files = find_pseudos(parsed, path.parent)
    builder = pw_builder(parsed, files, code, max_attempts)
    content = {
        "text": text,
        "pseudos": {name: node.md5 for name, node in sorted(builder.pw.pseudos.items())},
        "code": code.uuid,
        "max_attempts": max_attempts,
        "version": __version__,
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    builder.metadata.label = path.name[:255]
    builder.metadata.description = f"{DESCRIPTION} {key}"
    return PwJob(builder, key)


def find_earlier(key: str) -> WorkChainNode | None:
    """The newest process of the same input that still runs or has given an energy."""
    return find_described(f"{DESCRIPTION} {key}")


def result_of(node: WorkChainNode) -> dict[str, Any]:
    """What became of an input: outcome, reason, steps, energy (eV), magnetic_moment (mu_B)."""
    result: dict[str, Any] = {
        "outcome": "rejected",
        "reason": failure_reason(node),
        "steps": [],
        "energy": None,
        "magnetic_moment": None,
    }
    if "rescue" in node.outputs:
        told = node.outputs.rescue.get_dict()
        result |= {name: told[name] for name in result}
    elif node.is_excepted:
        # Of a traceback only its last line says something to a user.
        result["reason"] = f"the process excepted: {str(node.exception).strip().splitlines()[-1]}"
    result["reason"] = result["reason"] or None
    if result["outcome"] == "rejected":
        result |= {"energy": None, "magnetic_moment": None}
    for name in ("energy", "magnetic_moment"):
        value = result[name]
        result[name] = float(value) if value is not None and math.isfinite(value) else None
    return result


def pw_builder(
    parsed: PwInput,
    pseudos: dict[str, Path],
    code: AbstractCode,
    max_attempts: int | None = None,
    options: dict[str, Any] | None = None,
) -> ProcessBuilder:
    """The inputs that make `autopipe.pw` run an input as it is.

    :param pseudos: the file of each species.
    :param max_attempts: most pw.x runs, retries included; None for the ladder's own limit.
    :param options: `metadata.options` of one calculation.
    :raises InputError: a pseudopotential cannot be used.
    """
    builder = PwWorkChain.get_builder()
    builder.kpoints = _kpoints(parsed.kpoints, parsed.atoms.cell.array)
    if max_attempts is not None:
        builder.max_iterations = Int(max_attempts)
    builder.pw.code = code
    builder.pw.structure = _structure(parsed)
    builder.pw.parameters = Dict(_quoted(parsed.parameters))
    builder.pw.pseudos = _pseudos(parsed, pseudos)
    if parsed.settings:
        builder.pw.settings = Dict(parsed.settings)
    builder.pw.metadata.options = {
        "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1},
        "max_wallclock_seconds": WALLCLOCK_SECONDS,
        "withmpi": bool(code.with_mpi),
        **(options or {}),
    }
    return builder


def _structure(parsed: PwInput) -> StructureData:
    structure = StructureData(cell=parsed.atoms.cell.array.tolist(), pbc=(True, True, True))
    for one in parsed.species:
        mass = {} if one.mass is None else {"mass": one.mass}
        structure.append_kind(Kind(symbols=one.symbol, name=one.name, **mass))
    for kind, position in zip(parsed.kinds, parsed.atoms.positions.tolist(), strict=True):
        structure.append_site(Site(kind_name=kind, position=position))
    return structure


def _kpoints(kpoints: KPoints, cell: Any) -> KpointsData:
    node = KpointsData()
    node.set_cell(cell.tolist())
    if kpoints.mesh is not None:
        node.set_kpoints_mesh(list(kpoints.mesh), offset=list(kpoints.offset))
    else:
        node.set_kpoints(np.asarray(kpoints.points), weights=np.asarray(kpoints.weights))
    return node


def _pseudos(parsed: PwInput, files: dict[str, Path]) -> dict[str, UpfData]:
    found = {}
    nodes: dict[Path, UpfData] = {}
    for one in parsed.species:
        path = files[one.name]
        try:
            node = nodes.setdefault(path, nodes.get(path) or UpfData.get_or_create(path))
        except (ValueError, OSError) as error:
            # AiiDA's message may hold the whole file.
            reason = " ".join(str(error).split())[:80]
            raise InputError(
                f"the pseudopotential {path} cannot be used: AiiDA reads UPF only ({reason})"
            ) from error
        if node.element != one.symbol:
            raise InputError(
                f"ATOMIC_SPECIES gives {one.name} the pseudopotential {one.pseudo}, which is of "
                f"{node.element}"
            )
        found[one.name] = node
    return found


def _quoted(value: Any) -> Any:
    """Apostrophes doubled as Fortran wants them; AiiDA writes text between single ones."""
    if isinstance(value, dict):
        return {key: _quoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    return value.replace("'", "''") if isinstance(value, str) else value
