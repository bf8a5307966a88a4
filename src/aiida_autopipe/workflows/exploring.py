"""The steps of the loop that explore with its potential: molecular dynamics, choice, cut-outs."""

from __future__ import annotations

from typing import Any

from aiida.engine import ExitCode, ToContext, WorkChain
from aiida.orm import Bool, Dict, Int, List, ProcessNode, load_node

from aiida_autopipe.calculations.embed import embed
from aiida_autopipe.calculations.functions import md_starts, select
from aiida_autopipe.calculations.thresholds import set_thresholds
from aiida_autopipe.calculations.unlearned import judge_unlearned
from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.core.thresholds import AUTO
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.workflows.functions import call, failure_reason
from aiida_autopipe.workflows.inputs import job_options, md_conditions, md_settings
from aiida_autopipe.workflows.md import MdWorkChain


class ExploringWorkChain(WorkChain):
    """What `autopipe.active_learning` does with the potential of a generation.

    Of the context it uses `config`, `generation`, `training`, `dataset` and `counts`, and leaves
    `md`, `selected` (what is worth a label, or None), `restarts` and `unfinished` (UUID by index of
    the simulations that run on while others are learned from).
    """

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.ctx.config["seed"])

    @property
    def budget_left(self) -> int:
        """Label calculations that may still be started."""
        return int(self.ctx.config["budget"]["labels"] - self.ctx.counts["calculations"])

    def _options(self, stage: str) -> Dict:
        """`metadata.options` of the jobs of a stage."""
        resources = self.ctx.config["resources"][stage]
        return Dict(job_options(resources, self.inputs.codes[stage].with_mpi))

    def run_md(self) -> ToContext | ExitCode:
        """Send the potential into molecular dynamics under the conditions of the goal."""
        self.ctx.generation += 1
        md, resources = self.ctx.config["md"], self.ctx.config["resources"]
        keys = ("supercell", "include_vacancy", "schedule_supercell")
        shape = Dict({key: md[key] for key in keys})
        try:
            starts = call(md_starts, self.inputs.crystal, shape)
            settings = self._md_settings()
        except AutopipeError as error:
            return self.exit_codes.ERROR_MD.format(reason=error)
        node = self.submit(
            MdWorkChain,
            potential=self.ctx.training.outputs.potential,
            starts=starts,
            conditions=List(md_conditions(md, starts.n_structures)),
            settings=settings,
            **({"descriptors": Dict(md["descriptors"])} if md["descriptors"] else {}),
            **({"restarts": self.ctx.restarts} if self.ctx.restarts else {}),
            **({"adopted": Dict(self.ctx.unfinished)} if self.ctx.unfinished else {}),
            # What runs on behind the last generation would teach nobody.
            hand_over=Bool(
                md["overlap"] and self.ctx.generation < self.ctx.config["loop"]["max_generations"]
            ),
            code=self.inputs.codes.md,
            generation=Int(self.ctx.generation),
            # Far enough apart that no two simulations of a run share a seed.
            seed=Int(self.seed + 1000 * self.ctx.generation),
            max_concurrent=Int(resources["max_concurrent"]),
            options=self._options("md"),
            metadata={"label": f"MD of generation {self.ctx.generation}"},
        )
        return ToContext(md=node)

    def _md_settings(self) -> Dict:
        """Settings of all simulations; thresholds that are auto become those of the potential."""
        settings = Dict(md_settings(self.ctx.config["md"]))
        if AUTO not in (settings["gamma_select"], settings["gamma_halt"]):
            return settings
        found = call(set_thresholds, settings, self.ctx.training.outputs.metrics)
        self.report(found["thresholds"]["sentence"])
        numbers: Dict = found["settings"]
        return numbers

    def inspect_md(self) -> ExitCode | None:
        """Choose what is worth a label among the frames above the threshold."""
        node = self.ctx.md
        self.ctx.selected = None
        self.ctx.restarts = self._restarts(node)
        if "summary" not in node.outputs:
            return self.exit_codes.ERROR_MD.format(reason=failure_reason(node))
        self.ctx.unfinished = node.outputs.summary["running"]
        if "candidates" not in node.outputs:
            if not node.is_finished_ok:
                return self.exit_codes.ERROR_MD.format(reason=failure_reason(node))
            return None
        loop = self.ctx.config["loop"]
        n = min(loop["candidates_per_generation"], self.budget_left)
        if n < 1:
            return None
        try:
            outputs = call(
                select,
                node.outputs.candidates,
                self.ctx.dataset,
                self.ctx.training.outputs.potential,
                Dict({"n": n, "method": loop["select_method"], "seed": self.ctx.config["seed"]}),
            )
        except AutopipeError as error:
            return self.exit_codes.ERROR_SELECT.format(reason=error)
        self.ctx.selected = outputs.get("selected")
        return self._embed()

    def judge_potential(self, labelled: DatasetData) -> None:
        """Note for the report how wrong the potential was on what it asked for, before it learns.

        A by-product must not cost the run.
        """
        if not self.ctx.generation:
            return
        try:
            call(judge_unlearned, labelled, self.ctx.training.outputs.potential)
        except AutopipeError as error:
            self.report(f"the errors on the new labels are not known: {error}")

    def running_simulations(self) -> list[ProcessNode]:
        """Simulations of an earlier generation that have not ended."""
        nodes = [load_node(uuid) for uuid in self.ctx.unfinished.values()]
        return [node for node in nodes if not node.is_terminated]

    def wait_for_simulations(self) -> ToContext | None:
        """Leave nothing running behind."""
        running = self.running_simulations()
        if not running:
            return None
        self.report(f"waiting for {len(running)} simulations of an earlier potential to end")
        return ToContext(**{f"simulation_{node.pk}": node for node in running})

    def _restarts(self, node: Any) -> dict[str, Any]:
        """Where the simulations of the next generation go on, if they were not at their end."""
        if not self.ctx.config["md"]["resume"] or "restarts" not in node.outputs:
            return {}
        return {name: node.outputs.restarts[name] for name in node.outputs.restarts}

    def _embed(self) -> ExitCode | None:
        """Where asked for, label a small cell around the uncertain atom instead of the frame."""
        settings = self.ctx.config["md"]["embed"]
        if settings is None or self.ctx.selected is None:
            return None
        try:
            outputs = call(
                embed,
                self.ctx.selected,
                self.inputs.crystal,
                self.ctx.training.outputs.potential,
                Dict(settings),
            )
        except AutopipeError as error:
            return self.exit_codes.ERROR_EMBED.format(reason=error)
        self.ctx.selected = outputs["cells"]
        return None
