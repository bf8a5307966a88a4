"""The recovery ladder as decisions on a history, without pw.x and without AiiDA."""

from dataclasses import replace
from typing import Any

import pytest

from aiida_autopipe.engines.espresso.attempts import (
    Accept,
    Attempt,
    Reject,
    Situation,
    Step,
    changed,
    method_change,
)
from aiida_autopipe.engines.espresso.failure import Kind
from aiida_autopipe.engines.espresso.ladder import RULES, decide

CRYSTAL = Situation({"Fe": "Fe"}, 8.0, ultrasoft=True)
MOLECULE = Situation({"O": "O"}, 12.0, ultrasoft=True, one_kpoint=True)
STUCK = tuple([0.003] * 100)


def own(system: dict[str, Any] | None = None, **electrons: Any) -> Any:
    """Parameters of a smeared metal, or what the arguments make of it."""
    smeared = {"occupations": "smearing", "smearing": "cold", "degauss": 0.02}
    base = {"ecutwfc": 30.0, "ecutrho": 240.0, **(smeared if system is None else system)}
    return {"CONTROL": {}, "SYSTEM": base, "ELECTRONS": electrons}


def fixed(**electrons: Any) -> Any:
    """Parameters of an insulator."""
    return own({"occupations": "fixed"}, **electrons)


def climb(
    failures: Any, parameters: Any, situation: Situation = CRYSTAL, limit: int = 30, **seen: Any
) -> tuple[list[Step], Any]:
    """Follow the ladder; `failures` maps an attempt to its failure, None for success."""
    history: list[Attempt] = []
    steps: list[Step] = []
    used = parameters
    for number in range(1, limit + 1):
        kind = failures(number) if callable(failures) else failures
        energy = None if kind else -100.0
        attempt = Attempt(number, used, kind, "seen", energy, accuracies=STUCK, **seen)
        history.append(attempt)
        decision = decide(history, parameters, replace(situation, tries_left=limit - number))
        if not isinstance(decision, Step):
            return steps, decision
        steps.append(decision)
        used = changed(used, decision.changes)
    raise AssertionError("the ladder does not end")


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("situation", [CRYSTAL, MOLECULE, replace(CRYSTAL, long_cell=True)])
@pytest.mark.parametrize("parameters", [own(), fixed(), own(mixing_beta=1.0)])
def test_every_sequence_ends(kind: Kind, situation: Situation, parameters: Any) -> None:
    """The same failure again and again ends in a rejection, long before any limit."""
    steps, end = climb(kind, parameters, situation)
    assert isinstance(end, Reject)
    assert end.reason
    # Time may be needed any number of times: what ends it is the number of runs.
    assert len(steps) <= 8 or kind is Kind.WALLTIME
    assert set(RULES) == set(Kind)


def test_real_steps_of_the_mixing_factor_then_cg_then_smearing() -> None:
    steps, end = climb(Kind.NOT_CONVERGED, own())
    betas = [step.changes["ELECTRONS"].get("mixing_beta") for step in steps]
    assert betas == [0.3, 0.1, 0.3, 0.3]
    assert all(step.restart == "scratch" for step in steps)
    assert steps[2].changes["ELECTRONS"]["diagonalization"] == "cg"
    assert steps[3].changes["SYSTEM"]["degauss"] == 0.05
    assert isinstance(end, Reject)
    assert end.code == "ERROR_SCF_NOT_CONVERGED"
    assert "paro" not in " ".join(step.action for step in steps)


def test_charge_sloshes_in_a_long_cell() -> None:
    steps, _ = climb(Kind.NOT_CONVERGED, own(), replace(CRYSTAL, long_cell=True))
    assert steps[0].changes["ELECTRONS"] == {"mixing_beta": 0.3, "mixing_mode": "local-TF"}
    # In a slab with vacuum it may be local-TF that does not converge.
    assert steps[1].changes["ELECTRONS"]["mixing_mode"] == "plain"
    assert steps[1].changes["ELECTRONS"]["mixing_beta"] == 0.1


def test_few_iterations_and_slow_convergence_get_more() -> None:
    steps, _ = climb(Kind.NOT_CONVERGED, own(electron_maxstep=4))
    assert steps[0].changes == {"ELECTRONS": {"electron_maxstep": 100}}
    falling = tuple(1e-3 * 0.9**n for n in range(60))
    last = Attempt(1, own(electron_maxstep=60), Kind.NOT_CONVERGED, accuracies=falling)
    step = decide([last], own(), CRYSTAL)
    assert isinstance(step, Step)
    assert (step.restart, step.parent) == ("density", 1)


def test_a_degenerate_shell_is_smeared_at_once_and_marked() -> None:
    """No mixing settles electrons that swap between levels; a partly filled one stays smeared."""
    stuck = Attempt(1, fixed(), Kind.NOT_CONVERGED, accuracies=(0.3,) * 100)
    step = decide([stuck], fixed(), MOLECULE)
    assert isinstance(step, Step)
    assert step.changes["SYSTEM"]["degauss"] == 0.002
    used = changed(fixed(), step.changes)
    done = Attempt(2, used, energy=-10.0, fractional=True)
    assert decide([stuck, done], fixed(), MOLECULE) == Accept(2)
    assert method_change(fixed(), used) == (
        "occupations fixed -> smearing, smearing unset -> gaussian, degauss unset -> 0.002"
    )


def test_back_to_the_own_occupations_from_the_smeared_density() -> None:
    """Whole levels: the own method is tried again, and its failure leaves the smeared label."""
    stuck = Attempt(1, fixed(), Kind.NOT_CONVERGED, accuracies=(0.3,) * 100)
    used = changed(fixed(), {"SYSTEM": {"occupations": "smearing", "degauss": 0.002}})
    done = Attempt(2, used, energy=-10.0, fractional=False)
    step = decide([stuck, done], fixed(), MOLECULE)
    assert isinstance(step, Step)
    assert (step.restart, step.parent) == ("density", 2)
    back = changed(used, step.changes)
    assert method_change(fixed(), back) is None
    again = Attempt(3, back, Kind.NOT_CONVERGED, accuracies=(0.3,) * 60)
    end = decide([stuck, done, again], fixed(), MOLECULE)
    assert isinstance(end, Accept)
    assert end.number == 2
    assert decide([stuck, done, replace(again, failure=None, energy=-9.9)], fixed(), MOLECULE) == (
        Accept(3)
    )


def test_spin_with_fixed_occupations_gets_the_moment_that_smearing_finds() -> None:
    given = own({"nspin": 2})
    first = Attempt(1, given, Kind.MOMENT_NEEDED)
    step = decide([first], given, MOLECULE)
    assert isinstance(step, Step)
    assert step.changes["SYSTEM"]["starting_magnetization"] == {"O": 0.5}
    used = changed(given, step.changes)
    done = Attempt(2, used, energy=-10.0, moment=2.0, absolute=2.05, fractional=False)
    back = decide([first, done], given, MOLECULE)
    assert isinstance(back, Step)
    assert back.changes["SYSTEM"]["tot_magnetization"] == 2.0
    metal = replace(done, moment=1.7, fractional=True)
    assert decide([first, metal], given, MOLECULE) == Accept(2)


MAGNETIC = {
    "nspin": 2,
    "starting_magnetization(1)": 0.5,
    "occupations": "smearing",
    "degauss": 0.02,
}


def test_a_lost_moment_is_looked_for_and_the_lowest_energy_wins() -> None:
    given = own(MAGNETIC)
    lost = Attempt(1, given, energy=-10.0, moment=0.0, absolute=0.0)
    step = decide([lost], given, CRYSTAL)
    assert isinstance(step, Step)
    assert step.restart == "scratch"
    used = changed(given, step.changes)
    assert "starting_magnetization(1)" not in used["SYSTEM"]
    found = Attempt(2, used, energy=-11.0, moment=3.0, absolute=3.1)
    assert decide([lost, found], given, CRYSTAL) == Accept(2)
    above = replace(found, energy=-9.0)
    assert decide([lost, above], given, CRYSTAL) == Accept(1)
    unfinished = replace(found, failure=Kind.NOT_CONVERGED, energy=None, accuracies=STUCK)
    assert decide([lost, unfinished], given, CRYSTAL) == Accept(1)


def test_elements_without_moments_are_not_asked_twice() -> None:
    given = own(MAGNETIC)
    none = Attempt(1, given, energy=-10.0, moment=0.0, absolute=0.0)
    assert decide([none], given, replace(CRYSTAL, symbols={"Al": "Al"})) == Accept(1)


def test_a_rescue_that_loses_the_moment_is_no_success() -> None:
    """Softer mixing ends without the moment, at an energy the first attempt was below."""
    given = own(MAGNETIC)
    had = Attempt(
        1, given, Kind.NOT_CONVERGED, estimate=-11.0, moment=3.0, absolute=3.1, accuracies=STUCK
    )
    soft = changed(given, {"ELECTRONS": {"mixing_beta": 0.1}})
    lost = Attempt(2, soft, energy=-10.0, moment=0.0, absolute=0.0)
    step = decide([had, lost], given, CRYSTAL)
    assert isinstance(step, Step)
    again = Attempt(3, changed(soft, step.changes), energy=-10.0, moment=0.0, absolute=0.0)
    end = decide([had, lost, again], given, CRYSTAL)
    assert isinstance(end, Reject)
    assert end.code == "ERROR_WRONG_MOMENT"
    higher = replace(had, estimate=-9.0)
    assert isinstance(decide([higher, lost, again], given, CRYSTAL), Accept)
    # With cutoffs that are too low the order of the energies is chance.
    poor = [
        replace(one, parameters=changed(one.parameters, {"SYSTEM": {"ecutwfc": 12.0}}))
        for one in (higher, lost, again)
    ]
    end = decide(poor, poor[0].parameters, CRYSTAL)
    assert isinstance(end, Reject)
    assert "while attempt 1 had 3.10" in end.reason and "ecutwfc 12 Ry" in end.reason


def test_charge_is_wrong_is_a_matter_of_cutoffs() -> None:
    low = own({**MAGNETIC, "ecutwfc": 12.0, "ecutrho": 48.0})
    end = decide([Attempt(1, low, Kind.CHARGE_WRONG)], low, CRYSTAL)
    assert isinstance(end, Reject)
    assert end.code == "ERROR_CHARGE_IS_WRONG"
    assert "ecutwfc 12 Ry" in end.reason
    steps, end = climb(Kind.CHARGE_WRONG, own())
    assert [step.changes["ELECTRONS"] for step in steps] == [
        {"startingwfc": "random", "mixing_beta": 0.3}
    ]
    assert isinstance(end, Reject)
    assert "too low" not in end.reason
    _, end = climb(Kind.NOT_CONVERGED, low)
    assert end.code == "ERROR_SCF_NOT_CONVERGED"
    assert "ecutwfc 12 Ry" in end.reason


def test_bands() -> None:
    full = Attempt(1, own(MAGNETIC), energy=-1.0, absolute=2.0, last_band=0.9, n_bands=6)
    step = decide([full], own(MAGNETIC), CRYSTAL)
    assert isinstance(step, Step)
    assert (step.changes, step.restart) == ({"SYSTEM": {"nbnd": 10}}, "scratch")
    insulator = replace(full, parameters=fixed(), last_band=1.0)
    assert decide([insulator], fixed(), CRYSTAL) == Accept(1)
    many = own({"nbnd": 40})
    step = decide([Attempt(1, many, Kind.TOO_MANY_BANDS)], many, CRYSTAL)
    assert isinstance(step, Step)
    assert step.changes == {"SYSTEM": {"nbnd": 4}}


@pytest.mark.parametrize(
    ("system", "needed"),
    [
        ({}, 4),
        ({"nspin": 2, "tot_magnetization": 2.0}, 5),
        ({"noncolin": True}, 8),
        ({"noncolin": True, "occupations": "smearing", "degauss": 0.02}, 16),
    ],
)
def test_as_many_bands_as_the_electrons_fill_and_never_twice(
    system: dict[str, Any], needed: int
) -> None:
    few = own({"nbnd": 3, **system})
    first = Attempt(1, few, Kind.TOO_FEW_BANDS)
    step = decide([first], few, CRYSTAL)
    assert isinstance(step, Step)
    assert step.changes == {"SYSTEM": {"nbnd": needed}}
    again = replace(first, number=2, parameters=changed(few, step.changes))
    end = decide([first, again], few, CRYSTAL)
    assert isinstance(end, Reject)
    assert end.code == "ERROR_BANDS"


def test_david_then_cg_and_never_paro() -> None:
    steps, end = climb(Kind.S_MATRIX, own())
    assert [s.changes["ELECTRONS"].get("diagonalization") for s in steps] == ["cg", "cg"]
    assert isinstance(end, Reject)
    assert end.code == "ERROR_DIAGONALISATION"
    steps, _ = climb(Kind.DIAGONALISATION, own(diagonalization="paro"))
    assert steps[0].changes == {"ELECTRONS": {"diagonalization": "david"}}
    low = own({"ecutwfc": 7.0})
    assert climb(Kind.S_MATRIX, low)[1].code == "ERROR_CUTOFF_TOO_LOW"


def test_memory_is_saved_before_more_is_asked_for() -> None:
    first = Attempt(1, own(), Kind.OUT_OF_MEMORY, ranks=4, pools=2)
    step = decide([first], own(), CRYSTAL)
    assert isinstance(step, Step)
    assert step.pools == 1
    second = replace(first, number=2, pools=1)
    step = decide([first, second], own(), CRYSTAL)
    assert isinstance(step, Step)
    assert step.ranks == 2
    alone = replace(first, number=3, pools=1, ranks=1)
    step = decide([first, second, alone], own(), CRYSTAL)
    assert isinstance(step, Step)
    # Nothing was asked for: there is nothing to raise.
    assert (step.memory_kb, step.action) == (None, "keeping fewer trial vectors and densities")
    small = replace(alone, number=4, parameters=changed(own(), step.changes))
    end = decide([first, second, alone, small], own(), CRYSTAL)
    assert isinstance(end, Reject)
    assert end.code == "ERROR_OUT_OF_MEMORY"


def test_machines_are_kept_when_processes_are_given_up() -> None:
    """Two machines with one process each have more memory than one machine."""
    first = Attempt(1, own(), Kind.OUT_OF_MEMORY, ranks=8, machines=2)
    step = decide([first], own(), CRYSTAL)
    assert isinstance(step, Step)
    assert (step.ranks, step.action) == (2, "using 2 instead of 4 MPI processes on each machine")
    spread = replace(first, number=2, ranks=2)
    step = decide([first, spread], own(), CRYSTAL)
    assert isinstance(step, Step)
    assert step.ranks is None


@pytest.mark.parametrize(
    ("kind", "asked", "code"),
    [
        (Kind.OUT_OF_MEMORY, [1000, 2000, 4000], "ERROR_OUT_OF_MEMORY"),
        (Kind.KILLED, [1000, 1000, 2000], "ERROR_KILLED"),
    ],
)
def test_memory_is_raised_to_a_limit(kind: Kind, asked: list[int], code: str) -> None:
    """At most four times what was asked for; a killed run gets twice, once."""
    history: list[Attempt] = []
    used = own()
    for number, memory in enumerate(asked, 1):
        history.append(Attempt(number, used, kind, "seen", memory_kb=memory))
        end = decide(history, own(), CRYSTAL)
        if isinstance(end, Step):
            assert (end.memory_kb or memory) == asked[number]
            used = changed(used, end.changes)
    assert isinstance(end, Reject)
    assert end.code == code


def test_walltime_goes_on_and_a_short_limit_is_raised() -> None:
    given = own()
    given["CONTROL"]["max_seconds"] = 3.0
    last = Attempt(1, given, Kind.WALLTIME, accuracies=(0.1,))
    step = decide([last], given, replace(CRYSTAL, wallclock_s=3600.0))
    assert isinstance(step, Step)
    assert (step.restart, step.parent) == ("full", 1)
    assert step.changes == {"CONTROL": {"max_seconds": 12.0}}


def test_what_is_left_of_the_budget_decides() -> None:
    """Without runs left a step becomes a rejection, or the label there already is."""
    stuck = Attempt(1, own(), Kind.NOT_CONVERGED, "seen", accuracies=STUCK)
    end = decide([stuck], own(), replace(CRYSTAL, tries_left=0))
    assert isinstance(end, Reject)
    assert end.code == "ERROR_MAXIMUM_ITERATIONS_EXCEEDED"
    lost = Attempt(1, own(MAGNETIC), energy=-10.0, moment=0.0, absolute=0.0)
    end = decide([lost], own(MAGNETIC), replace(CRYSTAL, tries_left=0))
    assert isinstance(end, Accept)


def test_an_attempt_made_elsewhere_is_not_restarted_from() -> None:
    falling = tuple(1e-3 * 0.9**n for n in range(60))
    given = own(electron_maxstep=60)
    last = Attempt(1, given, Kind.NOT_CONVERGED, accuracies=falling, elsewhere=True)
    step = decide([last], given, CRYSTAL)
    assert isinstance(step, Step)
    assert step.restart == "scratch"
    assert Attempt.from_dict(last.to_dict()) == last
