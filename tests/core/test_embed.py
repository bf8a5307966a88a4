"""Periodic cells around uncertain atoms: right atoms, right mask, right number, sane boundary."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from numpy.typing import NDArray

from aiida_autopipe.core.distances import closest_pair
from aiida_autopipe.core.embed import Embedding, embed
from aiida_autopipe.core.embed_sanity import make_sane
from aiida_autopipe.core.errors import DataError, InputError

A = 3.6
COPPER = bulk("Cu", a=A)


def crystal(repeats: int = 6, rattle: float = 0.0, seed: int = 1) -> Atoms:
    atoms = bulk("Cu", cubic=True, a=A).repeat(repeats)
    atoms.rattle(rattle, rng=np.random.default_rng(seed))
    return atoms


def shortest(frame: Atoms) -> float:
    pair = closest_pair(frame)
    assert pair is not None
    return pair.distance


def offsets(embedding: Embedding) -> NDArray[np.float64]:
    atoms = embedding.atoms
    return np.asarray(atoms.get_distances(0, range(len(atoms)), mic=True, vector=True))


@pytest.mark.parametrize("rattle", [0.0, 0.05, 0.12])
@pytest.mark.parametrize("index", [0, 17, 400])
def test_cube_that_fits_the_crystal_has_the_atoms_of_the_crystal(index: int, rattle: float) -> None:
    """Faces, edges and corners pass through atoms: each site counts once, rattled or not."""
    frame = crystal(rattle=rattle)
    for repeats in (3, 4):
        found = embed(frame, index, 2.8, repeats * A / 2 - 2.8)
        assert (found.shape, len(found.atoms)) == ("cube", 4 * repeats**3)
        np.testing.assert_allclose(found.atoms.cell.array, repeats * A * np.eye(3))
        assert found.density_ratio == pytest.approx(1)
        assert found.closest > shortest(frame) - 2.5 * rattle - 1e-9
        assert len(set(found.atoms.arrays["source_index"])) == len(found.atoms)


def test_mask_and_core_are_those_of_the_frame() -> None:
    frame = crystal(5, rattle=0.1)
    found = embed(frame, 123, 4.0, 3.0)
    distances = frame.get_distances(123, range(len(frame)), mic=True)
    inside = np.flatnonzero(distances <= 4.0)
    masked = found.atoms.arrays["force_mask"] > 0
    assert sorted(found.atoms.arrays["source_index"][masked]) == sorted(inside)
    assert found.n_core == len(inside)
    assert found.atoms.arrays["source_index"][0] == 123
    moved = offsets(found)[masked]
    original = frame.get_distances(
        123, found.atoms.arrays["source_index"][masked], mic=True, vector=True
    )
    np.testing.assert_allclose(moved, original, atol=1e-9)
    # The atom is in the middle of its cell.
    np.testing.assert_allclose(found.atoms.get_scaled_positions()[0], 0.5)
    record = json.loads(found.atoms.info["parameters"])
    assert record == {"atom": 123, "radius_A": 4.0, "buffer_A": 3.0, "cell": "cube"}
    assert found.atoms.info["origin"] == "embed"


def test_all_atoms_within_core_and_buffer_are_there() -> None:
    frame = crystal(6, rattle=0.1)
    found = embed(frame, 7, 3.0, 3.5)
    near = np.flatnonzero(frame.get_distances(7, range(len(frame)), mic=True) < 6.5 - 1.3)
    assert set(near) <= set(found.atoms.arrays["source_index"])


@pytest.mark.parametrize("strain", [np.zeros(6), [0.06, -0.02, 0.03, 0.02, 0.0, -0.03]])
def test_a_recognised_lattice_gives_a_commensurate_cell(strain: list[float]) -> None:
    xx, yy, zz, yz, xz, xy = strain
    tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    frame = COPPER.repeat((9, 9, 9))
    frame.set_cell(frame.cell.array @ (np.eye(3) + tensor), scale_atoms=True)
    frame.rattle(0.06, seed=3)
    found = embed(frame, 50, 3.0, 3.3, COPPER)
    assert found.shape == "lattice" and found.density_ratio == pytest.approx(1)
    heights = found.atoms.get_volume() / np.linalg.norm(
        np.cross(found.atoms.cell[[1, 2, 0]], found.atoms.cell[[2, 0, 1]]), axis=1
    )
    assert heights.min() > 2 * 6.3 - 1e-6
    assert found.closest > shortest(frame) - 0.15


def test_what_is_no_crystal_gets_a_cube_of_the_same_density() -> None:
    rng = np.random.default_rng(0)
    liquid = crystal(6, rattle=0.6)
    liquid.positions += rng.normal(size=(len(liquid), 3)) * 0.1
    found = embed(liquid, 3, 3.5, 3.0, COPPER)
    assert found.shape == "cube"
    assert len(found.atoms) == pytest.approx(len(liquid) / liquid.get_volume() * 13.0**3, abs=1.5)


def test_a_small_frame_is_taken_whole() -> None:
    frame = crystal(2, rattle=0.05)
    found = embed(frame, 5, 3.0, 4.0)
    assert found.shape == "whole" and len(found.atoms) == len(frame)
    np.testing.assert_allclose(found.atoms.cell.array, frame.cell.array)
    np.testing.assert_allclose(found.atoms.get_scaled_positions()[0], 0.5)
    inside = frame.get_distances(5, range(len(frame)), mic=True) <= 3.0
    assert found.n_core == inside.sum()
    sane = make_sane(found, frame, EMT())
    np.testing.assert_array_equal(sane.embedding.atoms.positions, found.atoms.positions)


def test_a_long_frame_is_cut_along_its_length_only() -> None:
    frame = bulk("Cu", cubic=True, a=A).repeat((2, 2, 8))
    found = embed(frame, 3, 3.0, 4.0, COPPER)
    assert found.shape == "frame"
    np.testing.assert_allclose(found.atoms.cell.lengths(), [2 * A, 2 * A, 4 * A])
    assert len(found.atoms) == 64 and found.density_ratio == pytest.approx(1)


def test_slabs_and_molecules_keep_what_is_not_periodic() -> None:
    slab = bulk("Cu", cubic=True, a=A).repeat((6, 6, 3))
    slab.pbc = [True, True, False]
    slab.cell[2] = 0
    found = embed(slab, 40, 3.0, 4.2)
    assert found.atoms.pbc.tolist() == [True, True, False]
    assert len(found.atoms) == 4 * 4 * 4 * 3
    water = molecule("H2O")
    whole = embed(water, 0, 1.0, 1.0)
    assert whole.shape == "whole" and whole.n_core == 3 and np.isnan(whole.density_ratio)


def test_stoichiometry_and_electrons_are_noted() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(4)
    found = embed(salt, 0, 3.0, 2.64)
    assert found.excess == {"Na": 0.0, "Cl": 0.0} and not found.odd_electrons
    odd = embed(salt, 0, 3.0, 3.5)
    counts = odd.atoms.symbols.formula.count()
    assert odd.excess["Na"] == pytest.approx(counts["Na"] - len(odd.atoms) / 2)
    assert odd.odd_electrons == bool((11 * counts["Na"] + 17 * counts["Cl"]) % 2)


@pytest.mark.parametrize("calculator", [None, EMT()])
def test_no_two_atoms_stay_too_close_and_the_core_stays(calculator: EMT | None) -> None:
    frame = crystal(6, rattle=0.08)
    found = embed(frame, 17, 3.5, 3.2)
    nearest = shortest(frame)
    assert found.shape == "cube" and found.closest < 0.8 * nearest
    sane = make_sane(found, frame, calculator)
    assert sane.embedding.closest > 0.95 * nearest and sane.still_close == 0
    assert sane.pushed > 0 and (sane.relaxed > 0) == (calculator is not None)
    core = found.atoms.arrays["force_mask"] > 0
    np.testing.assert_array_equal(sane.embedding.atoms.positions[core], found.atoms.positions[core])
    again = make_sane(found, frame, calculator)
    np.testing.assert_array_equal(again.embedding.atoms.positions, sane.embedding.atoms.positions)


def test_force_on_the_atom_is_that_of_the_frame() -> None:
    frame = crystal(6, rattle=0.1)
    frame.calc = EMT()
    expected = frame.get_forces()[17]
    for cell in (None, COPPER):
        sane = make_sane(embed(frame, 17, 3.0, 4.0, cell), frame, EMT())
        atoms = sane.embedding.atoms
        atoms.calc = EMT()
        np.testing.assert_allclose(atoms.get_forces()[0], expected, atol=5e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": 32}, "There is no atom 32 in a frame of 32 atoms"),
        ({"index": -33}, "There is no atom -33"),
        ({"radius": 0.0}, "The radius is 0.0 Å"),
        ({"buffer": np.nan}, "The buffer is nan Å"),
    ],
)
def test_wrong_requests(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        embed(crystal(2), **{"index": 0, "radius": 2.0, "buffer": 2.0, **change})


def test_unusable_frames() -> None:
    frame = crystal(2)
    frame.positions[3, 1] = np.nan
    with pytest.raises(DataError, match="position of atom 3"):
        embed(frame, 0, 2.0, 2.0)
    flat = Atoms("Cu", cell=[3.0, 3.0, 0.0], pbc=True)
    with pytest.raises(DataError, match="no volume"):
        embed(flat, 0, 2.0, 2.0)
    with pytest.raises(InputError, match="no atoms"):
        embed(Atoms(), 0, 2.0, 2.0)
    found = embed(crystal(6), 0, 2.0, 3.0)
    with pytest.raises(InputError, match="fmax is -1"):
        make_sane(found, crystal(6), None, fmax=-1)
