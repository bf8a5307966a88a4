"""`autopipe.label`: structures in, labelled and rejected structures out, within a hard budget."""

from __future__ import annotations

from typing import Any

from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, WorkChain, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import (
    AbstractCode,
    Bool,
    CalcJobNode,
    Dict,
    Int,
    KpointsData,
    ProcessNode,
    WorkChainNode,
)
from aiida_pseudo.data.pseudo.upf import UpfData
from ase import Atoms

from aiida_autopipe.calculations.functions import collect_labels, extract_structure
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.espresso.pw import (
    PwSettings,
    in_box,
    kpoints,
    parameters,
    relative_cost,
)
from aiida_autopipe.workflows.pw import PwWorkChain

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
        affordable = list(range(min(len(data), self.inputs.budget.value)))
        cost = {i: _cost(settings, data.atoms(i)) for i in affordable}
        self.ctx.pending = sorted(affordable, key=lambda i: (-cost[i], i))
        self.ctx.ok = []
        self.ctx.rejected = {}
        self.ctx.calculations = 0
        return None

    @property
    def budget_left(self) -> int:
        """pw.x calculations that may still be started."""
        return int(self.inputs.budget.value - self.ctx.calculations)

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
        for index in self.ctx.wave:
            builder = self._build(settings, data.atoms(index), index, attempts)
            running[f"structure_{index}"] = self.submit(builder)
        return ToContext(**running)

    def _build(self, settings: PwSettings, atoms: Atoms, index: int, attempts: int) -> Any:
        mesh, offset = kpoints(settings, atoms)
        points = KpointsData()
        points.set_kpoints_mesh(list(mesh), offset=list(offset))
        boxed = in_box(atoms)
        builder = PwWorkChain.get_builder()
        builder.kpoints = points
        builder.max_iterations = Int(attempts)
        builder.clean_workdir = Bool(True)
        builder.pw.code = self.inputs.code
        builder.pw.structure = extract_structure(self.inputs.dataset, Int(index))
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
            "withmpi": False,
        }
        if "options" in self.inputs:
            options |= self.inputs.options.get_dict()
        return options

    def inspect_wave(self) -> None:
        """Sort the finished structures into labelled and rejected, and count every run."""
        for index in self.ctx.wave:
            node = self.ctx[f"structure_{index}"]
            self.ctx.calculations += len(_calculations(node))
            if node.is_finished_ok:
                self.ctx.ok.append(index)
            else:
                self.ctx.rejected[str(index)] = reason = failure_reason(node)
                self.report(f"structure {index} is rejected: {reason}")

    def results(self) -> ExitCode | None:
        """Collect labels and reasons into datasets."""
        ok, rejected = sorted(self.ctx.ok), self.ctx.rejected
        data = self.inputs.dataset.get_dataset()
        nodes = {}
        for index in ok:
            outputs: AttributeDict = self.ctx[f"structure_{index}"].outputs
            nodes[f"parameters_{index}"] = outputs.output_parameters
            nodes[f"trajectory_{index}"] = outputs.output_trajectory
            if relaxed(data.atoms(index)):
                nodes[f"structure_{index}"] = outputs.output_structure
        outcome = {
            "ok": ok,
            "rejected": rejected,
            "pseudos": {el: pseudo.md5 for el, pseudo in sorted(self.inputs.pseudos.items())},
        }
        collected = collect_labels(
            self.inputs.dataset, self.inputs.settings, Dict(outcome), **nodes
        )
        self.out_many(collected)
        requested = len(ok) + len(rejected)
        summary = Dict(
            {
                "requested": requested,
                "ok": len(ok),
                "rejected": len(rejected),
                "not_run": self.inputs.dataset.n_structures - requested,
                "calculations": self.ctx.calculations,
            }
        ).store()
        self.out("summary", summary)
        if not ok:
            reason = next(iter(rejected.values()))
            return self.exit_codes.ERROR_NOTHING_LABELLED.format(requested=requested, reason=reason)
        return None


def relaxed(atoms: Atoms) -> bool:
    """True for a structure whose positions are to be relaxed before it is labelled."""
    return bool(atoms.info.get("relax", False))


def _cost(settings: PwSettings, atoms: Atoms) -> float:
    return relative_cost(settings, atoms) * (TYPICAL_IONIC_STEPS if relaxed(atoms) else 1)


def _calculations(node: WorkChainNode) -> list[CalcJobNode]:
    return [called for called in node.called if isinstance(called, CalcJobNode)]


def failure_reason(node: ProcessNode) -> str:
    """One sentence on why a process failed: its last calculation's own words, or its own."""
    if node.is_excepted:
        return f"the process excepted: {node.exception}"
    if node.is_killed:
        return "the process was killed"
    calculations = _calculations(node) if isinstance(node, WorkChainNode) else []
    last = calculations[-1] if calculations else None
    if last is not None and not last.is_finished_ok:
        attempts = f" (attempt {len(calculations)})" if node.process_label == "PwWorkChain" else ""
        if last.is_excepted or last.is_killed:
            return f"{last.process_label} was {last.process_state.value}{attempts}"
        words = " ".join(str(last.exit_message or "no message").split())
        return f"{last.process_label} failed with [{last.exit_status}] {words}{attempts}"
    return f"[{node.exit_status}] {' '.join(str(node.exit_message).split())}"
