"""An ACE with the ZBL repulsion: the sum of both everywhere, in files and in what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.optimize import FIRE

from aiida_autopipe.core.ace.basis import build_basis
from aiida_autopipe.core.ace.calculator import ACECalculator
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.zbl import ZBL, default_zbl
from aiida_autopipe.core.errors import PotentialFileError

REPULSION = ZBL(0.9, 2.2)


@pytest.fixture
def both(ternary: ACEPotential, rng: np.random.Generator) -> ACEPotential:
    """With an (arbitrary) active set, scaled down so that its grades are near 1."""
    inverse = {element: rng.normal(size=(400, 400)) for element in ternary.elements}
    return replace(ternary, inverse_active_set=inverse, zbl=REPULSION)


def test_evaluate_adds_the_repulsion(both: ACEPotential, alloy: Atoms, cluster: Atoms) -> None:
    cluster.positions[1] = [0.7, 0.1, 0.0]
    alloy.positions[2] = alloy.positions[1] + [0.5, 0.2, -0.1]
    for atoms in (alloy, cluster):
        found = both.evaluate(atoms, gamma=True)
        ace, core = replace(both, zbl=None).evaluate(atoms, gamma=True), REPULSION.evaluate(atoms)
        assert core.energies.max() > 10
        np.testing.assert_allclose(found.energies, ace.energies + core.energies, rtol=1e-12)
        assert found.energy == pytest.approx(found.energies.sum(), rel=1e-14)
        scale = np.abs(found.forces).max()
        np.testing.assert_allclose(found.forces, ace.forces + core.forces, atol=1e-13 * scale)
        np.testing.assert_array_equal(found.gamma, ace.gamma)
        if atoms is cluster:
            assert found.stress is None
        else:
            stress = ace.stress + core.virial / atoms.cell.volume
            np.testing.assert_allclose(found.stress, stress, rtol=1e-11)


def test_evaluate_pairs_adds_the_repulsion(both: ACEPotential, alloy: Atoms) -> None:
    centre, neighbour, vectors = full_neighbour_list(alloy, both.cutoff)
    types = both.basis.types(alloy)
    found = both.evaluate_pairs(types, centre, neighbour, vectors, len(alloy), gamma=True)
    expected = both.evaluate(alloy, gamma=True)
    references = np.array([both.reference_energies[s] for s in alloy.symbols])
    np.testing.assert_allclose(found.energies, expected.energies - references, rtol=1e-10)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-10)
    np.testing.assert_allclose(found.virial / alloy.cell.volume, expected.stress, rtol=1e-10)
    np.testing.assert_array_equal(found.gamma, expected.gamma)


def test_forces_are_derivatives_of_the_energy(both: ACEPotential, alloy: Atoms) -> None:
    alloy.positions[2] = alloy.positions[1] + [0.9, 0.2, -0.1]
    forces = both.evaluate(alloy).forces
    for axis in range(3):
        energies = []
        for sign in (-1, 1):
            moved = alloy.copy()
            moved.positions[2, axis] += sign * 1e-5
            energies.append(both.evaluate(moved).energy)
        numerical = -(energies[1] - energies[0]) / 2e-5
        assert forces[2, axis] == pytest.approx(numerical, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("suffix", [".yace", ".yaml"])
def test_files_keep_the_repulsion(both: ACEPotential, tmp_path: Path, suffix: str) -> None:
    both.save(tmp_path / "p")
    again = ACEPotential.load(tmp_path / f"p{suffix}")
    assert again.zbl == both.zbl
    assert again.has_active_set
    # A .yace without the files beside it holds it as well.
    alone = tmp_path / f"alone{suffix}"
    alone.write_bytes((tmp_path / f"p{suffix}").read_bytes())
    assert ACEPotential.load(alone).zbl == both.zbl
    assert "zbl 0.9 2.2" in (tmp_path / "p.in").read_text()


def test_files_without_it_have_none(ternary: ACEPotential, tmp_path: Path) -> None:
    for path in ternary.save(tmp_path / "p"):
        assert "metadata" not in path.read_text() and "zbl " not in path.read_text()
    assert ACEPotential.load(tmp_path / "p.yace").zbl is None
    notes = "metadata:\n  _loss: 3.2e-05\n  starttime: 2026-11-22 02:38:54.072385\n  user: root\n"
    for suffix in (".yace", ".yaml"):
        path = tmp_path / f"noted{suffix}"
        path.write_text(notes + (tmp_path / f"p{suffix}").read_text())
        assert ACEPotential.load(path).zbl is None


def test_metadata_copied_as_text_still_count(ternary: ACEPotential, tmp_path: Path) -> None:
    ternary.save(tmp_path / "p")
    text = (tmp_path / "p.yaml").read_text()
    path = tmp_path / "copied.yaml"
    path.write_text(f'metadata:\n  zbl_inner: "0.5"\n  zbl_outer: "1.25"\n  user: root\n{text}')
    assert ACEPotential.load(path).zbl == ZBL(0.5, 1.25)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{zbl_inner: 0.5}", r"bad\.yace, metadata: key 'zbl_outer' is missing"),
        ("{zbl_outer: 0.5}", r"bad\.yace, metadata: key 'zbl_inner' is missing"),
        ("{zbl_inner: 0.5, zbl_outer: far}", r"bad\.yace, metadata: could not convert"),
        ("{zbl_inner: 0.5, zbl_outer: 0.4}", r"bad\.yace, metadata: .* must be 0 < inner < outer"),
        ("{zbl_inner: 0.5, zbl_outer: 9.0}", "ZBL repulsion reaches 9.0 Å, but a pair of elements"),
    ],
)
def test_broken_metadata(
    ternary: ACEPotential, tmp_path: Path, metadata: str, message: str
) -> None:
    ternary.save(tmp_path / "p")
    path = tmp_path / "bad.yace"
    path.write_text(f"metadata: {metadata}\n" + (tmp_path / "p.yace").read_text())
    with pytest.raises(PotentialFileError, match=message):
        ACEPotential.load(path)


def test_files_of_which_one_has_no_repulsion(both: ACEPotential, tmp_path: Path) -> None:
    both.save(tmp_path / "p")
    replace(both, zbl=None).save(tmp_path / "other")
    (tmp_path / "other.yace").replace(tmp_path / "p.yace")
    with pytest.raises(PotentialFileError, match="different potentials"):
        ACEPotential.load(tmp_path / "p.yace")


def test_atoms_that_the_ace_pulls_together_stay_apart() -> None:
    """Relaxation of atoms that attract each other the more the closer they are."""
    basis = build_basis(BasisSettings(("Cu",), cutoff=4.0, max_rank=1, max_functions=1))
    attractive = ACEPotential(basis, np.array([-5.0]))
    closest = []
    for zbl in (None, default_zbl(["Cu"])):
        atoms = Atoms("Cu4", [[0, 0, 0], [2.1, 0, 0], [0.4, 2.3, 0], [1.0, 0.9, 1.9]])
        atoms.calc = ACECalculator(replace(attractive, zbl=zbl))
        with FIRE(atoms, logfile=None) as optimiser:
            optimiser.run(fmax=0.01, steps=300)
        closest.append(np.linalg.norm(full_neighbour_list(atoms, 4.0).vectors, axis=1).min())
    assert closest[0] < 0.2
    assert closest[1] > 1.5
