"""The ASE calculator at work: dynamics, optimisers, cell filters, any periodicity."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc100
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.io import Trajectory, read, write
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE

from aiida_autopipe.core.ace.calculator import ACECalculator
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.zbl import ZBL
from aiida_autopipe.core.errors import DataError, PotentialFileError
from tests.reference.copper import copper_potential


@pytest.fixture(scope="module")
def potential() -> ACEPotential:
    """Copper fitted to EMT, with an active set."""
    return copper_potential()


@pytest.fixture
def crystal() -> Atoms:
    """32 rattled atoms in a cell."""
    atoms = bulk("Cu", cubic=True) * 2
    atoms.rattle(0.05, seed=4)
    return atoms


def test_from_a_path(potential: ACEPotential, crystal: Atoms, tmp_path: Path) -> None:
    potential.save(tmp_path / "cu")
    expected = potential.evaluate(crystal, gamma=True)
    for path in (tmp_path / "cu.yace", str(tmp_path / "cu.yaml")):
        crystal.calc = ACECalculator(path)
        assert crystal.get_potential_energy() == pytest.approx(expected.energy, rel=1e-12)
        np.testing.assert_allclose(crystal.calc.results["gamma"], expected.gamma, rtol=1e-6)
    with pytest.raises(PotentialFileError, match=r"none\.yace"):
        ACECalculator(tmp_path / "none.yace")


def test_nothing_is_computed_twice(
    potential: ACEPotential, crystal: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    evaluate = ACEPotential.evaluate

    def counted(self: ACEPotential, atoms: Atoms, gamma: bool = False):  # type: ignore[no-untyped-def]
        calls.append(len(atoms))
        return evaluate(self, atoms, gamma)

    monkeypatch.setattr(ACEPotential, "evaluate", counted)
    crystal.calc = ACECalculator(potential)
    crystal.get_potential_energy()
    crystal.get_forces()
    crystal.get_stress()
    crystal.get_potential_energies()
    crystal.calc.get_property("gamma", crystal)
    crystal.set_initial_magnetic_moments([1.0] * len(crystal))
    crystal.get_potential_energy(force_consistent=True)
    assert len(calls) == 1
    crystal.pbc = [True, True, False]
    for _ in range(3):
        with pytest.raises(PropertyNotImplementedError):
            crystal.get_stress()
        crystal.get_forces()
    assert len(calls) == 2
    crystal.positions[0, 0] += 1e-6
    crystal.get_forces()
    assert len(calls) == 3


@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)])
def test_any_periodicity(potential: ACEPotential, pbc: tuple[int, int, int]) -> None:
    atoms = fcc100("Cu", (2, 2, 2), vacuum=2.0)
    atoms.pbc = pbc
    atoms.rattle(0.1, seed=1)
    atoms.calc = ACECalculator(potential)
    numerical = calculate_numerical_forces(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_forces(), numerical, atol=1e-7)
    if all(pbc):
        numerical = calculate_numerical_stress(atoms, eps=1e-5)
        np.testing.assert_allclose(atoms.get_stress(), numerical, atol=1e-9)
    else:
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()


def test_optimisers_and_cell_filter(potential: ACEPotential, crystal: Atoms) -> None:
    crystal.set_cell(crystal.cell.array @ [[1.02, 0.01, 0], [0, 0.99, 0], [0, 0, 1]])
    crystal.calc = ACECalculator(potential)
    with BFGS(FrechetCellFilter(crystal), logfile=None) as optimiser:
        assert optimiser.run(fmax=1e-4, steps=200)
    assert np.abs(crystal.get_forces()).max() < 1e-4
    assert np.abs(crystal.get_stress()).max() < 1e-5
    lengths = crystal.cell.lengths()
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-3)

    slab = fcc100("Cu", (2, 2, 3), vacuum=4.0)
    slab.calc = ACECalculator(potential)
    before = slab.get_potential_energy()
    with FIRE(slab, logfile=None) as optimiser:
        optimiser.run(fmax=0.02, steps=100)
    assert slab.get_potential_energy() < before


def total_energies(atoms: Atoms, timestep_fs: float, femtoseconds: float) -> np.ndarray:
    """Total energy after every step of NVE dynamics from given velocities."""
    energies: list[float] = []
    with VelocityVerlet(atoms, timestep_fs * units.fs) as dynamics:
        dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
        dynamics.run(round(femtoseconds / timestep_fs))
    return np.array(energies)


@pytest.mark.parametrize(
    ("zbl", "kelvin"), [(None, 600.0), (ZBL(1.2, 2.5), 1500.0)], ids=["crystal", "contacts"]
)
def test_nve_conserves_energy(potential: ACEPotential, zbl: ZBL | None, kelvin: float) -> None:
    """Over 1 ps nothing drifts, and the fluctuation falls with the square of the time step."""
    combined, heat = replace(potential, zbl=zbl), 1.5 * units.kB * kelvin
    fluctuation = []
    for timestep in (4.0, 2.0):
        atoms = bulk("Cu") * 2
        scale = np.sqrt(2 * kelvin * units.kB * atoms.get_masses())[:, None]
        atoms.set_momenta(scale * np.random.default_rng(5).normal(size=(len(atoms), 3)))
        atoms.set_momenta(atoms.get_momenta() - atoms.get_momenta().mean(axis=0))
        atoms.calc = ACECalculator(combined, gamma=False)
        assert zbl is None or not zbl.evaluate(atoms).energies.any()
        energies = total_energies(atoms, timestep, 1000.0) / len(atoms)
        fluctuation.append(float(energies.std()))
        slope = np.polyfit(np.linspace(0, 1, len(energies)), energies, 1)[0]
        assert zbl is None or zbl.evaluate(atoms).energies.sum() > 0.1
        assert abs(slope) < 1e-3 * heat
    assert fluctuation[1] < 2e-3 * heat
    assert 3.0 < fluctuation[0] / fluctuation[1] < 5.0


def test_thermostat_trajectory_and_copies(
    potential: ACEPotential, crystal: Atoms, tmp_path: Path
) -> None:
    crystal.calc = copy.deepcopy(ACECalculator(potential))
    with (
        Trajectory(tmp_path / "md.traj", "w", crystal) as trajectory,
        Langevin(
            crystal,
            2 * units.fs,
            temperature_K=300,
            friction=0.02,
            fixcm=False,
            rng=np.random.default_rng(1),
        ) as dynamics,
    ):
        dynamics.attach(trajectory.write)
        dynamics.run(3)
    last = read(tmp_path / "md.traj")
    assert last.get_potential_energy() == crystal.get_potential_energy()
    np.testing.assert_array_equal(last.get_stress(), crystal.get_stress())
    write(tmp_path / "md.extxyz", crystal)
    again = read(tmp_path / "md.extxyz")
    np.testing.assert_allclose(again.get_forces(), crystal.get_forces(), atol=1e-7)
    properties = crystal.calc.calculate_properties(crystal, ["energy", "forces"])
    assert properties["energy"] == crystal.get_potential_energy()


def test_a_failure_leaves_no_results_behind(potential: ACEPotential, crystal: Atoms) -> None:
    calculator = ACECalculator(potential)
    crystal.calc = calculator
    crystal.get_potential_energy()
    overlapping = crystal.copy()
    overlapping.positions[1] = overlapping.positions[0]
    unknown = crystal.copy()
    unknown.symbols[0] = "Au"
    for atoms, message in ((overlapping, "apart"), (unknown, "contains Au")):
        atoms.calc = calculator
        for _ in range(2):
            with pytest.raises(DataError, match=message):
                atoms.get_forces()
        with pytest.raises(DataError, match=message):
            calculator.calculate(atoms)
        with pytest.raises(DataError, match=message):
            atoms.get_potential_energy()
    with pytest.raises(DataError, match="given no atoms"):
        ACECalculator(potential).calculate()
