from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.workflows.inputs import initial_choice

EMT = {"surrogate": "ase.calculators.emt.EMT"}
SHORT = {"temperatures_K": [300.0, 900.0], "steps": 20, "every": 5, "timestep_fs": 4.0}


def run(structures: list[Atoms], select: dict, **inputs: Any) -> Any:
    from aiida.engine import run_get_node
    from aiida.orm import Dict, Int
    from aiida.plugins import WorkflowFactory

    from aiida_autopipe.data.dataset import DatasetData

    return run_get_node(
        WorkflowFactory("autopipe.explore"),
        starts=DatasetData(Dataset.from_atoms(structures)),
        surrogate=Dict(EMT),
        settings=Dict(SHORT),
        select=Dict(select),
        seed=Int(1),
        **inputs,
    )


def test_a_job_then_a_choice_that_knows_what_is_labelled(python_code: Any) -> None:
    from aiida_autopipe.data.dataset import DatasetData

    crystal = bulk("Cu", cubic=True)
    known = DatasetData(Dataset.from_atoms([crystal, bulk("Cu", a=3.7, cubic=True)]))
    outputs, node = run([crystal], {"n": 3, "method": "direct"}, code=python_code, known=known)
    assert node.is_finished_ok, node.exit_message
    chosen = outputs["selected"].get_dataset()
    assert len(chosen) == 3 and chosen.energy is None and chosen.method_fingerprint is None
    assert outputs["frames"].n_structures == outputs["summary"]["frames"] == 8
    assert outputs["coverage"]["coverage"]["n_known"] == 2
    assert outputs["coverage"]["n"] == 3


def test_in_this_process_and_no_frames(aiida_profile: Any) -> None:
    outputs, node = run([bulk("Cu", cubic=True)], {"n": 2, "method": "fps"})
    assert node.is_finished_ok and outputs["selected"].n_structures == 2
    _, node = run([Atoms("Cu2", [[0, 0, 0], [0, 0, 0.05]])], {"n": 2})
    assert node.exit_status == 301 and "No frame is left" in node.exit_message


def test_bad_inputs(aiida_profile: Any) -> None:
    with pytest.raises(ValueError, match="select needs n"):
        run([bulk("Cu")], {"n": 0})
    with pytest.raises(ValueError, match="no selection method"):
        run([bulk("Cu")], {"n": 1, "method": "best"})


@pytest.mark.parametrize(
    ("n_generated", "n_explored", "most", "expected"),
    [
        (3, 0, 10, [0, 1, 2]),
        (3, 2, 10, [0, 1, 2, 3, 4]),
        (10, 4, 6, [0, 1, 2, 10, 11, 12]),
        (2, 10, 6, [0, 1, 2, 4, 7, 9]),
        (5, 0, 3, [0, 1, 2]),
    ],
)
def test_the_budget_of_the_first_labels(
    n_generated: int, n_explored: int, most: int, expected: list[int]
) -> None:
    assert initial_choice(n_generated, n_explored, most) == expected
