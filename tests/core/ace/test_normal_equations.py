import numpy as np
import pytest

from aiida_autopipe.core.ace.normal_equations import (
    Choice,
    NormalEquations,
    RowWeights,
    best_of,
    cross_validation_score,
    fold_solutions,
    solve,
)
from aiida_autopipe.core.errors import FitError

WEIGHTS = RowWeights(energy=10.0, forces=1.0, stress=3.0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def accumulated(
    rng: np.random.Generator, size: int = 6, n_folds: int = 3, noise: float = 0.0
) -> tuple[NormalEquations, np.ndarray, list[tuple[str, int, np.ndarray, np.ndarray, np.ndarray]]]:
    truth = rng.normal(size=size)
    equations = NormalEquations(size, n_folds)
    added = []
    for fold in range(n_folds):
        for kind, count in (("energy", 4), ("forces", 30), ("stress", 6)):
            rows = rng.normal(size=(count, size))
            targets = rows @ truth + noise * rng.normal(size=count)
            weight = rng.integers(0, 3, size=count).astype(float)
            equations.add(kind, fold, rows, targets, weight)
            added.append((kind, fold, rows, targets, weight))
    return equations, truth, added


def test_same_as_weighted_least_squares_on_all_rows(rng: np.random.Generator) -> None:
    equations, _, added = accumulated(rng, noise=0.3)
    roots = [WEIGHTS.of(kind) * np.sqrt(weight) for kind, _, _, _, weight in added]
    rows = np.concatenate([r * w[:, None] for (_, _, r, _, _), w in zip(added, roots, strict=True)])
    right = np.concatenate([t * w for (_, _, _, t, _), w in zip(added, roots, strict=True)])
    expected = np.linalg.lstsq(rows, right, rcond=None)[0]
    found = solve(*equations.assemble(WEIGHTS), np.ones(6), 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_without_leaves_one_fold_out(rng: np.random.Generator) -> None:
    equations, _, added = accumulated(rng, noise=0.3)
    others = NormalEquations(6, 1)
    for kind, fold, rows, targets, weight in added:
        if fold != 1:
            others.add(kind, 0, rows, targets, weight)
    for found, expected in zip(
        equations.assemble(WEIGHTS, without=1), others.assemble(WEIGHTS), strict=True
    ):
        np.testing.assert_allclose(found, expected)
    assert len(fold_solutions(equations, np.ones(6), Choice(WEIGHTS, 1e-9, 0.0))) == 3


def test_errors_from_sums_are_those_of_the_rows(rng: np.random.Generator) -> None:
    equations, _, added = accumulated(rng, noise=0.3)
    guess = rng.normal(size=6)
    for kind, fold, rows, targets, weight in added:
        total, used = equations.mean_square(kind, fold, guess)
        assert total == pytest.approx(weight @ (rows @ guess - targets) ** 2)
        assert used == pytest.approx(weight.sum())


def test_rows_of_zero_weight_may_hold_anything(rng: np.random.Generator) -> None:
    equations = NormalEquations(2)
    rows = np.array([[1.0, 2.0], [np.nan, np.inf]])
    equations.add("forces", 0, rows, np.array([1.0, np.nan]), np.array([1.0, 0.0]))
    equations.add("energy", 0, rows[1:], np.array([np.nan]), np.array([0.0]))
    assert equations.kinds == ["forces"]
    assert np.isfinite(equations.assemble(WEIGHTS)[0]).all()


def test_untouched_functions_get_zero_and_few_rows_are_fine(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(3, 8))
    rows[:, 4] = 0.0
    targets = rng.normal(size=3)
    found = solve(rows.T @ rows, rows.T @ targets, np.ones(8), 1e-10)
    assert found[4] == 0.0
    np.testing.assert_allclose(rows @ found, targets, rtol=1e-6)


def test_singular_matrix_without_prior_falls_back_to_eigenvalues() -> None:
    rows = np.array([[1.0, 1.0], [2.0, 2.0]])
    found = solve(rows.T @ rows, rows.T @ np.array([1.0, 2.0]), np.ones(2), 0.0)
    np.testing.assert_allclose(rows @ found, [1.0, 2.0], rtol=1e-8)


def test_prior_prefers_low_degrees() -> None:
    rows = np.array([[1.0, 1.0]])
    penalty = Choice(WEIGHTS, 1e-6, 2.0).penalty(np.array([1.0, 4.0]))
    found = solve(rows.T @ rows, rows.T @ np.array([1.0]), penalty, 1e-6)
    assert found[0] / found[1] == pytest.approx(4.0**4, rel=1e-3)


def test_no_dependence_at_all_is_an_error() -> None:
    with pytest.raises(FitError, match="No label depends"):
        solve(np.zeros((3, 3)), np.zeros(3), np.ones(3), 1e-6)
    with pytest.raises(FitError, match="not finite"):
        solve(np.eye(2), np.array([1.0, np.inf]), np.ones(2), 1e-6)


def test_best_choice_regularises_noise(rng: np.random.Generator) -> None:
    equations, _, _ = accumulated(rng, size=25, noise=2.0)
    choices = [Choice(WEIGHTS, value, 0.0) for value in (1e-10, 1e-2, 1e2)]
    best = best_of(equations, np.ones(25), choices)
    scores = [cross_validation_score(equations, np.ones(25), c) for c in choices]
    assert scores[choices.index(best)] == min(scores)
    with pytest.raises(FitError, match="nothing to choose"):
        best_of(equations, np.ones(25), [])
