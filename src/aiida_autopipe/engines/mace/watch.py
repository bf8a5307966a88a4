"""When a training ends: too long without progress, out of time, or diverged.

MACE 0.3.16 stops on none of these by itself: its `patience` only writes a line unless it runs on
several GPUs, and a loss that is not a number counts as an improvement.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from aiida_autopipe.core.mace_evaluate import HEAD

DIVERGED = 1e4
"""A validation loss so many times that before training is no loss any more."""
SAFETY = 1.3
"""The next epoch must fit this many times into the time that is left."""


class Ended(Exception):  # noqa: N818 - how a training ends
    """The training is over before its last epoch; `kind` is 'patience', 'time' or 'diverged'."""

    def __init__(self, kind: str, epoch: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.epoch = epoch


class Watch:
    """Sees every record of a training, in the order in which MACE writes them."""

    def __init__(self, patience: int, seconds_left: Callable[[], float] = lambda: math.inf) -> None:
        """Begin to watch.

        Args:
            patience: epochs without a better validation loss after which the training is over.
            seconds_left: time until it must be over.
        """
        self._patience = patience
        self._seconds_left = seconds_left
        self._epoch: int | None = None
        self._began = math.inf
        self._longest = 0.0
        self._losses: list[float] = []
        self._first_loss = math.inf
        self._stale = 0
        self.lowest = math.inf
        """The best validation loss of this run, which is that of MACE's checkpoint."""

    def see(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        """The records to write down instead: one for all steps of an epoch.

        Raises:
            Ended: the training is over.
        """
        if record.get("mode") == "opt":
            self._see_step(int(record["epoch"]), float(record["loss"]))
            return []
        if record.get("mode") != "eval":
            return [record]
        written = [record]
        if self._losses:
            mean = sum(self._losses) / len(self._losses)
            written.insert(0, {"mode": "opt", "epoch": self._epoch, "loss": mean})
            self._losses = []
        if record.get("head", HEAD) == HEAD:
            self._see_validation(record.get("epoch"), float(record["loss"]))
        return written

    def _see_step(self, epoch: int, loss: float) -> None:
        if epoch != self._epoch:
            # Only now is the checkpoint of the epoch before on disk.
            self._begin_epoch(epoch)
        if not math.isfinite(loss):
            raise Ended("diverged", epoch, f"the loss of a step of epoch {epoch} is {loss}")
        self._losses.append(loss)

    def _begin_epoch(self, epoch: int) -> None:
        left = self._seconds_left()
        if self._epoch is not None:
            self._longest = max(self._longest, self._began - left)
            if self._stale >= self._patience:
                raise Ended(
                    "patience", self._epoch, f"no better validation loss for {self._stale} epochs"
                )
            if left < SAFETY * self._longest:
                raise Ended("time", self._epoch, "the time does not suffice for another epoch")
        self._epoch, self._began = epoch, left

    def _see_validation(self, epoch: int | None, loss: float) -> None:
        if epoch is None:
            self._first_loss = loss if math.isfinite(loss) else math.inf
            return
        if not math.isfinite(loss) or loss > DIVERGED * max(self._first_loss, 1e-12):
            raise Ended("diverged", epoch, f"the validation loss after epoch {epoch} is {loss:g}")
        if loss < self.lowest:
            self.lowest, self._stale = loss, 0
        else:
            self._stale += 1
