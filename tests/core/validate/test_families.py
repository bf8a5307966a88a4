"""The families of properties on known potentials: EMT copper and Tersoff silicon."""

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.phonons import Phonons

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.validate.compare import compare, plots
from aiida_autopipe.core.validate.families import FAMILIES, family_of
from aiida_autopipe.core.validate.plan import (
    ValidationSettings,
    count_calculations,
    counts_by_family,
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
from aiida_autopipe.core.validate.values import Comparison
from tests.reference.silicon import tersoff_silicon

SETTINGS = ValidationSettings(simulation_supercell=(2, 2, 2), simulation_steps=200)
NAMES = [
    "bulk_modulus",
    "eos_curve",
    "phonon_frequencies",
    "phase:bcc",
    "surface_energy:111",
    "dimer:Cu-Cu",
    "interstitial_formation_energy",
    "vacancy_formation_energy",
    "nve_stability",
    "max_stable_temperature",
]


def both_sides(
    oracle: object, potential: object, primitive: Atoms, names: list[str]
) -> tuple[dict[str, PropertyValue], dict[str, PropertyValue]]:
    """Properties of the potential and of the oracle, the oracle's from its own two stages."""

    def labelled(structures: list[Atoms]) -> Dataset:
        return Dataset.from_atoms([label_with(oracle, s, SETTINGS) for s in structures])

    eos = labelled(eos_plan(primitive, SETTINGS, 0.2))
    volume = equation_of_state(eos).v0
    second = labelled(equilibrium_plan(primitive, volume, names, SETTINGS, 0.2))
    reference = reference_properties(primitive, eos, second, names, SETTINGS)
    found = potential_properties(potential, primitive, names, SETTINGS, volume)
    return found, reference


def by_name(rows: list[Comparison]) -> dict[str, Comparison]:
    return {row.name: row for row in rows}


@pytest.fixture(scope="module")
def copper() -> tuple[dict[str, PropertyValue], dict[str, PropertyValue]]:
    return both_sides(EMT(), EMT(), bulk("Cu"), NAMES)


def test_a_potential_that_is_its_own_reference_passes(copper: object) -> None:
    potential, reference = copper
    rows = compare(potential, reference, 1e-6)
    assert [row.name for row in rows] == NAMES
    assert all(row.passed for row in rows), rows
    json.dumps([row.as_dict() for row in rows], allow_nan=False)
    drawn = plots(potential, reference)
    assert [plot.name for plot in drawn] == [
        "eos_curve",
        "phonon_frequencies",
        "dimer:Cu-Cu",
        "nve_stability",
        "max_stable_temperature",
    ]
    json.dumps([plot.as_dict() for plot in drawn], allow_nan=False)
    assert all(len(s.x) == len(s.y) > 1 for plot in drawn for s in plot.series)


def test_a_limit_stands_where_there_is_no_reference(copper: object) -> None:
    potential, reference = copper
    rows = by_name(compare(potential, reference))
    drift, hottest = rows["nve_stability"], rows["max_stable_temperature"]
    assert (drift.rule, drift.limit, hottest.rule, hottest.limit) == (
        "at_most",
        1.0,
        "at_least",
        1000.0,
    )
    assert drift.as_dict()["reference"] is None and drift.potential < 0.1
    assert hottest.potential == 1500.0
    failed = {"nve_stability": PropertyValue(2.0, "meV/atom/ps")}
    limits = {"nve_stability": reference["nve_stability"]}
    assert not compare(failed, limits)[0].passed
    broken = {"nve_stability": PropertyValue(float("nan"), "meV/atom/ps", "it broke")}
    assert not compare(broken, limits)[0].passed


def test_counts_are_those_of_the_plan() -> None:
    counts = counts_by_family(bulk("Cu"), NAMES, SETTINGS)
    assert counts == {
        "equation_of_state": 7,
        "vacancy": 3,
        "energy_volume_curve": 11,
        "phonons": 1,
        "phases": 9,
        "surfaces": 2,
        "dimers": 16,
    }
    assert count_calculations(bulk("Cu"), NAMES, SETTINGS) == 49


def test_phonons_of_copper_are_those_of_ase(copper: object, tmp_path: object) -> None:
    """ASE's own finite displacements; the zone boundary X of fcc is a wave vector of the cell."""
    potential, _ = copper
    found = potential["phonon_frequencies"]
    assert np.abs(found.data["frequencies"][0]).max() < 1e-3  # acoustic at the zone centre
    volume = potential_properties(EMT(), bulk("Cu"), ["volume_per_atom"], SETTINGS)
    lattice = (4 * volume["volume_per_atom"].value) ** (1 / 3)
    other = Phonons(
        bulk("Cu", a=lattice), EMT(), supercell=(8, 8, 8), delta=0.02, name=f"{tmp_path}/phonons"
    )
    other.run()
    other.read(acoustic=True)
    point = [0.5, 0.0, 0.5]
    expected = np.sort(other.band_structure([point], verbose=False)[0]) / units._hbar
    expected = expected * units._e / (2 * np.pi) / 1e12
    k = next(i for i, q in enumerate(found.data["q"]) if np.allclose(q, point))
    # EMT reaches farther than half of the small supercell, which adds the images there.
    assert found.data["frequencies"][k] == pytest.approx(expected, rel=0.03)
    assert found.data["exact"].any()


def test_surface_energy_is_that_of_a_slab_by_hand() -> None:
    names = ["surface_energy:111"]
    found = potential_properties(EMT(), bulk("Cu"), names, SETTINGS)[names[0]]
    volume = potential_properties(EMT(), bulk("Cu"), ["volume_per_atom"], SETTINGS)
    lattice = (4 * volume["volume_per_atom"].value) ** (1 / 3)
    slab = fcc111("Cu", (1, 1, 6), a=lattice, vacuum=8.0)
    crystal = bulk("Cu", a=lattice)
    slab.calc, crystal.calc = EMT(), EMT()
    excess = slab.get_potential_energy() - 6 * crystal.get_potential_energy()
    area = np.linalg.norm(np.cross(*slab.cell.array[:2]))
    by_hand = excess / (2 * area) / (units.kJ / 1000 / units.m**2)
    # The planned slab is relaxed, which lowers the energy a little.
    assert 0.97 * by_hand < found.value <= by_hand


def test_phases_of_silicon_stand_in_the_order_of_tersoff() -> None:
    names = ["phase:fcc", "phase:sc", "phase:diamond"]
    found = potential_properties(tersoff_silicon(), bulk("Si"), names, SETTINGS)
    assert found["phase:diamond"].value == pytest.approx(0, abs=1e-3)
    assert 0.2 < found["phase:sc"].value < found["phase:fcc"].value
    own = potential_properties(EMT(), bulk("Cu"), names[:1], SETTINGS)
    assert own["phase:fcc"].value == pytest.approx(0, abs=1e-3)


def test_phases_that_differ_by_little_are_not_held_to_less() -> None:
    reference = {"phase:hcp": PropertyValue(0.003, "eV/atom")}
    row = compare({"phase:hcp": PropertyValue(-0.001, "eV/atom")}, reference)[0]
    assert row.passed and row.relative_error == pytest.approx(0.08)
    assert row.note == "the error is relative to 0.05 eV/atom"
    assert not compare({"phase:hcp": PropertyValue(0.009, "eV/atom")}, reference)[0].passed


def test_dimer_of_lennard_jones_and_one_without_a_wall() -> None:
    class Hole(LennardJones):
        """Lennard-Jones whose energy falls again below 1.9 Å."""

        def calculate(self, *args: object, **kwargs: object) -> None:
            super().calculate(*args, **kwargs)
            if len(self.atoms) == 2 and not self.atoms.pbc.any():
                distance = self.atoms.get_distance(0, 1)
                if distance < 1.9:
                    self.results["energy"] = 10.0 * distance

    good = LennardJones(sigma=2.28, epsilon=0.4, rc=9.0)
    hole = Hole(sigma=2.28, epsilon=0.4, rc=9.0)
    found, reference = both_sides(good, hole, bulk("Cu", a=3.52), ["dimer:Cu-Cu"])
    data = reference["dimer:Cu-Cu"].data
    assert data["minimum"] == pytest.approx(2 ** (1 / 6) * 2.28, rel=0.01)
    assert reference["dimer:Cu-Cu"].value == pytest.approx(0.4, rel=0.1)
    row = compare(found, reference)[0]
    assert row.relative_error < 0.01 and not row.passed
    assert "no repulsive wall: it falls below" in row.note


def test_curves_tell_how_far_they_are_apart() -> None:
    names = ["eos_curve", "phonon_frequencies"]
    stiffer = LennardJones(sigma=2.28, epsilon=0.5, rc=6.0)
    softer = LennardJones(sigma=2.28, epsilon=0.45, rc=6.0)
    found, reference = both_sides(stiffer, softer, bulk("Cu", a=3.55), names)
    rows = by_name(compare(found, reference, 0.05))
    # All energies scale by 0.9, frequencies by its square root; the curve is rms over the range.
    assert rows["phonon_frequencies"].relative_error == pytest.approx(1 - 0.9**0.5, abs=1e-3)
    assert "largest" in rows["phonon_frequencies"].note
    energies = reference["eos_curve"].data["energy"]
    shape = np.sqrt(np.mean((energies - energies.min()) ** 2)) / np.ptp(energies)
    assert rows["eos_curve"].relative_error == pytest.approx(0.1 * shape, rel=1e-3)
    assert rows["eos_curve"].passed and not compare(found, reference, 0.01)[0].passed


def test_imaginary_modes_are_named() -> None:
    # Simple cubic copper is not stable.
    found = potential_properties(EMT(), bulk("Cu", "sc", a=2.4), ["phonon_frequencies"], SETTINGS)
    assert "imaginary modes, down to -" in found["phonon_frequencies"].note


def test_a_potential_that_lets_atoms_fuse_has_no_stable_temperature() -> None:
    class Sticky(EMT):
        """Copper in which close atoms attract each other ever more."""

        def calculate(self, *args: object, **kwargs: object) -> None:
            super().calculate(*args, **kwargs)
            if len(self.atoms) > 7:
                self.results["forces"] = -20 * self.results["forces"]

    found = potential_properties(Sticky(), bulk("Cu"), NAMES[-2:], SETTINGS)
    assert found["max_stable_temperature"].value == 0.0
    assert found["max_stable_temperature"].note.startswith("at 500 K ")
    assert np.isnan(found["nve_stability"].value) and found["nve_stability"].note


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("phonon_frequency", "did you mean 'phonon_frequencies'"),
        ("phase:bbc", "did you mean 'phase:bcc'"),
        ("surface_energy:000", "is not a property"),
        ("dimer:Cu-Xx", "is not a property"),
        ("phase:rocksalt", "not a structure of the composition Cu"),
        ("dimer:Cu-O", "only defined for elements of the material, Cu"),
    ],
)
def test_wrong_names_are_refused_in_one_sentence(name: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        resolve_properties([name], bulk("Cu"))


def test_compounds_have_phases_and_phonons_but_no_surfaces() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.64)
    names = ["phase:cesiumchloride", "phase:zincblende", "phonon_frequencies", "dimer:Na-Cl"]
    counts = counts_by_family(salt, names, SETTINGS)
    longer = ValidationSettings(phonon_supercell=(2, 1, 1))
    assert counts_by_family(bulk("Si"), NAMES[2:3], longer)["phonons"] == 2
    assert counts["phases"] == 18 and counts["phonons"] == 2 and counts["dimers"] == 16
    planned = equilibrium_plan(salt, salt.get_volume(), names[:1], SETTINGS, 0.3)
    # Eight neighbours instead of six, a little farther away; 3.5 Å is that of the high phase.
    middle = planned[4].cell.array[0, 0] * 3**0.5 / 2
    assert middle == pytest.approx(2.93, abs=0.1)
    with pytest.raises(InputError, match="one element, not for ClNa"):
        resolve_properties(["surface_energy:100"], salt)


def test_names_belong_to_one_family_each() -> None:
    for family in FAMILIES:
        for name in family.examples:
            assert family_of(name) is family
            assert family.label(name) and family.unit(name)
