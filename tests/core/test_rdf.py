"""Distributions of matter whose distributions are known."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.rdf import (
    bin_middles,
    coordination_within,
    distribution,
    element_pairs,
    first_minimum,
)


def ideal_gas(seed: int, n: int = 400, length: float = 20.0) -> Atoms:
    positions = np.random.default_rng(seed).uniform(0, length, (n, 3))
    return Atoms(f"Ar{n}", positions, cell=[length] * 3, pbc=True)


def test_shells_of_a_perfect_crystal() -> None:
    """Twelve neighbours at a / sqrt(2), six at a, twenty-four at a sqrt(3/2)."""
    found = distribution([bulk("Cu", a=3.62, cubic=True)])
    steps = np.diff(found.coordination[0], prepend=0.0)
    where = np.flatnonzero(steps)[:3]
    np.testing.assert_allclose(steps[where], [12, 6, 24])
    shells = 3.62 * np.sqrt([0.5, 1.0, 1.5])
    assert np.all(np.abs(found.r[where] - shells) <= 0.025)
    minimum = first_minimum(found.r, found.g[0])
    assert shells[0] < minimum < shells[1]
    assert coordination_within(found.r, found.coordination[0], minimum) == pytest.approx(12)


def test_cells_of_one_crystal_agree_up_to_the_own_images() -> None:
    """An atom is not its own partner, which the density of a small cell shows."""
    small, large = (distribution([bulk("Cu", cubic=True) * (k, k, k)]) for k in (1, 3))
    np.testing.assert_allclose(small.coordination, large.coordination)
    np.testing.assert_allclose(small.g * 3 / 4, large.g * 107 / 108)


def test_ideal_gas_is_one_everywhere() -> None:
    found = distribution([ideal_gas(seed) for seed in range(20)])
    far = found.r > 1.0
    assert found.g[0, far].mean() == pytest.approx(1.0, abs=0.01)
    assert np.abs(found.g[0, found.r > 4.0] - 1.0).max() < 0.08
    density = 399 / 20.0**3
    volume = 4 / 3 * np.pi * (found.r[-1] + 0.025) ** 3
    assert found.coordination[0, -1] == pytest.approx(density * volume, rel=0.01)


def test_pairs_of_a_compound() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.64)
    found = distribution([salt])
    assert found.pairs == (("*", "*"), ("Cl", "Cl"), ("Cl", "Na"), ("Na", "Cl"), ("Na", "Na"))
    # One sodium in the cell has no partner but its images, which alone say nothing of a density.
    assert not found.g[1].any() and not found.g[4].any()
    minimum = first_minimum(found.r, found.g[2])
    assert coordination_within(found.r, found.coordination[2], minimum) == pytest.approx(6)
    larger = distribution([salt * (2, 2, 2)])
    assert coordination_within(larger.r, larger.coordination[4], 4.5) == pytest.approx(12)


def test_partners_of_both_sides_of_an_alloy() -> None:
    """g is the same seen from either element; the numbers of partners are not."""
    atoms = ideal_gas(3)
    atoms.symbols[:100] = "Kr"
    found = distribution([atoms])
    first, second = (found.pairs.index(pair) for pair in (("Ar", "Kr"), ("Kr", "Ar")))
    np.testing.assert_allclose(found.g[first], found.g[second])
    np.testing.assert_allclose(3 * found.coordination[first], found.coordination[second])


def test_a_gas_has_no_first_minimum() -> None:
    r = bin_middles()
    assert np.isnan(first_minimum(r, np.zeros_like(r)))
    assert np.isnan(coordination_within(r, r, float("nan")))


def test_minimum_of_a_noisy_liquid() -> None:
    """Peaks at 2.6 and 4.8 Å as in a liquid metal, with the noise of few frames."""
    r = bin_middles()
    peaks = 2 * np.exp(-(((r - 2.6) / 0.3) ** 2)) + 0.7 * np.exp(-(((r - 4.8) / 0.5) ** 2))
    g = np.where(r > 2.0, 1 - 0.6 * np.exp(-(((r - 3.6) / 0.6) ** 2)), 0.0) + peaks
    noise = np.random.default_rng(1).normal(0, 0.05, len(r))
    assert first_minimum(r, g + noise) == pytest.approx(first_minimum(r, g), abs=0.15)
    assert 3.2 < first_minimum(r, g) < 3.8


def test_what_has_no_distribution() -> None:
    with pytest.raises(DataError, match="at least one frame, not 0"):
        distribution([])
    with pytest.raises(DataError, match="periodic in three directions, not"):
        distribution([Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])])


def test_one_element_has_one_pair() -> None:
    assert element_pairs(["Si", "Si"]) == (("*", "*"),)
