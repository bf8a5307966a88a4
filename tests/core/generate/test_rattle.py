"""Rattled cells: statistics, distances, determinism."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.rattle import rattle, smallest_distance


def test_displacements_have_the_asked_standard_deviation() -> None:
    cell = bulk("Si", cubic=True).repeat(2)
    copies = rattle(cell, 0.1, 20, np.random.default_rng(0), strain_amplitude=0.0)
    moved = np.array([c.positions - cell.positions for c in copies])
    assert moved.std() == pytest.approx(0.1, rel=0.03)  # 11520 draws
    assert np.abs(moved.mean()) < 0.005
    assert all(np.array_equal(c.numbers, cell.numbers) for c in copies)
    assert all(np.array_equal(c.cell, cell.cell) for c in copies)


def test_random_strain_is_symmetric_and_bounded() -> None:
    cell = bulk("Si")
    for copy in rattle(cell, 0.0, 20, np.random.default_rng(0), strain_amplitude=0.02):
        strain = np.linalg.solve(cell.cell.array, copy.cell.array) - np.eye(3)
        np.testing.assert_allclose(strain, strain.T, atol=1e-12)
        assert np.max(np.abs(strain)) <= 0.06 + 1e-12


def test_same_seed_same_structures() -> None:
    first, second, other = (
        rattle(bulk("Si"), 0.1, 2, np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first[1].positions, second[1].positions)
    assert not np.allclose(first[1].positions, other[1].positions)
    assert not np.allclose(first[0].positions, first[1].positions)


def test_minimum_distance_is_kept() -> None:
    cell = bulk("Si", cubic=True)
    copies = rattle(cell, 0.3, 10, np.random.default_rng(0), minimum_distance=1.8)
    assert all(smallest_distance(c) >= 1.8 for c in copies)


def test_impossible_distance_is_refused() -> None:
    with pytest.raises(InputError, match=r"keeps its atoms 2\.40 Å apart"):
        rattle(bulk("Si"), 0.1, 1, np.random.default_rng(0), minimum_distance=2.4)
    with pytest.raises(InputError, match=r"-0\.1 must not be negative"):
        rattle(bulk("Si"), -0.1, 1, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("atoms", "distance"),
    [
        (bulk("Cu"), 3.61 / np.sqrt(2)),
        (bulk("Si"), 5.43 * np.sqrt(3) / 4),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), 0.74),
        (Atoms("H"), np.inf),
        (Atoms("H", cell=[2, 3, 4], pbc=True), 2.0),
    ],
)
def test_smallest_distance(atoms: Atoms, distance: float) -> None:
    assert smallest_distance(atoms) == pytest.approx(distance)
