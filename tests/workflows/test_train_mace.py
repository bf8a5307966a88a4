"""`autopipe.train` with MACE: from a configuration, as a committee, and on after a time limit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import ArrayData, Dict, Int, RemoteData

from aiida_autopipe.config.expand import expand
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.material import read_material
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.workflows.inputs import train_inputs, trainer_settings
from aiida_autopipe.workflows.preflight import preflight
from aiida_autopipe.workflows.train import TrainWorkChain
from tests.engines.mace.small import SETTINGS, silicon


def configured(train: dict[str, Any]) -> Any:
    """A configuration for MACE."""
    user = {
        "material": "Si",
        "goal": "elastic",
        "protocol": "fast",
        "train": {"trainer": "autopipe.mace", "settings": SETTINGS, "test_fraction": 0.25, **train},
        "resources": {"max_concurrent": 2},
    }
    return expand(user, Path(), "run")


def test_a_committee_from_a_configuration(python_code: Any) -> None:
    """Two seeds side by side, other weights, the same held-out part, a calibrated spread."""
    config = configured({"committee": 2})
    outputs, node = run_get_node(TrainWorkChain, **train_inputs(config, DatasetData(silicon(12))))
    assert node.is_finished_ok, node.exit_message
    assert set(outputs["committee"]) == {"member_0", "member_1"}
    first, second = outputs["committee"]["member_0"], outputs["committee"]["member_1"]
    assert first.uuid == outputs["potential"].uuid
    assert first.metrics["test"] != second.metrics["test"]
    seeds = {called.inputs.seed.value for called in node.called if "seed" in called.inputs}
    assert {config.seed, config.seed + 1} <= seeds
    calibration = outputs["calibration"].get_dict()
    assert calibration["n_forces"] == 2 * outputs["test"].n_structures
    assert calibration["scale"] > 0
    assert "learning_curve" in outputs


def test_a_whole_run_needs_an_ace(aiida_profile: Any) -> None:
    """Its MD asks for extrapolation grades; said before anything is submitted."""
    problems = preflight(configured({}), read_material("Si", Path()))
    assert [p for p in problems if "autopipe.mace' makes no ACE potential" in p]


def test_settings_of_each_trainer() -> None:
    mace = configured({}).train.model_dump()
    assert trainer_settings(mace) == SETTINGS
    assert trainer_settings(mace | {"settings": None}) == {}
    ace = expand({"material": "Si", "goal": "elastic"}, Path(), "run").train
    assert trainer_settings(ace.model_dump()) == ace.fit_settings()


def test_a_model_file_that_is_missing(python_code: Any, tmp_path: Path) -> None:
    config = configured({"base_model": str(tmp_path / "no.model")})
    with pytest.raises(InputError, match=r"train.base_model: there is no file"):
        train_inputs(config, DatasetData(silicon(4)))


def test_a_trainer_without_the_input(python_code: Any) -> None:
    """The built-in fit cannot replay."""
    _, node = run_get_node(
        TrainWorkChain,
        dataset=DatasetData(silicon(4)),
        settings=Dict({}),
        split=Dict({"test_fraction": 0.25}),
        seed=Int(1),
        code=python_code,
        replay=DatasetData(silicon(2)),
    )
    assert node.exit_status == TrainWorkChain.exit_codes.ERROR_NO_SUCH_PORT.status
    assert "'autopipe.ace' has no input 'replay'" in node.exit_message


@pytest.fixture
def process(python_code: Any) -> Any:
    """A work chain that has split its data and started nothing yet."""
    from aiida.engine.utils import instantiate_process
    from aiida.manage import get_manager

    runner = get_manager().get_runner()
    inputs = train_inputs(configured({}), DatasetData(silicon(6)))
    chain = instantiate_process(runner, TrainWorkChain, **inputs, max_restarts=Int(1))
    assert chain.split() is None
    return chain


def ended(chain: Any, name: str, status: int, learnt: bool = True) -> None:
    """A fit of the work chain that ended with an exit status."""
    from aiida.common import LinkType
    from aiida.orm import CalcJobNode
    from plumpy import ProcessState

    node = CalcJobNode(
        computer=chain.inputs.code.computer, process_type="aiida.calculations:autopipe.mace"
    )
    node.label = name
    node.base.links.add_incoming(chain.node, LinkType.CALL_CALC, name)
    node.store()
    node.set_process_state(ProcessState.FINISHED)
    node.set_exit_status(status)
    folder = RemoteData(computer=chain.inputs.code.computer, remote_path=f"/scratch/{name}")
    curve = ArrayData({"epoch": [-1, 0]})
    for label, data in [("remote_folder", folder), *([("learning_curve", curve)] * learnt)]:
        data.base.links.add_incoming(node, LinkType.CREATE, label)
        data.store()
    chain.ctx.queue = chain.ctx.queue[1:]
    chain.ctx.running = {name: node.pk}
    chain.inspect_fits()


@pytest.mark.parametrize("status", [402, 120])
def test_a_fit_that_was_out_of_time_goes_on(process: Any, status: int) -> None:
    """From the folder of the one before, as often as allowed."""
    ended(process, "fit_0_0", status)
    assert process.ctx.queue == ["fit_0_1"]
    builder = process._builder("fit_0_1")
    assert builder.restart_from.get_remote_path() == "/scratch/fit_0_0"
    assert builder.seed.value == process.inputs.seed.value
    ended(process, "fit_0_1", status)
    assert not process.should_fit()
    assert process.results().status == TrainWorkChain.exit_codes.ERROR_FIT_FAILED.status


@pytest.mark.parametrize(("status", "learnt"), [(309, True), (307, True), (120, False)])
def test_other_endings_are_final(process: Any, status: int, learnt: bool) -> None:
    """Nothing goes on from a divergence, nor from a job that had not learnt anything."""
    ended(process, "fit_0_0", status, learnt)
    assert process.ctx.queue == []
    assert not process.should_fit()


def test_members_that_all_agree(python_code: Any, tmp_path: Path) -> None:
    """Their spread, which is zero, says nothing about errors."""
    from aiida.common import LinkType
    from aiida.engine.utils import instantiate_process
    from aiida.manage import get_manager
    from aiida.orm import CalcJobNode

    (tmp_path / "a.model").write_bytes(b"weights")
    runner = get_manager().get_runner()
    inputs = train_inputs(configured({"committee": 2}), DatasetData(silicon(6)))
    chain = instantiate_process(runner, TrainWorkChain, **inputs)
    chain.split()
    for member in range(2):
        node = CalcJobNode(
            computer=python_code.computer, process_type="aiida.calculations:autopipe.mace"
        ).store()
        parity = ArrayData()
        for name in ("test_forces_reference", "test_forces_predicted"):
            parity.set_array(name, np.zeros((4, 3)))
        potential = PotentialData.from_files(
            {"a.model": tmp_path / "a.model"}, "mace", ["Si"], 4.0, {"Si": -5.0}
        )
        outputs = {"potential": potential, "metrics": Dict({}), "parity": parity}
        for label, data in outputs.items():
            data.base.links.add_incoming(node, LinkType.CREATE, label)
            data.store()
        chain.ctx.fitted[str(member)] = node.pk
    code = chain.results()
    assert code.status == TrainWorkChain.exit_codes.ERROR_CALIBRATION.status
    assert "train them from different seeds" in code.message
