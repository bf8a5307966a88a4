"""Special quasirandom structures: exact composition, and less order than random arrangements."""

import json

import numpy as np
import pytest
from ase.build import bulk

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.correlations import correlation_error, find_shells, warren_cowley
from aiida_autopipe.core.generate.sqs import sqs
from tests.core.generate.crystals import CRYSTALS

CASES = [
    ("Al", {"Al": 0.5, "Mg": 0.5}, {"Al": 1, "Mg": 1}),
    ("Fe", {"Fe": 0.25, "Ni": 0.75}, {"Fe": 1, "Ni": 3}),
    ("Mg", {"Mg": 2, "Al": 1}, {"Mg": 2, "Al": 1}),
    ("Al", {"Co": 1, "Cr": 1, "Fe": 1, "Ni": 1}, {"Co": 1, "Cr": 1, "Fe": 1, "Ni": 1}),
    ("NaCl", {"Na": {"Na": 0.5, "K": 0.5}}, {"Na": 1, "K": 1, "Cl": 2}),
    ("NiAl", None, {"Ni": 1, "Al": 1}),
]


@pytest.mark.parametrize(("name", "composition", "ratio"), CASES)
def test_exact_and_more_random_than_random(name, composition, ratio):
    made = sqs(
        CRYSTALS[name], np.random.default_rng(0), composition=composition, n=1, atoms=24,
        shells=3, iterations=20_000,
    )  # fmt: skip
    (atoms,) = made
    symbols = atoms.get_chemical_symbols()
    unit = len(atoms) / sum(ratio.values())
    assert {s: symbols.count(s) for s in set(symbols)} == {s: n * unit for s, n in ratio.items()}
    facts = json.loads(atoms.info["parameters"])
    # Measured again from the structure itself, next to fresh random arrangements.
    host = np.flatnonzero([s != "Cl" for s in symbols])
    shells = find_shells(atoms.positions, atoms.cell.array, [host], 3)
    error = correlation_error(atoms.numbers, shells)
    assert error == pytest.approx(facts["correlation_error"], abs=1e-5)
    rng = np.random.default_rng(5)
    numbers, random = atoms.numbers.copy(), []
    for _ in range(30):
        numbers[host] = rng.permutation(numbers[host])
        random.append(correlation_error(numbers, shells))
    assert error <= min(random)
    assert error < 0.5 * np.mean(random)


def test_ordered_crystals_have_their_known_short_range_order():
    ordered = bulk("NiAl", "cesiumchloride", a=2.88).repeat(2)
    shells = find_shells(ordered.positions, ordered.cell.array, [np.arange(16)], 2)
    # In B2 all eight neighbours are of the other element, all six second ones of the same.
    assert warren_cowley(ordered.numbers, shells)[13, 28] == pytest.approx([-1.0, 1.0])


def test_seed_decides():
    def made(seed):
        options = {"composition": {"Al": 0.75, "Mg": 0.25}, "n": 1, "iterations": 2000}
        (atoms,) = sqs(bulk("Al"), np.random.default_rng(seed), **options)
        return atoms.numbers.tolist()

    assert made(1) == made(1)
    assert made(1) != made(2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "An alloy needs two elements"),
        ({"composition": {"Al": 0.5, "Xx": 0.5}}, "'Xx' in the composition is no element"),
        ({"composition": {"Al": 0.5, "Mg": 0.5}, "repeat": (3, 3, 3)}, "27 atoms"),
        ({"composition": {"Al": 0.01, "Mg": 0.99}}, "needs a multiple of 100 atoms"),
        ({"composition": {"Si": {"Si": 0.5, "Ge": 0.5}}}, "the crystal has Al"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        sqs(bulk("Al"), np.random.default_rng(0), **settings)
