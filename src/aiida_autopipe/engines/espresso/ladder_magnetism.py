"""Spin: moments that are missing, and moments that the SCF lost on its way."""

from __future__ import annotations

from collections.abc import Sequence

from aiida_autopipe.engines.espresso.attempts import (
    Attempt,
    Decision,
    Parameters,
    Reject,
    Situation,
    Step,
    changed,
    occupations,
)
from aiida_autopipe.engines.espresso.ladder_electrons import low_cutoffs, smeared

START = 0.5
"""Starting polarisation: between zero, where the SCF cannot leave the non-magnetic solution, and
full, where a soft moment overshoots."""
OTHER_STARTS = (0.5, 0.9)
MAGNETIC = frozenset(
    [
        "Cr",
        "Mn",
        "Fe",
        "Co",
        "Ni",
        "Ce",
        "Pr",
        "Nd",
        "Pm",
        "Sm",
        "Eu",
        "Gd",
        "Tb",
        "Dy",
        "Ho",
        "Er",
        "Tm",
        "Yb",
        "U",
        "Np",
        "Pu",
        "Am",
        "Cm",
    ]
)
"""Elements whose moment is missed where there is none; a molecule of any may be open-shell. Others
would pay for a second run of every label of a spin-polarised dataset."""
COLLAPSED = 0.1
"""Absolute moment (Bohr magnetons per cell) below which there is none."""
KEPT = 0.5
"""Part of the moment an earlier attempt had that a rescue must keep to be the same solution."""
RYDBERG = 13.605693122994
"""eV in one Ry."""
SETTLED_Ry = 0.5
"""Accuracy of an unfinished SCF cycle from which on its moment means something."""


def missing_start(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """Without a starting moment the SCF stays in the non-magnetic solution by symmetry."""
    last = history[-1]
    if starts(last):
        return Reject("ERROR_INPUT_REFUSED", f"pw.x refused the input: {last.seen}")
    change = start_with(START, situation)
    return Step(f"setting starting_magnetization to {START} for every kind", change)


def starts(attempt: Attempt) -> tuple[float, ...]:
    """The starting moments of an attempt that are not zero."""
    found: list[float] = []
    for key, value in attempt.parameters.get("SYSTEM", {}).items():
        if not key.startswith("starting_magnetization"):
            continue
        if isinstance(value, dict):
            found.extend(float(v) for v in value.values())
        elif isinstance(value, list | tuple):
            found.extend(float(v[-1] if isinstance(v, list | tuple) else v) for v in value)
        else:
            found.append(float(value))
    return tuple(value for value in found if value)


def start_with(value: float, situation: Situation) -> Parameters:
    """Changes that start every kind with one polarisation."""
    return {"SYSTEM": {"starting_magnetization": dict.fromkeys(sorted(situation.symbols), value)}}


def moment_needed(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """Fixed occupations do not know how many electrons have which spin.

    A smeared run finds the moment; where it is a whole number the same calculation is done with
    fixed occupations and that moment (`step_back`), which is then the dataset's own method.
    """
    last = history[-1]
    if occupations(last.parameters) != "fixed":
        return Reject("ERROR_INPUT_REFUSED", f"pw.x refused the input: {last.seen}")
    changes = smeared(last, situation)
    if not starts(last):
        changes = changed(changes, start_with(START, situation))
    return Step("finding the moment with smearing first", changes)


def check_moment(history: Sequence[Attempt], situation: Situation) -> Step | Reject | None:
    """A magnetic calculation must not end without the moment it had, or never got, by accident.

    The non-magnetic solution is always a solution, and soft mixing often ends in it although the
    magnetic one is lower. Other starting moments are tried from scratch; the lowest energy wins.
    """
    done = [a for a in history if a.failure is None and a.free_moment and a.absolute is not None]
    last = history[-1]
    if not last.free_moment or not done:
        return None
    highest = max(_moments_before(history), default=0.0)
    lowest = min(done, key=lambda a: a.energy if a.energy is not None else 0.0)
    kept = (lowest.absolute or 0.0) >= max(KEPT * highest, COLLAPSED)
    if kept:
        return None
    expected = highest > COLLAPSED or situation.one_kpoint
    if not expected and not MAGNETIC & set(situation.symbols.values()):
        return None
    tried = {round(abs(value), 3) for a in history for value in starts(a)}
    first_loss = next(a for a in done if (a.absolute or 0.0) < max(KEPT * highest, COLLAPSED))
    for value in OTHER_STARTS:
        if any(abs(value - other) < 0.05 for other in tried):
            continue
        return _other_start(first_loss, value, highest, situation)
    # A run that only looked for another solution and did not end shows nothing. With cutoffs that
    # are too low which solution is found is chance, and so are the energies.
    too_low = low_cutoffs(last, situation)
    contradicted = [
        a
        for a in history[: history.index(done[0])]
        if a.failure is not None
        and _had_moment(a)
        and (a.absolute or 0.0) >= max(KEPT * highest, COLLAPSED)
        and (too_low or _below(a, lowest))
    ]
    if contradicted:
        moment = lowest.absolute or 0.0
        reason = (
            f"it only converges to a moment of {moment:.2f}, while attempt "
            f"{contradicted[-1].number} had {contradicted[-1].absolute:.2f} Bohr magnetons"
        )
        reason += f"; {too_low}" if too_low else ""
        return Reject("ERROR_WRONG_MOMENT", reason)
    return None


def _moments_before(history: Sequence[Attempt]) -> list[float]:
    return [a.absolute or 0.0 for a in history if a.failure is None or _had_moment(a)]


def _had_moment(attempt: Attempt) -> bool:
    """True where an SCF cycle came far enough for its moment to mean something."""
    near = bool(attempt.accuracies) and attempt.accuracies[-1] < SETTLED_Ry
    return attempt.free_moment and attempt.absolute is not None and near


def _below(unfinished: Attempt, finished: Attempt) -> bool:
    """The unfinished cycle may end below the finished one, within its own accuracy."""
    if unfinished.estimate is None or finished.energy is None or not unfinished.accuracies:
        return False
    return unfinished.estimate - RYDBERG * unfinished.accuracies[-1] < finished.energy


def _other_start(attempt: Attempt, value: float, highest: float, situation: Situation) -> Step:
    words = f"the moment is {attempt.absolute or 0.0:.2f}"
    if highest > COLLAPSED:
        words += f" where it was {highest:.2f}"
    words += f": starting from scratch with starting moments of {value}"
    return Step(words, start_with(value, situation))
