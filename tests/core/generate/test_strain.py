"""Strained cells: volumes, symmetric strains, symmetry reduction."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.strain import (
    apply_strain,
    scale_volume,
    symmetric_strains,
    volumetric_strains,
)


def strain_of(strained: Atoms, original: Atoms) -> np.ndarray:
    return np.linalg.solve(original.cell.array, strained.cell.array) - np.eye(3)


def test_volumetric_strains_scale_the_volume() -> None:
    atoms = bulk("Si")
    strains = [-0.1, 0.0, 0.1]
    for strained, strain in zip(volumetric_strains(atoms, strains), strains, strict=True):
        assert strained.get_volume() == pytest.approx(atoms.get_volume() * (1 + strain))
        np.testing.assert_allclose(strained.get_scaled_positions(), atoms.get_scaled_positions())
        assert strained.info["origin"] == "strain:volumetric"
        assert json.loads(strained.info["parameters"]) == {"strain": strain}


def test_apply_strain_takes_engineering_shear() -> None:
    atoms = bulk("Si")
    strained = apply_strain(atoms, [0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    expected = [[0.01, 0.03, 0.025], [0.03, 0.02, 0.02], [0.025, 0.02, 0.03]]
    np.testing.assert_allclose(strain_of(strained, atoms), expected, atol=1e-12)
    np.testing.assert_allclose(apply_strain(atoms, np.array(expected)).cell, strained.cell)


def test_cubic_crystal_gets_inequivalent_strains_only() -> None:
    atoms = bulk("Si")
    structures = symmetric_strains(atoms, [-0.04, 0.04])
    assert [s.info["origin"] for s in structures] == [
        "strain:uniaxial",
        "strain:uniaxial",
        "strain:shear",
    ]
    for strained in structures:
        strain = strain_of(strained, atoms)
        np.testing.assert_allclose(strain, strain.T, atol=1e-12)
    np.testing.assert_allclose(strain_of(structures[2], atoms)[1, 2], -0.02, atol=1e-12)


@pytest.mark.parametrize(
    ("strain", "message"),
    [
        ([0.1, 0.1], "six Voigt components"),
        ([[0, 0.1, 0], [0, 0, 0], [0, 0, 0]], "symmetric 3x3"),
        ([-1.0, 0, 0, 0, 0, 0], "flattens the cell"),
    ],
)
def test_unusable_strains(strain: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply_strain(bulk("Si"), strain)


def test_no_volume_left() -> None:
    with pytest.raises(InputError, match="-1"):
        volumetric_strains(bulk("Si"), [-1.0])
    with pytest.raises(InputError, match="positive factor"):
        scale_volume(bulk("Si"), -0.5)
