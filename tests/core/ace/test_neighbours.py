import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.errors import DataError
from tests.reference import ace_naive


def as_set(centre, neighbour, vectors):
    return sorted(
        (int(i), int(j), *np.round(v, 8))
        for i, j, v in zip(centre, neighbour, vectors, strict=True)
    )


CASES = {
    "one atom": bulk("Si").copy()[:1],
    "primitive": bulk("Cu"),
    "skewed": Atoms(
        "Si2",
        cell=[[3, 0, 0], [7, 3, 0], [1, 5, 4]],
        scaled_positions=[[0, 0, 0], [0.4, 0.4, 0.4]],
        pbc=True,
    ),
    "left-handed": Atoms("Si", cell=[[0, 3, 0], [3, 0, 0], [0, 0, 3]], pbc=True),
    "slab": Atoms("Si2", cell=[3, 3, 0], positions=[[0, 0, 0], [1, 1, 2]], pbc=[True, True, False]),
    "wire": Atoms("Si", cell=[0, 2.5, 0], pbc=[False, True, False]),
    "outside the cell": Atoms("Si2", cell=[4, 4, 4], positions=[[9, -7, 1], [1, 1, 1]], pbc=True),
    "molecule": Atoms("H2O", positions=[[0, 0, 0], [1, 0, 0], [0, 5, 0]]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_pair_once(name):
    atoms = CASES[name]
    found = full_neighbour_list(atoms, 4.1)
    expected = [
        (i, j, v) for i, around in enumerate(ace_naive.neighbours(atoms, 4.1)) for j, v in around
    ]
    assert as_set(*found) == sorted((i, j, *np.round(v, 8)) for i, j, v in expected)


def test_isolated_atom_has_no_pairs():
    centre, neighbour, vectors = full_neighbour_list(Atoms("Si"), 5.0)
    assert len(centre) == len(neighbour) == 0
    assert vectors.shape == (0, 3)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "no atoms"),
        (Atoms("Si2", positions=[[0, 0, 0], [np.nan, 0, 0]]), "Atom 1 .Si."),
        (Atoms("Si", positions=[[np.inf, 0, 0]]), "finite"),
        (Atoms("Si", cell=[3, 3, 0], pbc=True), "no volume"),
        (Atoms("Si", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=True), "no volume"),
        (Atoms("Si", cell=[np.nan, 3, 3], pbc=True), "not finite"),
        (Atoms("Si", cell=[1e-300, 3, 3], pbc=True), "no volume"),
        (Atoms("Si", cell=[0.01, 0.01, 0.01], pbc=True), "0.01 Å wide, too narrow for a cutoff"),
        (Atoms("Si", cell=[0.1, 0.1, 0.1], pbc=True), "Atom 0 .Si. has more than 20000 neighbours"),
        (Atoms("Si", cell=[1e200, 3, 3], pbc=True), r"coordinate of 1e\+200 Å"),
        (Atoms("Si2", positions=[[0, 0, 0], [0, -1e10, 0]]), r"coordinate of 1e\+10 Å"),
    ],
)
def test_absurd_input_is_refused(atoms, message):
    with pytest.raises(DataError, match=message):
        full_neighbour_list(atoms, 5.0)


def test_a_crowd_is_refused_before_it_fills_the_memory():
    """All pairs of these atoms would take 100 GB."""
    positions = np.random.default_rng(0).normal(0.0, 0.5, (50_000, 3))
    with pytest.raises(DataError, match=r"Atom 0 .H. has more than 20000 neighbours within 6 Å"):
        full_neighbour_list(Atoms("H50000", positions=positions), 6.0)


def test_as_many_neighbours_as_are_allowed_are_found():
    line = Atoms("H", cell=[0, 0, 0.01], pbc=[False, False, True])
    assert len(full_neighbour_list(line, 100.005).centre) == 20_000
    with pytest.raises(DataError, match="more than 20000"):
        full_neighbour_list(line, 100.015)
