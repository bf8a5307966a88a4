"""`autopipe.md`: many starts and conditions, the frames a potential is unsure about."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
from aiida.engine import ExitCode, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import AbstractCode, ArrayData, Bool, Dict, Int, List, ProcessNode, load_node
from aiida.plugins import CalculationFactory

from aiida_autopipe.calculations.describe import describe
from aiida_autopipe.calculations.functions import collect_candidates, take
from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.workflows.functions import call, failure_reason
from aiida_autopipe.workflows.label import validate_positive
from aiida_autopipe.workflows.rolling import RollingWorkChain


class MdWorkChain(RollingWorkChain):
    """Run molecular dynamics from every start under its conditions, at most `max_concurrent` at
    once.

    A simulation that is halted by the extrapolation grade is a success: its frames are candidates.
    One that fails (lost atoms, NaN, a LAMMPS error) still gives what it has, counts with a survival
    of its last safe step, and never stops the others.

    With `hand_over` it ends when all have been started and one needs a better potential, and leaves
    the others running. The next generation takes them as `adopted`, and waits for them as for its
    own.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outputs, outline and exit codes."""
        super().define(spec)
        spec.input("potential", valid_type=PotentialData)
        spec.input("starts", valid_type=DatasetData, help="Start structures.")
        spec.input(
            "conditions",
            valid_type=List,
            help="One dictionary a simulation: `start` (index), `ensemble`, `temperature_K`, "
            "`pressure_GPa` and `steps`, and for a schedule its `segments`.",
        )
        spec.input_namespace(
            "restarts",
            valid_type=ArrayData,
            dynamic=True,
            required=False,
            help="`simulation_<index>`: where a simulation of an earlier potential goes on.",
        )
        spec.input(
            "settings", valid_type=Dict, help="Settings shared by all simulations (`MdSettings`)."
        )
        spec.input(
            "generation", valid_type=Int, default=lambda: Int(0), help="Noted on the frames."
        )
        spec.input("code", valid_type=AbstractCode, help="LAMMPS.")
        spec.input(
            "seed", valid_type=Int, help="Seed of the first simulation; each next one adds 1."
        )
        spec.input(
            "max_concurrent", valid_type=Int, validator=validate_positive, default=lambda: Int(1)
        )
        spec.input(
            "hand_over",
            valid_type=Bool,
            default=lambda: Bool(False),
            help="End when all were started and one was halted or failed, not when all have ended.",
        )
        spec.input(
            "adopted",
            valid_type=Dict,
            required=False,
            help="Index -> UUID of the simulations that an earlier generation left running.",
        )
        spec.input(
            "descriptors",
            valid_type=Dict,
            required=False,
            help="Features for the candidates: `descriptor`, `average`, `settings`.",
        )
        spec.input(
            "options", valid_type=Dict, required=False, help="`metadata.options` of one simulation."
        )
        spec.outline(cls.setup, while_(cls.should_run)(cls.start, cls.inspect), cls.results)
        spec.output("candidates", valid_type=DatasetData, required=False)
        spec.output(
            "summary",
            valid_type=Dict,
            help="`simulations`, `survival`, `new_candidates`, `running`.",
        )
        spec.output_namespace(
            "restarts",
            valid_type=ArrayData,
            dynamic=True,
            required=False,
            help="`simulation_<index>`: the last safe frame of each simulation that did not reach "
            "its end.",
        )
        spec.exit_code(201, "ERROR_NO_CONDITIONS", message="There is no simulation to run.")
        spec.exit_code(402, "ERROR_COLLECT", message="The frames could not be collected: {reason}")
        spec.exit_code(403, "ERROR_DESCRIBE", message="The candidates have no features: {reason}")
        spec.exit_code(
            401,
            "ERROR_ALL_FAILED",
            message="All {count} simulations failed; first reason: {reason}",
        )

    def setup(self) -> ExitCode | None:
        """Queue the simulations that do not run already."""
        adopted = self._adopted()
        self.ctx.nodes = {index: load_node(uuid).pk for index, uuid in adopted.items()}
        self.ctx.running = {self._name(index): pk for index, pk in self.ctx.nodes.items()}
        indices = range(len(self.inputs.conditions))
        self.ctx.pending = [index for index in indices if index not in adopted]
        self.ctx.lost = False
        starts = self.inputs.starts.get_dataset()
        names = starts.columns.get("start", np.arange(len(starts)))
        self.ctx.names = [str(name) for name in names]
        return None if len(indices) else self.exit_codes.ERROR_NO_CONDITIONS

    def _adopted(self) -> dict[int, str]:
        """Index -> UUID of the simulations of an earlier potential."""
        adopted = self.inputs.adopted.get_dict() if "adopted" in self.inputs else {}
        return {int(index): uuid for index, uuid in adopted.items()}

    def _name(self, index: int) -> str:
        return simulation_name(index, self.inputs.conditions[index])

    def should_run(self) -> bool:
        """True while simulations are waiting, or running and worth waiting for."""
        if self.ctx.lost and self.inputs.hand_over.value and not self.ctx.pending:
            return False
        return bool(self.ctx.pending or self.ctx.running)

    def start(self) -> ToContext | None:
        """Start as many simulations as may run at once, and wait for the first to end."""
        while self.ctx.pending and len(self.ctx.running) < self.inputs.max_concurrent.value:
            index = self.ctx.pending.pop(0)
            name = self._name(index)
            node = self.adopt(name)
            if node is None:
                builder = self._build(index)
                builder.metadata.label = name
                node = self.submit(builder)
            self.ctx.nodes[index] = node.pk
            self.ctx.running[name] = node.pk
        return self.wait_for_running()

    def _build(self, index: int) -> Any:
        condition = dict(self.inputs.conditions[index])
        start = int(condition.pop("start"))
        segments = condition.pop("segments", None) or [condition]
        builder = CalculationFactory("autopipe.lammps").get_builder()
        builder.code = self.inputs.code
        builder.structure = call(take, self.inputs.starts, List([start]))
        builder.potential = self.inputs.potential
        builder.settings = Dict({**self.inputs.settings.get_dict(), "segments": segments})
        builder.seed = Int(self.inputs.seed.value + index)
        restart = self._restart(index)
        if restart is not None:
            builder.restart = restart
        if "options" in self.inputs:
            builder.metadata.options = self.inputs.options.get_dict()
        return builder

    def _restart(self, index: int) -> ArrayData | None:
        """Where the simulation goes on, if it was begun with an earlier potential."""
        found: ArrayData | None = self.inputs.get("restarts", {}).get(f"simulation_{index}")
        return found

    def inspect(self) -> None:
        """Note how each simulation ended that did."""
        for name, node in self.take_ended().items():
            if not node.is_finished_ok:
                self.report(f"simulation {name} failed: {failure_reason(node)}")
            known = node.outputs.results.get_dict() if "results" in node.outputs else {}
            lost = not node.is_finished_ok or known.get("halted", False)
            self.ctx.lost = self.ctx.lost or lost

    def _records(self, ended: dict[int, ProcessNode]) -> list[dict[str, Any]]:
        """How each simulation ended, in the order of the conditions."""
        records = []
        for index, node in ended.items():
            condition = dict(self.inputs.conditions[index])
            record = simulation_record(node, condition)
            record["index"] = index
            record["start_name"] = self.ctx.names[condition["start"]]
            record["earlier_potential"] = index in self._adopted()
            records.append(record)
        return records

    def results(self) -> ExitCode | None:
        """Collect candidates and the summary."""
        nodes = {index: load_node(self.ctx.nodes[index]) for index in sorted(self.ctx.nodes)}
        running = {i: node.uuid for i, node in nodes.items() if self._name(i) in self.ctx.running}
        ended = {i: node for i, node in nodes.items() if i not in running}
        simulations = self._records(ended)
        frames = {
            f"frames_{i}": node.outputs.frames
            for i, node in ended.items()
            if "frames" in node.outputs
        }
        choice = Dict(
            {
                "gamma_select": self.inputs.settings["gamma_select"],
                "generation": self.inputs.generation.value,
                "running": {str(index): uuid for index, uuid in running.items()},
            }
        )
        try:
            collected = call(collect_candidates, choice, List(simulations), **frames)
        except AutopipeError as error:
            return self.exit_codes.ERROR_COLLECT.format(reason=error)
        problem = self._describe(collected)
        self.out_many(collected)
        self._out_restarts(simulations, ended)
        failures = [s["failure"] for s in simulations if s["failure"]]
        if len(failures) == len(nodes):
            return self.exit_codes.ERROR_ALL_FAILED.format(count=len(failures), reason=failures[0])
        return problem

    def _out_restarts(
        self, simulations: list[dict[str, Any]], ended: dict[int, ProcessNode]
    ) -> None:
        """Hand on where each simulation that did not end can be continued.

        One that found nothing safe since it was resumed goes on from where it was resumed.
        """
        for record, (index, node) in zip(simulations, ended.items(), strict=True):
            if record["steps_done"] >= record["steps_asked"] and not record["failure"]:
                continue
            for links in (node.outputs, node.inputs):
                if "restart" in links:
                    self.out(f"restarts.simulation_{index}", links.restart)
                    break

    def _describe(self, collected: dict[str, Any]) -> ExitCode | None:
        """Give the candidates features; where that fails they are handed over without."""
        if "candidates" not in collected or "descriptors" not in self.inputs:
            return None
        try:
            collected["candidates"] = call(
                describe, collected["candidates"], self.inputs.potential, self.inputs.descriptors
            )
        except AutopipeError as error:
            return self.exit_codes.ERROR_DESCRIBE.format(reason=error)
        return None


def simulation_name(index: int, condition: dict[str, Any]) -> str:
    """Such as '0 nvt 300 K', '1 npt 300-900 K' or '2 schedule 300-900-300 K'."""
    kelvin = "-".join(name for name, _ in groupby(f"{t:g}" for t in condition["temperature_K"]))
    return f"{index} {condition['ensemble']} {kelvin} K"


def simulation_record(node: ProcessNode, condition: dict[str, Any]) -> dict[str, Any]:
    """What the summary keeps of one simulation.

    Args:
        node: the finished `autopipe.lammps` calculation.
        condition: what it was asked to do.
    """
    results = node.outputs.results.get_dict() if "results" in node.outputs else {}
    return {
        **condition,
        "uuid": node.uuid,
        "failure": None if node.is_finished_ok else failure_reason(node),
        "survival": float(results.get("survival", 0.0)),
        "halted": bool(results.get("halted", False)),
        "halt_reason": results.get("halt_reason"),
        "gamma_max": results.get("gamma_max"),
        "first_step": results.get("first_step", 0),
        "steps_done": results.get("steps_done", 0),
        "steps_asked": results.get("steps_asked", condition["steps"]),
        "wall_seconds": results.get("wall_seconds"),
    }
