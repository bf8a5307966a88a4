"""Electrons that do not settle: mixing, diagonalisation, bands, occupations, cutoffs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aiida_autopipe.engines.espresso.attempts import (
    Attempt,
    Decision,
    Parameters,
    Reject,
    Situation,
    Step,
    changed,
    method_change,
    method_of,
    occupations,
)
from aiida_autopipe.engines.espresso.failure import Kind

BETAS = (0.7, 0.3, 0.1)
"""Real steps: 0.8 times the last one, as a rule, fails for the same reason again."""
MIN_STEPS = 30
"""Fewer SCF iterations than this say nothing about convergence."""
STEPS = 100
MORE_STEPS = 200
DEGENERATE_Ry = 1e-2
"""Accuracy at which an SCF cycle that swaps electrons between degenerate levels is stuck."""
WIDTHS_MOLECULE_Ry = (0.002, 0.005, 0.01, 0.02)
WIDTHS_CRYSTAL_Ry = (0.02, 0.05)
PARTLY = (0.05, 0.95)
"""Occupations (0 to 1) that are neither empty nor full."""
FULL_LAST_BAND = 0.005
ULTRASOFT_WFC_Ry = 25.0
"""Ultrasoft files without a cutoff in their header need at least about this much."""


def count(history: Sequence[Attempt], kind: Kind) -> int:
    """How often a failure was seen."""
    return sum(a.failure is kind for a in history)


def not_converged(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """The rungs of the ladder, each with its own reason to work.

    More iterations where they were too few or still converging; smearing at once where electrons
    swap between degenerate levels, which no mixing can settle; a smaller mixing factor against
    overshooting, with local-TF against charge that sloshes along a long cell; another
    diagonalisation, because wrong wavefunctions make a wrong density; a higher temperature at last.
    """
    last = history[-1]
    steps = int(last.get("ELECTRONS", "electron_maxstep", 100))
    if steps < MIN_STEPS:
        words = f"electron_maxstep {steps} -> {STEPS}: too few iterations to tell"
        return Step(words, {"ELECTRONS": {"electron_maxstep": STEPS}})
    if _approaching(last.accuracies) and steps < MORE_STEPS and not last.elsewhere:
        changes: Parameters = {"ELECTRONS": {"electron_maxstep": MORE_STEPS}}
        words = f"still converging: going on from the density with electron_maxstep {MORE_STEPS}"
        return Step(words, changes, "density", last.number)
    if _returned(history, own):
        reason = "the dataset's own occupations do not converge from the smeared density either"
        return Reject("ERROR_SCF_NOT_CONVERGED", reason)
    if degenerate(last, situation):
        return _warmer(history, own, situation, "levels of the same energy swap electrons")
    return (
        _softer_mixing(history, situation)
        or _other_solver(last)
        or _warmer(history, own, situation, "neither mixing nor diagonalisation helped")
    )


def _approaching(accuracies: Sequence[float]) -> bool:
    """True where the accuracy still falls by a decade every 40 iterations or faster."""
    late = [a for a in accuracies[-20:] if a > 0 and math.isfinite(a)]
    if len(late) < 10 or late[-1] > 1e-3:
        return False
    slope = float(np.polyfit(np.arange(len(late)), np.log10(late), 1)[0])
    return slope < -1 / 40 and late[-1] == min(late)


def degenerate(attempt: Attempt, situation: Situation) -> bool:
    """One k-point, next to no smearing, and an accuracy that does not fall: a degenerate shell."""
    if not situation.one_kpoint or attempt.beta <= BETAS[-1]:
        return False
    if occupations(attempt.parameters) == "smearing":
        width = float(attempt.get("SYSTEM", "degauss", 0.0) or 0.0)
        if width >= WIDTHS_MOLECULE_Ry[0]:
            return False
    elif occupations(attempt.parameters) != "fixed":
        return False
    return not attempt.accuracies or not min(attempt.accuracies[-10:]) < DEGENERATE_Ry


def _softer_mixing(history: Sequence[Attempt], situation: Situation) -> Step | None:
    """The next smaller factor; from scratch, since the density was led astray by the last one."""
    last = history[-1]
    if last.diagonalisation != history[0].diagonalisation:
        return None
    smaller = [beta for beta in BETAS if beta < 0.8 * last.beta]
    if not smaller:
        return None
    values: dict[str, object] = {"mixing_beta": smaller[0]}
    words = f"mixing_beta {last.beta:g} -> {smaller[0]:g}, from scratch"
    if smaller[0] <= BETAS[-1]:
        values["electron_maxstep"] = max(
            MORE_STEPS, int(last.get("ELECTRONS", "electron_maxstep", STEPS))
        )
    if situation.long_cell:
        # Without vacuum local-TF converges where plain mixing never does; with it, often not.
        screened = last.get("ELECTRONS", "mixing_mode", "plain") != "plain"
        values["mixing_mode"] = "plain" if screened else "local-TF"
        words += f", {values['mixing_mode']} mixing "
        words += "instead of local-TF" if screened else "because the cell is long"
    return Step(words, {"ELECTRONS": values})


def _other_solver(last: Attempt) -> Step | None:
    """cg is slower than david but treats every band on its own; paro fails in 6.7."""
    if last.diagonalisation == "cg":
        return None
    words = f"diagonalization {last.diagonalisation} -> cg with mixing_beta 0.3"
    return Step(words, {"ELECTRONS": {"diagonalization": "cg", "mixing_beta": 0.3}})


def _warmer(
    history: Sequence[Attempt], own: Parameters, situation: Situation, why: str
) -> Step | Reject:
    """Smear the levels near the Fermi energy, more each time."""
    last = history[-1]
    changes = smeared(last, situation)
    if not changes:
        too_low = low_cutoffs(last, situation)
        reason = f"no step of the ladder converged ({last.seen})"
        return Reject("ERROR_SCF_NOT_CONVERGED", f"{reason}; {too_low}" if too_low else reason)
    width = changes["SYSTEM"]["degauss"]
    electrons = {"mixing_beta": 0.3, "diagonalization": None, "electron_maxstep": STEPS}
    return Step(f"{why}: smearing of {width} Ry", changed(changes, {"ELECTRONS": electrons}))


def smeared(attempt: Attempt, situation: Situation) -> Parameters:
    """Changes to the next larger smearing, empty where it is already the largest."""
    smearing = "gaussian" if situation.one_kpoint else "cold"
    width = 0.0
    if occupations(attempt.parameters) == "smearing":
        width = float(attempt.get("SYSTEM", "degauss", 0.0) or 0.0)
        if not situation.one_kpoint:
            smearing = str(method_of(attempt.parameters)["smearing"])
    widths = WIDTHS_MOLECULE_Ry if situation.one_kpoint else WIDTHS_CRYSTAL_Ry
    larger = [value for value in widths if value > 1.5 * width]
    if not larger:
        return {}
    return {
        "SYSTEM": {"occupations": "smearing", "smearing": smearing, "degauss": larger[0]},
        "ELECTRONS": {},
    }


def smearing_needed(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """An odd number of electrons, or a half-filled level, cannot have fixed occupations."""
    changes = smeared(history[-1], situation)
    if not changes:
        return Reject("ERROR_SCF_NOT_CONVERGED", f"smeared already ({history[-1].seen})")
    width = changes["SYSTEM"]["degauss"]
    why = f"{situation.n_electrons:g} electrons do not fill whole levels"
    return Step(f"{why}: {changes['SYSTEM']['smearing']} smearing of {width} Ry", changes)


def _returned(history: Sequence[Attempt], own: Parameters) -> bool:
    """True where the last attempt was the way back from a changed method to the own one."""
    last = history[-1]
    away = any(a.failure is None and method_change(own, a.parameters) for a in history[:-1])
    return away and last.get("ELECTRONS", "startingpot") == "file"


def step_back(
    history: Sequence[Attempt], own: Parameters, situation: Situation
) -> Step | Reject | None:
    """From a converged smeared density to the dataset's own occupations.

    Not tried where it cannot succeed: an odd number of electrons, or a level that is partly filled,
    has no ground state with whole occupations.
    """
    last = history[-1]
    if method_change(own, last.parameters) is None:
        return None
    first = next(i for i, a in enumerate(history) if a.failure is None)
    if any(method_change(own, a.parameters) is None for a in history[first + 1 :]):
        return None
    system = own.get("SYSTEM", {})
    wanted = {key: system.get(key) for key in ("occupations", "smearing", "degauss")}
    electrons = {"mixing_beta": 0.3, "electron_maxstep": 60, "startingpot": "file"}
    words = "back to the dataset's own occupations from the converged density"
    if occupations(own) != "fixed":
        if situation.one_kpoint and last.fractional and _narrow(own):
            return None
        changes: Parameters = {"SYSTEM": wanted, "ELECTRONS": electrons}
        return Step(words, changes, "density", last.number)
    if last.spin:
        moment = round(last.moment or 0.0)
        whole = abs((last.moment or 0.0) - moment) < 0.05
        even = round(situation.n_electrons - moment) % 2 == 0
        if not whole or not even or (last.fractional and last.fractional is not None):
            return None
        wanted |= {"tot_magnetization": float(abs(moment))}
        words += f" with tot_magnetization {abs(moment)}"
    elif last.fractional is not False or round(situation.n_electrons) % 2:
        return None
    return Step(words, {"SYSTEM": wanted, "ELECTRONS": electrons}, "density", last.number)


def _narrow(own: Parameters) -> bool:
    width = float(own.get("SYSTEM", {}).get("degauss", 0.0) or 0.0)
    return width < WIDTHS_MOLECULE_Ry[0]


def minimal_bands(situation: Situation, parameters: Parameters) -> int:
    """Bands that hold the electrons, and what pw.x adds where levels are smeared.

    Without a common axis of spin every band holds one electron, not two.
    """
    system = parameters.get("SYSTEM", {})
    spin = int(system.get("nspin", 1)) == 2
    moment = float(system.get("tot_magnetization", 0.0))
    filled = math.ceil((situation.n_electrons + max(moment, 0.0) * spin) / 2 - 1e-6)
    each = 2 if system.get("noncolin") or int(system.get("nspin", 1)) == 4 else 1
    if occupations(parameters) == "fixed":
        return each * filled
    return each * max(math.ceil(1.2 * filled), filled + 4)


def full_last_band(history: Sequence[Attempt]) -> Step | Reject | None:
    """Smeared levels need empty bands above them: a full highest band cuts off electrons.

    Fixed occupations, also where the input leaves them unset, fill every band by construction. The
    density with too few bands is wrong, and a magnetic one has lost its moment: from scratch.
    """
    last = history[-1]
    if last.last_band is None or occupations(last.parameters) == "fixed":
        return None
    if last.last_band < FULL_LAST_BAND:
        return None
    bands = last.n_bands or int(last.get("SYSTEM", "nbnd", 0))
    if not bands:
        return None
    more = bands + max(4, math.ceil(0.2 * bands))
    words = f"the highest band is occupied ({last.last_band:.3f}): nbnd {bands} -> {more}"
    return Step(f"{words}, from scratch", {"SYSTEM": {"nbnd": more}})


def too_few_bands(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """Fewer bands than the electrons fill.

    As many as they need are all there is to try: a diagonalisation on more processes than there are
    bands wants more of them, and would for ever.
    """
    last = history[-1]
    asked = last.get("SYSTEM", "nbnd")
    if asked is None:
        return Reject("ERROR_BANDS", f"pw.x wants more bands than its own number ({last.seen})")
    needed = minimal_bands(situation, last.parameters)
    if int(asked) >= needed:
        reason = f"pw.x wants more than the {asked} bands, though {needed} hold the electrons"
        return Reject("ERROR_BANDS", f"{reason} ({last.seen})")
    words = f"nbnd {asked} -> {needed}, which hold the electrons"
    return Step(words, {"SYSTEM": {"nbnd": needed}})


def too_many_bands(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """More trial vectors than plane waves: empty bands that nobody needs are left out."""
    last = history[-1]
    asked = last.get("SYSTEM", "nbnd")
    needed = minimal_bands(situation, last.parameters)
    if asked is not None and int(asked) > needed:
        words = f"nbnd {asked} -> {needed}, all that the electrons need"
        return Step(words, {"SYSTEM": {"nbnd": needed}})
    return Reject("ERROR_CUTOFF_TOO_LOW", f"{_cutoff(last, situation)}: {last.seen}")


def diagonalisation(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """Nearly dependent trial vectors make the overlap matrix singular.

    david builds a growing set of them; cg does one band at a time and needs none. Other solvers of
    6.7 (paro, ppcg) fail more often and are left for david. Where cg fails too the basis is too
    small for the pseudopotential.
    """
    last = history[-1]
    solver = last.diagonalisation
    tried = [a.diagonalisation for a in history]
    if solver not in ("david", "davidson", "cg"):
        return Step(
            f"diagonalization {solver} -> david", {"ELECTRONS": {"diagonalization": "david"}}
        )
    if "cg" not in tried:
        words = f"diagonalization {solver} -> cg, from scratch"
        return Step(words, {"ELECTRONS": {"diagonalization": "cg"}})
    if solver == "cg" and "david" not in tried and "davidson" not in tried:
        return Step("diagonalization cg -> david", {"ELECTRONS": {"diagonalization": "david"}})
    if last.beta > 0.3:
        changes: Parameters = {"ELECTRONS": {"diagonalization": "cg", "mixing_beta": 0.3}}
        return Step("cg with mixing_beta 0.3, from scratch", changes)
    if _below(last, situation):
        return Reject("ERROR_CUTOFF_TOO_LOW", f"{_cutoff(last, situation)}: {last.seen}")
    return Reject("ERROR_DIAGONALISATION", f"neither david nor cg works ({last.seen})")


def mixing_failed(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """Broyden's matrix is singular: fewer old densities, and smaller steps between them."""
    last = history[-1]
    if count(history, Kind.MIXING) > 2:
        return Reject("ERROR_SCF_NOT_CONVERGED", f"charge mixing fails every time ({last.seen})")
    beta = min(0.3, last.beta) if count(history, Kind.MIXING) == 1 else 0.1
    changes: Parameters = {"ELECTRONS": {"mixing_ndim": 4, "mixing_beta": beta}}
    return Step(f"mixing_ndim 4 and mixing_beta {beta}, from scratch", changes)


def charge_wrong(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """The density does not add up to the electrons: the basis cannot hold it.

    A smaller mixing factor or cg hide that and converge to some other state, in iron to one without
    its moment. With a cutoff that is too low there is no right answer to be had by this method;
    with a fair one the starting wavefunctions are the suspects, once.
    """
    last = history[-1]
    if _below(last, situation):
        return Reject("ERROR_CHARGE_IS_WRONG", f"{_cutoff(last, situation)} ({last.seen})")
    if count(history, Kind.CHARGE_WRONG) > 1:
        words = "nor does it add up from random wavefunctions, with cutoffs that are fair"
        return Reject("ERROR_CHARGE_IS_WRONG", f"{words} ({last.seen})")
    changes: Parameters = {"ELECTRONS": {"startingwfc": "random", "mixing_beta": 0.3}}
    return Step("starting over from random wavefunctions with mixing_beta 0.3", changes)


def low_cutoffs(attempt: Attempt, situation: Situation) -> str:
    """Words for cutoffs that are too low, nothing for fair ones."""
    return _cutoff(attempt, situation) if _below(attempt, situation) else ""


def _needed(situation: Situation) -> float:
    return situation.suggested_wfc_Ry or (ULTRASOFT_WFC_Ry if situation.ultrasoft else 12.0)


def _below(attempt: Attempt, situation: Situation) -> bool:
    """The cutoff of the wavefunctions, or that of an ultrasoft density, is too low."""
    wfc = float(attempt.get("SYSTEM", "ecutwfc", 0.0))
    rho = float(attempt.get("SYSTEM", "ecutrho", 4 * wfc))
    poor = situation.ultrasoft and rho < 6 * wfc
    return wfc < 0.8 * _needed(situation) or poor


def _cutoff(attempt: Attempt, situation: Situation) -> str:
    wfc = float(attempt.get("SYSTEM", "ecutwfc", 0.0))
    rho = float(attempt.get("SYSTEM", "ecutrho", 4 * wfc))
    words = f"the cutoffs ecutwfc {wfc:g} Ry and ecutrho {rho:g} Ry are too low"
    needed = _needed(situation)
    kind = "ultrasoft files" if situation.ultrasoft else "the files"
    factor = 8 if situation.ultrasoft else 4
    return f"{words}; {kind} need about {needed:g} and {factor * needed:g} Ry"
