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
    assert potential.filenames == [
        "potential.asi",
        "potential.in",
        "potential.yace",
        "potential.yaml",
    ]
    assert (potential.kind, potential.elements, potential.cutoff) == ("ace", ["Si"], 4.5)
    assert potential.fit["train"] == inputs["train"].base.attributes.get("content_hash")
    evaluated = potential.get_potential().evaluate(silicon.atoms(13), gamma=True)
    assert np.isfinite(evaluated.gamma).all()

    parity = outputs["parity"]
    reference = parity.get_array("test_energy_reference")
    assert reference.shape == (3,)
    predicted = parity.get_array("test_energy_predicted")[1] * len(silicon.atoms(13))
    assert evaluated.energy == pytest.approx(predicted, abs=1e-7)


def test_a_fit_that_keeps_its_posterior(inputs: dict[str, Any], tmp_path: Path) -> None:
    from aiida.orm import Dict

    from aiida_autopipe.calculations.thresholds import set_thresholds
    from aiida_autopipe.core.ace.posterior import load_posterior
    from aiida_autopipe.core.ace.potential import ACEPotential

    inputs["settings"] = Dict({**inputs["settings"].get_dict(), "posterior": True})
    outputs, node = run(inputs)
    assert node.is_finished_ok, node.exit_message
    path = next(p for p in outputs["potential"].export(tmp_path) if p.suffix == ".yaml")
    assert load_posterior(path, ACEPotential.load(path)).force_noise > 0

    # The thresholds of MD follow from what was found on the held-out structures.
    found = outputs["metrics"]["calibration"]["committee"]
    assert found["n_structures"] == 3
    held_out = outputs["parity"].get_array("held_out_committee")
    assert len(held_out) == inputs["test"].get_dataset().n_atoms
    settings = Dict({"gamma_select": "auto", "gamma_halt": "auto", "uncertainty": "committee"})
    results, process = set_thresholds.run_get_node(settings, outputs["metrics"])
    assert process.is_finished_ok
    # Three structures are too few, so the deviations are taken at their word, and it is said.
    assert results["settings"]["gamma_select"] == pytest.approx(3.05 * found["typical_error"], 0.01)
    assert "Only" in results["thresholds"]["sentence"]
    _, process = set_thresholds.run_get_node(settings, Dict({"metrics": {}}))
    assert "give numbers in eV/Å" in process.exit_message


def test_a_fit_that_starts_from_another_potential(inputs: dict[str, Any], silicon: Dataset) -> None:
    from aiida.orm import Dict

    from aiida_autopipe.data.dataset import DatasetData

    base = run(inputs)[0]["potential"]
    inputs |= {"prior": base, "train": DatasetData(silicon[12:]), "settings": Dict({})}
    del inputs["test"]
    outputs, node = run(inputs)
    assert node.is_finished_ok, node.exit_message
    metrics = outputs["metrics"].get_dict()
    assert metrics["chosen"]["search_ended"] == "the basis is that of the prior"
    errors = metrics["metrics"]
    assert errors["train"]["forces_mae"] < errors["prior_train"]["forces_mae"]
    assert outputs["potential"].fit["cutoff"] == 4.5


def test_a_prior_without_b_functions_is_refused(inputs: dict[str, Any], tmp_path: Path) -> None:
    from aiida_autopipe.data.potential import PotentialData

    (tmp_path / "si.model").write_text("weights")
    inputs["prior"] = PotentialData.from_files(
        {"si.model": tmp_path / "si.model"}, "mace", ["Si"], 5.0, {"Si": 0.0}
    )
    with pytest.raises(ValueError, match="of kind 'mace' and has si"):
        run(inputs)


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
