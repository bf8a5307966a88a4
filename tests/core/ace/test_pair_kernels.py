import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from tests.reference import ace_naive


def distances(pairs, n):
    """Sorted distances of each atom's neighbours."""
    r = np.linalg.norm(pairs.vectors, axis=1)
    return [np.sort(r[pairs.centre == i]) for i in range(n)]


@pytest.mark.parametrize("seed", range(6))
def test_random_boxes_against_the_definition(seed):
    """Cells of every shape and size against the cutoff, periodic or not, atoms anywhere."""
    rng = np.random.default_rng(seed)
    n, cutoff = int(rng.integers(1, 40)), rng.uniform(1.5, 4.0)
    cell = rng.uniform(1.0, 12.0, 3)[:, None] * (np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3)))
    positions = rng.uniform(-0.4, 1.2, (n, 3)) @ cell
    atoms = Atoms(f"Si{n}", positions=positions, cell=cell, pbc=rng.uniform(size=3) < 0.6)
    found = full_neighbour_list(atoms, cutoff)
    expected = [
        (i, j, *np.round(v, 7))
        for i, around in enumerate(ace_naive.neighbours(atoms, cutoff))
        for j, v in around
    ]
    listed = [
        (int(i), int(j), *np.round(v, 7))
        for i, j, v in zip(found.centre, found.neighbour, found.vectors, strict=True)
    ]
    assert sorted(listed) == sorted(expected)
    assert (np.diff(found.centre) >= 0).all()


def test_vectors_lead_to_an_image_of_the_neighbour(rng):
    atoms = bulk("Si", cubic=True) * (3, 2, 2)
    atoms.positions += rng.uniform(-30, 30, (len(atoms), 3))
    pairs = full_neighbour_list(atoms, 6.0)
    images = atoms.positions[pairs.centre] + pairs.vectors - atoms.positions[pairs.neighbour]
    turns = images @ np.linalg.inv(atoms.cell[:])
    np.testing.assert_allclose(turns, np.rint(turns), atol=1e-9)


def test_many_cells_and_many_images_give_the_same():
    """A crystal as one atom with all its images, and as a supercell of many cells."""
    one = full_neighbour_list(bulk("Cu"), 7.5)
    many = full_neighbour_list(bulk("Cu") * (9, 8, 7), 7.5)
    expected = distances(one, 1)[0]
    for found in distances(many, 9 * 8 * 7):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize(
    "positions",
    [
        np.arange(300)[:, None] * [1.0, 0.0, 0.0],
        np.array([[x, y, 0.0] for x in range(17) for y in range(18)]),
        np.array([[0, 0, 0], [1e9, 0, 0], [1e9, 1, 0], [0, -1e9, 1e9]]),
    ],
    ids=["line", "plane", "far apart"],
)
def test_arrangements_without_volume(positions):
    pairs = full_neighbour_list(Atoms(f"H{len(positions)}", positions=positions), 2.1)
    r = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    assert len(pairs.centre) == ((r < 2.1) & (r > 0)).sum()
