"""Sharing structures out to jobs, and a budget to structures."""

import pytest

from aiida_autopipe.core.labelling import affordable_attempts, plan_batches


def test_batches_are_about_equally_long_and_hold_everything_once() -> None:
    seconds = {index: 1.0 + index % 7 for index in range(40)}
    batches = plan_batches(seconds, slots=1, jobs=3)
    assert sorted(index for batch in batches for index in batch) == list(range(40))
    assert all(batch == sorted(batch) for batch in batches)
    loads = [sum(seconds[index] for index in batch) for batch in batches]
    assert max(loads) - min(loads) <= max(seconds.values())


def test_long_batches_are_split_and_few_structures_are_not() -> None:
    long = dict.fromkeys(range(60), 100.0)
    assert len(plan_batches(long, slots=2, jobs=1, longest=600.0)) == 5
    # Two jobs of four slots each would leave slots empty.
    assert plan_batches({0: 1.0, 1: 1.0, 2: 1.0}, slots=4, jobs=2) == [[0, 1, 2]]
    assert plan_batches({}, slots=1, jobs=2) == []


@pytest.mark.parametrize(
    ("left", "waiting", "most", "expected"),
    [(10, 3, 4, 4), (5, 3, 4, 2), (3, 5, 4, 1), (0, 1, 3, 0), (1, 0, 5, 1), (9, 0, 3, 3)],
)
def test_attempts_leave_one_calculation_for_everyone(
    left: int, waiting: int, most: int, expected: int
) -> None:
    assert affordable_attempts(left, waiting, most) == expected
