"""The recovery ladder: from the history of one label to the next attempt, or to its end.

No step is taken twice: each one is derived from the settings of the attempts before it, so every
sequence ends. Whatever changes the computed energy (smearing) is either stepped back from, starting
from the converged density, or the label is marked as one of another method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiida_autopipe.engines.espresso import ladder_electrons as electrons
from aiida_autopipe.engines.espresso import ladder_resources as resources
from aiida_autopipe.engines.espresso.attempts import (
    Accept,
    Attempt,
    Decision,
    Parameters,
    Reject,
    Situation,
    Step,
    method_change,
)
from aiida_autopipe.engines.espresso.failure import Kind
from aiida_autopipe.engines.espresso.ladder_electrons import count
from aiida_autopipe.engines.espresso.ladder_magnetism import (
    check_moment,
    missing_start,
    moment_needed,
)

Rule = Callable[[Sequence[Attempt], Parameters, Situation], Decision]


def decide(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """What to do after the last attempt.

    Args:
        history: all attempts so far, at least one.
        own: parameters of the dataset's own method, as they were given.
        situation: what does not change.
    """
    last = history[-1]
    if last.failure is None:
        decision = after_success(history, own, situation)
    elif last.failure in SEARCHING and _looked_for_moment(history, own):
        found = best(history, own)
        assert found is not None
        decision = check_moment(history, situation) or Accept(found.number)
    else:
        decision = RULES[last.failure](history, own, situation)
    if isinstance(decision, Accept):
        return decision
    if isinstance(decision, Step) and situation.tries_left > 0:
        return decision
    # A label of another method, or one whose check could not be finished, is better than none; a
    # moment that an attempt before contradicts is not.
    found = best(history, own)
    if found is None or (isinstance(decision, Reject) and decision.code == "ERROR_WRONG_MOMENT"):
        if isinstance(decision, Reject):
            return decision
        reason = f"no runs are left; the last failure was: {last.failure or 'none'} ({last.seen})"
        return Reject("ERROR_MAXIMUM_ITERATIONS_EXCEEDED", reason)
    note = decision.reason if isinstance(decision, Reject) else "no runs are left"
    return Accept(found.number, note)


def best(history: Sequence[Attempt], own: Parameters) -> Attempt | None:
    """The attempt that is the label: the own method first, then the lowest energy."""
    done = [a for a in history if a.failure is None and a.energy is not None]
    return min(
        done,
        key=lambda a: (method_change(own, a.parameters) is not None, _degauss(a), a.energy or 0.0),
        default=None,
    )


SEARCHING = (Kind.NOT_CONVERGED, Kind.CHARGE_WRONG, Kind.S_MATRIX, Kind.DIAGONALISATION)


def _looked_for_moment(history: Sequence[Attempt], own: Parameters) -> bool:
    """The last attempt only looked for another magnetic solution: no ladder is climbed for it."""
    done = [a for a in history if a.failure is None and method_change(own, a.parameters) is None]
    return history[-1].free_moment and bool(done)


def _degauss(attempt: Attempt) -> float:
    return float(attempt.get("SYSTEM", "degauss", 0.0) or 0.0)


def after_success(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """A finished run is checked before it is believed."""
    last = history[-1]
    if last.energy is None:
        return Reject("ERROR_NOT_UNDERSTOOD", "pw.x finished without a total energy")
    step = electrons.full_last_band(history) or check_moment(history, situation)
    if step is None:
        step = electrons.step_back(history, own, situation)
    if step is not None:
        return step
    found = best(history, own)
    return Accept(last.number if found is None else found.number)


def _overlap(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    return Reject("ERROR_INPUT_REFUSED", f"pw.x refused the structure: {history[-1].seen}")


def _pseudo(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    return Reject(
        "ERROR_PSEUDO_REFUSED", f"pw.x could not use a pseudopotential: {history[-1].seen}"
    )


def _input(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    return Reject("ERROR_INPUT_REFUSED", f"pw.x refused the input: {history[-1].seen}")


def _symmetry(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """Without symmetry the same energy costs more, and nothing is left to contradict."""
    last = history[-1]
    if last.get("SYSTEM", "nosym"):
        return Reject("ERROR_SYMMETRY", f"not even without symmetry: {last.seen}")
    return Step("switching symmetry off", {"SYSTEM": {"nosym": True}})


def _not_a_number(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    # Not cg: in pw.x 6.7 it never ends once there is a NaN.
    if count(history, Kind.NOT_A_NUMBER) > 1:
        return Reject("ERROR_NOT_A_NUMBER", "the energy is not a number with softer mixing either")
    changes: Parameters = {"ELECTRONS": {"mixing_beta": 0.3, "startingwfc": "atomic+random"}}
    return Step("starting over with mixing_beta 0.3 and randomised wavefunctions", changes)


def _unknown(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    last = history[-1]
    if last.elsewhere:
        return Step("running it on its own, since what happened elsewhere is not understood")
    return Reject("ERROR_NOT_UNDERSTOOD", f"pw.x failed: {last.seen}")


RULES: dict[Kind, Rule] = {
    Kind.NOT_CONVERGED: electrons.not_converged,
    Kind.SMEARING_NEEDED: electrons.smearing_needed,
    Kind.MOMENT_NEEDED: moment_needed,
    Kind.START_MOMENT_MISSING: missing_start,
    Kind.TOO_FEW_BANDS: electrons.too_few_bands,
    Kind.TOO_MANY_BANDS: electrons.too_many_bands,
    Kind.S_MATRIX: electrons.diagonalisation,
    Kind.DIAGONALISATION: electrons.diagonalisation,
    Kind.MIXING: electrons.mixing_failed,
    Kind.CHARGE_WRONG: electrons.charge_wrong,
    Kind.WALLTIME: resources.walltime,
    Kind.OUT_OF_MEMORY: resources.out_of_memory,
    Kind.KILLED: resources.killed,
    Kind.POOLS: resources.too_many_pools,
    Kind.LOST_OUTPUT: resources.lost_output,
    Kind.OVERLAP: _overlap,
    Kind.PSEUDO: _pseudo,
    Kind.SYMMETRY: _symmetry,
    Kind.INPUT: _input,
    Kind.NOT_A_NUMBER: _not_a_number,
    Kind.IONIC: _unknown,
    Kind.ALLOWED: _unknown,
    Kind.OTHER: _unknown,
}
