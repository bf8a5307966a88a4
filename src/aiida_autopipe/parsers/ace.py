"""The parser of `autopipe.ace`."""

from __future__ import annotations

import math
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from aiida.engine import ExitCode
from aiida.orm import ArrayData, Dict, FolderData

from aiida_autopipe.core.ace.job import ERROR_FILE, METRICS_FILE, PARITY_FILE, potential_files
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.parsers.job_parser import JobParser

# Errors of the fit that better input would have prevented; the others say the fit itself failed.
_INPUT_ERRORS = ("InputError", "DataError")
_SUMMARY_KEYS = ("metrics", "chosen", "elements", "cutoff", "reference_energies", "seconds")
_METRICS_KEYS = ("metrics", "chosen", "seconds", "calibration")


class AceParser(JobParser):
    """Turn the files of a fit into a potential, its metrics and its parity arrays."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Emit what the job wrote; None keeps the exit code that the scheduler gave."""
        names = self._names
        if METRICS_FILE not in names:
            return self._explain_failure(names)
        missing = [n for n in (*self._potential_files, PARITY_FILE) if n not in names]
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
        self.out("metrics", Dict({k: summary[k] for k in _METRICS_KEYS if k in summary}))
        self.out("potential", self._read_potential(summary))
        return None

    @property
    def _potential_files(self) -> list[str]:
        return potential_files(self.node.inputs.settings.get_dict())

    def _explain_failure(self, names: list[str]) -> ExitCode | None:
        """Why there is no result: the scheduler's word first, then the job's, then its stderr."""
        if self.node.exit_status is not None:
            return None
        if ERROR_FILE not in names:
            return self._explain_silence("ERROR_FIT_CRASHED")
        error = self._last_words(ERROR_FILE, ("type", "message"))
        if isinstance(error, ExitCode):
            return error
        refused = error["type"] in _INPUT_ERRORS
        return self._exit(
            "ERROR_INPUT_REFUSED" if refused else "ERROR_FIT_FAILED", message=error["message"]
        )

    def _read_potential(self, summary: dict[str, Any]) -> PotentialData:
        with tempfile.TemporaryDirectory() as folder:
            files = {}
            for name in self._potential_files:
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


def read_arrays(retrieved: FolderData, name: str) -> ArrayData:
    """The arrays of a retrieved .npz file; raises what NumPy raises for one that is none."""
    node = ArrayData()
    with (
        retrieved.base.repository.open(name, mode="rb") as handle,
        np.load(handle, allow_pickle=False) as arrays,
    ):
        for key in arrays.files:
            node.set_array(key, arrays[key])
    return node


def numbers(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in nested dictionaries with their dotted names."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", float(value)
