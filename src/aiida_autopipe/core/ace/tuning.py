"""The weights of energies and the prior that predict held-out labels best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.cross_validation import FoldSystems, HeldOutErrors, held_out_errors
from aiida_autopipe.core.ace.equations import Choice, Equations, RowWeights
from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.ace.settings import FitSettings

Array = NDArray[np.float64]

#: Four to a decade. From one half of a decade to the next the test energies of silicon change by a
#: fifth, the forces by a twelfth.
ENERGY_WEIGHTS = (
    *(1.0, 1.8, 3.0, 5.6, 10.0, 18.0, 30.0, 56.0),
    *(100.0, 180.0, 300.0, 560.0, 1000.0, 1800.0, 3000.0),
)
SMOOTHNESSES = (0.0, 1.0, 2.0, 3.0, 4.0)
STRONGEST, WEAKEST = 3, -12
STRESS_TO_ENERGY_WEIGHTS = (0.05, 0.032, 0.02, 0.0125, 0.008, 0.005)

_START_ENERGY_WEIGHT = 100.0
_START_REGULARISATION = 1e-8
_START_CORRECTION = 1e-3
_START_SMOOTHNESS = 2.0
#: A prior this much worse (0.5 % of the errors) but stronger is preferred: it extrapolates better.
_TOLERANCE = 0.005
# How often the numbers of the prior are gone through for given weights.
_PASSES = 3
# The choices that a correction of another potential is averaged over; those with less than a share
# of the largest weight are left out.
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_ENERGY_WEIGHTS, _SMOOTHNESSES = (30.0, 100.0, 300.0), (2.0, 4.0)
_DECADES = range(-5, STRONGEST + 1)
_LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class Tuned:
    """A choice and its cross-validation score: the mean log error, lower is better.

    blend: weights that add up to 1, and the choices whose solutions with these weights make up the
    potential. It is the choice alone, or everything that held-out labels do not tell from it.
    """

    choice: Choice
    score: float
    blend: tuple[tuple[float, Choice], ...]

    @classmethod
    def alone(cls, choice: Choice, score: float) -> Tuned:
        """A choice that is not blended with others."""
        return cls(choice, score, ((1.0, choice),))

    @property
    def share(self) -> float:
        """Of another potential that is kept."""
        return sum(weight * choice.share for weight, choice in self.blend)

    def changed(self, change: Callable[[Choice], Choice]) -> Tuned:
        """The same with every choice changed."""
        blend = tuple((weight, change(choice)) for weight, choice in self.blend)
        return Tuned(change(self.choice), self.score, blend)

    def mean(self, solve: Callable[[Choice], Array], threads: int = 1) -> Array:
        """Solutions of the choices with their weights."""
        weights, choices = zip(*self.blend, strict=True)
        solutions = in_threads(solve, choices, threads)
        return np.asarray(sum(w * solution for w, solution in zip(weights, solutions, strict=True)))


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


def nearest_stress_ratio(ratio: float) -> float:
    """The number of the list nearest to one, so that rounding does not make two choices of one."""
    return min(STRESS_TO_ENERGY_WEIGHTS, key=lambda known: abs(math.log(known / max(ratio, 1e-9))))


def tune(
    equations: Equations, settings: FitSettings, start: Choice | None = None, threads: int = 1
) -> Tuned:
    """Fill in what the settings leave open: step by step the weight of energies that has the best
    cross-validation score with the prior that suits it, which is found by coordinate search.

    Where the mean of the prior is another potential and the prior has no metric, all of these and
    the share of it that is kept come from a grid instead, see `_averaged`.

    ``start`` is a choice to begin from, such as that of a similar basis. Without folds the numbers
    stay where they begin, with a score of 0.
    """
    choice = start_choice(settings) if start is None else start
    if equations.n_folds < 2:
        return Tuned.alone(choice, 0.0)
    known: dict[Choice, HeldOutErrors] = {}
    corrects = equations.prior_mean.any() and equations.prior_metric is None
    averaged = corrects and settings.regularisation is None
    # Priors of corrections are strong, so that normal equations tell them apart exactly enough, and
    # hundreds of QR factorisations would take minutes.
    systems = FoldSystems(equations, threads) if averaged or not equations.qr else None

    def errors(candidate: Choice) -> HeldOutErrors:
        if candidate not in known:
            known[candidate] = held_out_errors(equations, candidate, systems, threads)
        return known[candidate]

    def score(candidate: Choice) -> float:
        return errors(candidate).score

    def settled(candidate: Choice) -> Choice:
        """With the prior that suits its weights best."""
        for _ in range(_PASSES):
            before = candidate
            for move in prior_moves:
                candidate = _line_search(candidate, move, score)
            if candidate == before:
                break
        return candidate

    def reweighted(width: int, candidate: Choice, steps: int) -> Choice | None:
        # A prior that suits one weight makes another look bad, so that it moves along.
        weighted = _energy_weighted(candidate, width * steps, settings)
        return None if weighted is None else settled(weighted)

    weighs = settings.energy_weight is None and {"energy", "forces"} <= set(equations.kinds)
    if averaged:
        return _averaged(list(_grid(choice, settings, weighs)), errors)
    prior_moves = _prior_moves(settings)
    choice = settled(choice)
    if weighs:
        for width in (2, 1):
            choice = _line_search(choice, partial(reweighted, width), score)
    if settings.regularisation is None:
        choice = _strongest(choice, score)
    return Tuned.alone(choice, score(choice))


def _grid(choice: Choice, settings: FitSettings, weighs: bool) -> Iterator[Choice]:
    """Corrections of another potential, for one weight of energies after the other."""
    ratio = choice.weights.stress / max(choice.weights.energy, 1e-300)
    smoothnesses = _SMOOTHNESSES if settings.smoothness is None else (settings.smoothness,)
    for energy in _ENERGY_WEIGHTS if weighs else (choice.weights.energy,):
        weights = row_weights(energy, settings, ratio)
        for share, smoothness, decade in product(_SHARES, smoothnesses, _DECADES):
            yield Choice(weights, 10.0**decade, smoothness, share)


def _averaged(grid: list[Choice], errors: Callable[[Choice], HeldOutErrors]) -> Tuned:
    """The best choice, and all with weights that fall by e for every standard error of the score.

    A correction is learnt from few labels. These leave open which of many different choices is
    best, and what the best one happens to be makes a large difference; their mean does not depend
    on it.
    """
    found = [errors(choice) for choice in grid]
    scores = np.array([one.score for one in found])
    best = int(np.argmin(scores))
    width = max(found[best].standard_error, 1e-12)
    weights = np.exp((scores[best] - scores) / width)
    weights[weights < _LEAST_WEIGHT] = 0.0
    weights /= weights.sum()
    blend = ((float(w), choice) for w, choice in zip(weights, grid, strict=True) if w > 0)
    return Tuned(grid[best], float(scores[best]), tuple(blend))


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
    ratio = nearest_stress_ratio(weights.stress / weights.energy)
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
