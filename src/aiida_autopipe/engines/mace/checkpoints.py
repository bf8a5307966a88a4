"""The checkpoints of MACE across restarts.

MACE keeps the checkpoint of the epoch with the lowest validation loss. A restart goes on from it,
but counts the loss of its own first epoch as the lowest and overwrites the file. The best one of
the runs before is therefore put aside, and comes back if the restart never gets better.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida_autopipe.engines.mace.arguments import CHECKPOINTS

_NAME = re.compile(r"^(?P<tag>.+)_epoch-(?P<epoch>\d+)\.pt$")
_ASIDE, _NOTE = "earlier", "best.json"
_UNREADABLE = (EOFError, OSError, RuntimeError, ValueError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Checkpoint:
    """A file and the epoch after which it was written."""

    path: Path
    epoch: int


class Checkpoints:
    """The folder `checkpoints` of a training."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / CHECKPOINTS
        self._folder.mkdir(exist_ok=True)

    def latest(self) -> Checkpoint | None:
        """The one MACE would go on from."""
        found = [
            Checkpoint(path, int(match["epoch"]))
            for path in self._folder.iterdir()
            if (match := _NAME.match(path.name)) and path.is_file()
        ]
        return max(found, key=lambda one: one.epoch, default=None)

    def resume(
        self, load: Callable[[Path], Any], loss_after: Callable[[int], float | None]
    ) -> Checkpoint | None:
        """Make ready to go on behind the latest checkpoint that can be read.

        MACE would train the epoch of the checkpoint again: its file gets the number of the next.

        Args:
            load: reads a file, or raises what PyTorch raises for one that was cut off.
            loss_after: validation loss after an epoch.

        Returns:
            the checkpoint under its new name; None where there is none.
        """
        while (found := self.latest()) is not None:
            try:
                load(found.path)
                break
            except _UNREADABLE:
                found.path.unlink()
        if found is None:
            return None
        loss = loss_after(found.epoch)
        self._put_aside(found, math.inf if loss is None else loss)
        tag = _NAME.match(found.path.name)
        assert tag is not None
        renamed = found.path.with_name(f"{tag['tag']}_epoch-{found.epoch + 1}.pt")
        os.replace(found.path, renamed)
        return Checkpoint(renamed, found.epoch + 1)

    def _put_aside(self, checkpoint: Checkpoint, loss: float) -> None:
        aside = self._folder / _ASIDE
        if loss >= self._aside_loss():
            return
        aside.mkdir(exist_ok=True)
        for old in aside.iterdir():
            old.unlink()
        os.link(checkpoint.path, aside / checkpoint.path.name)
        note = {"loss": loss, "file": checkpoint.path.name}
        (aside / _NOTE).write_text(json.dumps(note), encoding="utf-8")

    def _aside_loss(self) -> float:
        note = self._folder / _ASIDE / _NOTE
        return float(json.loads(note.read_text())["loss"]) if note.is_file() else math.inf

    def take_back(self, lowest: float) -> Checkpoint | None:
        """Replace what there is by the best of the runs before, if `lowest` is not better."""
        if not self._aside_loss() < lowest:
            return None
        aside = self._folder / _ASIDE
        name = json.loads((aside / _NOTE).read_text())["file"]
        while (found := self.latest()) is not None:
            found.path.unlink()
        os.link(aside / name, self._folder / name)
        return self.latest()
