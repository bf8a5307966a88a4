"""The whole validation on known potentials: EMT copper, Tersoff silicon."""

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.strain import apply_strain
from aiida_autopipe.core.validate.compare import compare
from aiida_autopipe.core.validate.plan import (
    ValidationSettings,
    count_calculations,
    eos_plan,
    equilibrium_plan,
    resolve_properties,
)
from aiida_autopipe.core.validate.properties import (
    PropertyValue,
    equation_of_state,
    label_with,
    potential_properties,
    reference_properties,
)
from tests.reference.silicon import tersoff_silicon

ALL = ["lattice_constant", "bulk_modulus", "C11", "C12", "C44", "vacancy_formation_energy"]
SETTINGS = ValidationSettings()


def labelled(structures: list[Atoms], calculator: object) -> Dataset:
    return Dataset.from_atoms([label_with(calculator, s, SETTINGS) for s in structures])


def emt_stages(primitive: Atoms) -> tuple[Dataset, Dataset]:
    eos = labelled(eos_plan(primitive, SETTINGS, 0.2), EMT())
    volume = equation_of_state(eos).v0
    second = labelled(equilibrium_plan(primitive, volume, ALL, SETTINGS, 0.2), EMT())
    return eos, second


def test_plan_of_silicon_is_small_and_labelled() -> None:
    assert count_calculations(bulk("Si"), ALL, SETTINGS) == 12
    assert count_calculations(bulk("Si"), ["bulk_modulus"], SETTINGS) == 7
    second = equilibrium_plan(bulk("Si"), 39.5, ALL, SETTINGS, 0.5)
    assert [(s.info["role"], s.info["relax"]) for s in second] == [
        ("elastic", False),
        ("elastic", False),
        ("elastic", True),
        ("bulk", False),
        ("vacancy", True),
    ]
    assert second[3].get_volume() == pytest.approx(8 * 39.5)
    # One mesh for all strained cells, that of the cell before straining.
    first = eos_plan(bulk("Si"), SETTINGS, 0.5)
    assert {s.info["kpoints_mesh"] for s in first + second[:3]} == {"5 5 5"}
    assert {s.info["kpoints_mesh"] for s in second[3:]} == {"3 3 3"}
    assert "kpoints_mesh" not in eos_plan(bulk("Si"), SETTINGS)[0].info


def test_tersoff_silicon_has_its_published_properties() -> None:
    """Elastic constants of this potential: H. Balamane et al., PRB 46, 2250 (1992)."""
    found = potential_properties(tersoff_silicon(), bulk("Si"), ALL, SETTINGS)
    assert list(found) == ALL
    assert found["lattice_constant"].value == pytest.approx(5.432, abs=0.002)
    assert found["bulk_modulus"].value == pytest.approx(98, abs=1)
    assert found["C11"].value == pytest.approx(121.7, abs=1)
    assert found["C12"].value == pytest.approx(86, abs=1)
    assert found["C44"].value == pytest.approx(10.3, abs=0.5)
    assert {v.note for v in found.values()} == {""}


def test_ionic_relaxation_softens_the_shear_constant() -> None:
    calculator, h = tersoff_silicon(), 0.01
    sheared = apply_strain(bulk("Si", a=5.4317), [0, 0, 0, h, 0, 0])
    sheared.calc = calculator
    unrelaxed = sheared.get_stress()[3] / h / units.GPa
    relaxed = potential_properties(calculator, bulk("Si"), ["C44"], SETTINGS)["C44"].value
    assert unrelaxed == pytest.approx(92, abs=2)
    assert relaxed < 0.2 * unrelaxed


def test_bulk_modulus_and_elastic_constants_agree() -> None:
    found = potential_properties(EMT(), bulk("Cu"), ALL, SETTINGS)
    from_elastic = (found["C11"].value + 2 * found["C12"].value) / 3
    assert found["bulk_modulus"].value == pytest.approx(from_elastic, rel=0.01)


def test_the_frame_of_the_input_does_not_matter() -> None:
    turned = bulk("Cu")
    turned.rotate(37.0, (1.0, 2.0, 0.5), rotate_cell=True)
    straight = potential_properties(EMT(), bulk("Cu"), ["C11", "C12", "C44"], SETTINGS)
    other = potential_properties(EMT(), turned, ["C11", "C12", "C44"], SETTINGS)
    for name, found in straight.items():
        assert other[name].value == pytest.approx(found.value, rel=1e-4)


def test_minimum_far_from_the_given_cell_is_found() -> None:
    far = potential_properties(EMT(), bulk("Cu", a=4.1), ["lattice_constant"], SETTINGS)
    near = potential_properties(EMT(), bulk("Cu", a=3.6), ["lattice_constant"], SETTINGS)
    assert far["lattice_constant"].value == pytest.approx(near["lattice_constant"].value, rel=1e-4)


def test_potential_without_minimum_is_reported_not_raised() -> None:
    repulsive = LennardJones(sigma=3.0, epsilon=-0.1, rc=5.0)
    found = potential_properties(repulsive, bulk("Cu"), ["bulk_modulus", "C11"], SETTINGS)
    assert all(np.isnan(v.value) and "no equilibrium volume" in v.note for v in found.values())


def test_relaxation_that_does_not_end_is_reported() -> None:
    hasty = ValidationSettings(relax_steps=1, relax_fmax=1e-6)
    found = potential_properties(tersoff_silicon(), bulk("Si"), ALL, hasty)
    assert "does not relax to 1e-06" in found["vacancy_formation_energy"].note
    assert "elastic cell Si2 does not relax" in found["C44"].note
    assert np.isfinite(found["bulk_modulus"].value)


def test_reference_and_potential_go_the_same_way() -> None:
    eos, second = emt_stages(bulk("Cu"))
    reference = reference_properties(bulk("Cu"), eos, second, ALL)
    potential = potential_properties(EMT(), bulk("Cu"), ALL, SETTINGS)
    rows = compare(potential, reference, tolerance=1e-6)
    assert [row.name for row in rows] == ALL
    assert all(row.passed and row.relative_error < 1e-6 for row in rows)


def test_failed_reference_calculations_cost_only_their_properties() -> None:
    eos, second = emt_stages(bulk("Cu"))
    kept = second[[i for i, role in enumerate(second.columns["role"]) if role != "vacancy"]]
    found = reference_properties(bulk("Cu"), eos, kept, ALL)
    assert "role 'vacancy'" in found["vacancy_formation_energy"].note
    assert np.isfinite(found["C44"].value)
    found = reference_properties(bulk("Cu"), eos, second[1:], ALL)
    assert "not its opposite" in found["C11"].note
    assert np.isfinite(found["vacancy_formation_energy"].value)
    found = reference_properties(bulk("Cu"), eos[:3], None, ALL)
    assert all(np.isnan(v.value) and v.note for v in found.values())


def test_other_crystals() -> None:
    assert resolve_properties(["lattice_constant", "C33", "C33"], bulk("Mg")) == [
        "volume_per_atom",
        "C33",
    ]
    found = potential_properties(
        EMT(), bulk("Cu", "hcp", a=2.54, c=4.15), ["volume_per_atom", "C33"], SETTINGS
    )
    assert found["volume_per_atom"].unit == "Å^3"
    assert found["C33"].value > found["volume_per_atom"].value
    with pytest.raises(InputError, match="'C77' is not a property"):
        resolve_properties(["C77"], bulk("Si"))
    with pytest.raises(InputError, match="one element, not for ClNa"):
        resolve_properties(["vacancy_formation_energy"], bulk("NaCl", "rocksalt", a=5.64))


def test_settings_come_from_the_configuration() -> None:
    section = {"properties": ALL, "tolerance": 0.1, "eos_points": 5}
    assert ValidationSettings.from_mapping(section).eos_points == 5
    with pytest.raises(InputError, match="'eos_point' is not a setting"):
        ValidationSettings.from_mapping({"eos_point": 5})


def test_compare_handles_zero_and_missing_values() -> None:
    reference = {
        "C11": PropertyValue(160.0, "GPa"),
        "C12": PropertyValue(0.0, "GPa"),
        "C44": PropertyValue(float("nan"), "GPa", "failed"),
    }
    potential = {
        "C11": PropertyValue(150.0, "GPa"),
        "C12": PropertyValue(1.0, "GPa"),
        "C44": PropertyValue(80.0, "GPa"),
    }
    rows = [row.as_dict() for row in compare(potential, reference)]
    assert rows[0] == {
        "name": "C11",
        "potential": 150.0,
        "reference": 160.0,
        "unit": "GPa",
        "relative_error": 0.0625,
        "passed": True,
        "note": "",
        "rule": "difference",
        "limit": None,
    }
    assert [row["passed"] for row in rows] == [True, False, False]
    assert [row["relative_error"] for row in rows[1:]] == [None, None]
    assert rows[2]["note"] == "reference: failed"
    json.dumps(rows, allow_nan=False)
    with pytest.raises(InputError, match="lack 'C11'"):
        compare({}, reference)
    with pytest.raises(InputError, match="must be positive"):
        compare(potential, reference, 0.0)
