"""The physics of MD with the built-in evaluator in real LAMMPS: forces, virial, ensembles.

Bounds are in units of the heat content, 3/2 kT an atom, where they are about time steps, and in
standard errors where they are about averages.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.ace.basis import build_basis
from aiida_autopipe.core.ace.calculator import ACECalculator
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.zbl import ZBL
from aiida_autopipe.engines.lammps import deck, runner
from aiida_autopipe.engines.lammps.external import ExternalForces
from aiida_autopipe.engines.lammps.library import commands, execute, open_lammps
from tests.engines.lammps.md_run import md_settings, segment, write_inputs
from tests.reference.copper import copper_potential

pytestmark = pytest.mark.usefixtures("run_folder")

# LAMMPS' constants in metal units: eV/K, and bar Å^3 in an eV.
BOLTZMANN, BAR = 8.617343e-5, 1.6021765e6
BAR_PER_GPA = 1.0e4


@pytest.fixture(scope="module")
def copper() -> ACEPotential:
    return copper_potential()


@pytest.fixture(scope="module")
def alloy_potential() -> ACEPotential:
    """Carbon and silicon with random coefficients of ranks 1 to 3, and a repulsion."""
    settings = BasisSettings(("C", "Si"), cutoff=3.5, max_rank=3, max_functions=60)
    basis = build_basis(settings)
    rng = np.random.default_rng(3)
    inverse = {element: rng.normal(size=(60, 60)) for element in basis.elements}
    coefficients = rng.normal(size=basis.n_functions) * 10.0**-basis.ranks
    return ACEPotential(basis, coefficients, {"C": -7.0}, inverse, zbl=ZBL(0.8, 2.2))


class Single(NamedTuple):
    energy: float
    forces: np.ndarray
    stress: np.ndarray
    gamma: np.ndarray


def in_lammps(atoms: Atoms, potential: ACEPotential, types: list[str]) -> Single:
    """One evaluation inside LAMMPS, rotated back into the frame of `atoms`; no kinetic part."""
    write_inputs(atoms, types, potential.cutoff, md_settings(segment("nve", 1)))
    lammps = open_lammps(["-screen", "none", "-log", "none"])
    lines = Path(deck.INPUT_FILE).read_text().split("timestep")[0].splitlines()
    for command in commands("\n".join(lines)):
        execute(lammps, command)
    forces = ExternalForces(lammps, potential, 1, lambda: False, types)
    for command in (
        "compute virial all pressure NULL virial",
        "thermo_style custom pe c_virial[*]",
    ):
        execute(lammps, command)
    execute(lammps, "run 0")
    forces.raise_error()
    rotation, n = deck.lammps_rotation(atoms.cell.array), len(atoms)
    order = np.argsort(lammps.numpy.extract_atom("id")[:n])
    xx, yy, zz, xy, xz, yz = -lammps.numpy.extract_compute("virial", 0, 1) / BAR
    tensor = rotation @ np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) @ rotation.T
    result = Single(
        lammps.get_thermo("pe"),
        lammps.numpy.extract_atom("f")[:n][order] @ rotation.T,
        tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        lammps.numpy.extract_atom(deck.GAMMA_PROPERTY)[:n][order].copy(),
    )
    lammps.close()
    return result


def rattled(atoms: Atoms, amplitude: float = 0.1) -> Atoms:
    atoms.positions += np.random.default_rng(1).normal(0, amplitude, (len(atoms), 3))
    return atoms


def cubic() -> Atoms:
    return rattled(bulk("SiC", "zincblende", a=4.2, cubic=True) * (2, 1, 1))


def skewed() -> Atoms:
    """Triclinic, turned to where LAMMPS wants no box, atoms outside of it."""
    atoms = bulk("SiC", "zincblende", a=4.2) * (3, 2, 1)
    atoms.rotate(33, (1, 2, 3), rotate_cell=True)
    atoms.positions += atoms.cell[0] - 2 * atoms.cell[2]
    return rattled(atoms)


def tiny() -> Atoms:
    """Two atoms in a cell whose every edge and height is below the cutoff."""
    return rattled(bulk("SiC", "zincblende", a=4.2), 0.2)


def left_handed() -> Atoms:
    atoms = skewed()
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    return atoms


CELLS = [cubic, skewed, tiny, left_handed]


@pytest.mark.parametrize("types", [["C", "Si"], ["Si", "C"]], ids="-".join)
@pytest.mark.parametrize("make", CELLS)
def test_same_numbers_as_the_ase_calculator(
    alloy_potential: ACEPotential, make: Callable[[], Atoms], types: list[str]
) -> None:
    atoms = make()
    atoms.calc = ACECalculator(alloy_potential)
    found = in_lammps(atoms, alloy_potential, types)
    references = -7.0 * list(atoms.symbols).count("C")
    assert found.energy == pytest.approx(atoms.get_potential_energy() - references, rel=1e-11)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.stress, atoms.get_stress(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.gamma, atoms.calc.results["gamma"], rtol=1e-8)


@pytest.mark.parametrize("make", CELLS)
def test_virial_is_the_derivative_by_strain(
    alloy_potential: ACEPotential, make: Callable[[], Atoms]
) -> None:
    """Every component, and the pressure as -dE/dV of a uniform strain."""
    atoms, step = make(), 1e-5

    def energy(strain: np.ndarray) -> float:
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        return alloy_potential.evaluate(strained).energy

    stress, volume = in_lammps(atoms, alloy_potential, ["C", "Si"]).stress, atoms.cell.volume
    for voigt, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        strain = np.zeros((3, 3))
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        numerical = (energy(strain) - energy(-strain)) / (2 * step * volume)
        assert stress[voigt] == pytest.approx(numerical, rel=1e-6, abs=1e-7)
    uniform = step * np.eye(3)
    change = volume * ((1 + step) ** 3 - (1 - step) ** 3)
    pressure = -(energy(uniform) - energy(-uniform)) / change
    assert -stress[:3].mean() == pytest.approx(pressure, rel=1e-6, abs=1e-7)


def test_types_of_a_subset_and_of_one_element_twice(alloy_potential: ACEPotential) -> None:
    silicon = rattled(bulk("Si", cubic=True))
    for types in (["Si"], ["Si", "Si"]):
        found = in_lammps(silicon, alloy_potential, types)
        expected = alloy_potential.evaluate(silicon)
        assert found.energy == pytest.approx(expected.energy, rel=1e-11)


def each_step(
    atoms: Atoms,
    potential: ACEPotential,
    one: dict[str, Any],
    words: str,
    *,
    timestep_fs: float = 2.0,
    change: tuple[str, str] = ("", ""),
) -> np.ndarray:
    """Values (words, steps) of thermo keywords at every step of one segment, gamma left out."""
    quiet = {"gamma_every": one["steps"], "thermo_every": one["steps"]}
    settings = md_settings(one, timestep_fs=timestep_fs, **quiet)
    write_inputs(atoms, potential.elements, potential.cutoff, settings, seed=5)
    values = " ".join(f"$({word})" for word in words.split())
    each = f'fix each all print 1 "{values}" file each.dat screen no title ""\nrun '
    path = Path(deck.INPUT_FILE)
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace("run ", each, 1).replace(*change))
    runner.run(path, screen="none", load=lambda _: potential)
    return np.loadtxt("each.dat", ndmin=2).T


@pytest.mark.parametrize(
    ("zbl", "kelvin"), [(None, 600.0), (ZBL(1.2, 2.5), 1500.0)], ids=["crystal", "contacts"]
)
def test_nve_conserves_energy(copper: ACEPotential, zbl: ZBL | None, kelvin: float) -> None:
    """Over 1.5 ps that start in a perfect crystal with twice the temperature nothing drifts, and
    the fluctuation falls with the square of the time step."""
    potential, heat, fluctuation = replace(copper, zbl=zbl), 1.5 * BOLTZMANN * kelvin, []
    atoms = bulk("Cu") * 2
    for timestep in (4.0, 2.0):
        run = segment("nve", round(1500 / timestep), 2 * kelvin)
        (energies,) = each_step(atoms, potential, run, "etotal", timestep_fs=timestep) / len(atoms)
        picoseconds = np.linspace(0, 1.5, len(energies))
        assert abs(np.polyfit(picoseconds, energies, 1)[0]) < 1e-3 * heat
        fluctuation.append(float(energies.std()))
    assert fluctuation[1] < 2e-3 * heat
    assert 3.0 < fluctuation[0] / fluctuation[1] < 5.0


def assert_mean(values: np.ndarray, target: float, largest_error: float) -> None:
    """Within four standard errors, taken from averages over blocks as the series is correlated,
    and themselves small enough to mean something."""
    means = [block.mean() for block in np.array_split(values, 20)]
    error = float(np.std(means, ddof=1) / np.sqrt(20))
    assert error < largest_error
    assert abs(values.mean() - target) < 4 * error


@pytest.mark.parametrize("barostat", ["iso", "aniso", "tri"])
def test_npt_has_the_pressure_and_the_temperature_asked_for(
    copper: ACEPotential, barostat: str
) -> None:
    """The deck's barostat and, by a change of its one word, those of LAMMPS that move each edge and
    each angle by the virial of the evaluator. 16 atoms, averages over the last 16 of 20 ps."""
    atoms, run = rattled(bulk("Cu") * (4, 2, 2), 0.02), segment("npt", 10000, 300.0)
    words, change = "temp pxx pyy pzz pxy pxz pyz lx ly xy", (" iso 30000 ", f" {barostat} 30000 ")
    rows = each_step(atoms, copper, {**run, "pressure_GPa": 3.0}, words, change=change)
    temperature, *pressure, lx, ly, xy = rows[:, 2000:]
    assert_mean(temperature, 300.0, 10.0)
    assert_mean(np.mean(pressure[:3], axis=0) / BAR_PER_GPA, 3.0, 0.1)
    targets = {"iso": [], "aniso": [3.0, 3.0, 3.0], "tri": [3.0, 3.0, 3.0, 0.0, 0.0, 0.0]}[barostat]
    for component, target in zip(pressure, targets, strict=False):
        assert_mean(component / BAR_PER_GPA, target, 0.15)
    # Only what the barostat may move has moved; a tilt is scaled with its edge.
    assert bool(np.std(lx / ly) > 1e-3) == (barostat != "iso")
    assert bool(np.std(xy / ly) > 1e-3) == (barostat == "tri")


def test_nvt_has_the_temperature_asked_for(copper: ACEPotential) -> None:
    """Also its fluctuation: a variance of 2/f T^2 for f degrees of freedom."""
    atoms, run = rattled(bulk("Cu") * (4, 2, 2), 0.02), segment("nvt", 12000, 500.0)
    (temperature,) = each_step(atoms, copper, run, "temp")[:, 1000:]
    assert_mean(temperature, 500.0, 12.0)
    assert temperature.std() == pytest.approx(500.0 * np.sqrt(2 / 45), rel=0.1)
