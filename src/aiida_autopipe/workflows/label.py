"""`autopipe.label`: structures in, labelled and rejected structures out, within a hard budget."""

from __future__ import annotations

from typing import Any

from aiida.engine import ExitCode, ToContext, WorkChain, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import (
    AbstractCode,
    Dict,
    Int,
    KpointsData,
)
from aiida_pseudo.data.pseudo.upf import UpfData
from ase import Atoms

from aiida_autopipe.calculations.functions import collect_labels, extract_structure
from aiida_autopipe.core.ace.neighbours import check_geometry
from aiida_autopipe.core.errors import AutopipeError, InputError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.espresso.pw import (
    PwSettings,
    in_box,
    kpoints,
    parameters,
    relative_cost,
)
from aiida_autopipe.workflows.functions import call, count_jobs, failure_reason, jobs
from aiida_autopipe.workflows.pw import PwWorkChain

OUTPUTS = ("parameters", "trajectory", "structure")
"""Outputs of a calculation that a label is made of; the structure only where it was relaxed."""

TYPICAL_IONIC_STEPS = 8
"""How much a relaxation costs in single points; only used to start the long ones first."""


def validate_settings(node: Dict, _: Any) -> str | None:
    """Settings of `PwSettings`, complete and known."""
    try:
        PwSettings.from_dict(node.get_dict())
    except InputError as error:
        return str(error)
    return None


def validate_positive(node: Int, _: Any) -> str | None:
    """A count of at least one."""
    return None if node.value > 0 else f"must be at least 1, not {node.value}"


class LabelWorkChain(WorkChain):
    """Label the structures of a dataset with pw.x.

    At most `max_concurrent` calculations run at once: `core.direct` has no queue. Structures are
    started in the order of the dataset as far as the budget reaches, grouped so that those of
    similar cost run side by side. A structure that fails is rejected with its reason and the others
    go on. Every pw.x run counts against the budget, retries included; a retry is allowed only when
    the budget still covers it.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outputs, outline and exit codes."""
        super().define(spec)
        spec.input(
            "dataset",
            valid_type=DatasetData,
            help="The structures; where the column `relax` is true, positions are relaxed first.",
        )
        spec.input(
            "settings",
            valid_type=Dict,
            validator=validate_settings,
            help="The method: `PwSettings`.",
        )
        spec.input("code", valid_type=AbstractCode, help="pw.x.")
        spec.input_namespace("pseudos", valid_type=UpfData, dynamic=True, help="UPF by element.")
        spec.input(
            "budget", valid_type=Int, validator=validate_positive, help="Most pw.x calculations."
        )
        spec.input(
            "max_attempts", valid_type=Int, validator=validate_positive, default=lambda: Int(3)
        )
        spec.input(
            "max_concurrent", valid_type=Int, validator=validate_positive, default=lambda: Int(1)
        )
        spec.input(
            "options",
            valid_type=Dict,
            required=False,
            help="`metadata.options` of one calculation.",
        )
        spec.outline(
            cls.setup, while_(cls.should_label)(cls.run_wave, cls.inspect_wave), cls.results
        )
        spec.output("labelled", valid_type=DatasetData, required=False)
        spec.output("rejected", valid_type=DatasetData, required=False)
        spec.output(
            "summary", valid_type=Dict, help="requested, ok, rejected, not_run, calculations."
        )
        spec.exit_code(
            201,
            "ERROR_MISSING_PSEUDOPOTENTIAL",
            message="There is no pseudopotential for {elements}.",
        )
        spec.exit_code(402, "ERROR_COLLECT", message="The labels could not be collected: {reason}")
        spec.exit_code(
            401,
            "ERROR_NOTHING_LABELLED",
            message="None of the {requested} requested labels succeeded; first reason: {reason}",
        )

    def setup(self) -> ExitCode | None:
        """Decide what the budget reaches, in the order of the dataset, cheapest last."""
        missing = sorted(set(self.inputs.dataset.elements) - set(self.inputs.pseudos))
        if missing:
            return self.exit_codes.ERROR_MISSING_PSEUDOPOTENTIAL.format(elements=", ".join(missing))
        data = self.inputs.dataset.get_dataset()
        settings = PwSettings.from_dict(self.inputs.settings.get_dict())
        self.ctx.ok = []
        self.ctx.rejected = {}
        cost: dict[int, float] = {}
        for index in range(len(data)):
            if len(cost) == self.inputs.budget.value:
                break
            try:
                cost[index] = _cost(settings, data.atoms(index))
            except AutopipeError as error:
                self._reject(index, str(error))
        self.ctx.pending = sorted(cost, key=lambda index: (-cost[index], index))
        return None

    @property
    def budget_left(self) -> int:
        """pw.x calculations that may still be started.

        They are counted in the provenance graph: whatever was started is paid for, also when a
        worker died before it could take note of it.
        """
        return int(self.inputs.budget.value - count_jobs(self.node))

    def should_label(self) -> bool:
        """True while there is a structure and a calculation left for it."""
        return bool(self.ctx.pending) and self.budget_left > 0

    def run_wave(self) -> ToContext:
        """Start as many structures as may run at once."""
        size = min(self.inputs.max_concurrent.value, len(self.ctx.pending), self.budget_left)
        self.ctx.wave, self.ctx.pending = self.ctx.pending[:size], self.ctx.pending[size:]
        # What is left when each structure of the wave had one run is shared out for retries.
        spare = (self.budget_left - size) // size
        attempts = min(self.inputs.max_attempts.value, 1 + spare)
        data = self.inputs.dataset.get_dataset()
        settings = PwSettings.from_dict(self.inputs.settings.get_dict())
        running = {}
        for index in list(self.ctx.wave):
            try:
                builder = self._build(settings, data.atoms(index), index, attempts)
            except AutopipeError as error:
                self.ctx.wave.remove(index)
                self._reject(index, str(error))
                continue
            running[f"structure_{index}"] = self.submit(builder)
        return ToContext(**running)

    def _reject(self, index: int, reason: str) -> None:
        self.ctx.rejected[str(index)] = reason
        self.report(f"structure {index} is rejected: {reason}")

    def _build(self, settings: PwSettings, atoms: Atoms, index: int, attempts: int) -> Any:
        mesh, offset = kpoints(settings, atoms)
        points = KpointsData()
        points.set_kpoints_mesh(list(mesh), offset=list(offset))
        boxed = in_box(atoms)
        builder = PwWorkChain.get_builder()
        builder.kpoints = points
        builder.max_iterations = Int(attempts)
        builder.pw.code = self.inputs.code
        builder.pw.structure = call(extract_structure, self.inputs.dataset, Int(index))
        builder.pw.parameters = Dict(parameters(settings, atoms, relax=relaxed(atoms)))
        builder.pw.pseudos = {
            el: self.inputs.pseudos[el] for el in set(boxed.get_chemical_symbols())
        }
        builder.pw.metadata.options = self._options()
        builder.metadata.label = f"structure {index}"
        return builder

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1},
            "max_wallclock_seconds": 3600,
            "withmpi": bool(self.inputs.code.with_mpi),
        }
        if "options" in self.inputs:
            options |= self.inputs.options.get_dict()
        return options

    def inspect_wave(self) -> None:
        """Sort the finished structures into labelled and rejected."""
        for index in self.ctx.wave:
            node = self.ctx[f"structure_{index}"]
            if node.is_finished_ok:
                self.ctx.ok.append(index)
                # Failed ones keep their folders: a later run may restart from them.
                for job in jobs(node):
                    job.outputs.remote_folder._clean()
            else:
                self._reject(index, failure_reason(node))

    def results(self) -> ExitCode | None:
        """Collect labels and reasons into datasets."""
        ok = sorted(self.ctx.ok)
        data = self.inputs.dataset.get_dataset()
        nodes: dict[str, Any] = {}
        for index in ok:
            outputs = self.ctx[f"structure_{index}"].outputs
            wanted = OUTPUTS if relaxed(data.atoms(index)) else OUTPUTS[:2]
            found = {name: f"output_{name}" for name in wanted if f"output_{name}" in outputs}
            nodes |= {f"{name}_{index}": outputs[label] for name, label in found.items()}
        outcome = {
            "ok": ok,
            "rejected": self.ctx.rejected,
            "pseudos": {el: pseudo.md5 for el, pseudo in sorted(self.inputs.pseudos.items())},
            "calculations": count_jobs(self.node),
        }
        try:
            collected = call(
                collect_labels, self.inputs.dataset, self.inputs.settings, Dict(outcome), **nodes
            )
        except AutopipeError as error:
            return self.exit_codes.ERROR_COLLECT.format(reason=error)
        self.out_many(collected)
        if "labelled" not in collected:
            reasons = collected["rejected"].get_dataset().columns["reason"]
            return self.exit_codes.ERROR_NOTHING_LABELLED.format(
                requested=len(reasons), reason=reasons[0]
            )
        return None


def relaxed(atoms: Atoms) -> bool:
    """True for a structure whose positions are to be relaxed before it is labelled."""
    return bool(atoms.info.get("relax", False))


def _cost(settings: PwSettings, atoms: Atoms) -> float:
    """What a label costs in relation to others; raises DataError for a senseless structure."""
    boxed = in_box(atoms)
    check_geometry(boxed)
    return relative_cost(settings, atoms) * (TYPICAL_IONIC_STEPS if relaxed(atoms) else 1)
