"""Train a MACE model from files to files: ``python -m aiida_autopipe.engines.mace.job job.json``.

``job.json`` holds ``train`` and, each optional, ``validation``, ``test`` and ``replay`` (HDF5 file
names), ``settings`` (the fields of `MaceSettings`), ``seed``, ``prior`` (the model file to start
from), ``trusted`` (that file may be opened) and ``max_seconds``. In a folder that has the
``checkpoints`` and ``results`` of a training before, that one goes on.

Written beside it: potential.model, parity.npz and last, when all is complete, metrics.json. The
training runs in a process of its own, so that its death can be told: error.json then says the kind
of failure, with exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiida_autopipe.core.errors import AutopipeError, InputError
from aiida_autopipe.core.files import write_json
from aiida_autopipe.core.mace_settings import MaceSettings
from aiida_autopipe.engines.mace.arguments import CHECKPOINTS, RESULTS
from aiida_autopipe.engines.mace.output import explain_crash

JOB_FILE = "job.json"
CONFIG_FILE = "config.yaml"
POTENTIAL_FILE = "potential.model"
METRICS_FILE = "metrics.json"
PARITY_FILE = "parity.npz"
ERROR_FILE = "error.json"
LOG_FILE = "mace.log"
DATA_FILES = {name: f"{name}.h5" for name in ("train", "validation", "test", "replay")}
PRIOR_FILE = "prior.model"

_KEYS = {*DATA_FILES, "settings", "seed", "prior", "trusted", "max_seconds"}
_LOG_END = 20_000
_FOREVER = 1e9


def read_job(folder: Path) -> dict[str, Any]:
    """The job file of a folder.

    Raises:
        InputError: it is missing, no JSON, or has other keys than a job.
    """
    path = folder / JOB_FILE
    try:
        job = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no job file '{path}'.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"The job file '{path}' is not JSON: {error}.") from None
    if not isinstance(job, dict):
        raise InputError(f"The job file '{path}' must hold an object with train and seed.")
    unknown, missing = sorted(set(job) - _KEYS), sorted({"train", "seed"} - set(job))
    if unknown or missing:
        raise InputError(
            f"The job file '{path}' needs train and seed, and may hold "
            f"{', '.join(sorted(_KEYS - {'train', 'seed'}))}; missing: "
            f"{', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}."
        )
    if not isinstance(job["seed"], int) or not 0 <= job["seed"] < 2**32:
        raise InputError(f"The seed {job['seed']!r} must be a whole number from 0 to 2^32 - 1.")
    return job


def failure(folder: Path, kind: str, message: str, epoch: int | None = None) -> None:
    """Write error.json and one line to stderr.

    `kind` is the class of an error, or 'time', 'diverged', 'memory', 'interpreter', 'crash' or
    'interrupted'.
    """
    sys.stderr.write(f"{message}\n")
    write_json(folder / ERROR_FILE, {"type": kind, "message": message, "epoch": epoch})


def supervise(folder: Path) -> int:
    """Run the training of a folder to its end or the end of its time; the exit status.

    Raises:
        InputError: the job file cannot be used.
    """
    started = time.time()
    job = read_job(folder)
    settings = MaceSettings.from_dict(job.get("settings", {}))
    for name in (CHECKPOINTS, RESULTS):
        (folder / name).mkdir(exist_ok=True)
    deadline = started + float(job.get("max_seconds") or _FOREVER)
    validated = n_validated(folder)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(settings.threads))
    with (folder / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "aiida_autopipe.engines.mace.training", str(deadline)],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | threads,
        )
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            code = process.wait(max(1.0, deadline - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            failure(folder, "time", "the time was over in the middle of an epoch")
    if code != 0 and not (folder / ERROR_FILE).is_file():
        failure(folder, *explain_crash(_end_of(folder / LOG_FILE), code))
    if code != 0:
        _add_progress(folder, n_validated(folder) - validated)
    return int(code != 0)


def n_validated(folder: Path) -> int:
    """Epochs written down so far, those of all runs together."""
    texts = [path.read_text(encoding="utf-8") for path in (folder / RESULTS).glob("*_train.txt")]
    return sum('"mode": "opt"' in line for text in texts for line in text.splitlines())


def _add_progress(folder: Path, epochs: int) -> None:
    """How many epochs this run has added, by which one knows whether a restart makes sense."""
    error = json.loads((folder / ERROR_FILE).read_text(encoding="utf-8"))
    write_json(folder / ERROR_FILE, error | {"new_epochs": epochs})


def _end_of(path: Path) -> str:
    return path.read_bytes()[-_LOG_END:].decode(errors="replace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job named on the command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m aiida_autopipe.engines.mace.job", description="Train a MACE model."
    )
    parser.add_argument("job", type=Path, help=f"the job file, {JOB_FILE}")
    folder: Path = parser.parse_args(arguments).job.resolve().parent
    try:
        return supervise(folder)
    except AutopipeError as error:
        if folder.is_dir():
            failure(folder, type(error).__name__, str(error))
        else:
            sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
