"""Programs that run one job file in its folder on a computer: their command line and last words."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiida_autopipe.core.errors import AutopipeError, InputError
from aiida_autopipe.core.files import write_json

ERROR_FILE = "error.json"
"""Written when a job fails in a foreseen way: `type`, the class of the error, and `message`."""


def read_job(path: Path) -> dict[str, Any]:
    """The object in a job file; raises InputError for a file that holds none."""
    try:
        job = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no job file '{path}'.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"The job file '{path}' is not JSON: {error}.") from None
    if not isinstance(job, dict):
        raise InputError(f"The job file '{path}' must hold an object.")
    return job


def run_program(
    run: Callable[[Path], None], module: str, description: str, arguments: Sequence[str] | None
) -> int:
    """Run the job file named on the command line; the exit status.

    A foreseen failure is one line on the standard error, and `ERROR_FILE` beside the job file.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("job", type=Path, help="the job file, such as job.json")
    path: Path = parser.parse_args(arguments).job
    try:
        run(path)
    except AutopipeError as error:
        sys.stderr.write(f"{error}\n")
        if path.parent.is_dir():
            content = {"type": type(error).__name__, "message": str(error)}
            write_json(path.parent / ERROR_FILE, content)
        return 1
    return 0
