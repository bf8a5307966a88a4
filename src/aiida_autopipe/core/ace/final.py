"""The last step of a fit's decisions: all labels, stresses among them, for the basis that won."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from aiida_autopipe.core.ace.candidates import Candidates
from aiida_autopipe.core.ace.cross_validation import cross_validation_score
from aiida_autopipe.core.ace.equations import Choice, Equations
from aiida_autopipe.core.ace.search import Trial
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.ace.stress_screen import StressScreen, screen_stress
from aiida_autopipe.core.ace.tuning import (
    STRESS_TO_ENERGY_WEIGHTS,
    Tuned,
    row_weights,
    tune,
)

# How much worse energies and forces may become for the sake of stresses (mean log error).
_WORTH_STRESS = 0.05


def final_equations(
    candidates: Candidates, trial: Trial, settings: FitSettings, threads: int
) -> tuple[Equations, Tuned, list[str]]:
    """Equations of all labels, with the stresses that agree with the rest, the final choices, and
    sentences for the user.

    Changes the equations of ``trial``.
    """
    equations, tuned, notes = trial.equations, trial.tuned, []
    if equations.n_folds < 2:
        notes.append(
            "All structures are copies of one, so nothing could be validated: cutoff, size and "
            "regularisation are defaults."
        )
    screen = None
    if "stress" in equations.kept:
        screen = _use_stresses(candidates, equations, tuned.choice)
        tuned = _weigh_stresses(equations, tuned, settings, threads)
    if not candidates.is_everything:
        whole = candidates.everything(trial, screen)
        # The prior does not grow with the data, the diagonal it is relative to does.
        if settings.regularisation is None:
            ratio = equations.count("forces") / max(whole.count("forces"), 1)
            tuned = tuned.changed(partial(_weakened, ratio=min(ratio, 1.0)))
        equations = whole
    if screen is not None:
        total = 6 * candidates.count_stresses()
        notes += screen.notes(total - equations.count("stress"), total)
    return equations, tuned, notes


def _weakened(choice: Choice, ratio: float) -> Choice:
    return replace(choice, regularisation=choice.regularisation * ratio)


def _use_stresses(candidates: Candidates, equations: Equations, choice: Choice) -> StressScreen:
    """Take the kept stresses that agree with energies and forces into the sums."""
    rows = equations.kept["stress"]
    contents = candidates.contents(rows.structure[::6])
    screen = screen_stress(equations, choice, contents)
    corrected = screen.corrected(rows.targets, contents.composition)
    equations.use_kept("stress", corrected, screen.used(rows.matrix, corrected))
    return screen


def _weigh_stresses(
    equations: Equations, alone: Tuned, settings: FitSettings, threads: int
) -> Tuned:
    """Tuned with the largest weight of stresses that leaves energies and forces nearly as good as
    they are ``alone``; else with the weight that harms them least.

    Stresses are the least certain of labels, even those that do not contradict the others.
    """
    if settings.stress_weight is not None:
        return tune(equations, settings, alone.choice, threads)
    others = [kind for kind in equations.kinds if kind != "stress"]
    least, best, choice = float("inf"), alone, alone.choice
    for ratio in STRESS_TO_ENERGY_WEIGHTS:
        weights = row_weights(choice.weights.energy, settings, ratio)
        tuned = tune(equations, settings, replace(choice, weights=weights), threads)
        choice = tuned.choice
        score = cross_validation_score(equations, choice, threads=threads, kinds=others)
        if score - alone.score < least:
            least, best = score - alone.score, tuned
        if least <= _WORTH_STRESS:
            break
    return best
