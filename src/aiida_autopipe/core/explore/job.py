"""Explore from file to file: ``python -m aiida_autopipe.core.explore.job job.json``.

``job.json`` holds ``starts`` (an HDF5 file name), ``surrogate`` (the fields of `SurrogateSpec`),
``settings`` (those of `ExploreSettings`), ``seed``, ``processes``, ``engine`` and ``max_seconds``
(or null). Written beside it: frames.h5 and last, when all is complete, summary.json. A failure that
was foreseen is written to error.json and as one line to stderr, with exit status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.explore.run import explore
from aiida_autopipe.core.explore.settings import ExploreSettings
from aiida_autopipe.core.files import write_json
from aiida_autopipe.core.job_program import ERROR_FILE as ERROR_FILE
from aiida_autopipe.core.job_program import read_job, run_program
from aiida_autopipe.core.surrogates.registry import SurrogateSpec

JOB_FILE = "job.json"
STARTS_FILE = "starts.h5"
FRAMES_FILE = "frames.h5"
SUMMARY_FILE = "summary.json"
MODEL_PREFIX = "model"
_KEYS = {"starts", "surrogate", "settings", "seed", "processes", "engine", "max_seconds"}


def run_job(path: Path) -> None:
    """Run one job file; raises AutopipeError when it cannot be done."""
    job = _read_job(path)
    folder = path.parent
    starts = Dataset.read_hdf5(folder / job["starts"])
    found = explore(
        starts,
        SurrogateSpec.from_dict(job["surrogate"]),
        ExploreSettings.from_dict(job["settings"]),
        job["seed"],
        folder / FRAMES_FILE,
        processes=job["processes"],
        engine=job["engine"],
        max_seconds=job["max_seconds"],
    )
    write_json(folder / SUMMARY_FILE, found.summary())


def _read_job(path: Path) -> dict[str, Any]:
    job = read_job(path)
    if set(job) != _KEYS:
        raise InputError(f"The job file '{path}' must hold {', '.join(sorted(_KEYS))}.")
    return job


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job named on the command line; the exit status."""
    module = "aiida_autopipe.core.explore.job"
    return run_program(run_job, module, "Explore with a surrogate.", arguments)


if __name__ == "__main__":
    sys.exit(main())
