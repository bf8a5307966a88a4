"""The parser of `autopipe.mace`."""

from __future__ import annotations

import hashlib
import math
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode
from aiida.orm import ArrayData, Dict, SinglefileData

from aiida_autopipe.core.errors import EngineError
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.engines.mace.job import (
    ERROR_FILE,
    LOG_FILE,
    METRICS_FILE,
    PARITY_FILE,
    POTENTIAL_FILE,
)
from aiida_autopipe.engines.mace.output import Curve, explain_crash, read_results
from aiida_autopipe.parsers.ace import numbers, read_arrays
from aiida_autopipe.parsers.job_parser import JobParser

_INPUT_ERRORS = ("InputError", "DataError", "PotentialFileError")
_SUMMARY_KEYS = ("metrics", "chosen", "elements", "cutoff", "reference_energies", "seconds")


class MaceParser(JobParser):
    """Turn the files of a training into a potential, its metrics and its learning curve."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Emit what the job wrote; None keeps the exit code that the scheduler gave."""
        names = self._names
        try:
            curve = self._read_curve(names)
        except EngineError as error:
            return self._exit("ERROR_OUTPUT_UNREADABLE", filename="results", message=error)
        if METRICS_FILE not in names:
            return self._explain_failure(names, curve)
        missing = [n for n in (POTENTIAL_FILE, PARITY_FILE) if n not in names]
        if missing:
            return self._exit("ERROR_OUTPUT_MISSING", missing=", ".join(missing))
        try:
            summary = self._read_object(METRICS_FILE, _SUMMARY_KEYS)
        except ValueError as error:
            return self._exit("ERROR_OUTPUT_UNREADABLE", filename=METRICS_FILE, message=error)
        for name, value in numbers(summary["metrics"]):
            if not math.isfinite(value):
                return self._exit("ERROR_METRICS_NOT_FINITE", name=name, value=value)
        try:
            self.out("parity", read_arrays(self.retrieved, PARITY_FILE))
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            return self._exit("ERROR_OUTPUT_UNREADABLE", filename=PARITY_FILE, message=error)
        self.out("metrics", Dict({k: summary[k] for k in ("metrics", "chosen", "seconds")}))
        self.out("potential", self._read_potential(summary))
        return None

    def _read_curve(self, names: list[str]) -> Curve | None:
        """The learning curve, also as an output; None where nothing was written."""
        found = [name for name in names if name.endswith("_train.txt")]
        curve = read_results(self._content(found[0])) if found else None
        if curve is None or not curve.epoch.size:
            return None
        node = ArrayData()
        for name, values in curve.arrays().items():
            node.set_array(name, values)
        self.out("learning_curve", node)
        return curve

    def _explain_failure(self, names: list[str], curve: Curve | None) -> ExitCode | None:
        """Why there is no result: the scheduler's word first, then the job's, then its stderr."""
        if self.node.exit_status is not None:
            return None
        if ERROR_FILE in names:
            error = self._last_words(ERROR_FILE, ("type", "message"))
            if isinstance(error, ExitCode):
                return error
            return self._told(str(error["type"]), str(error["message"]), error, curve)
        texts = [self._content(LOG_FILE), *self._stderr_lines()]
        return self._told(*explain_crash("\n".join(texts)), {}, curve)

    def _told(
        self, kind: str, message: str, error: dict[str, Any], curve: Curve | None
    ) -> ExitCode:
        """The exit code of a kind of failure, see `aiida_autopipe.engines.mace.job.failure`."""
        message = message.rstrip(".")
        if kind in _INPUT_ERRORS:
            return self._exit("ERROR_INPUT_REFUSED", message=message)
        if kind == "time":
            if not error.get("new_epochs"):
                return self._exit("ERROR_NO_EPOCH_IN_TIME")
            return self._exit("ERROR_OUT_OF_TIME", epochs=curve.n_epochs if curve else 0)
        if kind == "diverged":
            return self._exit("ERROR_DIVERGED", epoch=error.get("epoch"), message=message)
        if kind == "interrupted":
            return self._exit("ERROR_INTERRUPTED")
        labels = {
            "memory": "ERROR_OUT_OF_MEMORY",
            "interpreter": "ERROR_INTERPRETER",
            "crash": "ERROR_TRAINING_CRASHED",
        }
        return self._exit(labels.get(kind, "ERROR_TRAINING_FAILED"), message=message)

    def _read_potential(self, summary: dict[str, Any]) -> PotentialData:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / POTENTIAL_FILE
            repository = self.retrieved.base.repository
            path.write_bytes(repository.get_object_content(POTENTIAL_FILE, mode="rb"))
            return PotentialData.from_files(
                {POTENTIAL_FILE: path},
                kind="mace",
                elements=summary["elements"],
                cutoff=summary["cutoff"],
                reference_energies=summary["reference_energies"],
                metrics=summary["metrics"],
                fit={**summary["chosen"], **self._fingerprints()},
            )

    def _fingerprints(self) -> dict[str, Any]:
        """Hashes of everything the model was made from."""
        inputs = self.node.inputs
        found = {
            name: inputs[name].base.attributes.get("content_hash")
            for name in ("train", "validation", "replay")
            if name in inputs
        }
        if "prior" in inputs:
            prior = inputs.prior
            name = prior.filename if isinstance(prior, SinglefileData) else prior.filenames[0]
            content = prior.base.repository.get_object_content(name, mode="rb")
            found["prior"] = hashlib.sha256(content).hexdigest()
        return found
