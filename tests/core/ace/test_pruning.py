"""Functions chosen by backward elimination."""

import numpy as np
import pytest

from aiida_autopipe.core.ace.equations import Choice, Equations, RowWeights
from aiida_autopipe.core.ace.pruning import _losses, pruned
from aiida_autopipe.core.errors import FitError

WEIGHTS = RowWeights(energy=10.0, forces=1.0, stress=3.0)
SIZE = 30
NEEDED = [2, 7, 11, 23, 28]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def of_rows(
    rows: np.ndarray, targets: np.ndarray, n_folds: int, qr: bool = False, **options: object
) -> Equations:
    """Forces only, dealt to the folds in turn."""
    equations = Equations(np.arange(1.0, rows.shape[1] + 1), n_folds, qr, **options)
    for fold in range(n_folds):
        mine = slice(fold, None, n_folds)
        equations.sums["forces"][fold].add_rows(
            rows[mine], targets[mine], np.ones(len(targets[mine]))
        )
    return equations


def labels(rng: np.random.Generator, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Rows of columns that resemble each other; a few of them make the targets."""
    rows = rng.normal(size=(400, SIZE)) + rng.normal(size=(400, 1))
    coefficients = np.zeros(SIZE)
    coefficients[NEEDED] = [1.0, -2.0, 1.5, 0.7, -1.0]
    return rows, rows @ coefficients + noise * rng.normal(size=400)


def test_losses_are_what_the_minimum_grows_by(rng: np.random.Generator) -> None:
    rows, targets = labels(rng)
    matrix, right = rows.T @ rows, rows.T @ targets
    choice = Choice(WEIGHTS, 0.3, 0.0)
    ridge = 0.3 * np.diag(matrix)

    def minimum(used: np.ndarray) -> float:
        part = matrix[np.ix_(used, used)] + np.diag(ridge[used])
        return float(targets @ targets - right[used] @ np.linalg.solve(part, right[used]))

    everything = np.arange(SIZE)
    expected = [minimum(np.delete(everything, k)) - minimum(everything) for k in range(SIZE)]
    found = _losses(matrix, right, np.ones(SIZE), choice)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("qr", [False, True])
def test_the_functions_that_make_the_labels_are_found(rng: np.random.Generator, qr: bool) -> None:
    equations = of_rows(*labels(rng), n_folds=4, qr=qr)
    choice = Choice(WEIGHTS, 1e-8, 0.0)
    found = pruned(equations, choice, np.array([0, SIZE]), len(NEEDED), threads=2)
    assert found.kept.tolist() == NEEDED
    assert [kept.tolist() for kept in found.kept_without] == [NEEDED] * 4


def test_as_many_for_each_element(rng: np.random.Generator) -> None:
    equations = of_rows(*labels(rng), n_folds=1)
    found = pruned(equations, Choice(WEIGHTS, 1e-8, 0.0), np.array([0, 9, 12, SIZE]), 4, threads=1)
    assert np.histogram(found.kept, [0, 9, 12, SIZE])[0].tolist() == [4, 3, 4]
    assert found.kept.tolist() == sorted(found.kept.tolist())
    assert found.kept_without == []


def test_functions_that_no_label_touches_go_first_and_the_roughest_before(
    rng: np.random.Generator,
) -> None:
    rows, targets = labels(rng)
    rows[:, [0, 1, 3, 5]] = 0.0
    equations = of_rows(rows, targets, n_folds=1)
    found = pruned(
        equations, Choice(WEIGHTS, 0.0, 0.0), np.array([0, SIZE]), SIZE - 3, threads=1
    ).kept
    assert np.setdiff1d(np.arange(SIZE), found).tolist() == [1, 3, 5]


def test_columns_that_are_equal_are_not_a_failure(rng: np.random.Generator) -> None:
    rows, targets = labels(rng)
    twice = np.hstack([rows, rows])
    found = pruned(
        of_rows(twice, targets, n_folds=2),
        Choice(WEIGHTS, 0.0, 0.0),
        np.array([0, 2 * SIZE]),
        len(NEEDED),
        threads=1,
    )
    assert sorted(found.kept % SIZE) == NEEDED


def test_without_labels_in_the_other_folds_the_smoothest_are_kept(
    rng: np.random.Generator,
) -> None:
    equations = of_rows(*labels(rng), n_folds=1)
    equations.n_folds = 2
    for sums in equations.sums.values():
        sums.append(equations.empty())
    found = pruned(equations, Choice(WEIGHTS, 1e-8, 0.0), np.array([0, SIZE]), 5, threads=1)
    assert found.kept_without[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("qr", [False, True])
def test_sums_of_some_columns(rng: np.random.Generator, qr: bool) -> None:
    rows, targets = labels(rng)
    columns = np.array([1, 4, 8, 29])
    mean = rng.normal(size=SIZE)
    metric = np.diag(rng.uniform(1.0, 2.0, SIZE))
    part = of_rows(rows, targets, n_folds=3, qr=qr, prior_mean=mean, prior_metric=metric).part(
        columns
    )
    alone = of_rows(
        rows[:, columns], targets, n_folds=3, qr=qr, prior_mean=mean[columns],
        prior_metric=metric[np.ix_(columns, columns)],
    )  # fmt: skip
    alone.degrees = part.degrees
    assert part.degrees.tolist() == [2.0, 5.0, 9.0, 30.0]
    choice = Choice(WEIGHTS, 1e-3, 1.0)
    for without in (None, 1):
        np.testing.assert_allclose(
            part.solve(choice, without), alone.solve(choice, without), rtol=1e-9
        )
    assert part.count("forces") == alone.count("forces")
    for fold in range(3):
        expected = alone.mean_square("forces", fold, mean[columns])
        assert part.mean_square("forces", fold, mean[columns]) == pytest.approx(expected)


def test_sums_that_are_not_finite_are_refused(rng: np.random.Generator) -> None:
    rows, targets = labels(rng)
    rows[3, 4] = np.nan
    with pytest.raises(FitError, match="not finite"):
        pruned(of_rows(rows, targets, 1), Choice(WEIGHTS, 1e-8, 0.0), np.array([0, SIZE]), 5, 1)
