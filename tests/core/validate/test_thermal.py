"""Equation of state and elastic constants at a temperature, of a potential of copper."""

from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from aiida_autopipe.core.ace.calculator import ACECalculator
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.validate.compare import compare, plots
from aiida_autopipe.core.validate.eos import Eos, fit_eos_pressures
from aiida_autopipe.core.validate.families import family_of, undefined_because
from aiida_autopipe.core.validate.plan import count_calculations, eos_plan
from aiida_autopipe.core.validate.properties import (
    label_with,
    potential_properties,
    reference_properties,
)
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.thermal_run import BLOCKS, jackknife
from aiida_autopipe.core.validate.values import PropertyValue
from tests.reference.copper import copper_potential

STATIC = ["lattice_constant", "bulk_modulus", "C11", "C12", "C44"]
SETTINGS = ValidationSettings(simulation_supercell=(2, 2, 2), thermal_steps=300, seed=3)


def thermal(kelvin: float, names: list[str] = STATIC) -> list[str]:
    return [f"{name}:{kelvin:g}K" for name in names]


@pytest.fixture(scope="module")
def calculator() -> ACECalculator:
    return ACECalculator(copper_potential(30))


def test_a_cold_crystal_is_the_static_one(calculator: ACECalculator) -> None:
    """At 1 K the averages are the values at rest; a hot crystal is larger and softer."""
    names = [*STATIC, *thermal(1), "lattice_constant:600K", "bulk_modulus:600K"]
    found = potential_properties(calculator, bulk("Cu"), names, SETTINGS)
    for name in STATIC:
        cold = found[f"{name}:1K"]
        allowed = 4 * cold.data["standard_error"] + 0.02 * abs(found[name].value)
        assert cold.value == pytest.approx(found[name].value, abs=allowed), name
        assert cold.unit == found[name].unit
    hot, cold = found["lattice_constant:600K"], found["lattice_constant:1K"]
    # Copper expands by 1.7e-5 for each K (CRC Handbook).
    expansion = (hot.value / cold.value - 1) / 599
    assert 0.8e-5 < expansion < 4e-5
    assert found["bulk_modulus:600K"].value < found["bulk_modulus:1K"].value
    assert "9 simulations of 8 atoms over 0.3 ps, extrapolation grade up to" in cold.note
    # The cube of symmetric constants belongs together: B = (C11 + 2 C12) / 3.
    bulk_modulus = (found["C11:1K"].value + 2 * found["C12:1K"].value) / 3
    assert bulk_modulus == pytest.approx(found["bulk_modulus:1K"].value, rel=0.05)


def test_the_same_seed_gives_the_same_numbers(calculator: ACECalculator) -> None:
    names = ["volume_per_atom:300K"]
    found = [potential_properties(calculator, bulk("Cu"), names, SETTINGS) for _ in range(2)]
    assert found[0][names[0]].value == found[1][names[0]].value
    (plot,) = plots(found[0], found[0])
    assert (plot.title, plot.x_label) == ("Pressure over volume at 300 K", "volume (Å³/atom)")
    markers, line = plot.series
    assert len(markers.x) >= 6 and markers.y[0] is not None and markers.y[0] > 0
    assert min(line.x) == min(markers.x)


def row(value: float, error: float, known: bool, tolerance: float = 0.1) -> Any:
    data = {"standard_error": error, "known_ground": known}
    potential = {"C11:300K": PropertyValue(value, "GPa", "± so much", data)}
    reference = {"C11:300K": PropertyValue(float("nan"), "GPa")}
    return compare(potential, reference, tolerance)[0]


def test_the_verdict_is_about_precision_and_known_ground() -> None:
    good = row(150.0, 3.0, True)
    assert (good.rule, good.passed, good.limit) == ("precision", True, None)
    assert good.relative_error == pytest.approx(0.02)
    assert good.as_dict()["reference"] is None
    assert not row(150.0, 30.0, True).passed
    assert not row(150.0, 3.0, False).passed
    assert not row(float("nan"), float("nan"), True).passed
    broken = {"C11:300K": PropertyValue(float("nan"), "GPa", "it broke")}
    failed = compare(broken, broken)[0]
    assert (failed.passed, failed.note) == (False, "it broke")


def test_a_broken_simulation_is_said(calculator: ACECalculator) -> None:
    """So hot that atoms fuse: no value, and the reason."""
    names = ["C11:90000K", "bulk_modulus"]
    found = potential_properties(calculator, bulk("Cu"), names, SETTINGS)
    assert np.isnan(found["C11:90000K"].value)
    assert found["C11:90000K"].note.startswith("At 90000 K ")
    assert found["bulk_modulus"].value > 0


def test_names() -> None:
    assert (
        family_of("C44:300K").label("C44:300K") == "Elastic constant C44 at 300\N{NO-BREAK SPACE}K"
    )
    label = family_of("bulk_modulus:77.5K").label("bulk_modulus:77.5K")
    assert label == "Bulk modulus at 77.5\N{NO-BREAK SPACE}K"
    hcp = bulk("Mg")
    assert family_of("lattice_constant:300K").resolved("lattice_constant:300K", hcp) == (
        "volume_per_atom:300K"
    )
    assert undefined_because("C11:300K", molecule("H2O")) == "only defined for crystals"
    assert undefined_because("C11:0K", bulk("Cu")) == "only defined above 0 K"
    with pytest.raises(InputError, match="C11:300K"):
        family_of("C11:300")
    with pytest.raises(InputError, match="not a property"):
        family_of("vacancy_formation_energy:300K")


def test_no_oracle_is_asked() -> None:
    """The reference side has the row without a value, and plans no structures for it."""
    names = ["bulk_modulus", "C11:300K"]
    settings = ValidationSettings()
    assert count_calculations(bulk("Cu"), names, settings) == settings.eos_points
    cells = [label_with(EMT(), one, settings) for one in eos_plan(bulk("Cu"), settings)]
    found = reference_properties(bulk("Cu"), Dataset.from_atoms(cells), None, names, settings)
    assert np.isnan(found["C11:300K"].value)


def test_pressures_give_the_equation_of_state_back() -> None:
    known = Eos(v0=11.8, e0=0.0, b0=0.85, b0_prime=5.3, rmse=0.0)
    volumes = 11.8 * np.linspace(0.95, 1.06, 6)
    found = fit_eos_pressures(volumes, known.pressure(volumes))
    assert (found.v0, found.b0, found.b0_prime) == pytest.approx((11.8, 0.85, 5.3), rel=1e-8)
    slope = (known.energy(12.0 + 1e-4) - known.energy(12.0 - 1e-4)) / 2e-4
    assert known.pressure(12.0) == pytest.approx(-slope, rel=1e-6)
    with pytest.raises(DataError, match="outside the computed volumes"):
        fit_eos_pressures(volumes, known.pressure(volumes) + 0.5)
    with pytest.raises(DataError, match="at least 4 different volumes"):
        fit_eos_pressures(volumes[:3], known.pressure(volumes[:3]))
    with pytest.raises(DataError, match="not finite"):
        fit_eos_pressures(volumes, np.full(6, np.nan))


def test_jackknife_of_a_mean() -> None:
    """Of a mean it is the standard error of the mean."""
    values = np.random.default_rng(0).normal(size=BLOCKS)
    found = jackknife(lambda mask: float(values[mask].mean()))
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / np.sqrt(BLOCKS))
