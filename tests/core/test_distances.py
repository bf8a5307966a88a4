"""Closest pairs and overlaps, through periodic boundaries too."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.distances import closest_pair, overlaps
from aiida_autopipe.core.errors import DataError


def test_closest_pair_by_hand() -> None:
    pair = closest_pair(Atoms("H3", positions=[[0, 0, 0], [2.0, 0, 0], [2.0, 0.9, 0]]))
    assert pair is not None
    assert {pair.first, pair.second} == {1, 2}
    assert pair.distance == pytest.approx(0.9)


def test_closest_pair_through_the_boundary() -> None:
    atoms = Atoms("H2", positions=[[0.1, 1, 1], [4.8, 1, 1]], cell=np.eye(3) * 5, pbc=True)
    pair = closest_pair(atoms)
    assert pair is not None
    assert pair.distance == pytest.approx(0.3)
    atoms.pbc = False
    assert closest_pair(atoms) is None


def test_an_atom_and_its_own_image() -> None:
    pair = closest_pair(Atoms("H", cell=[0.7, 9, 9], pbc=True))
    assert pair is not None
    assert pair == (0, 0, pytest.approx(0.7))


def test_nothing_within_reach() -> None:
    assert closest_pair(Atoms("H")) is None
    assert closest_pair(bulk("Si"), within=2.0) is None


def test_overlap_depends_on_the_elements() -> None:
    # Covalent radii: H 0.31 Å, Si 1.11 Å.
    positions = [[0, 0, 0], [0.8, 0, 0]]
    assert not overlaps(Atoms("H2", positions=positions), 0.5)
    assert overlaps(Atoms("Si2", positions=positions), 0.5)
    assert not overlaps(Atoms("Si2", positions=positions), 0.3)


def test_overlap_through_the_boundary() -> None:
    atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 9.5]], cell=[10, 10, 10], pbc=True)
    assert overlaps(atoms, 0.5)
    assert not overlaps(Atoms("Si", cell=[10, 10, 10], pbc=True), 0.5)


def test_positions_that_are_no_numbers() -> None:
    with pytest.raises(DataError, match="Atom 1"):
        closest_pair(Atoms("H2", positions=[[0, 0, 0], [np.nan, 0, 0]]))
