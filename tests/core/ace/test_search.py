import time
from math import log
from types import SimpleNamespace

import numpy as np
import pytest

from aiida_autopipe.core.ace.equations import Choice, Equations, RowWeights
from aiida_autopipe.core.ace.search import CUTOFF_STEP, Limits, Search, Shape, Trial
from aiida_autopipe.core.ace.tuning import Tuned

CHOICE = Choice(RowWeights(1.0, 1.0, 1.0), 1e-8, 1.0)
START = Shape(5.0, 4, 300)
OPEN = Limits(cutoff=True, max_rank=True, functions=1200, candidates=100)


class Landscape:
    """Errors that depend on the shape; counts and costs like the real thing."""

    def __init__(self, best: float, rank: int = 4, gain: float = 0.1, seconds: float = 0.0) -> None:
        self.best, self.rank, self.gain, self.seconds = best, rank, gain, seconds
        self.seen: list[Shape] = []

    def __call__(self, shape: Shape, choice: Choice | None) -> Trial:
        self.seen.append(shape)
        time.sleep(self.seconds)
        score = 5 * log(shape.cutoff / self.best) ** 2 + 0.1 * abs(shape.max_rank - self.rank)
        score -= self.gain * log(shape.functions, 2)
        equations, basis = Equations(np.ones(1), 1), SimpleNamespace(n_functions=shape.functions)
        return Trial(shape, basis, equations, Tuned.alone(CHOICE, score), self.seconds)


@pytest.mark.parametrize(("best", "rank"), [(5.0, 4), (7.0, 4), (4.0, 3)])
def test_finds_the_best_shape(best: float, rank: int) -> None:
    landscape = Landscape(best, rank)
    search = Search(landscape, OPEN)
    found = search.run(START).shape
    assert abs(log(found.cutoff / best)) <= log(CUTOFF_STEP)
    assert found.max_rank == rank
    assert found.functions == 1200
    assert len(set(landscape.seen)) == len(landscape.seen)
    assert search.record.ended == "the largest number of functions was reached"
    assert [c["cutoff"] for c in search.record.candidates] == [s.cutoff for s in landscape.seen]


def test_more_functions_must_pay_for_themselves() -> None:
    search = Search(Landscape(5.0, gain=0.01), OPEN)
    assert search.run(START).shape.functions == 300
    assert search.record.ended == "more functions predict held-out labels no better"


def test_only_what_is_open_is_varied() -> None:
    landscape = Landscape(7.0, 3)
    limits = Limits(cutoff=False, max_rank=False, functions=600, candidates=100)
    assert Search(landscape, limits).run(START).shape == Shape(5.0, 4, 600)
    nothing = Limits(cutoff=False, max_rank=False, functions=0, candidates=100)
    landscape.seen.clear()
    assert Search(landscape, nothing).run(START).shape == START
    assert landscape.seen == [START]


@pytest.mark.parametrize("most", [1, 2, 5, 9])
def test_candidates_are_limited_and_the_best_of_them_wins(most: int) -> None:
    landscape = Landscape(7.0)
    limits = Limits(cutoff=True, max_rank=True, functions=1200, candidates=most)
    search = Search(landscape, limits)
    found = search.run(START)
    assert len(landscape.seen) == most
    assert search.record.ended == "the number of candidates was reached"
    worths = [landscape(shape, None).worth for shape in list(landscape.seen)]
    assert found.worth <= min(worths) + 0.002


def test_time_is_limited_with_a_reserve() -> None:
    landscape = Landscape(7.0, seconds=0.02)
    limits = Limits(
        cutoff=True, max_rank=True, functions=1200, candidates=100,
        deadline=time.monotonic() + 0.2, reserve=2.0,
    )  # fmt: skip
    search = Search(landscape, limits)
    search.run(START)
    assert time.monotonic() < limits.deadline
    assert search.record.ended == "the time limit was reached"
    assert 1 < len(landscape.seen) < 10


def test_the_first_candidate_is_tried_however_little_time_there_is() -> None:
    landscape = Landscape(7.0)
    limits = Limits(cutoff=True, max_rank=True, functions=1200, candidates=9, deadline=0.0)
    assert Search(landscape, limits).run(START).shape == START


def test_functions_to_choose_from_have_a_shape_of_their_own() -> None:
    """Near the best one with fewer functions: more of them suit a shorter cutoff here."""
    search = Search(Landscape(7.0), OPEN)
    best = search.run(START)
    judge = Landscape(best.shape.cutoff / CUTOFF_STEP, rank=3)
    found = search.larger(best, 2400, judge)
    assert found is not None
    expected = round(best.shape.cutoff / CUTOFF_STEP, 2)
    assert found.shape == Shape(pytest.approx(expected, abs=0.02), 3, 2400)
    assert [c["functions"] for c in search.record.candidates].count(2400) == len(judge.seen)


@pytest.mark.parametrize("reserve", [0.0, 10.0])
def test_only_where_there_are_more_and_time_is_left(reserve: float) -> None:
    limits = Limits(
        cutoff=True, max_rank=True, functions=300, candidates=1,
        deadline=time.monotonic() + 5.0, reserve=reserve,
    )  # fmt: skip
    landscape = Landscape(5.0, seconds=1.0)
    search = Search(landscape, limits)
    best = search.run(START)
    judge = Landscape(5.0)
    assert (search.larger(best, 600, judge) is None) == (reserve == 10.0)
    # One more is always looked at, its neighbours are not when there were enough candidates.
    assert len(judge.seen) == (0 if reserve else 1)
    assert search.larger(best, 300, judge) is None
