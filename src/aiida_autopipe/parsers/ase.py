"""The parser of `autopipe.ase`."""

from __future__ import annotations

from typing import Any

from aiida.engine import ExitCode
from aiida.orm import Dict

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.oracle.job import ERROR_FILE, RESULTS_FILE
from aiida_autopipe.core.oracle.results import JobResults, labelled, read_results
from aiida_autopipe.core.oracle.settings import AseSettings
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.parsers.job_parser import JobParser

_ERRORS = {
    "import": "ERROR_CALCULATOR_NOT_FOUND",
    "keywords": "ERROR_KEYWORDS_REFUSED",
    "interpreter": "ERROR_INTERPRETER",
    "start": "ERROR_CALCULATOR_CRASHED",
}
_WITH_CALCULATOR = ("import", "keywords", "start")


class AseParser(JobParser):
    """Turn the lines of a job into labels and outcomes, however the job ended."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Emit what is complete; None where the job ended well, or the scheduler said why not."""
        source: Dataset = self.node.inputs.dataset.get_dataset()
        names = self._names
        results, code = JobResults(), None
        if RESULTS_FILE in names:
            sizes = {i: int(size) for i, size in enumerate(source.sizes)}
            try:
                results = read_results(self._content(RESULTS_FILE), sizes)
            except DataError as error:
                message = str(error)
                code = self._exit("ERROR_OUTPUT_UNREADABLE", filename=RESULTS_FILE, message=message)
        code = code or self._explain(names, results, len(source))
        reason = self._reason(code)
        self.out("outcomes", Dict({"outcomes": results.outcomes(len(source), reason)}))
        settings = AseSettings.from_dict(self.node.inputs.settings.get_dict())
        found = labelled(source, results, settings.method(results.versions))
        if found is not None:
            self.out("labelled", DatasetData(found))
        return None if self.node.exit_status is not None else code

    def _reason(self, code: ExitCode | None) -> str:
        """Why structures without an outcome have none."""
        if self.node.exit_status is not None:
            return str(self.node.exit_message or f"The job ended with {self.node.exit_status}.")
        return "The job did not come to it." if code is None else str(code.message)

    def _explain(self, names: list[str], results: JobResults, total: int) -> ExitCode | None:
        """The exit code of how the job ended; None when it came to its end."""
        done = len(results.records)
        if ERROR_FILE in names:
            return self._explain_error()
        if results.ended == "time":
            return self._exit("ERROR_OUT_OF_TIME", done=done, total=total)
        if results.ended is not None:
            return None
        lines = self._stderr_lines()
        if any(line.startswith("Traceback") for line in lines):
            return self._exit("ERROR_JOB_CRASHED", message=lines[-1])
        if lines and RESULTS_FILE not in names:
            return self._exit("ERROR_INTERPRETER", message=lines[-1])
        return self._exit("ERROR_INTERRUPTED", done=done, total=total)

    def _explain_error(self) -> ExitCode:
        error = self._last_words(ERROR_FILE, ("kind", "message"))
        if isinstance(error, ExitCode):
            return error
        kind, values = str(error["kind"]), {"message": str(error["message"])}
        if kind not in _ERRORS:
            problem = f"'{kind}' is no kind of error"
            return self._exit("ERROR_OUTPUT_UNREADABLE", filename=ERROR_FILE, message=problem)
        if kind in _WITH_CALCULATOR:
            values["calculator"] = str(self.node.inputs.settings["calculator"])
        return self._exit(_ERRORS[kind], **values)
