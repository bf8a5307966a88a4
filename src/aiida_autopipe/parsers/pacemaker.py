"""The parser of `autopipe.pacemaker`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode
from aiida.orm import Dict

from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.engines.pacemaker.dataset import reference_energies
from aiida_autopipe.engines.pacemaker.files import (
    ACTIVE_SET_FILE,
    LOG_FILE,
    METRICS_FILES,
    RESULT_FILE,
)
from aiida_autopipe.engines.pacemaker.output import Outcome, errors, judge, read_metrics
from aiida_autopipe.parsers.job_parser import JobParser

_EXITS = {
    "data": "ERROR_INPUT_REFUSED",
    "energies": "ERROR_INPUT_REFUSED",
    "diverged": "ERROR_DIVERGED",
    "crashed": "ERROR_CRASHED",
    "interrupted": "ERROR_INTERRUPTED",
}


class PacemakerParser(JobParser):
    """Turn the files of a fit into a potential and its metrics, whatever the exit code says."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Emit what the job wrote; None keeps the exit code that the scheduler gave."""
        names = self._names
        log, metrics = self._content(LOG_FILE), self._content(METRICS_FILES[0])
        stderr = self._content(self.node.get_option("scheduler_stderr"))
        outcome = judge(log, metrics, stderr)
        tables = {
            name.removesuffix(".txt"): read_metrics(self._content(name)) for name in METRICS_FILES
        }
        record = self._record(outcome, tables)
        self.out("metrics", Dict(record))
        if outcome.failure is not None:
            if self.node.exit_status is not None and outcome.failure == "interrupted":
                return None
            return self._exit(_EXITS[outcome.failure], message=outcome.message)
        if RESULT_FILE not in names:
            return self._exit("ERROR_OUTPUT_MISSING", missing=RESULT_FILE)
        try:
            self.out("potential", self._potential(record, ACTIVE_SET_FILE in names))
        except AutopipeError as error:
            return self._exit("ERROR_OUTPUT_UNREADABLE", filename=RESULT_FILE, message=error)
        return None

    def _record(self, outcome: Outcome, tables: dict[str, Any]) -> dict[str, Any]:
        """Errors under our names, and the course of the fit; numbers that are none are left out."""
        parts = {"train": errors(tables["metrics"]), "test": errors(tables["test_metrics"])}
        steps = tables["ladder_metrics"] or tables["cycle_metrics"]
        return {
            "metrics": {part: _finite(found) for part, found in parts.items() if found},
            "chosen": {
                "n_functions": outcome.n_functions,
                "iterations": outcome.iterations,
                "converged": outcome.converged,
                "pacemaker_version": outcome.version,
                **_finite({"loss": outcome.loss}),
            },
            "steps": [
                _finite({name: column[k] for name, column in steps.items()})
                for k in range(len(next(iter(steps.values()), [])))
            ],
        }

    def _potential(self, record: dict[str, Any], has_active_set: bool) -> PotentialData:
        """The potential in the files every stage uses; it knows no gamma without an active set."""
        references = reference_energies(self.node.inputs.train.get_dataset())
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file in (RESULT_FILE, ACTIVE_SET_FILE)[: 1 + has_active_set]:
                content = self.retrieved.base.repository.get_object_content(file, mode="rb")
                (folder / file).write_bytes(content)
            read = ACEPotential.load(folder / RESULT_FILE)
            potential = replace(read, reference_energies=references)
            saved = potential.save(folder / "potential")
            return PotentialData.from_files(
                {path.name: path for path in saved},
                kind="ace",
                elements=potential.elements,
                cutoff=potential.cutoff,
                reference_energies=references,
                metrics=record["metrics"],
                fit={
                    **record["chosen"],
                    "train": self.node.inputs.train.base.attributes.get("content_hash"),
                },
            )


def _finite(values: dict[str, float]) -> dict[str, float]:
    """Without what JSON cannot hold."""
    return {name: x for name, x in values.items() if abs(x) < float("inf")}
