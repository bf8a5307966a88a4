"""The pool of a run: size, mix, determinism, limits."""

import json
from collections import Counter

import numpy as np
import pytest
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.rattle import smallest_distance
from aiida_autopipe.core.generate.recipe import generate_pool


def silicon(seed: int = 0, **settings: object) -> Dataset:
    rng = np.random.default_rng(seed)
    return generate_pool(bulk("Si"), settings, rng)


def test_default_pool_of_silicon() -> None:
    pool = silicon()
    pool.validate()
    assert 30 <= len(pool) <= 45
    assert pool.elements == ["Si"]
    assert set(pool.sizes.tolist()) == {2, 15, 16}
    assert set(pool.columns["generation"].tolist()) == {0}
    kinds = Counter(pool.columns["origin"].tolist())
    assert set(kinds) == {
        "strain:volumetric",
        "strain:uniaxial",
        "strain:shear",
        "strain:rattled",
        "rattle",
        "vacancy",
    }
    for text in pool.columns["parameters"]:
        assert isinstance(json.loads(str(text)), dict)
    assert min(smallest_distance(atoms) for atoms in pool.iter_atoms()) > 1.4


def test_a_truncated_pool_is_still_a_mix() -> None:
    first = silicon()[:12]
    assert set(first.sizes.tolist()) == {2, 15, 16}
    assert {"strain:volumetric", "rattle", "vacancy"} < set(first.columns["origin"].tolist())
    volumes = [
        a.get_volume() for a in first.iter_atoms() if a.info["origin"] == "strain:volumetric"
    ]
    reference = bulk("Si").get_volume()
    assert min(volumes) < reference < max(volumes)


def test_the_seed_decides() -> None:
    assert silicon(1).content_hash() == silicon(1).content_hash()
    assert silicon(1).content_hash() != silicon(2).content_hash()


def test_duplicates_are_made_once() -> None:
    pool = silicon(
        volumetric_strains=[0.0, 0.0, 0.05],
        shear_strains=[0.0],
        rattle_amplitudes=[],
        vacancies=0,
    )
    assert len(pool) == 2
    assert len(set(np.round([a.get_volume() for a in pool.iter_atoms()], 6))) == 2


def test_vacancies_are_shared_between_the_hosts() -> None:
    settings = {"volumetric_strains": [], "shear_strains": [], "rattles_per_amplitude": 0}
    one = silicon(**settings, vacancies=5)
    assert one.sizes.tolist() == [15] * 5
    two = silicon(**settings, vacancies=5, rattle_cells=[[1, 1, 2], [2, 2, 2]])
    assert sorted(two.sizes.tolist()) == [3, 3, 15, 15, 15]
    # A vacancy in the primitive cell of two atoms would be another crystal.
    tiny = silicon(**settings, vacancies=5, rattle_cells=[[1, 1, 1], [2, 2, 2]])
    assert tiny.sizes.tolist() == [15] * 5


def test_metal_with_one_atom_cells() -> None:
    rng = np.random.default_rng(0)
    pool = generate_pool(bulk("Cu"), {}, rng)
    pool.validate()
    assert set(pool.sizes.tolist()) == {1, 7, 8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_atoms": 12}, r"rattle_cells \[2, 2, 2\] has 16 atoms, more than max_atoms = 12"),
        ({"max_atoms": 1}, "primitive cell has 2 atoms"),
        ({"volumetric_strain": [0.1]}, "'volumetric_strain' is not a setting"),
        (
            {
                "volumetric_strains": [],
                "shear_strains": [],
                "rattle_amplitudes": [],
                "vacancies": 0,
            },
            "makes no structures",
        ),
    ],
)
def test_unusable_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        silicon(0, **settings)


def test_vacancy_needs_a_host() -> None:
    settings = {"rattle_cells": [[1, 1, 1]], "vacancies": 1}
    with pytest.raises(InputError, match="one atom only"):
        generate_pool(bulk("Cu"), settings, np.random.default_rng(0))


def test_no_structure_is_larger_than_allowed() -> None:
    pool = silicon(rattle_cells=[[1, 1, 1]], max_atoms=4)
    assert max(pool.sizes) == 2


def test_supercells_repeat_the_primitive_lattice() -> None:
    """All cells are deformed repeats of one lattice, so that their k-point meshes match."""
    primitive = bulk("Si")
    for atoms in silicon().iter_atoms():
        repeat = 1 if len(atoms) == 2 else 2
        deformation = np.linalg.solve(primitive.cell.array * repeat, atoms.cell.array)
        np.testing.assert_allclose(deformation, np.eye(3), atol=0.15)
