"""What a pw.x calculation left behind, as plain data for the recovery ladder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida.common.exceptions import NotExistent
from aiida.orm import CalcJobNode, StructureData
from numpy.typing import NDArray

from aiida_autopipe.engines.espresso.attempts import Attempt, Parameters, Situation
from aiida_autopipe.engines.espresso.failure import (
    Evidence,
    Failure,
    Kind,
    last_estimate,
    last_moments,
    recognise,
)
from aiida_autopipe.engines.espresso.ladder_electrons import PARTLY
from aiida_autopipe.engines.espresso.upf_header import UpfHeader, read_header

RYDBERG = 13.605693122994
"""eV in one Ry."""
LONG_CELL = 3.0
"""Longest over shortest lattice vector from which on charge sloshes along the cell."""
LONG_CELL_A = 15.0
"""Å; a cell shorter than this is not long, whatever its shape."""
POOL_FLAGS = ("-nk", "-npool", "-npools")


def evidence_of(node: CalcJobNode) -> Evidence:
    """All texts of a calculation, whether it was parsed or not."""
    return Evidence(
        exit_status=node.exit_status,
        stdout=_text(node, str(node.get_option("output_filename") or "aiida.out")),
        crash=_text(node, "CRASH"),
        stderr=_text(node, str(node.get_option("scheduler_stderr") or "_scheduler-stderr.txt")),
        scheduler=_scheduler_words(node),
    )


def _text(node: CalcJobNode, name: str) -> str:
    try:
        raw = node.outputs.retrieved.base.repository.get_object_content(name, mode="rb")
    except (NotExistent, AttributeError, OSError):
        return ""
    return str(raw.decode("utf-8", errors="replace"))


def _scheduler_words(node: CalcJobNode) -> str:
    """The scheduler's accounting, and its own exit codes in words."""
    info = node.get_detailed_job_info() or {}
    words = [str(info.get(key, "")) for key in ("stdout", "stderr")]
    if node.exit_status is not None and 100 <= node.exit_status < 200:
        words.append(str(node.exit_message or ""))
    return "\n".join(words)


def attempt_of(node: CalcJobNode, number: int) -> tuple[Attempt, Failure | None]:
    """One run as the ladder sees it."""
    evidence = evidence_of(node)
    failure = recognise(evidence)
    parameters = node.inputs.parameters.get_dict()
    estimate = last_estimate(evidence.stdout)
    moments = last_moments(evidence.stdout) or (None, None)
    spin = int(parameters.get("SYSTEM", {}).get("nspin", 1)) > 1
    output = (
        node.outputs.output_parameters.get_dict() if "output_parameters" in node.outputs else {}
    )
    energy = output.get("energy") if failure is None else None
    fractional, last_band, n_bands = _levels(node)
    machines, per_machine = _processes(node)
    attempt = Attempt(
        number=number,
        parameters=parameters,
        failure=None if failure is None else failure.kind,
        seen="" if failure is None else failure.seen,
        energy=None if energy is None or not math.isfinite(energy) else float(energy),
        estimate=None if estimate is None or not math.isfinite(estimate) else estimate * RYDBERG,
        moment=moments[0] if spin else None,
        absolute=moments[1] if spin else None,
        accuracies=() if failure is None else failure.accuracies,
        fractional=fractional,
        last_band=last_band,
        n_bands=n_bands,
        ranks=machines * per_machine,
        machines=machines,
        memory_kb=_memory(node),
        pools=pools_of(
            node.inputs.parallelization.get_dict() if "parallelization" in node.inputs else {},
            node.inputs.settings.get_dict() if "settings" in node.inputs else {},
        ),
    )
    return attempt, failure


def _processes(node: CalcJobNode) -> tuple[int, int]:
    """Machines, and MPI processes on each of them."""
    resources = node.get_option("resources") or {}
    machines = int(resources.get("num_machines", 1))
    if not node.get_option("withmpi"):
        return machines, 1
    each = resources.get("num_mpiprocs_per_machine")
    if each is None and "tot_num_mpiprocs" in resources:
        each = int(resources["tot_num_mpiprocs"]) // machines
    return machines, int(each or node.computer.get_default_mpiprocs_per_machine() or 1)


def _memory(node: CalcJobNode) -> int | None:
    """What the scheduler was asked for, the computer's default where the job says nothing."""
    asked = node.get_option("max_memory_kb") or node.computer.get_default_memory_per_machine()
    return int(asked) if asked else None


def pools_of(parallelization: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    """k-point pools, however they were asked for."""
    if "npool" in parallelization:
        return int(parallelization["npool"])
    words = " ".join(str(w) for w in settings.get("CMDLINE", settings.get("cmdline", []))).split()
    for flag in POOL_FLAGS:
        if flag in words[:-1]:
            return int(words[words.index(flag) + 1])
    return 1


def _levels(node: CalcJobNode) -> tuple[bool | None, float | None, int | None]:
    """Whether a level is partly filled, how full the highest band is, and the number of bands."""
    if "output_band" not in node.outputs:
        return None, None, None
    bands = node.outputs.output_band
    if "occupations" not in bands.get_arraynames():
        return None, None, None
    filled: NDArray[np.float64] = np.asarray(bands.get_array("occupations"), dtype=float)
    if filled.size == 0:
        return None, None, None
    partly = bool(np.any((filled > PARTLY[0]) & (filled < PARTLY[1])))
    return partly, float(filled[..., -1].max()), int(filled.shape[-1])


def known_attempt(known: Mapping[str, Any], parameters: Parameters) -> Attempt:
    """An attempt that was made elsewhere, from its exit status and its words."""
    words = str(known.get("failure", ""))
    status = known.get("exit_status")
    evidence = Evidence(
        exit_status=1 if status in (None, 0) else int(status),
        stdout=str(known.get("stdout", "")) + words,
        crash=words,
    )
    failure = recognise(evidence) or Failure(Kind.OTHER, words)
    moments = last_moments(evidence.stdout) or (None, None)
    estimate = last_estimate(evidence.stdout)
    return Attempt(
        number=1,
        parameters=parameters,
        failure=failure.kind,
        seen=failure.seen or words[:200],
        estimate=None if estimate is None else estimate * RYDBERG,
        moment=moments[0],
        absolute=moments[1],
        accuracies=failure.accuracies,
        elsewhere=True,
    )


def headers_of(pseudos: Mapping[str, Any]) -> dict[str, UpfHeader | None]:
    """Header of the pseudopotential of every kind."""
    return {kind: read_header(node.get_content()) for kind, node in pseudos.items()}


def situation_of(
    structure: StructureData,
    headers: Mapping[str, UpfHeader | None],
    parameters: Parameters,
    one_kpoint: bool,
    wallclock_s: float | None,
    tries_left: int,
) -> Situation:
    """What stays the same over all attempts."""
    symbols = {kind.name: kind.symbol for kind in structure.kinds}
    known = [header for header in headers.values() if header is not None]
    valence = {kind: header.z_valence for kind, header in headers.items() if header is not None}
    electrons = sum(valence.get(site.kind_name, 0.0) for site in structure.sites)
    lengths = np.linalg.norm(np.asarray(structure.cell), axis=1)
    return Situation(
        symbols=symbols,
        n_electrons=electrons - float(parameters.get("SYSTEM", {}).get("tot_charge", 0.0)),
        ultrasoft=any(header.ultrasoft for header in known),
        long_cell=bool(lengths.max() > LONG_CELL * lengths.min() and lengths.max() > LONG_CELL_A),
        one_kpoint=one_kpoint,
        suggested_wfc_Ry=max((header.cutoff_wfc_Ry for header in known), default=0.0),
        wallclock_s=wallclock_s,
        tries_left=tries_left,
    )
