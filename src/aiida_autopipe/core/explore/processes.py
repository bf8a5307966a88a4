"""Several processes that run trajectories, and the process that deals them out."""

from __future__ import annotations

import os
import selectors
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiida_autopipe.core.errors import EngineError
from aiida_autopipe.core.explore.md import Stopped
from aiida_autopipe.core.explore.worker import QUIT
from aiida_autopipe.core.oracle.job import LineProcess

MOST_DEATHS = 3
"""Processes that may die; then something else is wrong."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class _Process(LineProcess):
    """One process and the trajectory it is at."""

    def __init__(self, folder: Path, number: int) -> None:
        self.index: int | None = None
        self.reported = 0
        self.log = folder / f"worker_{number}.log"
        command = [sys.executable, "-m", "aiida_autopipe.core.explore.worker", str(folder)]
        super().__init__(command, self.log, {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, "1")})


class Dealer:
    """Keeps processes busy with trajectories until none is left or the time is over."""

    def __init__(
        self,
        folder: Path,
        indices: Sequence[int],
        report: Callable[[int], None],
        finished: Callable[[], None],
        deadline: float | None,
    ) -> None:
        self._folder, self._waiting = folder, deque(indices)
        self._report, self._finished, self._deadline = report, finished, deadline
        self._processes: list[_Process] = []
        self._selector = selectors.DefaultSelector()
        self._deaths = self._started = 0

    def run(self, processes: int) -> None:
        """Run all trajectories in so many processes.

        Raises:
            Stopped: the time is over.
            EngineError: processes die, or cannot use the surrogate.
            OSError: the disk is full or cannot be written.
        """
        try:
            for _ in range(min(processes, len(self._waiting))):
                self._start()
            while self._processes:
                for key, _ in self._selector.select(self._patience()):
                    self._listen(key.data)
                if self._deadline is not None and time.monotonic() > self._deadline:
                    raise Stopped
        finally:
            for process in list(self._processes):
                self._remove(process, kill=True)
            self._selector.close()

    def _start(self) -> None:
        process = _Process(self._folder, self._started)
        self._started += 1
        self._processes.append(process)
        self._selector.register(process.answers, selectors.EVENT_READ, process)

    def _remove(self, process: _Process, kill: bool) -> int:
        self._selector.unregister(process.answers)
        self._processes.remove(process)
        return process.end(kill)

    def _patience(self) -> float | None:
        return None if self._deadline is None else max(0.01, self._deadline - time.monotonic())

    def _listen(self, process: _Process) -> None:
        answers = process.receive()
        if answers is None:
            self._bury(process)
            return
        for answer in answers:
            kind = answer["kind"]
            if kind == "error":
                self._raise(answer)
            elif kind == "steps":
                process.reported += answer["n"]
                self._report(answer["n"])
                continue
            elif kind == "outcome":
                process.index, process.reported = None, 0
                self._finished()
            self._deal(process)

    def _deal(self, process: _Process) -> None:
        if not self._waiting:
            process.send(QUIT)
            self._remove(process, kill=False)
            return
        process.index = self._waiting.popleft()
        process.send(str(process.index))

    def _bury(self, process: _Process) -> None:
        """A process died: its trajectory is run again, a few times at most."""
        code = self._remove(process, kill=True)
        self._deaths += 1
        if self._deaths >= MOST_DEATHS or process.index is None:
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            raise EngineError(
                f"A process of the exploration died of {how} (its messages are in "
                f"'{process.log}'); with little memory, take fewer processes."
            )
        self._report(-process.reported)
        self._waiting.appendleft(process.index)
        self._start()

    def _raise(self, answer: dict[str, Any]) -> None:
        if answer["type"] == "OSError" and answer.get("errno") is not None:
            name = answer.get("filename") or str(self._folder)
            raise OSError(answer["errno"], answer["strerror"], name)
        raise EngineError(answer["message"])
