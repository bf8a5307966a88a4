"""Thresholds from pairs of an uncertainty and an error whose relation is known."""

import json
import math
from typing import Any

import numpy as np
import pytest

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.thresholds import (
    HALT_FACTOR,
    REACH,
    SELECT_FACTOR,
    calibrate_thresholds,
    choose_thresholds,
    noise_thresholds,
)

PER_STRUCTURE = 20


def structures(n: int) -> np.ndarray:
    return np.arange(n) // PER_STRUCTURE


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def norms(spread: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Norms of error vectors that are normal with these standard deviations of a component."""
    return np.linalg.norm(rng.normal(size=(len(spread), 3)) * spread[:, None], axis=1)


def test_errors_in_proportion(rng: np.random.Generator) -> None:
    spread = np.exp(rng.normal(-3, 1.2, 20_000))
    error = norms(spread, rng)
    found = calibrate_thresholds(spread, error, structures(20_000))
    assert found.typical_error == pytest.approx(np.median(error))
    assert found.select is not None and found.halt is not None
    # The mean of the norm of a normal vector is sqrt(8 / pi) of the deviation of a component.
    for threshold, factor in ((found.select, SELECT_FACTOR), (found.halt, HALT_FACTOR)):
        expected = factor * np.median(error) / math.sqrt(8 / math.pi)
        assert threshold == pytest.approx(expected, rel=0.08)
    assert found.note == ""
    assert found.rank_correlation is not None and found.rank_correlation > 0.8
    assert sum(found.curve.count) == found.n_forces == 20_000
    assert found.n_structures == 1000


def test_errors_that_rise_at_one_place(rng: np.random.Generator) -> None:
    """Below 2 all errors are alike, above they are a hundred times as large."""
    values = rng.uniform(0.1, 4.0, 4000)
    error = norms(np.where(values < 2.0, 0.01, 1.0), rng) * values**0.3
    found = calibrate_thresholds(values, error, structures(4000))
    assert found.select is not None
    assert 1.3 < found.select < 2.6


def test_the_curve_never_falls_and_keeps_the_mean(rng: np.random.Generator) -> None:
    spread = np.exp(rng.normal(-3, 0.6, 300))
    curve = calibrate_thresholds(spread, norms(spread, rng), structures(300)).curve
    assert np.all(np.diff(curve.expected) >= 0)
    assert np.all(np.diff(curve.uncertainty) > 0)
    counts = np.array(curve.count)
    assert counts @ curve.expected == pytest.approx(counts @ curve.error)
    assert min(curve.count) >= 15


def test_what_the_data_do_not_reach_is_said(rng: np.random.Generator) -> None:
    spread = rng.uniform(0.01, 0.03, 400)
    found = calibrate_thresholds(spread, norms(spread, rng), structures(400))
    assert found.select == found.tested_up_to == spread.max()
    assert found.halt is not None and found.select < found.halt <= REACH * spread.max()
    assert "more uncertain than all of them" in found.note
    assert "extrapolation" in found.note


def test_a_grade_is_never_judged_inside(rng: np.random.Generator) -> None:
    grade = rng.uniform(0.01, 0.9, 400)
    error = norms(grade**2, rng)
    found = calibrate_thresholds(grade, error, structures(400), least=1.0)
    assert found.select is not None and found.halt is not None
    assert 1.0 <= found.select <= found.halt


def test_no_relation_gives_no_thresholds(rng: np.random.Generator) -> None:
    found = calibrate_thresholds(rng.uniform(size=500), rng.uniform(size=500), structures(500))
    assert found.select is None and found.halt is None
    assert "does not tell the error" in found.note
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("n", [0, 30])
def test_too_few_forces(n: int, rng: np.random.Generator) -> None:
    spread = rng.uniform(0.1, 1.0, n)
    found = calibrate_thresholds(spread, norms(spread, rng), structures(n))
    assert found.select is None
    assert ("Only 30" if n else "There are no") in found.note
    json.dumps(found.to_dict(), allow_nan=False)


def test_many_forces_of_one_structure_are_too_few(rng: np.random.Generator) -> None:
    spread = rng.uniform(0.1, 1.0, 400)
    found = calibrate_thresholds(spread, norms(spread, rng), np.zeros(400))
    assert "of 1 structures" in found.note


def test_certain_forces_are_left_out(rng: np.random.Generator) -> None:
    spread = rng.uniform(0.01, 0.9, 400)
    error = norms(spread, rng)
    padded = calibrate_thresholds(
        np.append(spread, np.zeros(50)), np.append(error, np.zeros(50)), structures(450)
    )
    assert padded.n_forces == 400


@pytest.mark.parametrize(
    ("values", "errors", "words"),
    [
        ([1.0, 2.0], [1.0], "have the shapes"),
        ([1.0, math.nan], [1.0, 1.0], "uncertainty is negative or not finite"),
        ([1.0, 1.0], [1.0, -1.0], "error is negative"),
    ],
)
def test_wrong_numbers(values: list[float], errors: list[float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        calibrate_thresholds(values, errors, np.zeros(2))


def test_thresholds_of_the_noise_alone(rng: np.random.Generator) -> None:
    noise = 0.1
    median = np.median(norms(np.full(400_000, noise), rng))
    for spread, factor in zip(noise_thresholds(noise), (SELECT_FACTOR, HALT_FACTOR), strict=True):
        total = np.full(400_000, math.hypot(noise, spread / math.sqrt(3)))
        assert norms(total, rng).mean() == pytest.approx(factor * median, rel=0.01)
    with pytest.raises(InputError, match="above 0"):
        noise_thresholds(0.0)


FOUND: dict[str, Any] = {
    "gamma": {
        "select": 2.0, "halt": 20.0, "n_forces": 500, "rank_correlation": 0.8,
        "typical_error": 0.01, "note": "",
    },
    "committee": {
        "select": None, "halt": None, "note": "Only 3 forces.", "force_noise": 0.1, "n_forces": 3,
        "typical_error": 0.4,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("select", "halt", "expected"),
    [
        ("auto", "auto", (2.0, 20.0)),
        (3.0, "auto", (3.0, 20.0)),
        ("auto", 5.0, (2.0, 5.0)),
        # A number of the user stays, and the order of the two is kept.
        ("auto", 1.0, (1.0, 1.0)),
        (30.0, "auto", (30.0, 30.0)),
    ],
)
def test_numbers_for_auto(select: Any, halt: Any, expected: tuple[float, float]) -> None:
    chosen = choose_thresholds(select, halt, "gamma", FOUND)
    assert (chosen.select, chosen.halt) == expected
    assert "calibrated on 500 held-out forces" in chosen.sentence


def test_defaults_are_kept_and_it_is_said() -> None:
    chosen = choose_thresholds("auto", "auto", "gamma", None)
    assert (chosen.select, chosen.halt) == (1.5, 10.0)
    assert "the defaults" in chosen.sentence and "calibrated nothing" in chosen.sentence


def test_a_committee_falls_back_on_its_noise() -> None:
    chosen = choose_thresholds("auto", "auto", "committee", FOUND)
    assert (chosen.select, chosen.halt) == noise_thresholds(0.1)
    assert "eV/Å" in chosen.sentence and "Only 3 forces." in chosen.sentence
    more = {"committee": {**FOUND["committee"], "n_forces": 40}}
    chosen = choose_thresholds("auto", "auto", "committee", more)
    assert chosen.select == pytest.approx(noise_thresholds(0.4 / 1.5382)[0])
    assert "median error of 40 held-out forces" in chosen.sentence
    with pytest.raises(InputError, match="give numbers in eV/Å"):
        choose_thresholds("auto", "auto", "committee", None)
