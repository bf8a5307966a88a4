from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset

EMT = {"surrogate": "ase.calculators.emt.EMT"}
SHORT = {"temperatures_K": [300.0], "steps": 10, "every": 5, "timestep_fs": 4.0}


def copper() -> list[Atoms]:
    return [bulk("Cu", cubic=True), bulk("Cu") * (1, 1, 2)]


def run(code: Any, structures: list[Atoms], surrogate: dict, settings: dict, **inputs: Any) -> Any:
    from aiida.engine import run_get_node
    from aiida.orm import Dict, Int
    from aiida.plugins import CalculationFactory

    from aiida_autopipe.data.dataset import DatasetData

    return run_get_node(
        CalculationFactory("autopipe.surrogate_md"),
        code=code,
        starts=DatasetData(Dataset.from_atoms(structures)),
        surrogate=Dict(surrogate),
        settings=Dict(settings),
        seed=Int(1),
        **inputs,
    )


def test_the_job_and_the_function_give_the_same_frames(python_code: Any) -> None:
    from aiida.orm import Dict, Int

    from aiida_autopipe.calculations.surrogate_md import surrogate_md
    from aiida_autopipe.data.dataset import DatasetData

    outputs, node = run(python_code, copper(), EMT, SHORT)
    assert node.is_finished_ok, node.exit_message
    frames = outputs["frames"].get_dataset()
    assert len(frames) == 4 and frames.labelled
    assert outputs["summary"]["rejected"]["overlap"] == 0
    starts = DatasetData(Dataset.from_atoms(copper()))
    here = surrogate_md(starts, Dict(EMT), Dict(SHORT), Int(1))
    assert here["frames"].get_dataset().content_hash() == frames.content_hash()


@pytest.mark.parametrize(
    ("structures", "surrogate", "status", "message"),
    [
        ([Atoms("Cu2", [[0, 0, 0], [0, 0, 0.05]])], EMT, 306, "two atoms too close"),
        (copper(), {"surrogate": "nothing.like.This"}, 301, "No module named 'nothing'"),
        ([Atoms("Cu")], {"surrogate": "quantum"}, 201, "There is no surrogate 'quantum'"),
    ],
)
def test_failures(
    python_code: Any, structures: list[Atoms], surrogate: dict, status: int, message: str
) -> None:
    outputs, node = run(python_code, structures, surrogate, SHORT)
    assert node.exit_status == status and message in node.exit_message
    assert "frames" not in outputs


def test_time_that_is_over_gives_what_is_finished(python_code: Any) -> None:
    long = {**SHORT, "steps": 100_000, "seeds": 1}
    options = {"max_wallclock_seconds": 10}
    outputs, node = run(
        python_code, copper(), EMT, {**long, "steps": 20_000_000}, metadata={"options": options}
    )
    assert node.exit_status == 306 and "The time was over" in node.exit_message
    assert "frames" not in outputs


def test_bad_inputs_are_refused_before_submission(python_code: Any) -> None:
    with pytest.raises(ValueError, match="did you mean 'surrogate'"):
        run(python_code, copper(), {"surogate": "x"}, SHORT)
    with pytest.raises(ValueError, match="steps must be a whole number"):
        run(python_code, copper(), EMT, {**SHORT, "steps": 0})
