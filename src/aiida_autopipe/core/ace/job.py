"""Fit a potential from files to files: ``python -m aiida_autopipe.core.ace.job job.json``.

``job.json`` holds ``train`` and ``test`` (HDF5 file names; ``test`` may be null), ``settings`` (the
fields of `FitSettings`), ``seed`` and, for delta learning, ``prior`` (a potential file or null).
Written beside it: the potential in the three forms LAMMPS reads and the commands for it,
parity.npz, with the setting ``posterior`` also potential.posterior.npz, and last, when all is
complete, metrics.json. A failure that the fit foresaw is written
to error.json and as one line to stderr, with exit status 1.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from aiida_autopipe.core.ace.fit import FitResult, FitSettings, fit_ace
from aiida_autopipe.core.ace.posterior import posterior_path
from aiida_autopipe.core.ace.prior import load_prior
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.files import write_json
from aiida_autopipe.core.job_program import ERROR_FILE as ERROR_FILE
from aiida_autopipe.core.job_program import read_job, run_program

PREFIX = "potential"
POTENTIAL_FILES = tuple(f"{PREFIX}.{suffix}" for suffix in ("yace", "yaml", "asi", "in"))
POSTERIOR_FILE = posterior_path(f"{PREFIX}.yace").name
METRICS_FILE = "metrics.json"
PARITY_FILE = "parity.npz"
TRAIN_FILE = "train.h5"
TEST_FILE = "test.h5"
PRIOR_PREFIX = "prior"
JOB_FILE = "job.json"


def potential_files(settings: Mapping[str, Any]) -> list[str]:
    """Names of the files of the potential that a fit with these settings leaves."""
    keeps = FitSettings.from_dict(settings).posterior
    return [*POTENTIAL_FILES, *([POSTERIOR_FILE] if keeps else [])]


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
        prior = load_prior(folder / job["prior"]) if job.get("prior") else None
        result = fit_ace(train, settings, test, prior=prior, rng=rng)
    result.potential.save(folder / PREFIX)
    if settings.posterior:
        result.posterior.save(folder / POSTERIOR_FILE)
    np.savez_compressed(folder / PARITY_FILE, allow_pickle=False, **result.parity_arrays())
    write_json(folder / METRICS_FILE, summary(result, time.perf_counter() - started))


def _open(path: Path) -> AbstractContextManager[Dataset]:
    if not path.is_file():
        raise InputError(f"There is no data file '{path}'.")
    return Dataset.open(path)


def summary(result: FitResult, seconds: float) -> dict[str, Any]:
    """What metrics.json holds: errors, chosen settings, what a potential node needs, and with a
    test set the calibration of the uncertainties."""
    potential = result.potential
    return {
        "metrics": result.metrics,
        "chosen": result.chosen,
        "elements": list(potential.elements),
        "cutoff": float(potential.cutoff),
        "reference_energies": dict(potential.reference_energies),
        "seconds": seconds,
        **({} if result.calibration is None else {"calibration": result.calibration}),
    }


def _read_job(path: Path) -> dict[str, Any]:
    job = read_job(path)
    unknown = sorted(set(job) - {"train", "test", "settings", "seed", "prior"})
    missing = sorted({"train", "seed"} - set(job))
    if unknown or missing:
        raise InputError(
            f"The job file '{path}' needs train and seed, and may hold test, settings and prior; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}."
        )
    if not isinstance(job["seed"], int) or job["seed"] < 0:
        raise InputError(f"The seed {job['seed']!r} must be a whole number that is not negative.")
    return job


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job named on the command line; the exit status."""
    return run_program(run_job, "aiida_autopipe.core.ace.job", "Fit an ACE potential.", arguments)


if __name__ == "__main__":
    sys.exit(main())
