"""Write a report to a folder."""

import json
import os
import tempfile
from pathlib import Path

from aiida_autopipe.report.model import Report
from aiida_autopipe.report.page import render
from aiida_autopipe.report.summary import summary

PAGE_NAME = "report.html"
SUMMARY_NAME = "summary.json"


def write_report(report: Report, folder: str | Path) -> dict[str, Path]:
    """Write `report.html` and `summary.json` into `folder` (made if needed).

    Both files are named in the report's `files`. Each is replaced in one step, so a reader never
    sees half a file. Raises OSError where the folder cannot be written.

    :return: `{"report": path, "summary": path}`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {**report.files, "report": PAGE_NAME, "summary": SUMMARY_NAME}
    report = report.model_copy(update={"files": files})
    numbers = json.dumps(summary(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    paths = {"report": folder / PAGE_NAME, "summary": folder / SUMMARY_NAME}
    _replace(paths["report"], render(report))
    _replace(paths["summary"], numbers)
    return paths


def _replace(path: Path, text: str) -> None:
    """Write `text` beside `path`, then rename: the rename is atomic within one file system."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
