"""What a MACE training wrote: losses and errors by epoch, and why it ended."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.errors import EngineError
from aiida_autopipe.core.mace_evaluate import HEAD

Array = NDArray[np.float64]

_ERRORS = {
    "energy_rmse_per_atom": "rmse_e_per_atom",
    "energy_mae_per_atom": "mae_e_per_atom",
    "forces_rmse": "rmse_f",
    "forces_mae": "mae_f",
    "stress_rmse": "rmse_stress",
}


@dataclass(frozen=True)
class Curve:
    """The learning curve, one row for each epoch that was validated.

    Attributes:
        epoch: (n,) counted from 0 as MACE does; -1 is before any training.
        train_loss: (n,) mean loss of the steps of the epoch, NaN before training.
        validation_loss: (n,) of the new data, after the epoch.
        errors: name -> (n,) validation errors in eV, Å and atoms; NaN where MACE gives none.
        replay_loss: (n,) validation loss of the replayed data, NaN without.
    """

    epoch: NDArray[np.int64]
    train_loss: Array
    validation_loss: Array
    errors: dict[str, Array]
    replay_loss: Array

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name, for a node."""
        return {
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            "validation_loss": self.validation_loss,
            "replay_loss": self.replay_loss,
            **{f"validation_{name}": values for name, values in self.errors.items()},
        }

    @property
    def n_epochs(self) -> int:
        """Epochs that were trained and validated."""
        return int((self.epoch >= 0).sum())

    def loss_after(self, epoch: int) -> float | None:
        """Validation loss after an epoch, None where it is unknown."""
        found = self.validation_loss[self.epoch == epoch]
        return float(found[-1]) if found.size else None


def read_results(text: str) -> Curve:
    """The learning curve from ``results/*_train.txt``, one JSON object on each line.

    Where a restart went back, what came after in the run before does not count. A last line
    without an end is what a killed training leaves, and is left out.

    Raises:
        EngineError: another line is not a JSON object with a mode, with its number.
    """
    rows: dict[int, dict[str, Any]] = {}
    steps: dict[int, list[float]] = {}
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = _entry(line)
        if entry is None:
            if number == len(lines):
                break
            raise EngineError(f"Line {number} of MACE's results is no record of a step: '{line}'.")
        epoch = -1 if entry.get("epoch") is None else int(entry["epoch"])
        if entry["mode"] == "opt":
            for later in [known for known in rows if known >= epoch]:
                del rows[later]
                steps.pop(later, None)
            steps.setdefault(epoch, []).append(_number(entry.get("loss")))
        elif entry["mode"] == "eval":
            key = "new" if entry.get("head", HEAD) == HEAD else "replay"
            known_row = rows.setdefault(epoch, {})
            if epoch >= 0 or key not in known_row:
                known_row[key] = entry
    return _curve(rows, steps)


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "mode" in entry else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _curve(rows: dict[int, dict[str, Any]], steps: dict[int, list[float]]) -> Curve:
    epochs = sorted(epoch for epoch in rows if "new" in rows[epoch])
    new = [rows[epoch]["new"] for epoch in epochs]
    replay = [rows[epoch].get("replay", {}) for epoch in epochs]
    return Curve(
        epoch=np.array(epochs, dtype=np.int64),
        train_loss=np.array([np.mean(steps.get(e, [np.nan])) for e in epochs], dtype=float),
        validation_loss=np.array([_number(row.get("loss")) for row in new]),
        errors={
            name: np.array([_number(row.get(key)) for row in new]) for name, key in _ERRORS.items()
        },
        replay_loss=np.array([_number(row.get("loss")) for row in replay]),
    )


@dataclass(frozen=True)
class Log:
    """What the log says about the run as a whole; None where it does not."""

    version: str | None
    model_epoch: int | None
    last_epoch: int | None
    last_loss: float | None


def read_log(text: str) -> Log:
    """Version, the last epoch with its loss, and the epoch whose model was kept."""
    version = re.search(r"MACE version: (\S+)", text)
    kept = re.findall(r"Loaded Stage one model from epoch (\d+)", text)
    epochs = re.findall(r"Epoch (\d+): head: \S+, loss=\s*([-+.\deE]+|nan|inf)", text)
    return Log(
        version=version.group(1) if version else None,
        model_epoch=int(kept[-1]) if kept else None,
        last_epoch=int(epochs[-1][0]) if epochs else None,
        last_loss=float(epochs[-1][1]) if epochs else None,
    )


OUT_OF_MEMORY = (
    r"DefaultCPUAllocator: (?:can't|not enough) (?:allocate )?memory.*",
    r"CUDA (?:error: )?out of memory.*",
    r"torch\.(?:cuda\.)?OutOfMemoryError.*",
    r"^MemoryError.*",
    r".*oom[-_ ]kill.*",
    r".*\bout of memory\b.*",
)
KILLED = r"(?:^|\s)Killed\b.*"


def explain_crash(text: str, return_code: int | None = None) -> tuple[str, str]:
    """Why a training ended without a result: a kind and the words it is recognised by.

    Args:
        text: the ends of the log, stderr and the scheduler's words.
        return_code: of the process, negative for a signal; None where it is unknown.

    Returns:
        'memory', 'interpreter', 'crash' or 'interrupted', and a sentence.
    """
    for pattern in OUT_OF_MEMORY:
        found = re.search(pattern, text, re.MULTILINE | re.IGNORECASE)
        if found:
            return "memory", found.group(0).strip()[:300]
    if return_code == -9 or re.search(KILLED, text, re.MULTILINE):
        return "memory", "it was killed (SIGKILL), as the system does when memory is short"
    lines = [line for line in text.strip().splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    missing = [line for line in lines if "No module named" in line]
    if missing and (not errors or missing[-1] == errors[-1]):
        return "interpreter", missing[-1].strip()[:300]
    if any(line.startswith("Traceback") for line in lines):
        return "crash", (errors or lines)[-1].strip()[:300]
    if return_code is not None and return_code < 0:
        return "interrupted", f"its process was ended by signal {-return_code}"
    if return_code:
        return "crash", (lines[-1].strip()[:300] if lines else f"exit status {return_code}")
    return "interrupted", "it left neither a result nor an error message"
