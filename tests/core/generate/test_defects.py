"""Vacancies and isolated atoms."""

import json

import numpy as np
import pytest
from ase.build import bulk

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.atoms import isolated_atoms
from aiida_autopipe.core.generate.defects import rattled_vacancies, vacancies
from aiida_autopipe.core.generate.rattle import smallest_distance


def test_one_vacancy_per_inequivalent_site() -> None:
    (silicon,) = vacancies(bulk("Si", cubic=True))
    assert silicon.get_chemical_formula() == "Si7"
    assert json.loads(silicon.info["parameters"]) == {"removed": "Si", "site": 0}
    compound = vacancies(bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    assert sorted(v.get_chemical_formula() for v in compound) == ["Cl3Na4", "Cl4Na3"]


def test_rattled_vacancies_use_the_amplitudes_in_turn() -> None:
    cell = bulk("Si").repeat(2)
    found = rattled_vacancies(cell, [0.05, 0.1], 4, np.random.default_rng(0))
    assert [len(v) for v in found] == [15] * 4
    ideal = cell.get_scaled_positions()[1:]
    moved = [v.get_scaled_positions() - ideal for v in found]
    spread = [np.std(m - np.round(m)) for m in moved]
    assert spread[0] < spread[1]
    assert all(smallest_distance(v) > 1.5 for v in found)
    amplitudes = [json.loads(v.info["parameters"])["amplitude_A"] for v in found]
    assert amplitudes == [0.05, 0.1, 0.05, 0.1]
    assert {v.info["origin"] for v in found} == {"vacancy"}
    assert rattled_vacancies(cell, [], 0, np.random.default_rng(0)) == []


def test_impossible_vacancies() -> None:
    with pytest.raises(InputError, match="repeat the cell"):
        vacancies(bulk("Cu"))
    with pytest.raises(InputError, match="rattle_amplitudes"):
        rattled_vacancies(bulk("Si").repeat(2), [], 1, np.random.default_rng(0))


def test_isolated_atoms() -> None:
    found = isolated_atoms(["Si", "C", "Si"], box=10.0)
    assert [a.get_chemical_formula() for a in found] == ["C", "Si"]
    for atoms in found:
        assert not atoms.pbc.any()
        assert atoms.get_volume() == pytest.approx(1000.0)
        np.testing.assert_allclose(atoms.positions, [[5.0, 5.0, 5.0]])
        assert atoms.info["origin"] == "isolated_atom"


def test_unusable_isolated_atoms() -> None:
    with pytest.raises(InputError, match="'Xx' is not a chemical symbol"):
        isolated_atoms(["Si", "Xx"])
    with pytest.raises(InputError, match="positive edge"):
        isolated_atoms(["Si"], box=0.0)
