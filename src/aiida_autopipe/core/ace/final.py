"""The last step of a fit's decisions: all labels, stresses among them, for the basis that won."""

from __future__ import annotations

from dataclasses import replace

from aiida_autopipe.core.ace.candidates import Candidates
from aiida_autopipe.core.ace.equations import Choice, Equations
from aiida_autopipe.core.ace.search import Trial
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.ace.stress_screen import StressScreen, screen_stress
from aiida_autopipe.core.ace.tuning import (
    STRESS_TO_ENERGY_WEIGHTS,
    cross_validation_score,
    row_weights,
    tune,
)

# How much worse energies and forces may become for the sake of stresses (mean log error).
_WORTH_STRESS = 0.05


def final_equations(
    candidates: Candidates, trial: Trial, settings: FitSettings, threads: int
) -> tuple[Equations, Choice, list[str]]:
    """Equations of all labels, with the stresses that agree with the rest, the final choice, and
    sentences for the user.

    Changes the equations of ``trial``.
    """
    equations, choice, notes = trial.equations, trial.tuned.choice, []
    if equations.n_folds < 2:
        notes.append(
            "All structures are copies of one, so nothing could be validated: cutoff, size and "
            "regularisation are defaults."
        )
    screen = None
    if "stress" in equations.kept:
        screen = _use_stresses(candidates, equations, choice)
        choice = _weigh_stresses(equations, choice, trial.tuned.score, settings, threads)
    if not candidates.is_everything:
        whole = candidates.everything(trial, screen)
        # The prior does not grow with the data, the diagonal it is relative to does.
        if settings.regularisation is None:
            ratio = equations.count("forces") / max(whole.count("forces"), 1)
            choice = replace(choice, regularisation=choice.regularisation * min(ratio, 1.0))
        equations = whole
    if screen is not None:
        total = 6 * candidates.count_stresses()
        notes += screen.notes(total - equations.count("stress"), total)
    return equations, choice, notes


def _use_stresses(candidates: Candidates, equations: Equations, choice: Choice) -> StressScreen:
    """Take the kept stresses that agree with energies and forces into the sums."""
    rows = equations.kept["stress"]
    contents = candidates.contents(rows.structure[::6])
    screen = screen_stress(equations, choice, contents)
    corrected = screen.corrected(rows.targets, contents.composition)
    equations.use_kept("stress", corrected, screen.used(rows.matrix, corrected))
    return screen


def _weigh_stresses(
    equations: Equations, choice: Choice, score: float, settings: FitSettings, threads: int
) -> Choice:
    """Tuned with the largest weight of stresses that leaves energies and forces nearly as good as
    they are without, of which ``score`` is the score; else the weight that harms them least.

    Stresses are the least certain of labels, even those that do not contradict the others.
    """
    if settings.stress_weight is not None:
        return tune(equations, settings, choice, threads).choice
    others = [kind for kind in equations.kinds if kind != "stress"]
    least, best = float("inf"), choice
    for ratio in STRESS_TO_ENERGY_WEIGHTS:
        weights = row_weights(choice.weights.energy, settings, ratio)
        choice = tune(equations, settings, replace(choice, weights=weights), threads).choice
        harm = cross_validation_score(equations, choice, threads=threads, kinds=others) - score
        if harm < least:
            least, best = harm, choice
        if least <= _WORTH_STRESS:
            break
    return best
