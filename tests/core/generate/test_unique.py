"""Duplicates: the same up to rotation, translation, order and cell; strained copies are kept."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from aiida_autopipe.core.generate.rattle import rattle
from aiida_autopipe.core.generate.strain import scale_volume, symmetric_strains, volumetric_strains
from aiida_autopipe.core.generate.unique import is_same, unique_structures
from tests.core.generate.crystals import CRYSTALS


@pytest.mark.parametrize("name", CRYSTALS)
def test_turned_shifted_renumbered_and_repeated_are_the_same(name):
    crystal = CRYSTALS[name]
    other = crystal.repeat((2, 1, 1))
    turn = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    other.set_cell(other.cell.array @ turn.T)
    other.positions = other.positions @ turn.T + [0.3, 0.1, -0.2]
    other = other[np.random.default_rng(0).permutation(len(other))]
    assert is_same(crystal, other)
    assert len(unique_structures([crystal, other, crystal])) == 1


@pytest.mark.parametrize("name", CRYSTALS)
def test_strained_and_rattled_copies_are_kept(name):
    crystal = CRYSTALS[name]
    strained = volumetric_strains(crystal, [0.0, 0.001, 0.002, -0.001])
    assert len(unique_structures(strained)) == 4
    copies = rattle(crystal.repeat(2), 0.02, 3, np.random.default_rng(0))
    assert len(unique_structures([crystal.repeat(2), *copies])) == 4
    assert not is_same(crystal, scale_volume(crystal, 1.0005))


def test_stackings_and_molecules_are_told_apart():
    assert not is_same(molecule("CH3CH2OH"), molecule("CH3OCH3"))
    water = molecule("H2O")
    mirrored = water.copy()
    mirrored.positions[:, 0] *= -1
    assert is_same(water, mirrored)
    bent = water.copy()
    bent.set_angle(1, 0, 2, 106.0)
    assert not is_same(water, bent)


@pytest.mark.parametrize("crystal", [bulk("SiC", "zincblende", a=4.36), bulk("Cu"), bulk("Si")])
@pytest.mark.parametrize("shear", [0.005, 0.02])
def test_small_shears_are_not_duplicates(crystal: Atoms, shear: float) -> None:
    """A shear changes invariants of a cubic crystal in second order only."""
    sheared = symmetric_strains(crystal, [shear])
    assert len(unique_structures([crystal, *sheared])) == 1 + len(sheared)
