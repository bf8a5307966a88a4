"""Search for the basis that predicts held-out labels best: cutoff, correlation order, size.

A hill climb in three stages that are repeated with twice the functions each time: longer or shorter
cutoffs, one rank more or less, then the next size, as long as the cross-validation score falls
enough to pay for the slower potential. The sequence depends on the data alone; a time limit only
cuts it short, and the winner is reported with all its numbers, so that it can be asked for again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from aiida_autopipe.core.ace.basis import Basis
from aiida_autopipe.core.ace.equations import Choice, Equations
from aiida_autopipe.core.ace.tuning import Tuned

logger = logging.getLogger(__name__)

CUTOFF_STEP = 1.12
# The mean error has to fall by this share for every doubling of the cost of an MD step, and shapes
# that differ by less than this count as equal.
_WORTH_DOUBLING, _WORTH_CHANGING = 0.02, 0.002
# Cost of a candidate relative to one of half the functions, for the forecast.
COST_OF_DOUBLING = 3.5


@dataclass(frozen=True)
class Shape:
    """What a candidate basis is made of: cutoff in Å, largest rank, functions per element."""

    cutoff: float
    max_rank: int
    functions: int


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate with its basis, its equations on the sample and its cross-validation score, of a
    choice that was tuned for it or for a similar one."""

    shape: Shape
    basis: Basis
    equations: Equations
    tuned: Tuned
    seconds: float
    is_tuned: bool = True

    @property
    def worth(self) -> float:
        """Score with the cost of an MD step, which grows with functions and neighbours."""
        cost = self.shape.functions * self.shape.cutoff**3
        return self.tuned.score + _WORTH_DOUBLING * math.log2(cost)


@dataclass(frozen=True)
class Limits:
    """What a search may try.

    cutoff and max_rank: False when they are given; functions: the most per element; candidates: how
    many bases to look at; deadline: time.monotonic() after which no candidate is begun; reserve:
    time the rest of the fit takes, in units of the latest candidate's.
    """

    cutoff: bool
    max_rank: bool
    functions: int
    candidates: int
    deadline: float = float("inf")
    reserve: float = 2.0


@dataclass
class SearchRecord:
    """What a search did: every candidate, and why it ended."""

    candidates: list[dict[str, float]] = field(default_factory=list)
    ended: str = "nothing was left open"

    def add(self, trial: Trial) -> None:
        shape = trial.shape
        self.candidates.append(
            {
                "cutoff": shape.cutoff,
                "max_rank": shape.max_rank,
                "functions": shape.functions,
                "score": round(trial.tuned.score, 4),
            }
        )
        logger.info(
            "cutoff %.2f Å, rank %d, %d functions: score %.4f (%.1f s)",
            *(shape.cutoff, shape.max_rank, shape.functions, trial.tuned.score, trial.seconds),
        )


class _OutOfBudgetError(Exception):
    """No further candidate may be tried; carries the best of those of one size."""

    def __init__(self, reason: str, best: Trial) -> None:
        super().__init__(reason)
        self.reason, self.best = reason, best


def _preferred(best: Trial, other: Trial) -> Trial:
    """The better one at its cost; the first when they are about equal."""
    return other if other.worth < best.worth - _WORTH_CHANGING else best


Evaluate = Callable[[Shape, Choice | None], Trial]


class Search:
    """Hill climb over shapes; ``evaluate(shape, choice)`` makes a trial of one."""

    def __init__(self, evaluate: Evaluate, limits: Limits) -> None:
        self._evaluate = evaluate
        self._limits = limits
        self._tried: set[Shape] = set()
        self._first_cutoff = 0.0
        self.record = SearchRecord()

    def run(self, start: Shape) -> Trial:
        """The best trial found from ``start``, which is always tried."""
        self._first_cutoff = start.cutoff
        best = self._try(start, None)
        if not (self._limits.cutoff or self._limits.max_rank or self._grown(start)):
            return best
        try:
            best = self._shaped(best)
            while (larger := self._grown(best.shape)) is not None:
                self._check(COST_OF_DOUBLING * best.seconds, best)
                grown = self._shaped(self._try(larger, best.tuned.choice))
                if _preferred(best, grown) is best:
                    self.record.ended = "more functions predict held-out labels no better"
                    return best
                best = grown
            self.record.ended = "the largest number of functions was reached"
        except _OutOfBudgetError as stop:
            self.record.ended = stop.reason
            best = _preferred(best, stop.best)
        return best

    def larger(self, best: Trial, functions: int, judge: Evaluate) -> Trial | None:
        """The best trial with so many functions, to choose from, that is near one with fewer.

        None when the limit leaves no time for it or there are no more functions.
        """
        if time.monotonic() + best.seconds * self._limits.reserve > self._limits.deadline:
            return None
        trial = judge(replace(best.shape, functions=functions), best.tuned.choice)
        if trial.basis.n_functions <= best.basis.n_functions:
            return None
        self._tried.add(trial.shape)
        self.record.add(trial)
        self._evaluate = judge
        try:
            return self._shaped(trial)
        except _OutOfBudgetError as stop:
            return stop.best

    def _shaped(self, best: Trial) -> Trial:
        """Improve cutoff and rank at the same number of functions."""
        improved = True
        while improved:
            improved = False
            for shapes in (self._cutoffs(best.shape), self._ranks(best.shape)):
                for shape in shapes:
                    if shape in self._tried:
                        continue
                    self._check(best.seconds, best)
                    trial = self._try(shape, best.tuned.choice)
                    if _preferred(best, trial) is trial:
                        best, improved = trial, True
                        break
        return best

    def _cutoffs(self, shape: Shape) -> Iterator[Shape]:
        """One step up and down a fixed geometric grid, so that no cutoff is tried twice."""
        if self._limits.cutoff:
            place = round(math.log(shape.cutoff / self._first_cutoff) / math.log(CUTOFF_STEP))
            for step in (place + 1, place - 1):
                yield replace(shape, cutoff=round(self._first_cutoff * CUTOFF_STEP**step, 2))

    def _ranks(self, shape: Shape) -> Iterator[Shape]:
        if self._limits.max_rank:
            yield replace(shape, max_rank=3 if shape.max_rank == 4 else 4)

    def _grown(self, shape: Shape) -> Shape | None:
        if shape.functions >= self._limits.functions:
            return None
        return replace(shape, functions=min(2 * shape.functions, self._limits.functions))

    def _check(self, expected: float, best: Trial) -> None:
        """Raise when another candidate would take too long or too many were tried."""
        if len(self._tried) >= self._limits.candidates:
            raise _OutOfBudgetError("the number of candidates was reached", best)
        if time.monotonic() + expected * (1.0 + self._limits.reserve) > self._limits.deadline:
            raise _OutOfBudgetError("the time limit was reached", best)

    def _try(self, shape: Shape, choice: Choice | None) -> Trial:
        self._tried.add(shape)
        trial = self._evaluate(shape, choice)
        self.record.add(trial)
        return trial
