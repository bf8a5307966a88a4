"""Voids, interstitials and antisites of real crystals."""

import json

import numpy as np
import pytest
from ase.build import bulk

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.antisites import antisites
from aiida_autopipe.core.generate.interstitials import interstitials
from aiida_autopipe.core.generate.rattle import smallest_distance
from aiida_autopipe.core.generate.voids import find_voids, nearest_neighbour
from tests.core.generate.crystals import CRYSTALS, ni3al, quartz


def rng():
    return np.random.default_rng(0)


# Radius in lattice constants, neighbours, and voids in the primitive cell, of textbooks.
@pytest.mark.parametrize(
    ("name", "a", "expected"),
    [
        ("Al", 4.05, [(1 / 2, 6, 1), (np.sqrt(3) / 4, 4, 2)]),
        ("Fe", 2.87, [(np.sqrt(5) / 4, 4, 6), (1 / 2, 2, 3)]),
        ("Si", 5.43, [(np.sqrt(3) / 4, 4, 2), (np.sqrt(11) / 8, 6, 4)]),
        ("NaCl", 5.64, [(np.sqrt(3) / 4, 8, 2)]),
    ],
)
def test_voids_are_those_of_textbooks(name, a, expected):
    crystal = CRYSTALS[name]
    voids = find_voids(crystal, 0.55 * nearest_neighbour(crystal))[: len(expected)]
    assert [(v.coordination, v.multiplicity) for v in voids] == [e[1:] for e in expected]
    assert [v.radius / a for v in voids] == pytest.approx([e[0] for e in expected], abs=1e-4)


def test_hcp_voids_are_octahedral_and_tetrahedral():
    first, second = find_voids(CRYSTALS["Mg"], 1.8)
    assert (first.coordination, first.multiplicity) == (6, 2)
    assert (second.coordination, second.multiplicity) == (4, 4)


@pytest.mark.parametrize("name", CRYSTALS)
def test_interstitials_keep_their_distance(name):
    crystal = CRYSTALS[name]
    made = interstitials(crystal, rng(), repeat=(2, 2, 2), copies=1)
    elements = set(crystal.get_chemical_symbols())
    for atoms in made:
        facts = json.loads(atoms.info["parameters"])
        assert atoms.info["origin"] == "interstitial"
        assert len(atoms) == 8 * len(crystal) + 1
        assert facts["element"] in elements
        if "copy" not in facts:
            near = atoms.get_distances(-1, range(len(atoms) - 1), mic=True)
            assert near.min() == pytest.approx(facts["radius_A"], abs=1e-3)
            assert facts["radius_A"] > 0.55 * nearest_neighbour(crystal)
    sites = {(f["element"], f["site"]) for f in (json.loads(a.info["parameters"]) for a in made)}
    assert len(made) == 2 * len(sites)


def test_antisites_of_ni3al():
    made = antisites(ni3al(), rng(), repeat=(2, 2, 2), copies=0)
    assert [a.get_chemical_formula() for a in made] == ["Al7Ni25", "Al9Ni23", "Al8Ni24"]
    exchanged = json.loads(made[2].info["parameters"])["sites"]
    perfect = ni3al().repeat(2)
    assert perfect.get_distance(*exchanged, mic=True) == pytest.approx(3.57 / np.sqrt(2))
    assert np.flatnonzero(made[2].numbers != perfect.numbers).tolist() == sorted(exchanged)


def test_antisites_of_quartz_and_nial():
    assert len(antisites(quartz(), rng(), repeat=(1, 1, 1), copies=0)) == 3
    made = antisites(CRYSTALS["NiAl"], rng(), repeat=(3, 3, 3), copies=1)
    assert {a.get_chemical_formula() for a in made} == {"Al26Ni28", "Al28Ni26", "Al27Ni27"}
    assert min(smallest_distance(a) for a in made) > 0.65 * 2.49


def test_bad_settings():
    with pytest.raises(InputError, match="one element only"):
        antisites(bulk("Al"), rng())
    with pytest.raises(InputError, match=r"no void 5\.00 Å away"):
        interstitials(bulk("Al"), rng(), min_distance=5.0)
    with pytest.raises(InputError, match="'Xx' in elements"):
        interstitials(bulk("Al"), rng(), elements=["Xx"])
