from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.engines.lammps import deck
from aiida_autopipe.engines.lammps.settings import MdSettings

SETTINGS: dict[str, Any] = {
    "segments": [
        {"ensemble": "nve", "temperature_K": [300, 300], "steps": 100},
        {"ensemble": "nvt", "temperature_K": [300, 1200], "steps": 200},
        {"ensemble": "npt", "temperature_K": [1200, 1200], "pressure_GPa": 2.0, "steps": 300},
    ],
    "timestep_fs": 1.5,
    "gamma_select": 2.0,
    "gamma_halt": 10.0,
    "gamma_every": 5,
    "thermo_every": 20,
}


def settings(**change: Any) -> MdSettings:
    return MdSettings.from_dict({**SETTINGS, **change})


def test_input_deck(file_regression: Any) -> None:
    file_regression.check(
        deck.input_deck(settings(), ["C", "Si"], seed=42, timeout_seconds=540), extension=".lammps"
    )


def test_input_deck_does_not_depend_on_the_interface() -> None:
    texts = {deck.input_deck(settings(interface=i), ["Si"], 1) for i in ("library", "ml-pace")}
    assert len(texts) == 1


@pytest.mark.parametrize("interface", ["library", "ml-pace"])
def test_potential_include(interface: str, file_regression: Any) -> None:
    text = deck.potential_include(settings(interface=interface), ["C", "Si"], 5.5)
    file_regression.check(text, extension=".lmp")


def test_data_file_of_a_rotated_alloy_cell(file_regression: Any) -> None:
    atoms = bulk("SiC", "zincblende", a=4.36)
    file_regression.check(deck.data_file(atoms, ["C", "O", "Si"]), extension=".data")


def test_orthogonal_cell_has_no_tilt() -> None:
    assert "xy xz yz" not in deck.data_file(bulk("Si", cubic=True), ["Si"])


def test_rotation_makes_a_lower_triangle_and_is_orthogonal() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        cell = rng.normal(size=(3, 3))
        rotation = deck.lammps_rotation(cell)
        triangle = cell @ rotation
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
        np.testing.assert_allclose(np.triu(triangle, 1), 0.0, atol=1e-14)
        assert np.all(np.diag(triangle) > 0)


def test_seed_is_valid_and_reproducible() -> None:
    seeds = [deck.lammps_seed(seed) for seed in (-7, 0, 1, 2, 2**40, 2**70)]
    assert len(set(seeds)) == len(seeds)
    assert all(1 <= seed <= 900_000_000 for seed in seeds)
    assert seeds == [deck.lammps_seed(seed) for seed in (-7, 0, 1, 2, 2**40, 2**70)]


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (bulk("Ge", cubic=True), "The potential knows C, Si but the structure contains Ge"),
        (Atoms("Si2", [[0, 0, 0], [0, 0, 2.2]]), "periodic in three directions"),
        (Atoms("Si", cell=[3, 3, 3], pbc=True), "MD of one atom has no degrees of freedom"),
    ],
)
def test_structures_that_cannot_be_run(atoms: Atoms, message: str) -> None:
    with pytest.raises(InputError, match=message):
        deck.data_file(atoms, ["C", "Si"])
