"""`autopipe.mace` for real, and what it refuses before it is submitted."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engines.mace.small import FINE, SETTINGS, silicon, write_job


@pytest.fixture
def inputs(python_code: Any) -> dict[str, Any]:
    from aiida.orm import Dict, Int

    from aiida_autopipe.data.dataset import DatasetData

    return {
        "code": python_code,
        "train": DatasetData(silicon(10)),
        "test": DatasetData(silicon(3, seed=8)),
        "settings": Dict(SETTINGS),
        "seed": Int(3),
    }


def run(inputs: dict[str, Any]) -> Any:
    from aiida.engine import run_get_node
    from aiida.plugins import CalculationFactory

    return run_get_node(CalculationFactory("autopipe.mace"), **inputs)


def test_from_scratch_and_on_from_there(inputs: dict[str, Any]) -> None:
    """Nodes to nodes; a potential that was made here can be fine-tuned without `trust`."""
    from aiida.orm import Dict

    outputs, node = run(inputs)
    assert node.is_finished_ok, node.exit_message
    metrics = outputs["metrics"].get_dict()
    assert set(metrics["metrics"]) == {"train", "validation", "test"}
    assert metrics["chosen"]["mode"] == "scratch"
    assert metrics["seconds"] > 0
    potential = outputs["potential"]
    assert potential.filenames == ["potential.model"]
    assert (potential.kind, potential.elements, potential.cutoff) == ("mace", ["Si"], 4.0)
    assert potential.reference_energies == {"Si": -5.0}
    assert potential.fit["train"] == inputs["train"].base.attributes.get("content_hash")
    assert potential.metrics == metrics["metrics"]
    assert outputs["parity"].get_array("test_energy_reference").shape == (3,)
    curve = outputs["learning_curve"]
    assert curve.get_array("epoch").tolist() == [-1, 0, 1]
    assert np.isfinite(curve.get_array("validation_forces_rmse")).all()

    settings = {key: value for key, value in FINE.items() if key != "trust"}
    outputs, node = run(inputs | {"prior": potential, "settings": Dict(settings)})
    assert node.is_finished_ok, node.exit_message
    assert outputs["metrics"]["chosen"]["mode"] == "naive"
    assert len(outputs["potential"].fit["prior"]) == 64


def test_a_training_goes_on_from_a_remote_folder(
    inputs: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    """The checkpoints of a training that ran out of time after one epoch are used."""
    from aiida.orm import Dict, RemoteData

    from aiida_autopipe.engines.mace import training

    write_job(tmp_path, {"train": silicon(10)})
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(), pytest.raises(training.Ended):
        warnings.simplefilter("ignore")  # of MACE and its dependencies
        training.run(tmp_path, 0.0)
    import torch

    torch.set_default_dtype(torch.float32)
    before = training.curve_of(tmp_path)
    assert before.epoch.tolist() == [-1, 0]
    remote = RemoteData(computer=inputs["code"].computer, remote_path=str(tmp_path))
    settings = Dict(SETTINGS | {"max_epochs": 2})
    del inputs["test"]
    outputs, node = run(inputs | {"restart_from": remote, "settings": settings})
    assert node.is_finished_ok, node.exit_message
    losses = outputs["learning_curve"].get_array("validation_loss")
    assert losses.shape == (3,)
    np.testing.assert_array_equal(losses[:2], before.validation_loss)


def test_too_little_time_for_one_epoch(inputs: dict[str, Any]) -> None:
    inputs["metadata"] = {"options": {"max_wallclock_seconds": 1}}
    _, node = run(inputs)
    assert node.exit_status == 309
    assert "before a single epoch" in node.exit_message


def test_data_that_cannot_be_used(inputs: dict[str, Any]) -> None:
    """The sentence of the training is the exit message."""
    from aiida_autopipe.data.dataset import DatasetData

    masked = silicon(4, force_mask=np.tile([1.0, 0.0], 4))
    _, node = run(inputs | {"train": DatasetData(masked)})
    assert node.exit_status == 201
    assert "MACE can use 0" in node.exit_message
    assert "4 with a force mask" in node.exit_message


def test_inputs_that_are_refused_before_submission(inputs: dict[str, Any], tmp_path: Path) -> None:
    from aiida.orm import Dict, SinglefileData

    from aiida_autopipe.data.dataset import DatasetData
    from aiida_autopipe.data.potential import PotentialData

    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(ValueError, match=message):
            run(inputs | changes)

    refused("did you mean 'channels'", settings=Dict({"chanels": 8}))
    refused("max_epochs is 0", settings=Dict({"max_epochs": 0}))
    refused("contains no structures", test=DatasetData(silicon(2)[:0]))
    refused("replay needs a prior", replay=DatasetData(silicon(2)))
    refused("needs a prior", settings=Dict({"reference_energies": "base"}))
    model = tmp_path / "stranger.model"
    model.write_bytes(b"pickle")
    refused("set trust: true", prior=SinglefileData(model))
    given = PotentialData.from_files({"a.model": model}, "mace", ["Si"], 5.0, {"Si": 0.0})
    refused("set trust: true", prior=given)
    ace = PotentialData.from_files({"a.yace": model}, "ace", ["Si"], 5.0, {"Si": 0.0})
    refused("of kind 'ace'", prior=ace)


def test_the_time_for_the_job_leaves_a_reserve(inputs: dict[str, Any]) -> None:
    """The job gets less time than the scheduler gives, so that it ends in good order."""
    from aiida.common.folders import SandboxFolder
    from aiida.engine.utils import instantiate_process
    from aiida.manage import get_manager
    from aiida.plugins import CalculationFactory

    inputs["metadata"] = {"options": {"max_wallclock_seconds": 3600}}
    runner = get_manager().get_runner()
    process = instantiate_process(runner, CalculationFactory("autopipe.mace"), **inputs)
    with SandboxFolder() as folder:
        process.prepare_for_submission(folder)
        job = json.loads(Path(folder.abspath, "job.json").read_text())
    assert job["max_seconds"] == 3480.0
    assert (job["train"], job["test"], job["seed"]) == ("train.h5", "test.h5", 3)
