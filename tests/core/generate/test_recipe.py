"""The pool of a run: size, mix, determinism, limits."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.rattle import smallest_distance
from aiida_autopipe.core.generate.recipe import check_recipe, complete_recipe, generate_pool

RECIPE: dict[str, Any] = {
    "strain": {"volumetric": [-0.1, -0.05, 0.0, 0.05, 0.1], "elastic": [-0.03, 0.03]},
    "rattle": {"repeat": [2, 2, 2], "amplitudes": [0.05, 0.1, 0.2], "copies": 3},
    "vacancies": {"repeat": [2, 2, 2], "copies": 4, "amplitudes": [0.05, 0.1], "ideal": False},
}


def silicon(seed: int = 0, max_atoms: int = 16, **entries: Any) -> Dataset:
    recipe = {**RECIPE, **entries}
    rng = np.random.default_rng(seed)
    return generate_pool(bulk("Si"), {"max_atoms": max_atoms, "recipe": recipe}, rng)


def origins(pool: Dataset) -> Counter[str]:
    return Counter(str(origin) for origin in pool.columns["origin"])


def test_pool_of_silicon() -> None:
    pool = silicon()
    pool.validate()
    assert pool.elements == ["Si"]
    assert set(pool.sizes.tolist()) == {2, 15, 16}
    assert set(pool.columns["generation"].tolist()) == {0}
    assert origins(pool)["rattle"] == 9
    assert set(origins(pool)) == {
        "strain:volumetric",
        "strain:uniaxial",
        "strain:shear",
        "rattle",
        "vacancy",
    }
    for text in pool.columns["parameters"]:
        assert isinstance(json.loads(str(text)), dict)
    assert min(smallest_distance(atoms) for atoms in pool.iter_atoms()) > 1.4


def test_a_truncated_pool_is_still_a_mix() -> None:
    first = silicon()[:10]
    assert set(first.sizes.tolist()) == {2, 15, 16}
    assert {"strain:volumetric", "rattle", "vacancy"} < set(first.columns["origin"].tolist())


def test_the_seed_decides() -> None:
    assert silicon(1).content_hash() == silicon(1).content_hash()
    assert silicon(1).content_hash() != silicon(2).content_hash()


def test_an_entry_does_not_depend_on_the_others() -> None:
    def vacancies(pool: Dataset) -> list[float]:
        return sorted(float(a.positions.sum()) for a in pool.iter_atoms() if len(a) == 15)

    assert vacancies(silicon()) == vacancies(silicon(strain=None, rattle=None))


def test_duplicates_are_made_once() -> None:
    again = {"generator": "strain", **RECIPE["strain"]}
    assert len(silicon(again=again)) == len(silicon())


def test_entries_start_from_structures_and_from_entries_above() -> None:
    crystal, lattice = bulk("Cu", cubic=True), bulk("Al")
    recipe = {
        "volumes": {"generator": "strain", "volumetric": [-0.1, 0.1], "elastic": []},
        "parent": {"generator": "rattle", "of": "lattice", "repeat": [2, 2, 2], "copies": 1},
        "rattled": {"generator": "rattle", "of": "volumes", "copies": 1, "amplitudes": [0.05],
                    "repeat": [1, 1, 1], "strain": 0.0},
    }  # fmt: skip
    pool = generate_pool(
        {"primitive": crystal, "lattice": lattice},
        {"max_atoms": 8, "recipe": recipe},
        np.random.default_rng(0),
    )
    assert {str(a.symbols[0]) for a in pool.iter_atoms() if len(a) == 8} == {"Al"}
    volumes = sorted(
        round(a.get_volume() / crystal.get_volume(), 6) for a in pool.iter_atoms() if len(a) == 4
    )
    assert volumes == [0.9, 0.9, 1.1, 1.1]


def test_a_complete_recipe_makes_the_same() -> None:
    complete: dict[str, Any] = complete_recipe(RECIPE)
    assert complete["rattle"]["strain"] == 0.02
    assert list(complete["rattle"])[:2] == ["repeat", "width"]
    assert complete_recipe(complete) == complete
    assert json.loads(json.dumps(complete)) == complete
    assert silicon(**complete).content_hash() == silicon().content_hash()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"ratle": {}}, "ratle: there is no generator 'ratle'; did you mean 'rattle'? valid: "),
        ({"more": {"generator": "melts"}}, "more: there is no generator 'melts'"),
        ({"rattle": {"copys": 1}}, "rattle: 'copys' is no setting of the generator 'rattle'"),
        ({"rattle": {"copies": "many"}}, "must be a whole number, not 'many'"),
        ({"rattle": [1]}, "rattle: [1] must be a block of settings, or null for none"),
        ({"more": {"generator": "rattle", "of": "strian"}}, "more.of: 'strian' is not a valid"),
    ],
)
def test_wrong_recipes(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_recipe({**RECIPE, **entries})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_atoms": 12}, "generate.recipe.rattle makes structures of 16 atoms, more than"),
        ({"strain": None, "rattle": None, "vacancies": None}, "makes no structures"),
        ({"more": {"generator": "rattle", "of": "lattice"}}, "this material has no 'lattice'"),
        ({"vacancies": {"repeat": [0, 1, 1]}}, "generate.recipe.vacancies: repeat"),
    ],
)
def test_recipes_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        silicon(**settings)


def test_supercells_repeat_the_primitive_lattice() -> None:
    """All cells are deformed repeats of one lattice, so that their k-point meshes match."""
    primitive: Atoms = bulk("Si")
    for atoms in silicon().iter_atoms():
        repeat = 1 if len(atoms) == 2 else 2
        deformation = np.linalg.solve(primitive.cell.array * repeat, atoms.cell.array)
        np.testing.assert_allclose(deformation, np.eye(3), atol=0.15)
