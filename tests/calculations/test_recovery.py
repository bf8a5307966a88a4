"""Jobs whose worker dies between two checkpoints: the next worker takes them to the same end."""

import os
import subprocess
import sys
from typing import Any

import pytest
from aiida.engine import ProcessBuilder
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.orm import (
    Dict,
    KpointsData,
    ProcessNode,
    QueryBuilder,
    StructureData,
    load_node,
)
from aiida_quantumespresso.calculations import pw
from ase.build import bulk

from aiida_autopipe.calculations.ase import AseCalculation
from aiida_autopipe.calculations.recovery import PwCalculation
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.workflows.functions import count_calculations, jobs
from aiida_autopipe.workflows.progress import active_below
from aiida_autopipe.workflows.pw import PwWorkChain

WORKER = """
import asyncio, os, sys
from aiida import load_profile
from aiida.manage import get_manager
from aiida.orm import CalcJobNode
from plumpy.persistence import LoadSaveContext

pk, profile, method, moment, before = sys.argv[1:]
load_profile(profile)

def dies(node, state):
    now = getattr(state, "value", state) == moment
    if now and before:
        os._exit(9)
    note(node, state)
    if now:
        os._exit(9)

if moment:
    note = getattr(CalcJobNode, method)
    setattr(CalcJobNode, method, dies)
runner = get_manager().create_runner(communicator=None, poll_interval=0.1)
bundle = runner.persister.load_checkpoint(int(pk))
process = bundle.unbundle(LoadSaveContext(loop=runner.loop, runner=runner))
runner.loop.run_until_complete(asyncio.wait_for(process.step_until_terminated(), 120))
"""


def begin(process: Any, **inputs: Any) -> ProcessNode:
    """A process that is submitted, and of which no worker knows yet."""
    runner = get_manager().create_runner(communicator=None)
    begun = instantiate_process(runner, process, **inputs)
    runner.persister.save_checkpoint(begun)
    return begun.node


def work(node: ProcessNode, method: str = "", moment: str = "", before: str = "") -> int:
    """Exit status of a worker that takes a process to its end, or dies when a state of a job is
    noted, or just before."""
    manager = get_manager()
    arguments = [str(node.pk), manager.get_profile().name, method, moment, before]
    environment = {**os.environ, "AIIDA_PATH": str(manager.get_config().dirpath)}
    command = [sys.executable, "-c", WORKER, *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


@pytest.mark.parametrize(
    ("method", "moment"),
    [
        ("set_state", "unstashing"),
        ("set_state", "withscheduler"),
        ("set_state", "parsing"),
        ("set_process_state", "finished"),
    ],
)
def test_the_next_worker_goes_on(python_code: Any, method: str, moment: str) -> None:
    dataset = DatasetData(Dataset.from_atoms([bulk("Cu", cubic=True)]))
    settings = Dict({"calculator": "ase.calculators.emt.EMT", "keywords": {}})
    node = begin(AseCalculation, code=python_code, dataset=dataset, settings=settings)
    assert work(node, method, moment) == 9
    assert work(node) == 0, (node.process_state, node.process_status)
    assert load_node(node.pk).is_finished_ok, node.exit_message
    assert {"remote_folder", "retrieved", "labelled", "outcomes"} <= set(node.outputs)
    assert node.outputs.remote_folder.get_remote_path() == node.get_remote_workdir()


def silicon(process: Any, pw_code: Any, pz_family: Any) -> ProcessBuilder:
    """A run of pw.x on silicon, alone or in its work chain."""
    builder = ProcessBuilder(process)
    run = builder if process is PwCalculation else builder.pw
    run.code = pw_code
    run.structure = StructureData(ase=bulk("Si"))
    run.pseudos = pz_family.get_pseudos(elements=("Si",))
    run.parameters = Dict({"CONTROL": {"calculation": "scf"}, "SYSTEM": {"ecutwfc": 12.0}})
    run.metadata.options.resources = {"num_machines": 1, "num_mpiprocs_per_machine": 1}
    run.metadata.options.withmpi = False
    builder.kpoints = KpointsData()
    builder.kpoints.set_kpoints_mesh([1, 1, 1])
    return builder


def test_a_calculation_of_pw_stays_one(pw_code: Any, pz_family: Any) -> None:
    """Its worker dies, and it still is what queries for calculations of pw.x find."""
    builder = silicon(PwCalculation, pw_code, pz_family)
    node = begin(PwCalculation, **builder._inputs(prune=True))
    assert work(node, "set_state", "unstashing") == 9
    assert work(node) == 0, (node.process_state, node.process_status)
    assert load_node(node.pk).is_finished_ok, node.exit_message
    assert {"remote_folder", "retrieved", "output_parameters"} <= set(node.outputs)
    found = QueryBuilder().append(pw.PwCalculation, filters={"id": node.pk}).all(flat=True)
    assert [one.process_label for one in found] == ["PwCalculation"]
    assert node.process_class is pw.PwCalculation


def test_a_job_that_was_stored_but_never_begun_is_none(pw_code: Any, pz_family: Any) -> None:
    """A worker dies in the middle of a submission: the next one submits again, and counts one."""
    builder = silicon(PwWorkChain, pw_code, pz_family)
    node = begin(PwWorkChain, **builder._inputs(prune=True))
    assert work(node, "set_process_state", "created", "before") == 9
    assert [called.process_state for called in node.called] == [None]
    assert jobs(node) == [] and list(active_below(node)) == []
    assert work(node) == 0, (node.process_state, node.process_status)
    assert load_node(node.pk).is_finished_ok, node.exit_message
    assert len(node.called) == 2
    assert len(jobs(node)) == 1 == count_calculations(node)
    assert node.outputs.rescue["calculations"] == 1
