"""Cross validation: the weights of energies and the prior that predict held-out labels best."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.equations import KINDS, Choice, Equations, RowWeights, row_errors
from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.ace.settings import FitSettings

Array = NDArray[np.float64]

ENERGY_WEIGHTS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
SMOOTHNESSES = (0.0, 1.0, 2.0, 3.0, 4.0)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
STRONGEST, WEAKEST = 3, -12
STRESS_TO_ENERGY_WEIGHTS = (0.05, 0.02, 0.01, 0.005)

_START_ENERGY_WEIGHT = 100.0
_START_REGULARISATION = 1e-8
_START_CORRECTION = 1e-3
_START_SMOOTHNESS = 2.0
#: A prior this much worse (0.5 % of the errors) but stronger is preferred: it extrapolates better.
_TOLERANCE = 0.005
# How often the numbers of the prior are gone through for given weights.
_PASSES = 3
# How much the log errors of the kinds count: forces drive MD, and their error is known best.
_IMPORTANCE = {"energy": 1.0, "forces": 2.0, "stress": 1.0}
# Errors below this (eV or eV/Å) are below any label's own noise; keeps exact data out of log 0.
_SMALLEST_ERROR = 1e-8


@dataclass(frozen=True)
class Tuned:
    """A choice and its cross-validation score: the mean log error, lower is better."""

    choice: Choice
    score: float


def start_choice(settings: FitSettings, correction: bool = False) -> Choice:
    """The numbers the settings give, and where the search for the others begins.

    A ``correction`` of another potential is expected to be small.
    """
    energy = settings.energy_weight
    regularisation, smoothness = settings.regularisation, settings.smoothness
    start = _START_CORRECTION if correction else _START_REGULARISATION
    return Choice(
        row_weights(_START_ENERGY_WEIGHT if energy is None else energy, settings),
        start if regularisation is None else regularisation,
        _START_SMOOTHNESS if smoothness is None else smoothness,
    )


def row_weights(
    energy: float, settings: FitSettings, stress_ratio: float = STRESS_TO_ENERGY_WEIGHTS[0]
) -> RowWeights:
    """Weights of the kinds of label for one weight of energies."""
    stress = settings.stress_weight
    stress = energy * stress_ratio if stress is None else stress
    return RowWeights(energy=energy, forces=settings.force_weight, stress=stress)


def tune(
    equations: Equations, settings: FitSettings, start: Choice | None = None, threads: int = 1
) -> Tuned:
    """Fill in what the settings leave open: step by step the weight of energies that has the best
    cross-validation score with the prior that suits it, which is found by coordinate search.

    Where the mean of the prior is another potential and the prior has no metric, the share of it
    that is kept is chosen in the same way, from all of it downwards.

    ``start`` is a choice to begin from, such as that of a similar basis. Without folds the numbers
    stay where they begin, with a score of 0.
    """
    choice = start_choice(settings) if start is None else start
    if equations.n_folds < 2:
        return Tuned(choice, 0.0)
    scores: dict[Choice, float] = {}
    systems = _FoldSystems(equations, threads)

    def score(candidate: Choice) -> float:
        if candidate not in scores:
            scores[candidate] = cross_validation_score(equations, candidate, systems, threads)
        return scores[candidate]

    def settled(candidate: Choice) -> Choice:
        """With the prior that suits its weights best."""
        for _ in range(_PASSES):
            before = candidate
            for move in prior_moves:
                candidate = _line_search(candidate, move, score)
            if candidate == before:
                break
        return candidate

    def reweighted(candidate: Choice, steps: int) -> Choice | None:
        # A prior that suits one weight makes another look bad, so that it moves along.
        weighted = _energy_weighted(candidate, steps, settings)
        return None if weighted is None else settled(weighted)

    def shared(candidate: Choice, steps: int) -> Choice | None:
        share = _moved(candidate.share, SHARES, steps)
        return None if share is None else settled(replace(candidate, share=share))

    prior_moves = _prior_moves(settings)
    choice = settled(choice)
    if settings.energy_weight is None and {"energy", "forces"} <= set(equations.kinds):
        choice = _line_search(choice, reweighted, score)
    if settings.regularisation is None:
        if equations.prior_mean.any() and equations.prior_metric is None:
            choice = _line_search(choice, shared, score)
        choice = _strongest(choice, score)
    return Tuned(choice, score(choice))


Move = Callable[[Choice, int], Choice | None]


def _prior_moves(settings: FitSettings) -> list[Move]:
    """One function for each open number of the prior that takes a choice some steps up or down."""
    moves: list[Move] = []
    if settings.regularisation is None:
        moves += [lambda c, s: _regularised(c, 2 * s), _regularised]
    if settings.smoothness is None:
        moves.append(_smoothed)
    return moves


def _regularised(choice: Choice, steps: int) -> Choice | None:
    decade = round(np.log10(choice.regularisation)) + steps
    if not WEAKEST <= decade <= STRONGEST:
        return None
    return replace(choice, regularisation=float(10.0**decade))


def _energy_weighted(choice: Choice, steps: int, settings: FitSettings) -> Choice | None:
    weights = choice.weights
    energy = _moved(weights.energy, ENERGY_WEIGHTS, steps)
    if energy is None:
        return None
    # The very number of the list, so that rounding does not make two choices of one.
    ratio = weights.stress / weights.energy
    ratio = min(STRESS_TO_ENERGY_WEIGHTS, key=lambda known: abs(known - ratio))
    return replace(choice, weights=row_weights(energy, settings, ratio))


def _smoothed(choice: Choice, steps: int) -> Choice | None:
    smoothness = _moved(choice.smoothness, SMOOTHNESSES, steps)
    return None if smoothness is None else replace(choice, smoothness=smoothness)


def _moved(value: float, grid: tuple[float, ...], steps: int) -> float | None:
    place = grid.index(value) + steps
    return grid[place] if 0 <= place < len(grid) else None


def _line_search(choice: Choice, move: Move, score: Callable[[Choice], float]) -> Choice:
    """Step in the direction that lowers the score as long as it does."""
    for direction in (1, -1):
        moved = False
        while (neighbour := move(choice, direction)) is not None:
            if not score(neighbour) < score(choice):
                break
            choice, moved = neighbour, True
        if moved:
            break
    return choice


def _strongest(choice: Choice, score: Callable[[Choice], float]) -> Choice:
    """The strongest prior that is as good within the tolerance."""
    limit = score(choice) + _TOLERANCE
    while (stronger := _regularised(choice, 1)) is not None and score(stronger) <= limit:
        choice = stronger
    return choice


class _FoldSystems:
    """Matrices of all folds but one for the row weights asked for last."""

    def __init__(self, equations: Equations, threads: int) -> None:
        self._equations, self._threads = equations, threads
        self._weights: RowWeights | None = None
        self._systems: list[tuple[Array, Array]] = []

    def of(self, weights: RowWeights) -> list[tuple[Array, Array]]:
        if weights != self._weights:
            folds = range(self._equations.n_folds)
            self._systems = []
            self._systems = list(
                in_threads(lambda k: self._equations.assemble(weights, k), folds, self._threads)
            )
            self._weights = weights
        return self._systems


def fold_solutions(
    equations: Equations,
    choice: Choice,
    systems: _FoldSystems | None = None,
    threads: int = 1,
) -> list[Array]:
    """The coefficients fitted without each fold in turn; none with a single fold.

    Where the other folds say nothing about the potential, they are those of the prior.
    """
    if equations.n_folds < 2:
        return []

    def solution(fold: int) -> Array:
        if equations.qr or systems is None:
            return equations.solve(choice, without=fold)
        matrix, right = systems.of(choice.weights)[fold]
        if not matrix.any():
            return equations.mean(choice)
        return equations.solve_sums(matrix, right, choice)

    if systems is not None and not equations.qr:
        systems.of(choice.weights)
    return list(in_threads(solution, range(equations.n_folds), threads))


def cross_validation_score(
    equations: Equations,
    choice: Choice,
    systems: _FoldSystems | None = None,
    threads: int = 1,
    kinds: Collection[str] = KINDS,
) -> float:
    """Weighted mean over kinds of label of the log error on the folds left out; lower is better.

    A sum of logarithms weighs relative gains, whatever the units: 2 % better energies pay for 1 %
    worse forces. Errors are mean absolute ones where rows were kept, so that a few
    odd structures do not decide; else root mean squares.
    """
    solutions = fold_solutions(equations, choice, systems, threads)
    total, importance = 0.0, 0.0
    for kind in equations.kinds:
        if kind not in kinds or choice.weights.of(kind) == 0:
            continue
        if kind in equations.kept:
            errors, weight = row_errors(equations.kept[kind], solutions)
            # The weights of rows are those of squares.
            root = np.sqrt(weight)
            error = float(np.abs(errors) @ root / root.sum())
        else:
            parts = [equations.mean_square(kind, k, c) for k, c in enumerate(solutions)]
            error = float(np.sqrt(sum(part[0] for part in parts) / sum(part[1] for part in parts)))
        total += _IMPORTANCE[kind] * np.log(error + _SMALLEST_ERROR)
        importance += _IMPORTANCE[kind]
    return float(total / importance) if importance else 0.0
