"""The last step of a fit's decisions: all labels, stresses among them, for the basis that won."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from aiida_autopipe.core.ace.candidates import Candidates
from aiida_autopipe.core.ace.cross_validation import HeldOutErrors, held_out_errors
from aiida_autopipe.core.ace.equations import Choice, Equations
from aiida_autopipe.core.ace.search import Trial
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.ace.stress_screen import StressScreen, screen_stress
from aiida_autopipe.core.ace.tuning import (
    STRESS_TO_ENERGY_WEIGHTS,
    Tuned,
    nearest_stress_ratio,
    row_weights,
    tune,
)


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
        alone = held_out_errors(equations, tuned.choice, threads=threads)
        screen = _use_stresses(candidates, equations, tuned.choice)
        tuned = _weigh_stresses(equations, tuned.choice, alone, settings, threads)
    elif not trial.is_tuned:
        tuned = tune(equations, settings, tuned.choice, threads)
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
    corrected = screen.corrected(rows.matrix, rows.targets, contents.composition)
    equations.use_kept("stress", corrected, screen.used(rows.matrix, corrected))
    return screen


def _weigh_stresses(
    equations: Equations, choice: Choice, alone: HeldOutErrors, settings: FitSettings, threads: int
) -> Tuned:
    """Tuned with all labels; ``alone`` are the errors of the others without stresses.

    The six components of a stress together count like one energy, each in units of its held-out
    error, or less. Where energies are fitted far better than stresses, a stress would else outweigh
    them, with what is wrong with it.
    """
    tuned = tune(equations, settings, choice, threads)
    open_weight = settings.stress_weight is None and settings.energy_weight != 0
    if not open_weight or equations.n_folds < 2 or "energy" not in alone.sums:
        return tuned
    errors = held_out_errors(equations, tuned.choice, threads=threads)
    if "stress" not in errors.sums:
        return tuned
    wanted = alone.mean("energy") / max(errors.mean("stress"), 1e-300) / math.sqrt(6.0)
    ratio = nearest_stress_ratio(wanted)
    if ratio == STRESS_TO_ENERGY_WEIGHTS[0]:
        return tuned
    weights = row_weights(tuned.choice.weights.energy, settings, ratio)
    return tune(equations, settings, replace(tuned.choice, weights=weights), threads)
