"""The parser of `autopipe.surrogate_md`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode
from aiida.orm import Dict

from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.core.explore.job import ERROR_FILE, FRAMES_FILE, SUMMARY_FILE
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.parsers.job_parser import JobParser

_LABELS = {"EngineError": "ERROR_SURROGATE", "NoFramesError": "ERROR_NO_FRAMES"}
_SUMMARY_KEYS = ("frames", "rejected", "trajectories", "all_trajectories")


class SurrogateMdParser(JobParser):
    """Turn the files of an exploration into frames and a summary."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Emit what the job wrote; None keeps the exit code that the scheduler gave."""
        names = self._names
        if SUMMARY_FILE not in names:
            return self._explain_failure(names)
        if FRAMES_FILE not in names:
            return self._exit("ERROR_OUTPUT_MISSING", missing=FRAMES_FILE)
        try:
            summary = self._read_object(SUMMARY_FILE, _SUMMARY_KEYS)
        except ValueError as error:
            return self._exit("ERROR_OUTPUT_UNREADABLE", filename=SUMMARY_FILE, message=error)
        try:
            self.out("frames", self._read_frames())
        except (AutopipeError, OSError) as error:
            return self._exit("ERROR_OUTPUT_UNREADABLE", filename=FRAMES_FILE, message=error)
        self.out("summary", Dict(summary))
        done, total = len(summary["trajectories"]), summary["all_trajectories"]
        if self.node.exit_status is None and done < total:
            return self._exit("ERROR_OUT_OF_TIME", done=done, total=total)
        return None

    def _explain_failure(self, names: list[str]) -> ExitCode | None:
        """Why there is no result: the scheduler's word first, then the job's, then its stderr."""
        if self.node.exit_status is not None:
            return None
        if ERROR_FILE not in names:
            return self._explain_silence("ERROR_CRASHED")
        error = self._last_words(ERROR_FILE, ("type", "message"))
        if isinstance(error, ExitCode):
            return error
        label = _LABELS.get(error["type"], "ERROR_INPUT_REFUSED")
        return self._exit(label, message=error["message"])

    def _read_frames(self) -> DatasetData:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / FRAMES_FILE
            content = self.retrieved.base.repository.get_object_content(FRAMES_FILE, mode="rb")
            path.write_bytes(content)
            return DatasetData.from_file(path)
