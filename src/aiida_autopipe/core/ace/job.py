"""Fit a potential from files to files: ``python -m aiida_autopipe.core.ace.job job.json``.

``job.json`` holds ``train`` and ``test`` (HDF5 file names; ``test`` may be null), ``settings`` (the
fields of `FitSettings`) and ``seed``. Written beside it: the potential in the three forms LAMMPS
reads, parity.npz, and last, when all is complete, metrics.json. A failure that the fit foresaw is
written to error.json and as one line to stderr, with exit status 1.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from aiida_autopipe.core.ace.fit import FitResult, FitSettings, fit_ace
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import AutopipeError, InputError

PREFIX = "potential"
POTENTIAL_FILES = (f"{PREFIX}.yace", f"{PREFIX}.yaml", f"{PREFIX}.asi")
METRICS_FILE = "metrics.json"
PARITY_FILE = "parity.npz"
ERROR_FILE = "error.json"
TRAIN_FILE = "train.h5"
TEST_FILE = "test.h5"
JOB_FILE = "job.json"


def run_job(path: Path) -> None:
    """Run one job file; raises AutopipeError when it cannot be done."""
    started = time.perf_counter()
    job = _read_job(path)
    folder = path.parent
    settings = FitSettings.from_dict(job.get("settings", {}))
    rng = np.random.default_rng(job["seed"])
    with ExitStack() as stack:
        # Opened, not read: the fit takes one structure after the other.
        train = stack.enter_context(_open(folder / job["train"]))
        test = stack.enter_context(_open(folder / job["test"])) if job.get("test") else None
        result = fit_ace(train, settings, test, rng=rng)
    result.potential.save(folder / PREFIX)
    np.savez_compressed(folder / PARITY_FILE, allow_pickle=False, **result.parity_arrays())
    _write_json(folder / METRICS_FILE, summary(result, time.perf_counter() - started))


def _open(path: Path) -> AbstractContextManager[Dataset]:
    if not path.is_file():
        raise InputError(f"There is no data file '{path}'.")
    return Dataset.open(path)


def summary(result: FitResult, seconds: float) -> dict[str, Any]:
    """What metrics.json holds: errors, chosen settings, and what a potential node needs."""
    potential = result.potential
    return {
        "metrics": result.metrics,
        "chosen": result.chosen,
        "elements": list(potential.elements),
        "cutoff": float(potential.cutoff),
        "reference_energies": dict(potential.reference_energies),
        "seconds": seconds,
    }


def _read_job(path: Path) -> dict[str, Any]:
    try:
        job = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no job file '{path}'.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"The job file '{path}' is not JSON: {error}.") from None
    if not isinstance(job, dict):
        raise InputError(f"The job file '{path}' must hold an object with train and seed.")
    unknown = sorted(set(job) - {"train", "test", "settings", "seed"})
    missing = sorted({"train", "seed"} - set(job))
    if unknown or missing:
        raise InputError(
            f"The job file '{path}' needs train and seed, and may hold test and settings; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}."
        )
    if not isinstance(job["seed"], int) or job["seed"] < 0:
        raise InputError(f"The seed {job['seed']!r} must be a whole number that is not negative.")
    return job


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that appears only when it is complete."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(partial, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job named on the command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m aiida_autopipe.core.ace.job", description="Fit an ACE potential."
    )
    parser.add_argument("job", type=Path, help="the job file, such as job.json")
    path: Path = parser.parse_args(arguments).job
    try:
        run_job(path)
    except AutopipeError as error:
        sys.stderr.write(f"{error}\n")
        if path.parent.is_dir():
            content = {"type": type(error).__name__, "message": str(error)}
            _write_json(path.parent / ERROR_FILE, content)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
