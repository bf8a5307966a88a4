"""The loop whose MD is watched by a committee, with thresholds that each training calibrates."""

from pathlib import Path
from typing import Any

import pytest
from aiida.engine import run_get_node

from aiida_autopipe.config.expand import expand_with_material, merge
from aiida_autopipe.config.loading import load_input
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.report.page import render
from aiida_autopipe.workflows.launch import INTERFACE_KEY, prepare
from aiida_autopipe.workflows.progress import failures
from aiida_autopipe.workflows.report import collect_report

EXAMPLE = Path(__file__).parents[2] / "examples" / "copper-quench.yaml"
CHANGES: dict[str, Any] = {
    "generate": {"recipe": {"rattle": {"copies": 6}}},
    "md": {
        "uncertainty": "committee", "embed": None, "supercell": [2, 2, 2],
        "schedule": [{"ensemble": "nvt", "temperature_K": [300, 6000], "steps": 1500}],
    },
    "loop": {"min_generations": 1, "max_generations": 1, "candidates_per_generation": 4},
    "train": {"max_functions": 40, "test_fraction": 0.4},
}  # fmt: skip


def configured() -> Any:
    return expand_with_material(merge(load_input(EXAMPLE), CHANGES), EXAMPLE.parent, "cu")


def test_md_has_the_thresholds_of_its_potential(python_code: Any, lammps_code: Any) -> None:
    _, run = run_get_node(prepare(*configured()).builder)
    assert run.is_finished_ok, (run.exit_message, failures(run))
    steps = sorted(run.called, key=lambda step: step.pk)
    waves = [step for step in steps if step.process_label == "MdWorkChain"]
    trainings = [step for step in steps if step.process_label == "TrainWorkChain"]
    # The numbers are those of the training, and the provenance says so.
    metrics, settings = trainings[0].outputs.metrics, waves[0].inputs.settings
    found = metrics["calibration"]["committee"]
    assert settings["gamma_select"] == pytest.approx(found["select"])
    assert settings["gamma_halt"] == pytest.approx(found["halt"])
    assert settings.creator.inputs.metrics.uuid == metrics.uuid
    (job,) = (job for job in waves[0].called if job.process_label == "LammpsCalculation")
    assert job.inputs.settings["uncertainty"] == "committee"
    assert job.inputs.settings["gamma_halt"] == settings["gamma_halt"]
    assert job.outputs.results["uncertainty_unit"] == "eV/Å"
    assert job.outputs.results["gamma_max"] > found["select"]
    assert waves[0].outputs.summary["new_candidates"] > 0

    report = collect_report(run)
    assert [used.halt for used in report.thresholds] == [settings["gamma_halt"]]
    assert "eV/Å of committee: calibrated on" in report.thresholds[0].sentence
    assert report.calibration is not None and len(report.calibration.error) > 50
    assert "plot-calibration" in render(report)


def test_ml_pace_has_no_committee(python_code: Any, lammps_code: Any) -> None:
    before = lammps_code.base.extras.get(INTERFACE_KEY, None)
    lammps_code.base.extras.set(INTERFACE_KEY, "ml-pace")
    try:
        with pytest.raises(InputError, match="is a LAMMPS with ML-PACE, which has no committee"):
            prepare(*configured())
    finally:
        lammps_code.base.extras.set(INTERFACE_KEY, before)
