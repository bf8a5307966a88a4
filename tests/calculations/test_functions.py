"""The calculation functions with real nodes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.orm import ArrayData, Dict, Int, List, StructureData
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.calculations.functions import (
    ERROR_STATUS,
    collect_candidates,
    extract_structure,
    generate,
    md_starts,
    merge,
    plan_eos,
    select,
    split,
    take,
)
from aiida_autopipe.calculations.labels import collect_labels, set_kpoints_meshes
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.engines.espresso.pw import is_isolated_atom
from tests.reference.copper import copper, copper_potential

pytestmark = pytest.mark.usefixtures("aiida_profile")

RECORD = Path(__file__).parents[1] / "engines" / "espresso" / "data" / "si2_pw.json"


def node(structures: list[Atoms], attributes: Any = None, **columns: Any) -> DatasetData:
    return DatasetData(
        Dataset.from_atoms(structures, columns=columns or None, attributes=attributes)
    )


def with_energy(atoms: Atoms, energy: float) -> Atoms:
    atoms.info["energy"] = energy
    atoms.arrays["forces"] = np.zeros((len(atoms), 3))
    return atoms


def copies(n: int) -> list[Atoms]:
    """Silicon cells that differ, so that each can be recognised by its energy."""
    return [with_energy(bulk("Si", a=5.4 + 0.01 * k), float(-k)) for k in range(n)]


def failure(function: Any, *args: Any, **kwargs: Any) -> str:
    """The sentence of a calculation function that must end with status 310."""
    outputs, process = function.run_get_node(*args, **kwargs)
    assert not outputs
    assert (process.exit_status, process.is_excepted) == (ERROR_STATUS, False)
    return str(process.exit_message)


# ------------------------------------------------------------------ structures


def test_generate() -> None:
    crystal = node([bulk("SiC", "zincblende", a=4.36)])
    recipe = {
        "strain": {"volumetric": [0.0], "elastic": [0.04]},
        "vacancies": {"repeat": [2, 1, 1], "copies": 1, "amplitudes": [0.05]},
    }
    settings = Dict({"max_atoms": 16, "recipe": recipe})
    pool = generate(crystal, settings, Int(3)).get_dataset()
    assert [str(a.symbols) for a in pool[:2].iter_atoms()] == ["C", "Si"]
    isolated = [is_isolated_atom(a) for a in pool.iter_atoms()]
    assert isolated == [True, True] + [False] * (len(pool) - 2)
    assert set(pool.columns["origin"].tolist()) >= {"isolated_atom", "vacancy", "strain:shear"}
    assert set(pool.columns["generation"].tolist()) == {0}
    assert not pool.labelled
    again = generate(crystal, settings, Int(3)).get_dataset()
    assert again.content_hash() == pool.content_hash()
    assert generate(crystal, settings, Int(4)).get_dataset().content_hash() != pool.content_hash()


def test_strained_cells_of_a_pool_share_the_mesh_of_their_supercell() -> None:
    crystal = node([bulk("Si")])
    recipe = {
        "strain": {"volumetric": [-0.2, 0, 0.2]},
        "rattle": {"repeat": [2, 2, 1]},
        "small": {"generator": "rattle", "repeat": [1, 1, 1]},
    }
    settings = Dict({"max_atoms": 64, "recipe": recipe})
    pool = generate(crystal, settings, Int(3))
    meshed = set_kpoints_meshes(pool, crystal, Dict({"kspacing_per_A": 0.35})).get_dataset()
    assert meshed.columns["kpoints_mesh"][0] == ""  # the isolated atom
    by_size: dict[int, set[str]] = {}
    for atoms, mesh in zip(meshed.iter_atoms(), meshed.columns["kpoints_mesh"], strict=True):
        if atoms.pbc.all() and atoms.info["origin"] != "vacancy":
            by_size.setdefault(len(atoms), set()).add(str(mesh))
    assert by_size == {2: {"6 6 6"}, 8: {"3 3 6"}}


def test_generate_says_what_is_wrong() -> None:
    message = failure(generate, node([bulk("Si")]), Dict({"rattles": 3}), Int(0))
    assert message.startswith("'rattles' is no key of generate")


def test_take_and_extract() -> None:
    data = node([*copies(3), Atoms("Si", positions=[[6, 6, 6]], cell=[12] * 3)])
    assert take(data, List([2, 0])).get_dataset().energy.tolist() == [-2.0, 0.0]
    crystal = extract_structure(data, Int(1))
    np.testing.assert_allclose(crystal.get_ase().cell, data.get_dataset().cell[1])
    isolated = extract_structure(data, Int(3))
    assert isinstance(isolated, StructureData)
    assert isolated.pbc == (True, True, True)
    np.testing.assert_allclose(isolated.get_ase().cell, np.eye(3) * 10.0)


def test_md_starts() -> None:
    crystal = node([bulk("Si"), bulk("Si", cubic=True)])
    settings = {"supercell": [2, 2, 1], "include_vacancy": True}
    starts = md_starts(crystal, Dict(settings)).get_dataset()
    assert starts.sizes.tolist() == [8, 7]
    assert starts.columns["start"].tolist() == ["supercell", "vacancy"]
    larger = md_starts(crystal, Dict({**settings, "schedule_supercell": [3, 3, 3]})).get_dataset()
    assert larger.sizes.tolist() == [8, 7, 54]
    assert larger.columns["start"].tolist() == ["supercell", "vacancy", "schedule"]
    settings["include_vacancy"] = False
    assert md_starts(crystal, Dict(settings)).n_structures == 1


def test_molecules_start_from_their_ends_without_a_cell() -> None:
    path = [Atoms("HCN", [[0, 0, -1.1 - 0.1 * i], [0, 0, 0], [0, 0, 1.15]]) for i in range(3)]
    settings = Dict({"supercell": [1, 1, 1], "include_vacancy": False})
    starts = md_starts(node(path), settings).get_dataset()
    assert starts.columns["start"].tolist() == ["reactants", "products"]
    assert not starts.pbc.any()
    assert md_starts(node(path[:1]), settings).get_dataset().columns["start"].tolist() == [
        "molecule"
    ]


def test_equation_of_state_shares_one_mesh() -> None:
    planned = plan_eos(node([bulk("Si")]), Dict({"eos_points": 5, "kspacing_per_A": 0.5}))
    data = planned.get_dataset()
    assert set(data.columns["kpoints_mesh"].tolist()) == {"5 5 5"}
    volumes = [a.get_volume() for a in data.iter_atoms()]
    assert len(set(np.round(volumes, 6))) == 5


# ------------------------------------------------------------------ labels


def recorded(name: str) -> tuple[dict[str, Any], Dict, ArrayData]:
    """A run of the real pw.x as the nodes that aiida-quantumespresso makes of it."""
    record = json.loads(RECORD.read_text())
    run = next(r for r in record["runs"] if r["name"] == name)
    trajectory = ArrayData()
    trajectory.set_array("forces", np.array([run["forces"]]))
    trajectory.set_array("stress", np.array([run["stress"]]))
    return run, Dict(run["output"]), trajectory


def settings_of_the_record() -> Dict:
    return Dict(json.loads(RECORD.read_text())["settings"])


def alone(*indices: int) -> dict[str, Any]:
    """Structures that were labelled each by itself."""
    return {str(i): {"from": f"structure_{i}", "position": 0, "rescue": ""} for i in indices}


OUTCOME = {
    "oracle": "autopipe.pw",
    "ok": alone(0),
    "rejected": {},
    "pseudos": {"Si": "md5"},
    "calculations": 1,
    "stopped": None,
}


def test_labels_and_rejects() -> None:
    run, parameters, trajectory = recorded("base")
    crystal = Atoms("Si2", run["positions"], cell=run["cell"], pbc=True)
    atom = Atoms("Si", positions=[[6, 6, 6]], cell=[12] * 3)
    source = node([bulk("Si"), crystal, atom], origin=["bad", "good", "isolated_atom"])
    lonely = ArrayData()
    lonely.set_array("forces", np.zeros((1, 1, 3)))
    lonely.set_array("stress", np.ones((1, 3, 3)))
    energies = Dict({"energy": -103.0, "energy_smearing": -0.5})
    outcome = {**OUTCOME, "ok": alone(1, 2), "rejected": {"0": "no convergence"}, "calculations": 5}
    outputs = collect_labels(
        source,
        settings_of_the_record(),
        Dict(outcome),
        parameters_1=parameters,
        trajectory_1=trajectory,
        parameters_2=energies,
        trajectory_2=lonely,
    )
    data = outputs["labelled"].get_dataset()
    assert data.labelled
    assert data.columns["source_index"].tolist() == [1, 2]
    assert data.columns["origin"].tolist() == ["good", "isolated_atom"]
    assert data.energy.tolist() == [run["output"]["energy"], -102.5]
    np.testing.assert_allclose(data.labels(0).forces, run["forces"])
    assert np.all(data.labels(0).stress[:3] < 0)
    assert data.labels(1).stress is None
    assert outputs["labelled"].method_fingerprint == data.method_fingerprint is not None
    rejected = outputs["rejected"].get_dataset()
    assert rejected.columns["reason"].tolist() == ["no convergence"]
    assert outputs["summary"].get_dict() == {
        "requested": 3,
        "ok": 2,
        "rescued": 0,
        "rejected": 1,
        "not_run": 0,
        "calculations": 5,
        "stopped": None,
    }


def test_relaxed_positions_are_labelled() -> None:
    run, parameters, trajectory = recorded("base")
    start = Atoms("Si2", np.array(run["positions"]) + 0.1, cell=run["cell"], pbc=True)
    relaxed = Atoms("Si2", run["positions"], cell=run["cell"], pbc=True)
    data = collect_labels(
        node([start], relax=[True]),
        settings_of_the_record(),
        Dict(OUTCOME),
        parameters_0=parameters,
        trajectory_0=trajectory,
        structure_0=StructureData(ase=relaxed),
    )["labelled"].get_dataset()
    np.testing.assert_allclose(data.positions, run["positions"])
    assert data.columns["relax"].tolist() == [True]


def test_one_useless_output_does_not_spoil_the_others() -> None:
    run, parameters, trajectory = recorded("base")
    crystal = Atoms("Si2", run["positions"], cell=run["cell"], pbc=True)
    stressless = ArrayData()
    stressless.set_array("forces", np.zeros((1, 2, 3)))
    outputs = collect_labels(
        node([crystal] * 5, relax=[False, False, False, True, False]),
        settings_of_the_record(),
        Dict({**OUTCOME, "ok": alone(0, 1, 2, 3)}),
        parameters_0=Dict({}),
        trajectory_0=trajectory,
        parameters_1=parameters,
        trajectory_1=stressless,
        parameters_2=parameters,
        trajectory_2=trajectory,
        parameters_3=parameters,
        trajectory_3=trajectory,
    )
    assert outputs["labelled"].get_dataset().columns["source_index"].tolist() == [2]
    rejected = outputs["rejected"].get_dataset()
    assert rejected.columns["source_index"].tolist() == [0, 1, 3]
    assert rejected.columns["reason"].tolist() == [
        "pw.x printed no total energy.",
        "pw.x ended well but printed no stress.",
        "pw.x ended well but gave no output structure.",
    ]
    assert outputs["summary"]["not_run"] == 1


# ------------------------------------------------------------------ merge and split


def test_isolated_atoms_become_reference_energies() -> None:
    how = {"method": {"fingerprint": "a"}}
    first = node([with_energy(Atoms("Si"), -100.0), *copies(2)], how)
    second = node([*copies(1), with_energy(Atoms("C"), -150.0)], how)
    merged = merge(part_000=first, part_001=second)
    data = merged.get_dataset()
    assert data.reference_energies == {"C": -150.0, "Si": -100.0}
    assert data.energy.tolist() == [0.0, -1.0, 0.0]
    assert merged.method_fingerprint == "a"
    # Later parts keep what is known, and may repeat it.
    more = merge(part_000=merged, part_001=node([with_energy(Atoms("Si"), -100.0)], how))
    assert more.get_dataset().reference_energies == data.reference_energies
    assert more.n_structures == 3


def test_merging_what_has_no_labels_keeps_all_structures() -> None:
    merged = merge(part_000=node([Atoms("Si")]), part_001=node([bulk("Si")]))
    assert merged.n_structures == 2
    assert merged.get_dataset().reference_energies == {}


def test_contradictions_are_not_merged() -> None:
    parts = [node([with_energy(Atoms("Si"), energy)]) for energy in (-100.0, -101.0)]
    message = failure(merge, part_000=parts[0], part_001=parts[1])
    assert "reference energy of Si is -100.000000 eV" in message
    parts = [node(copies(1), {"method": {"fingerprint": name}}) for name in "ab"]
    message = failure(merge, part_000=parts[0], part_001=parts[1])
    assert "different methods (a, b)" in message


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_a_structure_keeps_its_part(seed: int, fraction: float) -> None:
    everything = copies(40)
    parts: dict[float, str] = {}
    for n in (2, 3, 5, 11, 12, 40):
        found = split(node(everything[:n]), Dict({"test_fraction": fraction}), Int(seed))
        seen = 0
        for part in ("train", "test"):
            energies = found[part].get_dataset().energy.tolist()
            assert energies
            seen += len(energies)
            assert all(parts.setdefault(energy, part) == part for energy in energies)
        assert seen == n


def test_size_of_the_test_part() -> None:
    found = split(node(copies(300)), Dict({"test_fraction": 0.2}), Int(0))
    assert 40 <= found["test"].n_structures <= 80


def test_one_structure_cannot_be_split() -> None:
    message = failure(split, node(copies(1)), Dict({"test_fraction": 0.1}), Int(0))
    assert message == "1 structures cannot be split into training and test set."


# ------------------------------------------------------------------ selection


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = copper_potential().save(tmp_path_factory.mktemp("potential") / "copper")
    return {path.name: path for path in paths}


@pytest.fixture
def potential(saved: dict[str, Path]) -> PotentialData:
    return PotentialData.from_files(saved, "ace", ["Cu"], 4.0, {"Cu": 0.0}).store()


def test_select_takes_what_is_new(potential: PotentialData) -> None:
    rng = np.random.default_rng(0)
    known = [copper(0.05, rng) for _ in range(4)]
    overlapping = copper(0.05, rng)
    overlapping.positions[1] = overlapping.positions[0] + 0.2
    new = [copper(0.05, rng, strain=0.15), copper(0.05, rng, strain=-0.1)]
    pool = node([known[0], new[0], overlapping, known[1], new[1], known[2]], number=list(range(6)))
    outputs = select(pool, node(known), potential, Dict({"n": 2}))
    assert outputs["selected"].get_dataset().columns["number"].tolist() == [1, 4]
    summary = outputs["summary"].get_dict()
    covered = summary.pop("coverage")
    assert summary == {"pool": 6, "overlapping": 1, "selected": 2, "method": "fps"}
    assert covered["n_pool"] == 5 and covered["n_known"] == len(known)
    assert covered["chosen"]["max_distance"] <= covered["random"]["max_distance"]
    direct = select(pool, node(known), potential, Dict({"n": 2, "method": "direct", "seed": 1}))
    assert direct["selected"].n_structures == 2
    assert direct["summary"]["method"] == "direct"
    everything = select(pool, node(known), potential, Dict({"n": 100}))
    assert everything["selected"].get_dataset().columns["number"].tolist() == [1, 4]
    message = failure(select, pool, node(known), potential, Dict({"n": 2, "method": "no"}))
    assert message.startswith("There is no selection method 'no'")


def test_select_with_nothing_to_choose(potential: PotentialData) -> None:
    rng = np.random.default_rng(0)
    known, bad = node([copper(0.05, rng)]), copper(0.05, rng)
    bad.positions[1] = bad.positions[0]
    outputs = select(node([bad]), known, potential, Dict({"n": 2}))
    assert "selected" not in outputs
    assert outputs["summary"]["overlapping"] == 1
    empty = DatasetData(known.get_dataset()[:0])
    message = failure(select, known, empty, potential, Dict({"n": 2}))
    assert message.startswith("There are no known structures")


def test_select_with_a_potential_of_another_element(potential: PotentialData) -> None:
    message = failure(select, node([bulk("Si")]), node([bulk("Si")]), potential, Dict({"n": 1}))
    assert "Si" in message


def test_candidates_are_the_frames_above_the_threshold() -> None:
    rng = np.random.default_rng(0)
    frames = {
        f"frames_{k}": node(
            [copper(0.05, rng) for _ in gammas], gamma_max=gammas, run=[k] * len(gammas)
        )
        for k, gammas in ((10, [1.0, 9.0]), (2, [3.0, 0.5, 2.0]), (3, [0.1]))
    }
    simulations = List([{"survival": 1.0}, {"survival": 0.5}])
    choice = Dict({"gamma_select": 1.5, "generation": 3})
    outputs = collect_candidates(choice, simulations, **frames)
    assert outputs["summary"]["survival"] == 0.75
    assert outputs["summary"]["new_candidates"] == 3
    found = outputs["candidates"].get_dataset()
    assert set(found.columns["generation"].tolist()) == {3}
    # In the order of the simulations, 2 before 10.
    assert found.columns["gamma_max"].tolist() == [3.0, 2.0, 9.0]
    assert found.columns["run"].tolist() == [2, 2, 10]
    assert found.columns["simulation"].tolist() == [2, 2, 10]
    assert set(found.columns["origin"].tolist()) == {"md"}
    none = collect_candidates(Dict({"gamma_select": 50.0, "generation": 3}), simulations, **frames)
    assert "candidates" not in none
    assert none["summary"]["new_candidates"] == 0


def test_frames_without_gamma() -> None:
    choice = Dict({"gamma_select": 1.0, "generation": 0})
    message = failure(collect_candidates, choice, List([]), frames_1=node(copies(1)))
    assert message == "The frames 'frames_1' have no column gamma_max to choose by."
