"""Random structures, dimers and short pairs keep to their distances, volumes and compositions."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.dimers import dimers, short_pairs
from aiida_autopipe.core.generate.random_cells import random_structures
from aiida_autopipe.core.generate.rattle import smallest_distance
from aiida_autopipe.core.symmetry import find_symmetry
from tests.core.generate.crystals import CRYSTALS, ni3al, quartz


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", ["Al", "quartz", "Ni3Al"])
def test_random_structures_keep_distances_volume_and_composition(name):
    crystal = CRYSTALS[name]
    volume = crystal.get_volume() / len(crystal)
    symbols = crystal.get_chemical_symbols()
    for atoms in random_structures(crystal, rng(), n=4, atoms=(4, 12), symmetric=0.25):
        i, j, d = neighbor_list("ijd", atoms, 4.0)
        radii = covalent_radii[atoms.numbers]
        assert np.all(d >= 0.8 * (radii[i] + radii[j]) - 1e-6)
        assert 0.8 - 1e-6 <= atoms.get_volume() / len(atoms) / volume <= 1.5 + 1e-6
        own = atoms.get_chemical_symbols()
        assert all(own.count(s) * len(symbols) == symbols.count(s) * len(own) for s in set(symbols))
        assert 4 <= len(atoms) <= 12


def test_symmetric_structures_have_their_space_group():
    found = random_structures(bulk("Si"), rng(3), n=4, atoms=(4, 8), symmetric=1.0)
    groups = [json.loads(a.info["parameters"])["spacegroup"] for a in found]
    assert max(groups) > 2
    for atoms, group in zip(found, groups, strict=True):
        # Special positions may add symmetry, never take it.
        assert find_symmetry(atoms).number >= (2 if group > 1 else 1)


def test_dimers_of_each_pair():
    made = dimers(quartz(), rng(), n=5)
    pairs = [tuple(json.loads(a.info["parameters"])["elements"]) for a in made]
    assert pairs == [("O", "O")] * 5 + [("O", "Si")] * 5 + [("Si", "Si")] * 5
    lengths = [a.get_distance(0, 1) for a in made[5:10]]
    bond = covalent_radii[8] + covalent_radii[14]
    assert lengths == pytest.approx((bond * np.geomspace(0.6, 2.0, 5)).tolist(), abs=1e-5)
    assert not any(a.pbc.any() for a in made)


def test_short_pairs_push_one_pair():
    made = short_pairs(ni3al(), rng(), factors=[0.7, 0.5], amplitude=0.0)
    facts = [json.loads(a.info["parameters"]) for a in made]
    assert len(made) == 6
    for atoms, fact in zip(made, facts, strict=True):
        first, second = fact["sites"]
        apart = atoms.get_distance(first, second, mic=True)
        assert apart == pytest.approx(fact["distance_A"])
        assert sorted(np.array(atoms.get_chemical_symbols())[[first, second]]) == fact["elements"]
    nickel = [a for a, f in zip(made, facts, strict=True) if f["elements"] == ["Ni", "Ni"]]
    assert smallest_distance(nickel[0]) == pytest.approx(0.7 * 3.57 / np.sqrt(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: random_structures(c, rng(), atoms=(8, 4)), "smallest and a largest number"),
        (lambda c: random_structures(c, rng(), volume=(0.1, 0.2), n=1), "raise volume or lower"),
        (lambda c: random_structures(c, rng(), composition={"Xx": 1}), "no chemical symbol"),
        (lambda c: random_structures(c, rng(), composition={"Al": 3, "Ni": 10}), "No cell of 4"),
        (lambda c: random_structures(Atoms("H2"), rng()), "give volume_per_atom"),
        (lambda c: dimers(c, rng(), distances=[0.0]), "must be above zero, not 0.0 Å"),
        (lambda c: dimers(c, rng(), elements=["Q"]), "'Q' is no chemical symbol"),
        (lambda c: short_pairs(c, rng(), factors=[1.2]), "pushes no atoms together"),
        (lambda c: short_pairs(c, rng(), elements=["Cu"]), "Cu is not in"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(InputError, match=message):
        call(bulk("Al"))
