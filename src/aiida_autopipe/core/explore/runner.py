"""Runs trajectories of an exploration in this process, one after the other, in one thread."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import threadpool_limits

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.explore.md import Outcome, run_trajectory
from aiida_autopipe.core.explore.parts import Parts
from aiida_autopipe.core.explore.settings import ExploreSettings, Trajectory, plan
from aiida_autopipe.core.surrogates.registry import Surrogate

REPORT_SECONDS = 0.3
"""Time between two reports of steps."""


class Runner:
    """Runs any trajectory of an exploration by its number, and writes its part."""

    def __init__(
        self,
        parts: Parts,
        starts: Dataset,
        surrogate: Surrogate,
        settings: ExploreSettings,
        seed: int,
    ) -> None:
        self.trajectories = plan(settings, len(starts))
        self._parts, self._starts, self._surrogate = parts, starts, surrogate
        self._settings, self._seed = settings, seed
        self._timestep = settings.timestep_for(starts)

    def n_atoms(self, index: int) -> int:
        """Atoms of a trajectory."""
        return int(self._starts.sizes[self.trajectories[index].start])

    def run(self, index: int, report: Callable[[int], None] = lambda steps: None) -> Outcome:
        """Run one trajectory with the surrogate and write its part; see `run_with`."""
        self._surrogate.renew()
        with quietly_in_one_thread():
            return self.run_with(index, self._surrogate.calculator, report)

    def run_with(self, index: int, calculator: Any, report: Callable[[int], None]) -> Outcome:
        """Run one trajectory and write its part.

        Args:
            index: of the trajectory.
            calculator: what gives the surrogate's forces.
            report: gets the steps done since the last call, now and then; it may raise `Stopped`.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        trajectory = self.trajectories[index]
        pace = _Pace(report)
        with self._parts.writer(trajectory) as writer:
            outcome = run_trajectory(
                self._starts.atoms(trajectory.start),
                trajectory,
                self._settings,
                self._timestep,
                calculator,
                trajectory.rng(self._seed),
                writer.append,
                pace.step,
            )
        self._parts.finish(outcome)
        # An early end has done its work too.
        report(self._settings.steps - pace.reported)
        return outcome


class _Pace:
    """Reports steps at most every `REPORT_SECONDS`."""

    def __init__(self, report: Callable[[int], None]) -> None:
        self._report = report
        self.reported = 0
        self._last = time.monotonic()

    def step(self, step: int) -> None:
        now = time.monotonic()
        if now - self._last > REPORT_SECONDS:
            self._report(step - self.reported)
            self.reported, self._last = step, now


@contextmanager
def quietly_in_one_thread() -> Iterator[None]:
    """Numerical libraries in one thread, without the warnings of surrogates.

    Small matrices are slower in more threads, and processes share the cores.
    """
    torch: Any = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    if torch is not None:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)


def remaining(trajectories: list[Trajectory], outcomes: dict[int, Outcome]) -> list[int]:
    """Numbers of the trajectories that have no outcome."""
    return [t.index for t in trajectories if t.index not in outcomes]
