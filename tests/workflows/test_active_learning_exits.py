"""Every exit code of `autopipe.active_learning`, step by step, without running the steps before."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.orm import CalcJobNode, Data, Dict, WorkChainNode
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.config.expand import expand_with_material
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.workflows.active_learning import ActiveLearningWorkChain
from aiida_autopipe.workflows.explore import ExploreWorkChain
from aiida_autopipe.workflows.launch import prepare
from tests.reference.copper import copper_potential

CODES = ActiveLearningWorkChain.exit_codes


@pytest.fixture
def process(pw_code: Any, python_code: Any, lammps_code: Any, pz_family: Any) -> Any:
    """The work chain, set up but not started."""
    user = {"material": "Si", "goal": "elastic", "protocol": "fast"}
    config, material = expand_with_material(user, Path(), "steps")
    builder = prepare(config, material).builder
    work_chain = instantiate_process(get_manager().get_runner(), builder)
    work_chain.setup()
    return work_chain


def ended(status: int = 401, message: str = "it broke", **outputs: Data) -> WorkChainNode:
    """A work chain that ended with an exit status and outputs."""
    node = WorkChainNode()
    node.store()
    node.set_process_state("finished")
    node.set_exit_status(status)
    node.set_exit_message(message)
    for name, output in outputs.items():
        output.store().base.links.add_incoming(node, LinkType.RETURN, name)
    return node


def labelled(structures: list[Atoms], fingerprint: str = "a") -> DatasetData:
    """Structures with made-up labels of one method."""
    for atoms in structures:
        atoms.info["energy"] = -1.0 * len(atoms)
        atoms.arrays["forces"] = np.zeros((len(atoms), 3))
    attributes = {"method": {"fingerprint": fingerprint}}
    return DatasetData(Dataset.from_atoms(structures, attributes=attributes)).store()


def summary(**changes: int) -> Dict:
    """The summary of a label work chain."""
    return Dict({"requested": 1, "ok": 0, "rejected": 1, "calculations": 1, **changes})


def test_references_missing(process: Any) -> None:
    """Crystals without their isolated atoms cannot be fitted."""
    process.ctx.datasets = [labelled([bulk("Si")])]
    code = process.inspect_references()
    assert code.status == CODES.ERROR_REFERENCES.status
    assert "Si" in code.message


def test_only_references(process: Any) -> None:
    """Isolated atoms alone are nothing to learn from."""
    process.ctx.datasets = [labelled([Atoms("Si")])]
    assert process.inspect_references().status == CODES.ERROR_NO_LABELS.status


def test_generate_fails(process: Any) -> None:
    """A recipe that makes nothing is told in the generator's words."""
    process.ctx.config["generate"]["max_atoms"] = 1
    code = process.generate_pool()
    assert code.status == CODES.ERROR_GENERATE.status
    assert "max_atoms" in code.message


def test_the_exploration_fails(process: Any) -> None:
    """It was asked for: without it the run would be another one."""
    assert not process.should_explore()  # of the protocol fast
    process.ctx.exploration = ended(message="no CHGNet there")
    code = process.inspect_exploration()
    assert code.status == CODES.ERROR_EXPLORE.status
    assert "no CHGNet there" in code.message


def test_explored_frames_are_labelled_first(
    pw_code: Any, python_code: Any, lammps_code: Any, pz_family: Any, monkeypatch: Any
) -> None:
    """The loop's own inputs make a real exploration, whose choice goes to the first labels."""
    explore = {
        "surrogate": "ase.calculators.emt.EMT", "supercell": [1, 1, 2], "steps": 20, "every": 5,
        "temperatures_K": [300.0], "select": {"method": "direct", "n": 3},
    }  # fmt: skip
    user = {"material": "Cu", "goal": "elastic", "protocol": "fast", "explore": explore}
    config, material = expand_with_material(user, Path(), "steps")
    builder = prepare(config, material).builder
    process = instantiate_process(get_manager().get_runner(), builder)
    process.setup()
    asked: dict[str, Any] = {}
    monkeypatch.setattr(process, "submit", lambda kind, **inputs: asked.update(inputs))
    assert process.generate_pool() is None and process.should_explore()
    process.run_exploration()
    outputs, node = run_get_node(ExploreWorkChain, **asked)
    assert node.is_finished_ok, node.exit_message
    process.ctx.exploration = node
    assert process.inspect_exploration() is None
    process.run_initial_labels()
    origins = asked["dataset"].get_dataset().columns["origin"].tolist()
    assert origins.count("explore") == 3 == outputs["selected"].n_structures
    assert len(origins) == 3 + process.ctx.pool.n_structures


def test_nothing_labelled(process: Any) -> None:
    """When all first labels fail the run ends."""
    process.ctx.labels = ended(message="no pw.x", summary=summary())
    code = process.inspect_labels()
    assert code.status == CODES.ERROR_NO_LABELS.status
    assert "no pw.x" in code.message


def test_calculations_of_a_killed_step_are_paid_for(process: Any) -> None:
    """A label step that was killed has no summary; its calculations count all the same."""
    step, job = WorkChainNode(), CalcJobNode(computer=process.inputs.codes.label.computer)
    step.set_process_label("LabelWorkChain")
    step.base.links.add_incoming(process.node, LinkType.CALL_WORK, "step")
    job.base.links.add_incoming(step, LinkType.CALL_CALC, "job")
    for node in (step, job):
        node.store()
    for node in (step, job):
        node.set_process_state("killed")
    budget = process.budget_left
    process.ctx.labels = step
    assert process.inspect_labels().status == CODES.ERROR_NO_LABELS.status
    assert process.ctx.counts["calculations"] == 1
    assert process.budget_left == budget - 1


def test_a_later_failure_of_all_labels_goes_on(process: Any) -> None:
    """A generation whose labels all fail is no reason to stop."""
    process.ctx.datasets = [labelled([bulk("Si")])]
    rejected = DatasetData(Dataset.from_atoms([bulk("Si")]))
    process.ctx.labels = ended(summary=summary(), rejected=rejected)
    assert process.inspect_labels() is None
    assert len(process.ctx.rejected) == 1


def test_merge_refuses_two_methods(process: Any) -> None:
    """Labels of different methods are never mixed."""
    process.ctx.datasets = [labelled([bulk("Si")], "a"), labelled([bulk("Si")], "b")]
    code = process.run_training()
    assert code.status == CODES.ERROR_MERGE.status
    assert "different methods" in code.message


def test_training_fails(process: Any) -> None:
    """Without a potential the loop ends."""
    process.ctx.training = ended(message="The fit failed: too few")
    code = process.inspect_training()
    assert code.status == CODES.ERROR_TRAINING.status
    assert "too few" in code.message


def test_all_simulations_fail(process: Any) -> None:
    """Failed simulations without a single frame end the loop."""
    process.ctx.md = ended(message="no LAMMPS")
    code = process.inspect_md()
    assert code.status == CODES.ERROR_MD.status
    assert "no LAMMPS" in code.message


def test_selection_fails(process: Any, tmp_path: Path) -> None:
    """A selection that cannot be made is told in its words."""
    files = {path.name: path for path in copper_potential().save(tmp_path / "copper")}
    potential = PotentialData.from_files(files, "ace", ["Cu"], 4.0, {"Cu": 0.0})
    pool = Dataset.from_atoms([bulk("Si")]).with_columns(gamma_max=[3.0])
    process.ctx.md = ended(0, "", candidates=DatasetData(pool), summary=Dict({"running": {}}))
    process.ctx.training = ended(0, "", potential=potential)
    process.ctx.dataset = labelled([bulk("Si")])
    assert process.inspect_md().status == CODES.ERROR_SELECT.status


def test_embedding_fails(process: Any, tmp_path: Path) -> None:
    """Frames that do not say which atom is uncertain cannot be cut."""
    files = {path.name: path for path in copper_potential().save(tmp_path / "copper")}
    potential = PotentialData.from_files(files, "ace", ["Cu"], 4.0, {"Cu": 0.0})
    frames = [bulk("Cu", cubic=True), bulk("Cu", a=3.7)]
    pool = Dataset.from_atoms(frames).with_columns(gamma_max=[3.0, 3.0])
    process.ctx.md = ended(0, "", candidates=DatasetData(pool), summary=Dict({"running": {}}))
    process.ctx.training = ended(0, "", potential=potential)
    process.ctx.dataset = labelled([bulk("Cu")])
    process.ctx.config["md"]["embed"] = {"radius_A": 2.0, "buffer_A": 2.0}
    code = process.inspect_md()
    assert code.status == CODES.ERROR_EMBED.status
    assert "gamma_atom" in code.message


def test_unvalidated_potential_is_kept(process: Any, tmp_path: Path) -> None:
    """When the validation fails the outputs are there, but the run is no success."""
    files = {path.name: path for path in copper_potential().save(tmp_path / "copper")}
    potential = PotentialData.from_files(files, "ace", ["Cu"], 4.0, {"Cu": 0.0})
    process.ctx.training = ended(0, "", potential=potential, metrics=Dict({"metrics": {}}))
    process.ctx.validation = ended(message="no equation of state")
    process.ctx.dataset = labelled([bulk("Si")])
    process.inspect_validation()
    code = process.results()
    assert code.status == CODES.ERROR_VALIDATION.status
    assert "no equation of state" in code.message
    assert {"potential", "dataset", "metrics", "history"} <= set(process.outputs)


def test_exit_codes_are_all_covered() -> None:
    """A new exit code needs a test here."""
    text = Path(__file__).read_text()
    own = [name for name in CODES if name.startswith("ERROR_") and 300 <= CODES[name].status < 500]
    missing = [name for name in own if name not in text]
    assert not missing
