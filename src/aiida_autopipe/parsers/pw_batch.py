"""`autopipe.pw_batch`: the archives of a batch -> labels, and one outcome for every structure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from aiida.engine import ExitCode
from aiida.orm import Dict
from aiida.parsers import Parser
from aiida_quantumespresso.calculations.pw import PwCalculation
from aiida_quantumespresso.parsers.parse_raw.pw import detect_important_message, parse_stdout
from aiida_quantumespresso.parsers.pw import PwParser
from aiida_quantumespresso.utils.mapping import get_logging_container
from ase import Atoms

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import EngineError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.espresso import batch
from aiida_autopipe.engines.espresso.batch_output import (
    RunFiles,
    XmlResult,
    best_archives,
    program_started,
    read_run,
    read_xml,
)
from aiida_autopipe.engines.espresso.failure import Evidence, recognise
from aiida_autopipe.engines.espresso.pw import (
    PwLabel,
    PwSettings,
    is_isolated_atom,
    label_from_output,
    method,
    parameters,
)

_STDERR_CHARACTERS = 300


@dataclass(frozen=True)
class Outcome:
    """What became of one structure: 'ok', 'failed' or 'not_run'."""

    position: int
    outcome: str
    reason: str | None = None
    exit_status: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Labelled:
    """The label of one structure, and where its atoms are."""

    label: PwLabel
    geometry: XmlResult


@dataclass(frozen=True)
class Failure:
    """Why a structure has no label; `exit_status` as aiida-quantumespresso counts."""

    exit_status: int | None
    reason: str


class Verdict(PwParser):
    """aiida-quantumespresso's checks of one pw.x run, outside of a calculation of its own."""

    exit_codes = PwCalculation.exit_codes

    def __init__(self, calculation: str, forces_converged: bool) -> None:
        """Remember what the checks ask a node about."""
        self._calculation = calculation
        self._forces_converged = forces_converged

    def get_calculation_type(self) -> str:
        """'scf' or 'relax'."""
        return self._calculation

    def is_ionically_converged(self, trajectory: Any, except_final_scf: bool = False) -> bool:
        """Whether the last forces are below the threshold."""
        return self._forces_converged

    def check(self, logs: Any, xml_problem: Any) -> Any:
        """The exit code of the run, None for success; in the order of `PwParser.parse`."""
        codes = self.exit_codes
        early = self.validate_premature_exit(logs)
        if early:
            return early
        if "ERROR_OUTPUT_STDOUT_INCOMPLETE" in logs.error:
            return codes.ERROR_OUTPUT_FILES if xml_problem else codes.ERROR_OUTPUT_STDOUT_INCOMPLETE
        if xml_problem:
            return xml_problem
        if self._calculation == "relax":
            return self.validate_ionic(None, {}, logs)
        if "ERROR_ELECTRONIC_CONVERGENCE_NOT_REACHED" in logs.error:
            return codes.ERROR_ELECTRONIC_CONVERGENCE_NOT_REACHED
        return None


def judge(settings: PwSettings, atoms: Atoms, files: RunFiles) -> Labelled | Failure:
    """The label of one run, or why there is none, as a calculation of its own would have it."""
    codes = PwCalculation.exit_codes
    geometry, xml_problem, said = None, None, ""
    try:
        geometry = None if files.xml is None else read_xml(files.xml)
    except EngineError as error:
        xml_problem, said = codes.ERROR_OUTPUT_XML_PARSE, str(error)
    if files.xml is None:
        xml_problem = codes.ERROR_OUTPUT_XML_MISSING
    relax, isolated = batch.relaxed(atoms), is_isolated_atom(atoms)
    asked = parameters(settings, atoms, relax=relax)
    if not relax and not isolated and _is_clean(files):
        smearing, logs = 0.0, get_logging_container()
    else:
        smearing, logs = _read_stdout(files, asked)
    converged = geometry is not None and bool(
        np.all(np.abs(geometry.forces) <= settings.force_threshold)
    )
    code = Verdict(asked["CONTROL"]["calculation"], converged).check(logs, xml_problem)
    if code is not None or geometry is None:
        return Failure(code.status, said or _reason(files, code))
    output = {"energy": geometry.energy, "energy_smearing": smearing}
    try:
        label = label_from_output(output, geometry.forces, geometry.stress, isolated)
    except EngineError as error:
        return Failure(None, str(error))
    return Labelled(label, geometry)


def _is_clean(files: RunFiles) -> bool:
    """True for a run that ended and printed nothing that aiida-quantumespresso looks for.

    The same words in the whole text at once: line by line it takes twenty times as long.
    """
    logs = get_logging_container()
    detect_important_message(logs, files.stdout)
    suspicious = logs.error or "some nodes have no k-points" in files.stdout
    return files.crash is None and "JOB DONE" in files.stdout and not suspicious


def _reason(files: RunFiles, code: Any) -> str:
    """What went wrong, in the words of the recovery ladder."""
    found = recognise(
        Evidence(
            exit_status=code.status,
            stdout=files.stdout,
            crash=files.crash or "",
            stderr=files.stderr,
            return_code=files.status,
        )
    )
    return str(code.message) if found is None else str(found)


def _read_stdout(files: RunFiles, asked: dict[str, dict[str, Any]]) -> tuple[float, Any]:
    """The energy of the smearing, -TS in eV, and the messages."""
    logs = get_logging_container()
    try:
        parsed, logs = parse_stdout(files.stdout, asked, crash_file=files.crash)
        return (parsed["trajectory"].get("energy_smearing") or [0.0])[-1], logs
    # It raises whatever a line that it does not expect leads to.
    except Exception:  # noqa: BLE001
        logs.error.append("ERROR_OUTPUT_STDOUT_INCOMPLETE")
        for line in [*files.stdout.splitlines(), *(files.crash or "").splitlines()]:
            detect_important_message(logs, line)
        return 0.0, logs


class PwBatchParser(Parser):
    """Whatever was complete is attached, also when the job was ended in the middle."""

    def parse(self, **kwargs: Any) -> Any:
        """Attach outputs; what the scheduler found (memory, time limit, node failure) wins."""
        # Each access of the property is a query.
        self._repository = self.retrieved.base.repository
        self._settings = PwSettings.from_dict(self.node.inputs.settings.get_dict())
        data = self.node.inputs.dataset.get_dataset()
        refused = json.loads(self._own_text(batch.REFUSED_FILE))
        archives = best_archives(self._archive_names())
        outcomes: list[Outcome] = []
        labels: dict[int, Labelled] = {}
        started = False
        for position in range(len(data)):
            if str(position) in refused:
                outcomes.append(Outcome(position, "failed", refused[str(position)]))
                continue
            if position not in archives:
                outcomes.append(Outcome(position, "not_run", "The job ended before its turn."))
                continue
            try:
                files = read_run(self._archive(archives[position]))
            except EngineError as error:
                outcomes.append(Outcome(position, "not_run", str(error)))
                continue
            started = started or program_started(files)
            found = self._inspect(position, data.atoms(position), files)
            outcomes.append(found[0])
            if found[1] is not None:
                labels[position] = found[1]
        return self._finish(data, outcomes, labels, started or len(refused) == len(data))

    def _finish(
        self, data: Dataset, outcomes: list[Outcome], labels: dict[int, Labelled], started: bool
    ) -> Any:
        """Attach the outputs and choose the exit code of the job."""
        never = not started and any(entry.outcome == "failed" for entry in outcomes)
        if never:
            outcomes = [replace(entry, outcome="not_run", exit_status=None) for entry in outcomes]
        self.out("outcomes", Dict({"outcomes": [asdict(entry) for entry in outcomes]}))
        if labels:
            self.out("labelled", DatasetData(self._labelled(data, labels)))
        if self.node.exit_status is not None:
            return ExitCode(self.node.exit_status, self.node.exit_message)
        codes: Any = self.exit_codes
        if never:
            reason = next(entry.reason for entry in outcomes if entry.reason)
            return codes.ERROR_PROGRAM_NOT_STARTED.format(count=len(data), reason=reason)
        if batch.LOG_FILE not in self._repository.list_object_names():
            return codes.ERROR_OUTPUT_MISSING.format(
                filename=batch.LOG_FILE, stderr=self._scheduler_stderr()
            )
        not_run = sum(entry.outcome == "not_run" for entry in outcomes)
        if not_run:
            return codes.ERROR_INTERRUPTED.format(not_run=not_run, count=len(data))
        return None

    def _inspect(
        self, position: int, atoms: Atoms, files: RunFiles
    ) -> tuple[Outcome, Labelled | None]:
        """The outcome of one run, with its label when it succeeded."""
        failed = Outcome(position, "failed", seconds=files.seconds)
        judged = judge(self._settings, atoms, files)
        if isinstance(judged, Labelled):
            return replace(failed, outcome="ok", exit_status=0), judged
        if files.ended == "stopped":
            reason = f"The job was stopped while it ran, after {files.seconds:.0f} s."
            return replace(failed, outcome="not_run", reason=reason), None
        if files.ended == "timeout":
            limit = self.node.inputs.structure_seconds.value
            code = PwCalculation.exit_codes.ERROR_OUT_OF_WALLTIME
            judged = Failure(code.status, f"pw.x exceeded the limit of {limit} s.")
        return replace(failed, reason=judged.reason, exit_status=judged.exit_status), None

    def _labelled(self, data: Dataset, labels: dict[int, Labelled]) -> Dataset:
        """The structures that succeeded, relaxed ones where they ended, with their labels."""
        positions = sorted(labels)
        chosen = data[np.array(positions, dtype=int)]
        coordinates, cells = chosen.positions.copy(), chosen.cell.copy()
        stress = np.full((len(chosen), 6), np.nan)
        for row, position in enumerate(positions):
            atoms, result = data.atoms(position), labels[position]
            # The stress of an atom or a molecule in a box is an artefact of the box.
            if np.all(atoms.pbc):
                stress[row] = result.label.stress
            if batch.relaxed(atoms) and not is_isolated_atom(atoms):
                coordinates[chosen.offsets[row] : chosen.offsets[row + 1]] = (
                    result.geometry.positions
                )
                cells[row] = result.geometry.cell
        pseudos = {el: node.md5 for el, node in sorted(self.node.inputs.pseudos.items())}
        return replace(
            chosen.with_columns(position=positions),
            positions=coordinates,
            cell=cells,
            energy=np.array([labels[i].label.energy for i in positions]),
            forces=np.concatenate([labels[i].label.forces for i in positions]),
            stress=stress if np.isfinite(stress).any() else None,
            force_mask=None,
            attributes={"method": method(self._settings, pseudos)},
        )

    def _own_text(self, name: str) -> str:
        content: str = self.node.base.repository.get_object_content(name, "r")
        return content

    def _archive_names(self) -> list[str]:
        if "results" not in self._repository.list_object_names():
            return []
        names: list[str] = self._repository.list_object_names("results")
        return names

    def _archive(self, name: str) -> bytes:
        content: bytes = self._repository.get_object_content(f"results/{name}", "rb")
        return content

    def _scheduler_stderr(self) -> str:
        """The end of the standard error, where a job that could not start says why."""
        name = self.node.get_option("scheduler_stderr")
        if name not in self._repository.list_object_names():
            return ""
        content: bytes = self._repository.get_object_content(name, "rb")
        return " ".join(content.decode(errors="replace")[-_STDERR_CHARACTERS:].split())
