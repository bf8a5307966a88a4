from typing import Any

import pytest

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.stopping import GenerationRecord, StopRule, decide


def record(generation: int = 3, **changes: Any) -> GenerationRecord:
    values: dict[str, Any] = {
        "survival": 1.0,
        "new_candidates": 0,
        "labels_used": 40,
        "energy_rmse": 0.002,
        "forces_rmse": 0.08,
        "wall_seconds": 600.0,
    }
    return GenerationRecord(generation, **{**values, **changes})


RULE = StopRule(
    min_generations=3,
    max_generations=6,
    survival=0.95,
    max_new_candidates=5,
    energy_rmse_per_atom=0.005,
    forces_rmse=0.1,
    max_labels=80,
    max_hours=1.0,
)


def test_empty_history_goes_on() -> None:
    assert not decide([], RULE).stop


def test_converged() -> None:
    decision = decide([record(1), record(2), record(3)], RULE)
    assert decision.stop
    assert decision.reason == (
        "Converged after 3 generations: MD survival 1 (at least 0.95); "
        "new candidates 0 (at most 5); "
        "held-out energy RMSE 0.002 eV/atom (at most 0.005 eV/atom); "
        "held-out forces RMSE 0.08 eV/Å (at most 0.1 eV/Å)."
    )


def test_convergence_counts_only_after_min_generations() -> None:
    decision = decide([record(2)], RULE)
    assert not decision.stop
    assert "2 of at least 3" in decision.reason


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"survival": 0.9}, "MD survival 0.9 is below 0.95"),
        ({"survival": None}, "MD survival is not known"),
        ({"survival": float("nan")}, "MD survival is not known"),
        ({"new_candidates": 6}, "new candidates 6 is above 5"),
        ({"unfinished": 2}, "2 simulations are those of an earlier potential"),
        ({"energy_rmse": 0.006}, "energy RMSE 0.006 eV/atom is above 0.005 eV/atom"),
        ({"energy_rmse": None}, "energy RMSE is not known"),
        ({"forces_rmse": 0.2}, "forces RMSE 0.2 eV/Å is above 0.1 eV/Å"),
    ],
)
def test_every_criterion_can_keep_the_loop_going(changes: dict[str, Any], phrase: str) -> None:
    decision = decide([record(**changes)], RULE)
    assert not decision.stop
    assert phrase in decision.reason
    assert decision.reason.startswith("Not converged")


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"labels_used": 80}, "label budget is used up: 80 of 80"),
        ({"labels_used": 81}, "label budget is used up: 81 of 80"),
        ({"wall_seconds": 3600.0}, "time budget is used up: 1.00 of 1 hours"),
    ],
)
def test_budgets_stop_even_before_min_generations(changes: dict[str, Any], phrase: str) -> None:
    decision = decide([record(1, survival=0.1, **changes)], RULE)
    assert decision.stop
    assert phrase in decision.reason


def test_max_generations_stops_and_says_what_is_missing() -> None:
    decision = decide([record(6, survival=0.5)], RULE)
    assert decision.stop
    assert decision.reason == (
        "All 6 generations have run; not converged: MD survival 0.5 is below 0.95."
    )
    assert "; converged: MD survival" in decide([record(6)], RULE).reason


def test_without_criteria_only_hard_limits_stop() -> None:
    rule = StopRule(min_generations=1, max_generations=4, survival=None, max_new_candidates=None)
    assert not decide([record(2)], rule).stop
    assert decide([record(2)], rule).reason.startswith("No convergence criterion")
    assert decide([record(4)], rule).reason == "All 4 generations have run."


@pytest.mark.parametrize(
    "changes",
    [
        {"max_generations": 0},
        {"min_generations": 5, "max_generations": 4},
        {"survival": 1.5},
        {"survival": float("nan")},
        {"max_new_candidates": -1},
        {"max_labels": 0},
        {"max_hours": -1.0},
    ],
)
def test_impossible_rules_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="stop rule"):
        StopRule(**changes)
