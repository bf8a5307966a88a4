"""How `autopipe.label` builds the processes of an oracle and reads what they made.

An oracle is a process that labels all structures of a `dataset` in one job and says for each what
became of it (`outcomes`); it is named by its entry point. `aiida_autopipe.testing` checks one.
pw.x has a second process beside its batches, which labels one structure and rescues it where that
is possible.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiida.common.exceptions import EntryPointError
from aiida.engine import Process
from aiida.orm import Dict, Float, Int, KpointsData, ProcessNode
from aiida.plugins import CalculationFactory, WorkflowFactory
from aiida.plugins.entry_point import get_entry_point_names
from ase import Atoms

from aiida_autopipe.calculations.functions import extract_structure, take
from aiida_autopipe.core.ace.neighbours import check_geometry
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.labelling import LONGEST_BATCH_SECONDS, SMALL_SECONDS, Task
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.espresso.batch import check, ionic_steps, relaxed
from aiida_autopipe.engines.espresso.pw import (
    PwSettings,
    estimated_seconds,
    in_box,
    kpoints,
    parameters,
)
from aiida_autopipe.workflows.functions import call, failure_reason, jobs

PW = "autopipe.pw"
PW_BATCH = "autopipe.pw_batch"

SECONDS_PER_ATOM = 1.0
"""Guess for an oracle of unknown speed; only used to share structures out to jobs."""


@dataclass(frozen=True)
class SingleLabel:
    """What became of a structure that was labelled alone: a reason why not, or how.

    out_of_time: it was not the structure that failed.
    """

    reason: str | None
    rescue: str = ""
    out_of_time: bool = False


class Oracle:
    """An oracle that labels batches only: one job, N structures, an outcome for each."""

    has_singles = False

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self.inputs = inputs
        self.process: Any = load_process(inputs["oracle"].value)

    def missing_pseudos(self) -> list[str]:
        """Elements without a pseudopotential, where the oracle needs any."""
        return []

    def pseudo_hashes(self) -> dict[str, str]:
        """MD5 of the pseudopotential of each element."""
        return {}

    def seconds(self, atoms: Atoms) -> float:
        """Estimated CPU seconds; raises DataError for a structure that no program should see."""
        check_geometry(atoms)
        return SECONDS_PER_ATOM * len(atoms) * ionic_steps(atoms)

    def is_single(self, seconds: float, mode: str) -> bool:
        """Whether a structure has a process to itself."""
        return self.has_singles and (
            mode == "single" or (mode == "auto" and seconds > SMALL_SECONDS)
        )

    @property
    def slots(self) -> int:
        """Structures that run at the same time in one job."""
        resources = self._options()["resources"]
        processes = resources.get("tot_num_mpiprocs") or (
            resources.get("num_machines", 1) * (resources.get("num_mpiprocs_per_machine") or 1)
        )
        return 1 if self.inputs["code"].with_mpi else max(1, int(processes))

    @property
    def longest_batch(self) -> float:
        """Estimated wall seconds that one batch may take, well within what its job is given."""
        return min(LONGEST_BATCH_SECONDS, float(self._options()["max_wallclock_seconds"]) / 4)

    def builder(
        self,
        task: Task,
        dataset: DatasetData,
        calculations: int,
        known: Mapping[str, Any],
        seconds_left: float | None,
    ) -> Any:
        """The process of a task.

        calculations: most that it may start; known: what was tried before; seconds_left: when it
        has to be over.
        """
        builder = self.process.get_builder()
        builder.dataset = call(take, dataset, list(task.indices))
        builder.settings = self.inputs["settings"]
        builder.code = self.inputs["code"]
        builder.metadata.options = self._options(seconds_left)
        return builder

    def single_label(self, node: ProcessNode) -> SingleLabel:
        """What became of a structure that was alone."""
        return SingleLabel(None if node.is_finished_ok else failure_reason(node))

    def label_nodes(self, node: ProcessNode | None, name: str, index: int) -> dict[str, Any]:
        """The nodes that the label of a structure is read from, by the names they get."""
        return {} if node is None else {f"labels_{name}": node.outputs.labelled}

    def clean(self, node: ProcessNode) -> None:
        """Remove the files that the machine need not keep."""
        for job in [node] if not hasattr(node, "called") else jobs(node):
            if job.is_finished_ok and "remote_folder" in job.outputs:
                job.outputs.remote_folder._clean()

    def _options(self, seconds_left: float | None = None) -> dict[str, Any]:
        options: dict[str, Any] = {
            "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1},
            "max_wallclock_seconds": 3600,
            "withmpi": bool(self.inputs["code"].with_mpi),
        }
        if "options" in self.inputs:
            options |= self.inputs["options"].get_dict()
        if seconds_left is not None:
            options["max_wallclock_seconds"] = max(
                1, min(int(seconds_left), options["max_wallclock_seconds"])
            )
        return options


class PwOracle(Oracle):
    """pw.x: small structures in batches, large and failed ones through the recovery ladder."""

    has_singles = True

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        super().__init__(inputs)
        self.batch: type[Process] = CalculationFactory(PW_BATCH)
        self.method = PwSettings.from_dict(inputs["settings"].get_dict())

    def missing_pseudos(self) -> list[str]:
        return sorted(set(self.inputs["dataset"].elements) - set(self.inputs.get("pseudos", {})))

    def pseudo_hashes(self) -> dict[str, str]:
        return {el: pseudo.md5 for el, pseudo in sorted(self.inputs["pseudos"].items())}

    def seconds(self, atoms: Atoms) -> float:
        check(self.method, atoms)
        return estimated_seconds(self.method, atoms) * ionic_steps(atoms)

    def builder(
        self,
        task: Task,
        dataset: DatasetData,
        calculations: int,
        known: Mapping[str, Any],
        seconds_left: float | None,
    ) -> Any:
        if task.kind == "batch":
            self.process, single = self.batch, self.process
            builder = super().builder(task, dataset, calculations, known, seconds_left)
            self.process = single
            # All of them: they are in the fingerprint of the method, which batches must share.
            builder.pseudos = dict(self.inputs["pseudos"])
            return builder
        index = task.indices[0]
        atoms = dataset.get_dataset().atoms(index)
        mesh, offset = kpoints(self.method, atoms)
        points = KpointsData()
        points.set_kpoints_mesh(list(mesh), offset=list(offset))
        builder = self.process.get_builder()
        builder.kpoints = points
        builder.max_iterations = Int(calculations)
        builder.pw.code = self.inputs["code"]
        builder.pw.structure = call(extract_structure, dataset, Int(index))
        builder.pw.parameters = Dict(parameters(self.method, atoms, relax=relaxed(atoms)))
        builder.pw.pseudos = self._pseudos(set(in_box(atoms).get_chemical_symbols()))
        builder.pw.metadata.options = self._options(seconds_left)
        if seconds_left is not None:
            builder.deadline = Float(time.time() + seconds_left)
        if known:
            builder.known_failure = Dict({key: known[key] for key in ("exit_status", "failure")})
        return builder

    def single_label(self, node: ProcessNode) -> SingleLabel:
        """The ladder says what it did; a label of another method is kept out of the dataset."""
        if "rescue" not in node.outputs:
            return super().single_label(node)
        told = node.outputs.rescue.get_dict()
        if not node.is_finished_ok:
            late = node.exit_status == self.process.exit_codes.ERROR_OUT_OF_TIME.status
            return SingleLabel(str(told["reason"] or failure_reason(node)), out_of_time=late)
        if told["method"] != "own":
            return SingleLabel(f"It was labelled with another method only: {told['method_change']}")
        actions = [str(step["action"]) for step in told["steps"] if step["action"]]
        return SingleLabel(None, "; ".join(actions) if told["outcome"] == "rescued" else "")

    def _pseudos(self, elements: Any) -> dict[str, Any]:
        return {element: self.inputs["pseudos"][element] for element in elements}

    def label_nodes(self, node: ProcessNode | None, name: str, index: int) -> dict[str, Any]:
        if node is None or not name.startswith("structure_"):
            return super().label_nodes(node, name, index)
        names = ("parameters", "trajectory", "structure")
        found = {n: f"output_{n}" for n in names if f"output_{n}" in node.outputs}
        return {f"{n}_{index}": node.outputs[label] for n, label in found.items()}


def load_process(name: str) -> type[Process]:
    """The process of an entry point, a job or a work chain.

    Raises:
        InputError: there is none of that name, or it cannot be loaded.
    """
    found = None
    for group, factory in (
        ("aiida.calculations", CalculationFactory),
        ("aiida.workflows", WorkflowFactory),
    ):
        if name in get_entry_point_names(group):
            try:
                found = factory(name)
            except EntryPointError as error:
                raise InputError(f"The oracle '{name}' cannot be loaded: {error}") from error
    if found is None:
        raise InputError(
            f"There is no oracle '{name}'; an oracle is a process that is installed under this "
            f"entry point, such as {PW} or autopipe.ase."
        )
    return found  # type: ignore[no-any-return]


def oracle_of(inputs: Mapping[str, Any]) -> Oracle:
    """The oracle that the inputs of a label process name."""
    return PwOracle(inputs) if inputs["oracle"].value == PW else Oracle(inputs)


def validate_oracle(inputs: Mapping[str, Any], _: Any) -> str | None:
    """An oracle that is installed, with settings it understands."""
    if "oracle" not in inputs or "settings" not in inputs:
        return None
    try:
        if inputs["oracle"].value == PW:
            PwSettings.from_dict(inputs["settings"].get_dict())
            return None
        ports = load_process(inputs["oracle"].value).spec().inputs
    except InputError as error:
        return str(error)
    unknown = {"dataset", "settings", "code"} - set(ports)
    if unknown:
        return f"'{inputs['oracle'].value}' is no oracle: it takes no {', '.join(sorted(unknown))}."
    problem = ports["settings"].validate(inputs["settings"], ())
    return None if problem is None else str(problem.message)
