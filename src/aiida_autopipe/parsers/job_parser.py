"""What parsers of jobs have in common: files as text, exit codes, and a job's own last words."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from aiida.engine import ExitCode
from aiida.parsers import Parser


class JobParser(Parser):
    """A parser of a job that writes JSON and, when it fails, an error.json.

    Exit codes that its job must have: ERROR_OUTPUT_UNREADABLE (filename, message) for `_last_words`
    and ERROR_INTERPRETER (message) and ERROR_INTERRUPTED for `_explain_silence`.
    """

    @property
    def _names(self) -> list[str]:
        """Names of the files that were retrieved."""
        names: list[str] = self.retrieved.base.repository.list_object_names()
        return names

    def _exit(self, label: str, **values: Any) -> ExitCode:
        code: ExitCode = getattr(self.exit_codes, label)
        return code.format(**values) if values else code

    def _content(self, name: str) -> str:
        """The text of a retrieved file; '' for one that is not there."""
        if name not in self._names:
            return ""
        content: bytes = self.retrieved.base.repository.get_object_content(name, mode="rb")
        return content.decode("utf-8", errors="replace")

    def _read_object(self, name: str, keys: Collection[str]) -> dict[str, Any]:
        """A JSON object with these keys; raises ValueError when the file holds something else."""
        found = json.loads(self._content(name))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
        missing = [key for key in keys if key not in found]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return found

    def _last_words(self, name: str, keys: Collection[str]) -> dict[str, Any] | ExitCode:
        """What a job wrote about its failure; an exit code where that cannot be read."""
        try:
            return self._read_object(name, keys)
        except ValueError as problem:
            return self._exit("ERROR_OUTPUT_UNREADABLE", filename=name, message=problem)

    def _stderr_lines(self) -> list[str]:
        return self._content(self.node.get_option("scheduler_stderr")).strip().splitlines()

    def _explain_silence(self, crashed: str) -> ExitCode:
        """Why a job left nothing: no package, a traceback (the label `crashed`), or interrupted."""
        lines = self._stderr_lines()
        if lines and "No module named" in lines[-1]:
            return self._exit("ERROR_INTERPRETER", message=lines[-1])
        if any(line.startswith("Traceback") for line in lines):
            return self._exit(crashed, message=lines[-1])
        return self._exit("ERROR_INTERRUPTED")
