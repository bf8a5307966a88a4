from dataclasses import replace

import numpy as np
import pytest

from aiida_autopipe.core.ace import tuning
from aiida_autopipe.core.ace.cross_validation import (
    HeldOutErrors,
    cross_validation_score,
    fold_solutions,
)
from aiida_autopipe.core.ace.equations import Choice, Equations, FewRows, RowWeights
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.ace.tuning import start_choice, tune


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def noisy(rng: np.random.Generator, noise: float, qr: bool = False) -> Equations:
    """25 functions of growing degree, of which only the first five matter."""
    truth = np.concatenate([np.ones(5), np.zeros(20)])
    equations = Equations(np.arange(1.0, 26.0), 4, qr)
    for fold in range(4):
        for kind, count, scale in (("energy", 6, 0.1), ("forces", 12, 1.0)):
            rows = rng.normal(size=(count, 25))
            targets = rows @ truth + scale * noise * rng.normal(size=count)
            equations.sums[kind][fold].add_rows(rows, targets, np.ones(count))
    return equations


def test_noise_asks_for_a_stronger_prior(rng: np.random.Generator) -> None:
    settings = FitSettings(energy_weight=10.0)
    quiet, loud = (tune(noisy(rng, n), settings).choice for n in (1e-3, 3.0))
    assert loud.regularisation > 100 * quiet.regularisation
    assert quiet.weights.energy == loud.weights.energy == 10.0


def test_the_choice_is_better_than_where_it_began(rng: np.random.Generator) -> None:
    equations = noisy(rng, 1.0)
    tuned = tune(equations, FitSettings())
    begin = cross_validation_score(equations, start_choice(FitSettings()))
    assert tuned.score < begin
    assert tuned.score == cross_validation_score(equations, tuned.choice)


def test_threads_and_solvers_agree() -> None:
    choices = [
        tune(noisy(np.random.default_rng(1), 1.0, qr), FitSettings(), threads=threads)
        for qr, threads in ((False, 1), (False, 3), (True, 2))
    ]
    assert choices[0] == choices[1]
    assert choices[0].choice == choices[2].choice
    assert choices[0].score == pytest.approx(choices[2].score, abs=1e-6)


def test_given_numbers_are_left_alone(rng: np.random.Generator) -> None:
    settings = FitSettings(
        energy_weight=7.0, stress_weight=2.0, regularisation=0.05, smoothness=1.5
    )
    expected = Choice(RowWeights(7.0, 1.0, 2.0), 0.05, 1.5)
    assert tune(noisy(rng, 1.0), settings).choice == expected


def test_without_folds_nothing_is_chosen(rng: np.random.Generator) -> None:
    equations = Equations(np.ones(3), 1)
    equations.sums["forces"][0].add_rows(rng.normal(size=(9, 3)), rng.normal(size=9), np.ones(9))
    assert tune(equations, FitSettings()).choice == start_choice(FitSettings())


def test_kept_rows_are_judged_by_their_absolute_errors(rng: np.random.Generator) -> None:
    equations = noisy(rng, 1.0)
    choice = start_choice(FitSettings())
    rows, targets = rng.normal(size=(8, 25)), rng.normal(size=8)
    folds = np.arange(8) % 4
    weight = rng.uniform(0.5, 2.0, size=8)
    kept = FewRows(rows, targets, weight, folds, np.arange(8))
    equations.kept = {"energy": kept, "forces": kept}
    solutions = fold_solutions(equations, choice)
    errors = np.abs([rows[i] @ solutions[folds[i]] - targets[i] for i in range(8)])
    root = np.sqrt(weight)
    expected = np.log(errors @ root / root.sum() + 1e-8)
    assert cross_validation_score(equations, choice) == pytest.approx(expected)


@pytest.mark.parametrize("start", [1.0, 3000.0])
def test_weight_and_prior_move_together(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, start: float
) -> None:
    """In a valley of the score where every step in one of them alone leads uphill."""

    def valley(_: Equations, choice: Choice, *__: object) -> HeldOutErrors:
        weight = tuning.ENERGY_WEIGHTS.index(choice.weights.energy) - 8
        decade = 2 * (round(np.log10(choice.regularisation)) + 7)
        error = np.exp(5.0 * abs(weight + decade) + 0.1 * abs(weight))
        return HeldOutErrors({"energy": np.array([error])}, {"energy": np.ones(1)})

    monkeypatch.setattr(tuning, "held_out_errors", valley)
    settings = FitSettings()
    begin = start_choice(settings)
    begin = replace(begin, weights=tuning.row_weights(start, settings))
    found = tune(noisy(rng, 1.0), settings, begin).choice
    assert (found.weights.energy, found.weights.stress) == (100.0, 5.0)
    assert found.regularisation == 1e-7


def corrected(
    rng: np.random.Generator, noise: float, metric: np.ndarray | None = None, qr: bool = False
) -> Equations:
    """Labels of something half as strong as another potential and right otherwise, all kept."""
    count = 48
    truth = np.concatenate([np.ones(5), np.zeros(20)])
    prior = 2.0 * truth
    equations = Equations(np.arange(1.0, 26.0), 4, qr, prior, metric)
    for kind, scale in (("energy", 0.1), ("forces", 1.0)):
        rows = rng.normal(size=(count, 25))
        targets = rows @ truth + scale * noise * rng.normal(size=count)
        numbers, ones = np.arange(count), np.ones(count)
        equations.kept[kind] = FewRows(rows, targets, ones, numbers % 4, numbers)
        equations.use_kept(kind, targets, ones > 0)
    return equations


def test_the_share_of_another_potential_is_chosen(rng: np.random.Generator) -> None:
    """One that is twice too strong and right otherwise is halved, unless a prior has a metric."""
    settings, found = FitSettings(energy_weight=10.0), {}
    for name, metric in (("plain", None), ("metric", np.eye(25))):
        equations = corrected(rng, 0.3, metric)
        found[name] = tune(equations, settings, start_choice(settings, correction=True))
    assert (found["plain"].choice.share, found["metric"].choice.share) == (0.5, 1.0)
    assert found["plain"].share == pytest.approx(0.5, abs=0.1)
    assert found["plain"].choice.regularisation > 0.1
    assert found["metric"].blend == ((1.0, found["metric"].choice),)


def test_the_less_labels_tell_the_more_choices_are_averaged(rng: np.random.Generator) -> None:
    truth = np.concatenate([np.ones(5), np.zeros(20)])
    errors, sizes = [], []
    for noise in (1.0, 1e-3):
        equations = corrected(rng, noise)
        tuned = tune(equations, FitSettings(), start_choice(FitSettings(), correction=True))
        weights = [weight for weight, _ in tuned.blend]
        assert sum(weights) == pytest.approx(1.0)
        assert min(weights) > 0.0
        assert tuned.choice == max(tuned.blend, key=lambda member: member[0])[1]
        assert tuned.score == cross_validation_score(equations, tuned.choice)
        mean = sum(weight * equations.solve(choice) for weight, choice in tuned.blend)
        np.testing.assert_allclose(tuned.mean(equations.solve), mean)
        errors.append(np.abs(mean - truth).max())
        # As many as would have equal weights.
        sizes.append(1.0 / np.square(weights).sum())
    assert errors[1] < errors[0]
    assert sizes[1] < sizes[0]


def test_corrections_are_compared_without_factorising_by_qr(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which of the hundreds is best, normal equations tell as well, in a tenth of the time."""
    start = start_choice(FitSettings(), correction=True)
    normal = corrected(np.random.default_rng(5), 0.3)
    factors = corrected(np.random.default_rng(5), 0.3, qr=True)
    expected = tune(normal, FitSettings(), start)
    with monkeypatch.context() as patched:
        patched.delattr(Equations, "_solve_qr")
        found = tune(factors, FitSettings(), start, threads=2)
    assert found.choice == expected.choice
    assert found.score == pytest.approx(expected.score, abs=1e-9)
    np.testing.assert_allclose(
        found.mean(factors.solve, 2), expected.mean(normal.solve), rtol=1e-9, atol=1e-12
    )


def test_given_numbers_are_the_same_in_all_that_is_averaged(rng: np.random.Generator) -> None:
    settings = FitSettings(energy_weight=7.0, smoothness=1.5)
    start = start_choice(settings, correction=True)
    blend = tune(corrected(rng, 0.3), settings, start).blend
    assert len(blend) > 1
    assert {(one.weights.energy, one.smoothness) for _, one in blend} == {(7.0, 1.5)}
    fixed = FitSettings(regularisation=0.05)
    start = start_choice(fixed, correction=True)
    tuned = tune(corrected(rng, 0.3), fixed, start)
    assert tuned.blend == ((1.0, tuned.choice),)
    assert (tuned.choice.regularisation, tuned.choice.share) == (0.05, 1.0)


def test_standard_errors_are_those_of_repeated_samples(rng: np.random.Generator) -> None:
    """Of a score, the errors of the structures being drawn anew."""

    def drawn() -> HeldOutErrors:
        energies, forces = rng.exponential(size=(2, 200)), rng.uniform(size=(2, 200))
        sums = {"energy": energies[0], "forces": forces[0] * forces[1]}
        return HeldOutErrors(sums, {"energy": np.ones(200), "forces": forces[1]})

    samples = [drawn() for _ in range(500)]
    expected = np.std([one.score for one in samples])
    assert np.mean([one.standard_error for one in samples]) == pytest.approx(expected, rel=0.1)
