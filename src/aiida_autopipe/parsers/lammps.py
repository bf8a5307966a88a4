"""`autopipe.lammps`: retrieved files -> frames, trace and results, and one exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from aiida.engine import ExitCode
from aiida.orm import ArrayData, Dict
from aiida.parsers import Parser

from aiida_autopipe.core.errors import DataError, EngineError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.lammps import deck
from aiida_autopipe.engines.lammps.parse import (
    Frame,
    Log,
    Outcome,
    Trace,
    outcome,
    parse_dump,
    parse_log,
    parse_trace,
)
from aiida_autopipe.engines.lammps.results import restart_arrays, sampled_frames, summarise
from aiida_autopipe.engines.lammps.sampling import MSD_PATTERN, RDF_PATTERN, structure_arrays
from aiida_autopipe.engines.lammps.settings import MdSettings

_STDERR_CHARACTERS = 300


class LammpsParser(Parser):
    """Whatever the run produced is attached, also when it failed."""

    def parse(self, **kwargs: Any) -> Any:
        """Attach outputs; what the scheduler found (memory, time limit, node failure) wins."""
        names = self.retrieved.base.repository.list_object_names()
        exit_code: Any
        if deck.LOG_FILE not in names:
            exit_code = self._missing(deck.LOG_FILE)
        else:
            try:
                exit_code = self._parse_run(Path(kwargs["retrieved_temporary_folder"]), names)
            except (EngineError, DataError) as error:
                exit_code = self.exit_codes.ERROR_OUTPUT_UNREADABLE.format(message=str(error))
        if self.node.exit_status is not None:
            return ExitCode(self.node.exit_status, self.node.exit_message)
        return exit_code

    def _parse_run(self, folder: Path, names: list[str]) -> Any:
        settings = MdSettings.from_dict(self.node.inputs.settings.get_dict())
        log = parse_log(self._text(deck.LOG_FILE), self._scheduler_stderr())
        has_trace = deck.TRACE_FILE in names
        trace = parse_trace(self._text(deck.TRACE_FILE) if has_trace else "")
        safe = self._dump(folder, deck.SAFE_PATTERN)
        restart = restart_arrays(safe, settings)
        candidates = self._without_box(self._dump(folder, deck.FRAMES_FILE))
        frames = sampled_frames(candidates, self._without_box(safe), trace, settings)
        inputs = self.node.inputs
        first = int(inputs.restart.get_array("step")) if "restart" in inputs else 0
        results = summarise(log, trace, frames, settings, first)
        self.out("results", Dict(results))
        if len(trace.step):
            self.out("trace", _array_data({f.name: getattr(trace, f.name) for f in fields(trace)}))
        if restart is not None:
            self.out("restart", _array_data(restart))
        structure = self._structure(folder, settings)
        if structure is not None:
            self.out("structure", _array_data(structure))
        if frames is not None:
            self.out("frames", DatasetData(frames))
        return self._exit_code(log, trace, results, bool(len(trace.step)))

    def _dump(self, folder: Path, pattern: str) -> list[Frame]:
        start = self.node.inputs.structure.get_dataset().atoms(0)
        rotation = deck.lammps_rotation(deck.in_vacuum(start).cell.array)
        return [
            frame
            for path in sorted(folder.glob(pattern))
            for frame in parse_dump(_decoded(path.read_bytes(), path.name), len(start), rotation)
        ]

    def _structure(self, folder: Path, settings: MdSettings) -> dict[str, Any] | None:
        """What was recorded along the run; a damaged file gives what is whole in it."""
        paths = [path for pattern in (RDF_PATTERN, MSD_PATTERN) for path in folder.glob(pattern)]
        files = {path.name: path.read_bytes().decode(errors="replace") for path in paths}
        present = self.node.inputs.structure.get_dataset().elements
        return structure_arrays(files, present, settings.timestep_fs)

    def _without_box(self, frames: list[Frame]) -> list[Frame]:
        """The box around a molecule was that of the program."""
        if not np.any(self.node.inputs.structure.get_dataset().atoms(0).pbc):
            for frame in frames:
                frame.atoms.set_cell(None)
                frame.atoms.pbc = False
        return frames

    def _text(self, name: str) -> str:
        return _decoded(self.retrieved.base.repository.get_object_content(name, "rb"), name)

    def _exit_code(
        self, log: Log, trace: Trace, results: Mapping[str, Any], has_trace: bool
    ) -> Any:
        ending = outcome(log, trace)
        step, steps = results["steps_done"], results["steps_asked"]
        codes: Any = self.exit_codes
        if ending is Outcome.ERROR:
            return codes.ERROR_LAMMPS.format(step=step, message=log.error)
        if ending is Outcome.LOST_ATOMS:
            return codes.ERROR_LOST_ATOMS.format(step=step, steps=steps, message=log.error)
        if ending is Outcome.UNSTABLE:
            return codes.ERROR_UNSTABLE.format(step=step, steps=steps)
        if ending is Outcome.INTERRUPTED:
            return codes.ERROR_INTERRUPTED.format(step=step, steps=steps, stderr=self._stderr())
        if ending is Outcome.OUT_OF_WALLTIME:
            return codes.ERROR_OUT_OF_WALLTIME.format(step=step, steps=steps)
        return None if has_trace else self._missing(deck.TRACE_FILE)

    def _missing(self, filename: str) -> Any:
        return self.exit_codes.ERROR_OUTPUT_MISSING.format(filename=filename, stderr=self._stderr())

    def _stderr(self) -> str:
        """The end of the standard error, where a program that could not start says why."""
        return " ".join(self._scheduler_stderr()[-_STDERR_CHARACTERS:].split())

    def _scheduler_stderr(self) -> str:
        name = self.node.get_option("scheduler_stderr")
        repository = self.retrieved.base.repository
        if name not in repository.list_object_names():
            return ""
        # Any program of the job writes here, in any encoding.
        content: bytes = repository.get_object_content(name, "rb")
        return content.decode(errors="replace")


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise EngineError(f"{name} is not text: {error.reason} at byte {error.start}.") from error


def _array_data(arrays: Mapping[str, Any]) -> ArrayData:
    node = ArrayData()
    for name, array in arrays.items():
        node.set_array(name, np.asarray(array))
    return node
