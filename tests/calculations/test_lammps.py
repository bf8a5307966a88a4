"""`autopipe.lammps` run for real through AiiDA."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import ArrayData, Dict, Int
from ase import Atoms, units
from ase.build import bulk

from aiida_autopipe.calculations.lammps import LammpsCalculation, potential_files
from aiida_autopipe.core.ace.fit import FitResult
from aiida_autopipe.core.ace.posterior import posterior_path
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.zbl import ZBL
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.engines.lammps import deck
from tests.reference.copper import copper, copper_fit, copper_potential

SETTINGS: dict[str, Any] = {
    "segments": [
        {"ensemble": "nvt", "temperature_K": [300, 600], "steps": 40},
        {"ensemble": "npt", "temperature_K": [600, 600], "steps": 40},
    ],
    "gamma_select": 1.2,
    "gamma_halt": 50.0,
    "gamma_every": 5,
    "thermo_every": 5,
}


@pytest.fixture(scope="module")
def fitted() -> FitResult:
    return copper_fit()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, fitted: FitResult) -> list[Path]:
    return fitted.potential.save(tmp_path_factory.mktemp("potential") / "copper")


@pytest.fixture
def potential(aiida_profile: Any, saved: list[Path]) -> PotentialData:
    files = {path.name: path for path in saved}
    return PotentialData.from_files(files, "ace", ["Cu"], 4.0, {"Cu": 0.0})


@pytest.fixture
def builder(lammps_code: Any, potential: PotentialData) -> Any:
    builder = LammpsCalculation.get_builder()
    builder.code = lammps_code
    atoms = copper(0.05, np.random.default_rng(2))
    atoms.rotate(20, (1, 1, 3), rotate_cell=True)
    builder.structure = DatasetData(Dataset.from_atoms([atoms]))
    builder.potential = potential
    builder.settings = Dict(SETTINGS)
    builder.seed = Int(7)
    return builder


def test_md_gives_frames_trace_and_results(builder: Any, saved: list[Path]) -> None:
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, (node.exit_message, node.get_scheduler_stderr())
    results = outputs["results"].get_dict()
    assert (results["outcome"], results["steps_done"], results["survival"]) == ("finished", 80, 1.0)

    frames = outputs["frames"].get_dataset()
    potential = ACEPotential.load(saved[1])
    for atoms, gamma_max in zip(frames.iter_atoms(), frames.columns["gamma_max"], strict=True):
        grades = potential.evaluate(atoms, gamma=True).gamma
        assert grades is not None
        assert grades.max() == pytest.approx(gamma_max, rel=1e-6)
    trace = outputs["trace"]
    np.testing.assert_array_equal(trace.get_array("step"), np.arange(0, 81, 5))
    start = builder.structure.get_dataset().atoms(0)
    energy = potential.evaluate(start).energy
    assert trace.get_array("potential_energy")[0] == pytest.approx(energy, abs=1e-8)

    structure = outputs["structure"]
    assert structure.get_array("segment").tolist() == [1, 2]
    assert structure.get_array("coordination_number")[:, 0] == pytest.approx(12, abs=1)
    assert structure.get_array("step").tolist() == [*range(0, 41, 5), *range(40, 81, 5)]
    volume = start.cell.volume * units.m**-3 * 1e6
    density = start.get_masses().sum() / units.kg * 1e3 / volume
    assert structure.get_array("density")[0] == pytest.approx(density, rel=1e-6)
    assert structure.get_array("msd")[9:][0] == pytest.approx(0, abs=1e-12)

    names = node.outputs.retrieved.base.repository.list_object_names()
    recorded = (".dump", ".asi", ".yaml", ".1.dat")
    assert not [name for name in names if name.endswith(recorded)]
    script = node.base.repository.get_object_content("_aiidasubmit.sh")
    assert "set -e" in script and "OMP_NUM_THREADS=1" in script


def test_same_seed_gives_the_same_trace(builder: Any) -> None:
    builder.settings = Dict(
        {
            **SETTINGS,
            "segments": SETTINGS["segments"][:1],
            "keep_every": 2 * SETTINGS["gamma_every"],
        }
    )
    energies = []
    for seed in (7, 7, 8):
        builder.seed = Int(seed)
        outputs, node = run_get_node(builder)
        energies.append(outputs["trace"].get_array("potential_energy"))
    np.testing.assert_array_equal(energies[0], energies[1])
    assert not np.allclose(energies[0], energies[2])
    dump = node.outputs.retrieved.base.repository.get_object_content("trajectory.dump")
    assert dump.count("ITEM: TIMESTEP") == 40 // (2 * SETTINGS["gamma_every"]) + 1


def test_halt_by_gamma_is_success(builder: Any) -> None:
    hot = {"ensemble": "nvt", "temperature_K": [4000, 4000], "steps": 2000}
    builder.settings = Dict({**SETTINGS, "segments": [hot, hot], "gamma_halt": 3.0})
    outputs, node = run_get_node(builder)
    results = outputs["results"].get_dict()
    assert node.is_finished_ok and results["halted"]
    assert 0 < results["halt_step"] == results["steps_done"] < 2000
    assert results["gamma_max"] > 3.0
    assert "above gamma_halt 3" in results["halt_reason"]
    assert outputs["frames"].get_dataset().columns["step"][-1] == results["halt_step"]


def test_a_halted_run_goes_on_with_another_potential(builder: Any, saved: list[Path]) -> None:
    """The clock goes on, and the schedule where it was."""
    ramp = {"ensemble": "nvt", "temperature_K": [50, 4000], "steps": 1000}
    builder.settings = Dict({**SETTINGS, "segments": [ramp], "gamma_halt": 2.0})
    outputs, first = run_get_node(builder)
    halted, restart = outputs["results"], outputs["restart"]
    step = int(restart.get_array("step"))
    assert halted["halted"] and 0 < step <= halted["halt_step"]
    assert restart.get_array("gamma").max() <= SETTINGS["gamma_select"]

    builder.restart = restart
    builder.settings = Dict({**SETTINGS, "segments": [ramp], "gamma_halt": 1e9})
    outputs, second = run_get_node(builder)
    assert second.is_finished_ok, second.exit_message
    results, trace = outputs["results"], outputs["trace"]
    assert (results["first_step"], results["steps_done"]) == (step, 1000)
    assert results["survival"] == 1.0
    assert trace.get_array("step")[0] == step
    assert trace.get_array("time_ps")[0] == pytest.approx(step * 0.002)
    before = first.outputs.trace
    joint = np.flatnonzero(before.get_array("step") == step)[0]
    for name in ("temperature_K", "potential_energy", "volume"):
        joined = trace.get_array(name)[0], before.get_array(name)[joint]
        assert joined[0] == pytest.approx(joined[1], rel=1e-4), name


def test_a_molecule_goes_on_in_its_box(builder: Any) -> None:
    """The box is the program's: the frames have none, the restart keeps it."""
    trimer = Atoms("Cu3", [[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0]])
    builder.structure = DatasetData(Dataset.from_atoms([trimer]))
    steady = {"ensemble": "nvt", "temperature_K": [50, 50], "steps": 20}
    limits = {"gamma_select": 1e8, "gamma_halt": 1e9}
    builder.settings = Dict({**SETTINGS, **limits, "segments": [steady]})
    outputs, _ = run_get_node(builder)
    assert not outputs["frames"].get_dataset().pbc.any()
    builder.restart = outputs["restart"]
    builder.settings = Dict({**SETTINGS, **limits, "segments": [steady, steady]})
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert (outputs["results"]["first_step"], outputs["results"]["steps_done"]) == (20, 40)
    volume = outputs["trace"].get_array("volume")
    assert volume[0] == pytest.approx(deck.in_vacuum(trimer).get_volume())


def test_restarts_that_do_not_fit(builder: Any) -> None:
    arrays = {
        "step": np.array(80),
        "numbers": np.full(3, 29),
        "positions": np.zeros((3, 3)),
        "velocities": np.zeros((3, 3)),
        "cell": np.eye(3),
    }
    builder.restart = _restart(arrays)
    with pytest.raises(ValueError, match="has other atoms than the structure"):
        run_get_node(builder)
    size = builder.structure.get_dataset().n_atoms
    arrays |= {"numbers": np.full(size, 29), "positions": np.zeros((size, 3))}
    builder.restart = _restart(arrays)
    with pytest.raises(ValueError, match="of 80 steps cannot go on from step 80"):
        run_get_node(builder)
    del arrays["velocities"]
    builder.restart = _restart(arrays)
    with pytest.raises(ValueError, match="The restart has no array 'velocities'"):
        run_get_node(builder)


def _restart(arrays: dict[str, Any]) -> ArrayData:
    node = ArrayData()
    for name, array in arrays.items():
        node.set_array(name, array)
    return node


def test_lost_atoms_still_give_what_was_seen(builder: Any) -> None:
    builder.settings = Dict({**SETTINGS, "timestep_fs": 40.0, "gamma_halt": 1e9})
    outputs, node = run_get_node(builder)
    assert node.exit_status == LammpsCalculation.exit_codes.ERROR_LOST_ATOMS.status
    assert "flew apart after step" in node.exit_message
    assert {"frames", "trace", "results"} <= set(outputs)


def test_time_limit_of_the_job_is_given_to_lammps(builder: Any) -> None:
    forever = {"ensemble": "nvt", "temperature_K": [300, 300], "steps": 10**8}
    builder.settings = Dict({**SETTINGS, "segments": [forever], "gamma_halt": 1e9})
    builder.metadata.options.max_wallclock_seconds = 2
    outputs, node = run_get_node(builder)
    assert node.exit_status == LammpsCalculation.exit_codes.ERROR_OUT_OF_WALLTIME.status
    assert 0 < outputs["results"]["survival"] < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {**SETTINGS, "gama_halt": 1}}, "did you mean 'gamma_halt'"),
        (
            {"structure": [bulk("Si", cubic=True)]},
            "potential knows Cu but the structure contains Si",
        ),
        ({"structure": [copper(0.0, np.random.default_rng(1))] * 2}, "1 structure, not 2"),
        ({"files": (".yaml",)}, "needs a .asi file in the potential, which has copper.yaml"),
    ],
)
def test_inputs_that_are_refused(
    builder: Any, saved: list[Path], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        if "settings" in change:
            builder.settings = Dict(change["settings"])
        if "structure" in change:
            builder.structure = DatasetData(Dataset.from_atoms(change["structure"]))
        if "files" in change:
            files = {p.name: p for p in saved if p.suffix in change["files"]}
            builder.potential = PotentialData.from_files(files, "ace", ["Cu"], 4.0, {})
        run_get_node(builder)


def test_md_watched_by_a_committee(builder: Any, fitted: FitResult, tmp_path: Path) -> None:
    paths = fitted.potential.save(tmp_path / "copper")
    builder.settings = Dict(
        {**SETTINGS, "uncertainty": "committee", "gamma_select": 0.001, "gamma_halt": 0.002}
    )
    files = {path.name: path for path in paths}
    builder.potential = PotentialData.from_files(files, "ace", ["Cu"], 4.0, {"Cu": 0.0})
    with pytest.raises(ValueError, match="needs the posterior of the potential"):
        run_get_node(builder)
    paths.append(posterior_path(paths[0]))
    fitted.posterior.save(paths[-1])
    files = {path.name: path for path in paths}
    builder.potential = PotentialData.from_files(files, "ace", ["Cu"], 4.0, {"Cu": 0.0})
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, (node.exit_message, node.get_scheduler_stderr())
    results = outputs["results"].get_dict()
    assert (results["outcome"], results["uncertainty_unit"]) == ("halted", "eV/Å")
    frames = outputs["frames"].get_dataset()
    rows = fitted.potential.basis.design_block(frames.atoms(0)).force_rows
    spread = fitted.posterior.force_std(rows)
    assert spread.max() == pytest.approx(frames.columns["gamma_max"][0], rel=1e-6)
    assert spread.max() > 0.001


def test_deck_for_ml_pace_adds_the_repulsion(
    builder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    potential = replace(copper_potential(), zbl=ZBL(0.9, 1.8))
    files = {path.name: path for path in potential.save(tmp_path / "copper")}
    builder.potential = PotentialData.from_files(files, "ace", ["Cu"], 4.0, {"Cu": 0.0})
    builder.settings = Dict({**SETTINGS, "interface": "ml-pace"})
    builder.metadata.dry_run = True
    builder.metadata.store_provenance = False
    _, node = run_get_node(builder)
    text = (Path(node.dry_run_info["folder"]) / deck.POTENTIAL_FILE).read_text()
    assert text.splitlines()[:3] == [
        "pair_style hybrid/overlay pace/extrapolation zbl 0.9 1.8",
        "pair_coeff * * pace/extrapolation potential.yaml potential.asi Cu",
        "pair_coeff 1 1 zbl 29 29",
    ]


def test_built_in_evaluator_finds_the_repulsion_in_the_file(builder: Any, tmp_path: Path) -> None:
    potential = replace(copper_potential(), zbl=ZBL(0.9, 2.4))
    files = {path.name: path for path in potential.save(tmp_path / "copper")}
    builder.potential = PotentialData.from_files(files, "ace", ["Cu"], 4.0, {"Cu": 0.0})
    builder.settings = Dict({**SETTINGS, "gamma_halt": 1e9, "segments": SETTINGS["segments"][:1]})
    atoms = copper(0.2, np.random.default_rng(2))
    builder.structure = DatasetData(Dataset.from_atoms([atoms]))
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert potential.zbl is not None and potential.zbl.evaluate(atoms).energies.sum() > 0.01
    energy = potential.evaluate(atoms).energy
    assert outputs["trace"].get_array("potential_energy")[0] == pytest.approx(energy, abs=1e-8)


def test_files_of_the_potential_get_the_names_the_deck_uses(potential: PotentialData) -> None:
    assert potential_files(potential) == dict(
        zip(deck.POTENTIAL_FILES, ("copper.yaml", "copper.asi"), strict=True)
    )
