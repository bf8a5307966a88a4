"""Forces through `fix external` against LAMMPS' own pair style, and the behaviour of the deck."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk

from aiida_autopipe.core.errors import EngineError
from aiida_autopipe.engines.lammps import deck
from aiida_autopipe.engines.lammps.external import pairs_within
from aiida_autopipe.engines.lammps.parse import Outcome, outcome
from tests.engines.lammps.md_run import md_settings, read_outputs, run_md, segment, write_inputs
from tests.reference.lennard_jones import LennardJones

pytestmark = pytest.mark.usefixtures("run_folder")

# What stands for ML-PACE here has its restriction: a per-atom value known every tenth step only.
OWN_PAIR_STYLE = """\
pair_style lj/cut 4.0
pair_coeff * * 0.1 2.1
pair_modify shift yes
fix autopipe_gamma all ave/atom 10 1 10 vx
compute autopipe_gamma_max all reduce max f_autopipe_gamma
variable autopipe_gamma_atom atom f_autopipe_gamma
variable autopipe_gamma equal c_autopipe_gamma_max
"""


def rattled(atoms: Atoms, seed: int = 1) -> Atoms:
    atoms.positions += np.random.default_rng(seed).normal(scale=0.05, size=(len(atoms), 3))
    return atoms


def cubic() -> Atoms:
    return rattled(bulk("Si", "fcc", a=3.3, cubic=True) * (2, 2, 1))


def skewed() -> Atoms:
    """Triclinic, in an orientation LAMMPS does not allow, with atoms outside the cell."""
    atoms = rattled(bulk("Si", "fcc", a=3.3) * (2, 1, 2))
    atoms.rotate(33, (1, 2, 3), rotate_cell=True)
    atoms.positions += atoms.cell[0]
    return atoms


@pytest.mark.parametrize("make", [cubic, skewed])
def test_same_trajectory_as_the_pair_style_of_lammps(make) -> None:
    atoms = make()
    settings = md_settings(
        segment("nve", 20),
        segment("nvt", 25),
        segment("npt", 60, pressure_GPa=2.0),
        gamma_every=10,
        thermo_every=10,
    )
    ours = run_md(atoms, LennardJones(), settings).trace

    write_inputs(atoms, ["Si"], 4.0, settings)
    Path(deck.POTENTIAL_FILE).write_text(OWN_PAIR_STYLE)
    lmp = shutil.which("lmp", path=str(Path(sys.executable).parent))
    subprocess.run([lmp, "-in", deck.INPUT_FILE, "-screen", "none"], check=True)
    theirs = read_outputs(atoms).trace

    np.testing.assert_array_equal(ours.step, np.arange(0, 101, 10))
    for name in ("step", "time_ps", "temperature_K", "pressure", "volume", "potential_energy"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9)
    assert abs(ours.volume[-1] - atoms.cell.volume) > 0.01


@pytest.mark.parametrize("make", [cubic, skewed])
def test_first_frame_is_the_input_structure(make) -> None:
    atoms = make()
    run = run_md(atoms, LennardJones(), md_settings(segment("nve", 1), gamma_select=1e-9))
    first = run.frames[0]
    assert first.step == 0
    np.testing.assert_allclose(first.atoms.positions, atoms.positions, atol=1e-12)
    np.testing.assert_allclose(first.atoms.cell.array, atoms.cell.array, atol=1e-12)
    assert first.atoms.get_chemical_symbols() == atoms.get_chemical_symbols()


def test_energy_is_conserved_and_pressure_is_the_volume_derivative() -> None:
    atoms = cubic()
    trace = run_md(atoms, LennardJones(), md_settings(segment("nve", 100))).trace
    kinetic = 1.5 * (len(atoms) - 1) * units.kB * trace.temperature_K
    total = trace.potential_energy + kinetic
    np.testing.assert_allclose(total, total[0], atol=5e-4)

    energies, volumes = [], []
    for strain in (-1e-5, 1e-5):
        strained = atoms.copy()
        strained.set_cell(atoms.cell * (1 + strain), scale_atoms=True)
        one_step = run_md(strained, LennardJones(), md_settings(segment("nve", 1))).trace
        energies.append(one_step.potential_energy[0])
        volumes.append(one_step.volume[0])
    ideal = (len(atoms) - 1) * units.kB * trace.temperature_K[0] / trace.volume[0]
    derivative = -(energies[1] - energies[0]) / (volumes[1] - volumes[0])
    assert trace.pressure[0] - ideal == pytest.approx(derivative, rel=1e-6)


def test_same_seed_same_run_other_seed_other_run() -> None:
    settings = md_settings(segment("nvt", 10))
    energy = [
        run_md(cubic(), LennardJones(), settings, seed).trace.potential_energy[-1]
        for seed in (5, 5, 6)
    ]
    assert energy[0] == energy[1] != energy[2]


def test_halt_is_soft_and_skips_later_segments() -> None:
    settings = md_settings(
        segment("nvt", 100, 3000.0),
        segment("npt", 100, 3000.0),
        gamma_every=5,
        thermo_every=5,
    )
    quiet = run_md(cubic(), LennardJones(), settings).trace
    # A threshold that this very trajectory crosses after some steps.
    settings["gamma_halt"] = float(quiet.gamma_max[:4].max()) * 1.001
    settings["gamma_select"] = settings["gamma_halt"] * 0.99
    run = run_md(cubic(), LennardJones(), settings)

    above = quiet.gamma_max > settings["gamma_halt"]
    expected = int(quiet.step[np.argmax(above)])
    assert outcome(run.log, run.trace) is Outcome.HALTED
    assert run.log.halt_step == run.log.steps == expected
    assert run.frames[-1].step == expected
    assert run.frames[-1].gamma.max() == pytest.approx(run.log.halt_value)
    safe = quiet.step[(quiet.gamma_max <= settings["gamma_select"]) & (quiet.step < expected)]
    assert max(frame.step for frame in run.safe) == safe[-1]
    assert len(run.safe) == 2


def test_gamma_per_atom_follows_the_atoms() -> None:
    run = run_md(cubic(), LennardJones(), md_settings(segment("nve", 3), gamma_select=1e-9))
    for frame in run.frames:
        again = run_md(
            frame.atoms, LennardJones(), md_settings(segment("nve", 1), gamma_select=1e-9)
        )
        np.testing.assert_allclose(frame.gamma, again.frames[0].gamma, rtol=1e-9)


def test_gamma_is_asked_for_only_every_so_many_steps() -> None:
    asked: list[bool] = []

    class Counting(LennardJones):
        def evaluate_pairs(self, types, centre, neighbour, vectors, n_atoms, gamma):  # type: ignore[no-untyped-def]
            asked.append(gamma)
            return super().evaluate_pairs(types, centre, neighbour, vectors, n_atoms, gamma)

    run_md(cubic(), Counting(), md_settings(segment("nve", 20), gamma_every=10, thermo_every=10))
    assert asked == [step % 10 == 0 for step in range(21)]


def test_types_are_indices_into_the_elements_of_the_potential() -> None:
    seen: list[list[int]] = []

    class Silicide(LennardJones):
        def evaluate_pairs(self, types, *arguments):  # type: ignore[no-untyped-def]
            seen.append(types.tolist())
            return super().evaluate_pairs(types, *arguments)

    atoms = cubic()
    atoms.symbols[[1, 4, 5]] = "Cu"
    potential = Silicide(elements=["C", "Cu", "Si"])
    run = run_md(atoms, potential, md_settings(segment("nve", 1), gamma_select=1e-9))
    expected = [potential.elements.index(symbol) for symbol in run.frames[0].atoms.symbols]
    assert run.frames[0].atoms.get_chemical_formula() == "Cu3Si13"
    # LAMMPS may keep atoms in another order than the dump.
    assert sorted(seen[0]) == sorted(expected)
    np.testing.assert_array_equal(run.frames[0].atoms.numbers, atoms.numbers)


def test_an_error_in_the_potential_ends_the_run_and_is_passed_on() -> None:
    class Broken(LennardJones):
        calls = 0

        def evaluate_pairs(self, *arguments):  # type: ignore[no-untyped-def]
            self.calls += 1
            if self.calls == 4:
                raise ZeroDivisionError("in the potential")
            return super().evaluate_pairs(*arguments)

    broken = Broken()
    with pytest.raises(ZeroDivisionError, match="in the potential"):
        run_md(cubic(), broken, md_settings(segment("nve", 50), segment("nve", 50)))
    assert broken.calls == 4


def test_potential_without_gamma_is_refused() -> None:
    class Certain(LennardJones):
        def evaluate_pairs(self, *arguments):  # type: ignore[no-untyped-def]
            result = super().evaluate_pairs(*arguments)
            result.gamma = None
            return result

    with pytest.raises(EngineError, match="no active set"):
        run_md(cubic(), Certain(), md_settings(segment("nve", 5)))


def test_lost_atoms_give_the_message_of_lammps_and_what_was_seen() -> None:
    settings = md_settings(segment("nvt", 100), timestep_fs=60.0, gamma_select=1e-9)
    with pytest.raises(EngineError, match="Lost atoms"):
        run_md(cubic(), LennardJones(), settings)
    run = read_outputs(cubic())
    assert outcome(run.log, run.trace) is Outcome.LOST_ATOMS
    assert [frame.step for frame in run.frames][:1] == [0]


def test_pairs_within_against_a_double_loop() -> None:
    rng = np.random.default_rng(4)
    positions = rng.uniform(size=(9, 3))
    owner = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    listed = np.array([j for i in range(3) for j in range(9) if j != i], dtype=np.int32)
    first = np.array([0, 8, 16, 24])
    centre, neighbour = np.zeros(24, dtype=np.int64), np.zeros(24, dtype=np.int64)
    vectors = np.zeros((24, 3))
    count = pairs_within(positions, first, listed, owner, 0.6, centre, neighbour, vectors)
    expected = [
        (i, owner[j], *(positions[j] - positions[i]))
        for i in range(3)
        for j in range(9)
        if j != i and np.linalg.norm(positions[j] - positions[i]) < 0.6
    ]
    found = zip(centre[:count], neighbour[:count], *vectors[:count].T, strict=True)
    assert list(found) == expected
