"""The parser of `autopipe.ace`."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from aiida.engine import ExitCode
from aiida.orm import ArrayData, Dict
from aiida.parsers import Parser

from aiida_autopipe.core.ace.job import ERROR_FILE, METRICS_FILE, PARITY_FILE, POTENTIAL_FILES
from aiida_autopipe.data.potential import PotentialData

# Errors of the fit that better input would have prevented; the others say the fit itself failed.
_INPUT_ERRORS = ("InputError", "DataError")
_SUMMARY_KEYS = ("metrics", "chosen", "elements", "cutoff", "reference_energies", "seconds")


class AceParser(Parser):
    """Turn the files of a fit into a potential, its metrics and its parity arrays."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Emit what the job wrote; None keeps the exit code that the scheduler gave."""
        names = self.retrieved.base.repository.list_object_names()
        if METRICS_FILE not in names:
            return self._explain_failure(names)
        missing = [n for n in (*POTENTIAL_FILES, PARITY_FILE) if n not in names]
        if missing:
            return self._exit("ERROR_OUTPUT_MISSING", missing=", ".join(missing))
        try:
            summary = self._read_summary()
        except ValueError as error:
            return self._exit("ERROR_OUTPUT_UNREADABLE", filename=METRICS_FILE, message=error)
        for name, value in _numbers(summary["metrics"]):
            if not math.isfinite(value):
                return self._exit("ERROR_METRICS_NOT_FINITE", name=name, value=value)
        try:
            self.out("parity", self._read_parity())
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            return self._exit("ERROR_OUTPUT_UNREADABLE", filename=PARITY_FILE, message=error)
        self.out("metrics", Dict({k: summary[k] for k in ("metrics", "chosen", "seconds")}))
        self.out("potential", self._read_potential(summary))
        return None

    def _explain_failure(self, names: list[str]) -> ExitCode | None:
        """Why there is no result: the scheduler's word first, then the job's, then its stderr."""
        if self.node.exit_status is not None:
            return None
        if ERROR_FILE in names:
            try:
                error = json.loads(self._content(ERROR_FILE))
                kind, message = str(error["type"]), str(error["message"])
            except (ValueError, KeyError, TypeError) as problem:
                return self._exit("ERROR_OUTPUT_UNREADABLE", filename=ERROR_FILE, message=problem)
            refused = kind in _INPUT_ERRORS
            return self._exit(
                "ERROR_INPUT_REFUSED" if refused else "ERROR_FIT_FAILED", message=message
            )
        stderr_name = self.node.get_option("scheduler_stderr")
        lines = self._content(stderr_name).strip().splitlines() if stderr_name in names else []
        if lines and "No module named" in lines[-1]:
            return self._exit("ERROR_INTERPRETER", message=lines[-1])
        if any(line.startswith("Traceback") for line in lines):
            return self._exit("ERROR_FIT_CRASHED", message=lines[-1])
        return self._exit("ERROR_INTERRUPTED")

    def _exit(self, label: str, **values: Any) -> ExitCode:
        code: ExitCode = getattr(self.exit_codes, label)
        return code.format(**values) if values else code

    def _content(self, name: str) -> str:
        content: str = self.retrieved.base.repository.get_object_content(name, mode="r")
        return content

    def _read_summary(self) -> dict[str, Any]:
        """metrics.json; raises ValueError when it is not what the job writes."""
        summary = json.loads(self._content(METRICS_FILE))
        if not isinstance(summary, dict):
            raise ValueError("it holds no object")
        missing = [key for key in _SUMMARY_KEYS if key not in summary]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return summary

    def _read_parity(self) -> ArrayData:
        node = ArrayData()
        with (
            self.retrieved.base.repository.open(PARITY_FILE, mode="rb") as handle,
            np.load(handle, allow_pickle=False) as arrays,
        ):
            for name in arrays.files:
                node.set_array(name, arrays[name])
        return node

    def _read_potential(self, summary: dict[str, Any]) -> PotentialData:
        with tempfile.TemporaryDirectory() as folder:
            files = {}
            for name in POTENTIAL_FILES:
                files[name] = Path(folder) / name
                content = self.retrieved.base.repository.get_object_content(name, mode="rb")
                files[name].write_bytes(content)
            return PotentialData.from_files(
                files,
                kind="ace",
                elements=summary["elements"],
                cutoff=summary["cutoff"],
                reference_energies=summary["reference_energies"],
                metrics=summary["metrics"],
                fit={
                    **summary["chosen"],
                    "train": self.node.inputs.train.base.attributes.get("content_hash"),
                },
            )


def _numbers(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in nested dictionaries with their dotted names."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", float(value)
