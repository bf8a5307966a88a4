import numpy as np
import pytest

from aiida_autopipe.core.ace.equations import Choice, Equations, RowWeights, solve
from aiida_autopipe.core.errors import FitError

WEIGHTS = RowWeights(energy=10.0, forces=1.0, stress=3.0)
Added = list[tuple[str, int, np.ndarray, np.ndarray, np.ndarray]]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def accumulated(
    rng: np.random.Generator,
    size: int = 6,
    n_folds: int = 3,
    noise: float = 0.0,
    **options: object,
) -> tuple[Equations, Added]:
    truth = rng.normal(size=size)
    equations = Equations(np.ones(size), n_folds, **options)
    added = []
    for fold in range(n_folds):
        for kind, count in (("energy", 4), ("forces", 30), ("stress", 6)):
            rows = rng.normal(size=(count, size))
            targets = rows @ truth + noise * rng.normal(size=count)
            weight = rng.integers(0, 3, size=count).astype(float)
            equations.sums[kind][fold].add_rows(rows, targets, weight)
            added.append((kind, fold, rows, targets, weight))
    return equations, added


def stacked(added: Added, without: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """All rows and targets times the roots of their weights."""
    used = [item for item in added if item[1] != without]
    roots = [WEIGHTS.of(kind) * np.sqrt(weight) for kind, _, _, _, weight in used]
    rows = [r * w[:, None] for (_, _, r, _, _), w in zip(used, roots, strict=True)]
    targets = [t * w for (_, _, _, t, _), w in zip(used, roots, strict=True)]
    return np.concatenate(rows), np.concatenate(targets)


@pytest.mark.parametrize("qr", [False, True])
@pytest.mark.parametrize("without", [None, 1])
def test_same_as_weighted_least_squares_on_all_rows(
    rng: np.random.Generator, qr: bool, without: int | None
) -> None:
    equations, added = accumulated(rng, noise=0.3, qr=qr)
    expected = np.linalg.lstsq(*stacked(added, without), rcond=None)[0]
    found = equations.solve(Choice(WEIGHTS, 1e-15, 0.0), without)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("qr", [False, True])
def test_prior_mean_and_width_of_the_formula(rng: np.random.Generator, qr: bool) -> None:
    mean = rng.normal(size=6)
    equations, added = accumulated(rng, noise=0.3, qr=qr, prior_mean=mean)
    equations.degrees = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    choice = Choice(WEIGHTS, 0.3, 1.5)
    rows, targets = stacked(added)
    precision = 0.3 * (rows**2).sum(axis=0) * choice.penalty(equations.degrees) ** 2
    left = rows.T @ rows + np.diag(precision)
    expected = np.linalg.solve(left, rows.T @ targets + precision * mean)
    np.testing.assert_allclose(equations.solve(choice), expected, rtol=1e-9)


@pytest.mark.parametrize("qr", [False, True])
def test_a_metric_adds_to_independent_widths(rng: np.random.Generator, qr: bool) -> None:
    mean, active = rng.normal(size=6), rng.normal(size=(6, 6))
    metric = active.T @ active
    options = {"qr": qr, "prior_mean": mean, "prior_metric": metric}
    equations, added = accumulated(rng, noise=0.3, **options)
    equations.degrees = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    choice = Choice(WEIGHTS, 0.3, 1.5)
    rows, targets = stacked(added)
    own = np.diag(metric)
    size = np.exp(np.mean(np.log((rows**2).sum(axis=0) / own)))
    widths = np.diag(own * choice.penalty(equations.degrees) ** 2)
    precision = 0.3 * size * (widths + 30.0 * metric)
    expected = np.linalg.solve(rows.T @ rows + precision, rows.T @ targets + precision @ mean)
    np.testing.assert_allclose(equations.solve(choice), expected, rtol=1e-8)


def test_a_strong_prior_gives_its_mean_and_a_weak_one_the_data(rng: np.random.Generator) -> None:
    mean = rng.normal(size=6)
    equations, added = accumulated(rng, prior_mean=mean)
    np.testing.assert_allclose(equations.solve(Choice(WEIGHTS, 1e9, 0.0)), mean, rtol=1e-6)
    expected = np.linalg.lstsq(*stacked(added), rcond=None)[0]
    np.testing.assert_allclose(equations.solve(Choice(WEIGHTS, 1e-12, 0.0)), expected, rtol=1e-6)


def test_errors_from_sums_are_those_of_the_rows(rng: np.random.Generator) -> None:
    equations, added = accumulated(rng, noise=0.3)
    guess = rng.normal(size=6)
    for kind, fold, rows, targets, weight in added:
        total, used = equations.mean_square(kind, fold, guess)
        assert total == pytest.approx(weight @ (rows @ guess - targets) ** 2)
        assert used == pytest.approx(weight.sum())


@pytest.mark.parametrize("qr", [False, True])
def test_untouched_functions_keep_the_prior(rng: np.random.Generator, qr: bool) -> None:
    mean = np.arange(8.0)
    equations = Equations(np.ones(8), 1, qr, mean)
    rows = rng.normal(size=(3, 8))
    rows[:, 4] = 0.0
    targets = rng.normal(size=3)
    equations.sums["forces"][0].add_rows(rows, targets, np.ones(3))
    found = equations.solve(Choice(WEIGHTS, 1e-10, 0.0))
    assert found[4] == mean[4]
    np.testing.assert_allclose(rows @ found, targets, rtol=1e-6)
    half = equations.solve(Choice(WEIGHTS, 1e-10, 0.0, share=0.5))
    assert half[4] == mean[4] / 2
    strong = equations.solve(Choice(WEIGHTS, 1e9, 0.0, share=0.5))
    np.testing.assert_allclose(strong, mean / 2, rtol=1e-6, atol=1e-6)


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
