"""`autopipe.label` with other oracles, and what happens to it when daemons are killed."""

import os
import signal
import time
from typing import Any

import numpy as np
import pytest
from aiida.engine import run_get_node, submit
from aiida.orm import CalcJobNode, Dict, Int, Str, to_aiida_type
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.workflows.functions import label_jobs
from aiida_autopipe.workflows.label import LabelWorkChain

COPPER = {"calculator": "ase.calculators.emt.EMT", "keywords": {}}


def copper(n: int) -> list[Atoms]:
    """Rattled copper cells."""
    structures = []
    for seed in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        structures.append(atoms)
    return structures


@pytest.fixture
def inputs(python_code: Any) -> dict[str, Any]:
    """Five copper cells for the oracle of ASE calculators."""
    return {
        "dataset": DatasetData(Dataset.from_atoms(copper(5))),
        "oracle": Str("autopipe.ase"),
        "settings": Dict(COPPER),
        "code": python_code,
        "budget": Int(20),
        "max_concurrent": Int(2),
    }


def test_an_ase_calculator_labels(inputs: dict[str, Any]) -> None:
    """Labels are those of the calculator; a structure it cannot do is rejected."""
    structures = [*copper(4), bulk("Si")]
    inputs["dataset"] = DatasetData(Dataset.from_atoms(structures))
    outputs, node = run_get_node(LabelWorkChain, **inputs)
    assert node.is_finished_ok, node.exit_message
    labelled = outputs["labelled"].get_dataset()
    assert labelled.columns["source_index"].tolist() == [0, 1, 2, 3]
    for index, atoms in enumerate(structures[:4]):
        atoms.calc = EMT()
        assert labelled.labels(index).energy == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(labelled.labels(index).forces, atoms.get_forces(), atol=1e-8)
    assert outputs["labelled"].method_fingerprint
    assert outputs["rejected"].get_dataset().columns["source_index"].tolist() == [4]
    assert outputs["summary"]["calculations"] == 5


@pytest.mark.filterwarnings("ignore::UserWarning:chgnet")
def test_chgnet_labels(inputs: dict[str, Any]) -> None:
    """A model that takes seconds to load is loaded once, and gives the labels it gives here."""
    import torch
    from chgnet.model.dynamics import CHGNetCalculator

    # A MACE calculator of another test in this process leaves double precision behind.
    torch.set_default_dtype(torch.float32)
    name = "chgnet.model.dynamics.CHGNetCalculator"
    settings = {"calculator": name, "keywords": {"use_device": "cpu"}, "reuse_calculator": True}
    structures = copper(2)
    inputs["dataset"] = DatasetData(Dataset.from_atoms(structures))
    outputs, node = run_get_node(LabelWorkChain, **{**inputs, "settings": Dict(settings)})
    assert node.is_finished_ok, node.exit_message
    labelled = outputs["labelled"].get_dataset()
    calculator = CHGNetCalculator(use_device="cpu")
    for index, atoms in enumerate(structures):
        atoms.calc = calculator
        labels = labelled.labels(index)
        assert labels.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        np.testing.assert_allclose(labels.forces, atoms.get_forces(), atol=1e-4)


MISSING = [
    (
        "ase.calculators.vasp.Vasp",
        {"xc": "PBE", "encut": 400, "kspacing": 0.2, "command": "no-vasp-here"},
        "No pseudopotential for Cu",
    ),
    ("ase.calculators.castep.Castep", {"castep_command": "no-castep-here"}, "castep.castep"),
]


@pytest.mark.parametrize(("calculator", "keywords", "words"), MISSING)
def test_a_program_that_is_not_there(
    inputs: dict[str, Any], calculator: str, keywords: dict[str, Any], words: str
) -> None:
    """Every structure is rejected for that reason, and the campaign ends by itself."""
    settings = {"calculator": calculator, "keywords": keywords}
    inputs["dataset"] = DatasetData(Dataset.from_atoms(copper(2)))
    outputs, node = run_get_node(LabelWorkChain, **{**inputs, "settings": Dict(settings)})
    assert node.is_finished, node.exception
    reasons = outputs["rejected"].get_dataset().columns["reason"].tolist()
    assert len(reasons) == 2
    assert all(words in reason for reason in reasons), reasons


def test_budget_of_a_batch(inputs: dict[str, Any]) -> None:
    """A batch never holds more structures than the budget pays for."""
    outputs, node = run_get_node(LabelWorkChain, **{**inputs, "budget": Int(3)})
    assert node.is_finished_ok
    assert outputs["summary"]["calculations"] == 3
    assert outputs["summary"]["not_run"] == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"oracle": "autopipe.asse"}, "There is no oracle 'autopipe.asse'"),
        ({"oracle": "autopipe.lammps"}, "'autopipe.lammps' is no oracle"),
        ({"settings": {**COPPER, "keyword": {}}}, "keyword"),
        ({"batching": "some"}, "must be one of auto, batch, single, not 'some'"),
        ({"max_wall_time": 0}, "must be at least 1, not 0"),
    ],
)
def test_wrong_inputs_are_refused(
    inputs: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    nodes = {name: to_aiida_type(value) for name, value in changed.items()}
    with pytest.raises(ValueError, match=message):
        run_get_node(LabelWorkChain, **{**inputs, **nodes})


def kill_workers(client: Any) -> None:
    """kill -9 of all daemon workers."""
    for pid in client.get_worker_info(timeout=10)["info"]:
        os.kill(int(pid), signal.SIGKILL)


def test_nothing_is_lost_or_done_twice_when_the_daemon_is_killed(
    started_daemon_client: Any,
    method: Any,
    pw_code: Any,
    silicon_pseudos: Any,
    rattled: list[Atoms],
) -> None:
    """Workers are killed while labels run: every structure has one outcome and one calculation."""
    node = submit(
        LabelWorkChain,
        dataset=DatasetData(Dataset.from_atoms(rattled[:4])),
        settings=method,
        code=pw_code,
        pseudos=silicon_pseudos,
        budget=Int(20),
        max_concurrent=Int(2),
        batching=Str("single"),
    )
    killed = False
    deadline = time.monotonic() + 480
    while not node.is_terminated and time.monotonic() < deadline:
        begun = sum(isinstance(called, CalcJobNode) for called in node.called_descendants)
        if not killed and begun > 1:
            kill_workers(started_daemon_client)
            killed = True
        time.sleep(0.5)
    states = {n.label or n.process_label: n.process_state for n in node.called_descendants}
    assert node.is_terminated, states
    assert node.is_finished_ok, node.exit_message
    assert killed
    assert "rejected" not in node.outputs, node.outputs.rejected.get_dataset().columns["reason"]
    labelled = node.outputs.labelled.get_dataset()
    assert labelled.columns["source_index"].tolist() == [0, 1, 2, 3]
    assert len(label_jobs(node)) == 4 == node.outputs.summary["calculations"]
