from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_autopipe.core.dataset import Dataset, read_dataset

DATA = Path(__file__).parents[1] / "core" / "ace" / "data" / "mlearn" / "Si.extxyz"


@pytest.fixture(scope="module")
def silicon() -> Dataset:
    return read_dataset(DATA)


@pytest.fixture
def inputs(python_code: Any, silicon: Dataset) -> dict[str, Any]:
    from aiida.orm import Dict, Int

    from aiida_autopipe.data.dataset import DatasetData

    return {
        "code": python_code,
        "train": DatasetData(silicon[:12]),
        "test": DatasetData(silicon[12:15]),
        "settings": Dict({"cutoff": 4.5, "max_rank": 3, "max_functions": 40}),
        "seed": Int(5),
    }


def run(inputs: dict[str, Any]) -> Any:
    from aiida.engine import run_get_node
    from aiida.plugins import CalculationFactory

    return run_get_node(CalculationFactory("autopipe.ace"), **inputs)


def test_a_fit_from_nodes_to_nodes(inputs: dict[str, Any], silicon: Dataset) -> None:
    outputs, node = run(inputs)
    assert node.is_finished_ok, node.exit_message
    metrics = outputs["metrics"].get_dict()
    assert metrics["metrics"]["test"]["forces_mae"] < 1.0
    assert metrics["chosen"]["cutoff"] == 4.5
    assert metrics["seconds"] > 0

    potential = outputs["potential"]
    assert potential.filenames == ["potential.asi", "potential.yace", "potential.yaml"]
    assert (potential.kind, potential.elements, potential.cutoff) == ("ace", ["Si"], 4.5)
    assert potential.fit["train"] == inputs["train"].base.attributes.get("content_hash")
    evaluated = potential.get_potential().evaluate(silicon.atoms(13), gamma=True)
    assert np.isfinite(evaluated.gamma).all()

    parity = outputs["parity"]
    reference = parity.get_array("test_energy_reference")
    assert reference.shape == (3,)
    predicted = parity.get_array("test_energy_predicted")[1] * len(silicon.atoms(13))
    assert evaluated.energy == pytest.approx(predicted, abs=1e-7)


def test_a_fit_that_cannot_be_done_says_why(inputs: dict[str, Any], silicon: Dataset) -> None:
    from dataclasses import replace

    from aiida_autopipe.data.dataset import DatasetData

    inputs["train"] = DatasetData(replace(silicon[:3], energy=None, forces=None, stress=None))
    _, node = run(inputs)
    assert node.exit_status == 201
    assert "Structure 0 has no energy, forces or stress" in node.exit_message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("settings", {"cutof": 5.0}, "did you mean 'cutoff'"),
        ("settings", {"cutoff": -5.0}, "cutoff is -5.0"),
        ("seed", -1, "seed -1 must not be negative"),
    ],
)
def test_bad_inputs_are_refused_before_submission(
    inputs: dict[str, Any], name: str, value: Any, message: str
) -> None:
    from aiida.orm import Dict, Int

    inputs[name] = Dict(value) if name == "settings" else Int(value)
    with pytest.raises(ValueError, match=message):
        run(inputs)


def test_empty_datasets_are_refused(inputs: dict[str, Any], silicon: Dataset) -> None:
    from aiida_autopipe.data.dataset import DatasetData

    inputs["test"] = DatasetData(silicon[:0])
    with pytest.raises(ValueError, match="contains no structures"):
        run(inputs)
