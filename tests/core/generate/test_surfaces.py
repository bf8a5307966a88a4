"""Slabs: areas, layers, terminations, and stoichiometry."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.rattle import smallest_distance
from aiida_autopipe.core.generate.surfaces import distinct_planes, surfaces
from tests.core.generate.crystals import CRYSTALS


def slabs(name, **settings):
    made = surfaces(CRYSTALS[name], np.random.default_rng(0), copies=0, max_atoms=100, **settings)
    return [(atoms, json.loads(atoms.info["parameters"])) for atoms in made]


@pytest.mark.parametrize(
    ("name", "areas"),
    [
        ("Al", {(1, 0, 0): 8.2013, (1, 1, 0): 11.5983, (1, 1, 1): 7.1025}),  # a^2 times 1/2 ...
        ("Fe", {(1, 0, 0): 8.2369, (1, 1, 0): 5.8244, (1, 1, 1): 14.2667}),
    ],
)  # fmt: skip
def test_areas_of_cubic_metals(name, areas):
    found = {tuple(facts["miller"]): facts["area_A2"] for _, facts in slabs(name)}
    assert found == pytest.approx(areas, abs=1e-3)


@pytest.mark.parametrize("name", CRYSTALS)
def test_slabs_keep_composition_distances_and_vacuum(name):
    crystal = CRYSTALS[name]
    shortest = smallest_distance(crystal)
    for atoms, facts in slabs(name, max_terminations=1, vacuum=9.0):
        counts = [atoms.get_chemical_symbols().count(s) for s in crystal.get_chemical_symbols()]
        whole = [crystal.get_chemical_symbols().count(s) for s in crystal.get_chemical_symbols()]
        assert len({n / m for n, m in zip(counts, whole, strict=True)}) == 1
        # Nothing is squeezed across the boundary.
        assert smallest_distance(atoms) == pytest.approx(shortest, abs=1e-3)
        heights = atoms.positions[:, 2]
        assert np.ptp(heights) >= 8.0 - 1e-6
        assert atoms.cell.array[2, 2] - np.ptp(heights) == pytest.approx(9.0)
        assert len(np.unique(heights.round(1))) >= facts["planes"] > 1


def test_terminations_are_told_apart():
    planes = [facts["miller"] for _, facts in slabs("Si")]
    # Diamond (111) is cut between or within its double layers; other planes only in one way.
    assert planes.count([1, 1, 1]) == 2
    assert planes.count([1, 1, 0]) == 1


def test_planes_of_a_trigonal_crystal():
    millers = {h for h, _ in distinct_planes(CRYSTALS["quartz"], 1)}
    # The rhombohedral faces r and z of quartz are different.
    assert {(1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 0, 1)} <= millers
    assert len(distinct_planes(bulk("Al"), 1)) == 3


def test_bad_settings():
    with pytest.raises(InputError, match="more than max_atoms = 2"):
        surfaces(bulk("Al"), np.random.default_rng(0), max_atoms=2)
    with pytest.raises(InputError, match="vacuum must be above zero"):
        surfaces(bulk("Al"), np.random.default_rng(0), vacuum=0.0)
    with pytest.raises(InputError, match="not periodic"):
        surfaces(Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]), np.random.default_rng(0), copies=0)
