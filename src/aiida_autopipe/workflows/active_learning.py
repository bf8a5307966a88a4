"""`autopipe.active_learning`: the whole loop, from a crystal to a validated potential."""

from __future__ import annotations

from typing import Any

from aiida.common import timezone
from aiida.engine import ExitCode, ToContext, WorkChain, if_, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import AbstractCode, ArrayData, Dict, Int, List, Str
from aiida_pseudo.data.pseudo.upf import UpfData
from pydantic import ValidationError

from aiida_autopipe.calculations.functions import (
    generate,
    md_starts,
    merge,
    select,
    take,
)
from aiida_autopipe.config.errors import explain
from aiida_autopipe.config.models import Config
from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.core.stopping import GenerationRecord, StopRule, decide
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.engines.espresso.pw import is_isolated_atom
from aiida_autopipe.workflows.functions import call, count_jobs, failure_reason
from aiida_autopipe.workflows.inputs import job_options, md_conditions, md_settings
from aiida_autopipe.workflows.label import LabelWorkChain
from aiida_autopipe.workflows.md import MdWorkChain
from aiida_autopipe.workflows.train import TrainWorkChain
from aiida_autopipe.workflows.validate import ValidateWorkChain

INITIAL_SHARE = 0.6
"""Largest part of the label budget spent before there is a potential to ask."""
TRAIN_ONLY = ("trainer", "code", "test_fraction")


def validate_config(node: Dict, _: Any) -> str | None:
    """A complete configuration, as `mlip-auto check` prints it."""
    try:
        Config.model_validate(node.get_dict())
    except ValidationError as error:
        return "; ".join(explain(error, Config))
    return None


class ActiveLearningWorkChain(WorkChain):
    """Generate, label, train; then MD, select, label, train again until the stop rule is met;
    validate.

    Attributes of the context: `datasets` (labelled parts in order), `history` (one dictionary a
    generation), `counts` (labels requested, ok, rejected, calculations).
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outputs, outline and exit codes."""
        super().define(spec)
        spec.input(
            "config",
            valid_type=Dict,
            validator=validate_config,
            help="The expanded configuration.",
        )
        spec.input(
            "run_key",
            valid_type=Str,
            required=False,
            help="Hash of everything the run starts from; the same input finds its run by it.",
        )
        spec.input("method", valid_type=Dict, help="Settings of the labels: `PwSettings`.")
        spec.input("crystal", valid_type=DatasetData, help="Primitive and conventional cell.")
        spec.input_namespace("codes", valid_type=AbstractCode, help="`label`, `train` and `md`.")
        spec.input("codes.label", valid_type=AbstractCode, help="pw.x.")
        spec.input("codes.train", valid_type=AbstractCode, help="A Python interpreter.")
        spec.input("codes.md", valid_type=AbstractCode, help="LAMMPS.")
        spec.input_namespace("pseudos", valid_type=UpfData, dynamic=True, help="UPF by element.")
        spec.outline(
            cls.setup,
            cls.run_initial_labels,
            cls.inspect_labels,
            cls.inspect_references,
            while_(cls.should_continue)(
                cls.run_training,
                cls.inspect_training,
                cls.run_md,
                cls.inspect_md,
                if_(cls.should_label)(cls.run_labels, cls.inspect_labels),
                cls.finish_generation,
            ),
            if_(cls.should_retrain)(cls.run_training, cls.inspect_training),
            cls.run_validation,
            cls.inspect_validation,
            cls.results,
        )
        _define_outputs(spec)
        _define_exit_codes(spec)

    # ------------------------------------------------------------------ start

    def setup(self) -> None:
        """Start with nothing labelled and nothing learned."""
        config = self.inputs.config.get_dict()
        self.ctx.config = config
        self.ctx.counts = {"requested": 0, "ok": 0, "rejected": 0, "calculations": 0}
        self.ctx.datasets = []
        self.ctx.rejected = []
        self.ctx.history = []
        self.ctx.stop_reason = ""
        self.ctx.generation = 0
        self.ctx.trained_on = 0

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

    def _submit_labels(self, dataset: DatasetData, budget: int, label: str) -> Any:
        resources = self.ctx.config["resources"]
        return self.submit(
            LabelWorkChain,
            dataset=dataset,
            settings=self.inputs.method,
            code=self.inputs.codes.label,
            pseudos=self.inputs.pseudos,
            budget=Int(budget),
            max_attempts=Int(self.ctx.config["label"]["max_attempts"]),
            max_concurrent=Int(resources["max_concurrent"]),
            options=self._options("label"),
            metadata={"label": label},
        )

    def run_initial_labels(self) -> ToContext | ExitCode:
        """Generate the first pool and label as much of it as the budget allows."""
        settings = Dict(self.ctx.config["generate"])
        try:
            pool = call(generate, self.inputs.crystal, settings, Int(self.seed))
        except AutopipeError as error:
            return self.exit_codes.ERROR_GENERATE.format(reason=error)
        share = int(INITIAL_SHARE * self.ctx.config["budget"]["labels"])
        n = min(pool.n_structures, self.budget_left, share + len(self.inputs.crystal.elements))
        if n < pool.n_structures:
            self.report(f"{n} of {pool.n_structures} initial structures fit into the budget")
            pool = call(take, pool, List(list(range(n))))
        return ToContext(labels=self._submit_labels(pool, n, "initial structures"))

    def inspect_references(self) -> ExitCode | None:
        """Without the energies of the isolated atoms nothing can be fitted."""
        labelled = self.ctx.datasets[0].get_dataset()
        isolated = {
            a.get_chemical_symbols()[0] for a in labelled.iter_atoms() if is_isolated_atom(a)
        }
        missing = sorted(set(self.inputs.crystal.elements) - isolated)
        if missing:
            return self.exit_codes.ERROR_REFERENCES.format(elements=", ".join(missing))
        if len(labelled) == len(isolated):
            return self.exit_codes.ERROR_NO_LABELS.format(
                reason="only the isolated atoms succeeded"
            )
        return None

    # ------------------------------------------------------------------ labels

    def should_label(self) -> bool:
        """True when MD found something new and the budget still covers a label."""
        return self.ctx.selected is not None

    def run_labels(self) -> ToContext:
        """Label the chosen candidates."""
        budget = min(
            self.budget_left,
            self.ctx.selected.n_structures * self.ctx.config["label"]["max_attempts"],
        )
        label = f"candidates of generation {self.ctx.generation}"
        return ToContext(labels=self._submit_labels(self.ctx.selected, budget, label))

    def inspect_labels(self) -> ExitCode | None:
        """Add what was labelled; rejected structures are kept with their reasons."""
        node = self.ctx.labels
        self._count(node)
        if "rejected" in node.outputs:
            self.ctx.rejected.append(node.outputs.rejected)
        if "labelled" in node.outputs:
            self.ctx.datasets.append(node.outputs.labelled)
        if not self.ctx.datasets:
            return self.exit_codes.ERROR_NO_LABELS.format(reason=failure_reason(node))
        if not node.is_finished_ok:
            self.report(f"no new labels in this generation: {failure_reason(node)}")
        return None

    def _count(self, node: Any) -> None:
        """Add up what was asked for; what has to be paid is counted in the provenance graph."""
        if "summary" in node.outputs:
            summary = node.outputs.summary.get_dict()
            for key in ("requested", "ok", "rejected"):
                self.ctx.counts[key] += summary[key]
        steps = [c for c in self.node.called if c.process_label == LabelWorkChain.__name__]
        self.ctx.counts["calculations"] = sum(count_jobs(step) for step in steps)

    # ------------------------------------------------------------------ one generation

    def should_continue(self) -> bool:
        """True until the stop rule has given a reason."""
        return not self.ctx.stop_reason

    def run_training(self) -> ToContext | ExitCode:
        """Fit to everything labelled so far."""
        parts = {f"part_{i:03d}": node for i, node in enumerate(self.ctx.datasets)}
        try:
            self.ctx.dataset = call(merge, **parts)
        except AutopipeError as error:
            return self.exit_codes.ERROR_MERGE.format(reason=error)
        self.ctx.trained_on = len(self.ctx.datasets)
        train = self.ctx.config["train"]
        settings = {key: value for key, value in train.items() if key not in TRAIN_ONLY}
        node = self.submit(
            TrainWorkChain,
            dataset=self.ctx.dataset,
            trainer=train["trainer"],
            settings=Dict(settings),
            split=Dict({"test_fraction": train["test_fraction"]}),
            seed=Int(self.seed),
            code=self.inputs.codes.train,
            options=self._options("train"),
        )
        return ToContext(training=node)

    def inspect_training(self) -> ExitCode | None:
        """The loop needs a potential."""
        if not self.ctx.training.is_finished_ok:
            return self.exit_codes.ERROR_TRAINING.format(reason=failure_reason(self.ctx.training))
        return None

    def run_md(self) -> ToContext | ExitCode:
        """Send the potential into molecular dynamics under the conditions of the goal."""
        self.ctx.generation += 1
        md, resources = self.ctx.config["md"], self.ctx.config["resources"]
        shape = Dict({key: md[key] for key in ("supercell", "include_vacancy")})
        try:
            starts = call(md_starts, self.inputs.crystal, shape)
        except AutopipeError as error:
            return self.exit_codes.ERROR_MD.format(reason=error)
        node = self.submit(
            MdWorkChain,
            potential=self.ctx.training.outputs.potential,
            starts=starts,
            conditions=List(md_conditions(md, starts.n_structures)),
            settings=Dict(md_settings(md)),
            code=self.inputs.codes.md,
            generation=Int(self.ctx.generation),
            # Far enough apart that no two simulations of a run share a seed.
            seed=Int(self.seed + 1000 * self.ctx.generation),
            max_concurrent=Int(resources["max_concurrent"]),
            options=self._options("md"),
            metadata={"label": f"MD of generation {self.ctx.generation}"},
        )
        return ToContext(md=node)

    def inspect_md(self) -> ExitCode | None:
        """Choose what is worth a label among the frames above the threshold."""
        node = self.ctx.md
        self.ctx.selected = None
        if "summary" not in node.outputs:
            return self.exit_codes.ERROR_MD.format(reason=failure_reason(node))
        if "candidates" not in node.outputs:
            if not node.is_finished_ok:
                return self.exit_codes.ERROR_MD.format(reason=failure_reason(node))
            return None
        n = min(self.ctx.config["loop"]["candidates_per_generation"], self.budget_left)
        if n < 1:
            return None
        try:
            outputs = call(
                select,
                node.outputs.candidates,
                self.ctx.dataset,
                self.ctx.training.outputs.potential,
                Dict({"n": n}),
            )
        except AutopipeError as error:
            return self.exit_codes.ERROR_SELECT.format(reason=error)
        self.ctx.selected = outputs.get("selected")
        return None

    def finish_generation(self) -> None:
        """Write the history and ask the stop rule."""
        test = self.ctx.training.outputs.metrics["metrics"]["test"]
        summary = self.ctx.md.outputs.summary.get_dict()
        seconds = (timezone.now() - self.node.ctime).total_seconds()
        record = {
            "generation": self.ctx.generation,
            "survival": summary["survival"],
            "new_candidates": summary["new_candidates"],
            "labels_used": self.ctx.counts["calculations"],
            "energy_rmse": test["energy_rmse_per_atom"],
            "forces_rmse": test["forces_rmse"],
            "wall_seconds": seconds,
        }
        nodes = {"train_uuid": self.ctx.training.uuid, "md_uuid": self.ctx.md.uuid}
        self.ctx.history.append({**record, **nodes})
        records = [
            GenerationRecord(**{k: v for k, v in r.items() if not k.endswith("_uuid")})
            for r in self.ctx.history
        ]
        decision = decide(records, self._stop_rule())
        self.report(f"generation {self.ctx.generation}: {decision.reason}")
        if decision.stop:
            self.ctx.stop_reason = decision.reason

    def _stop_rule(self) -> StopRule:
        loop, budget = self.ctx.config["loop"], self.ctx.config["budget"]
        return StopRule(
            min_generations=loop["min_generations"],
            max_generations=loop["max_generations"],
            max_labels=budget["labels"],
            max_hours=budget["hours"],
            **loop["stop"],
        )

    def should_retrain(self) -> bool:
        """True when labels came in after the last fit."""
        return bool(self.ctx.trained_on < len(self.ctx.datasets))

    # ------------------------------------------------------------------ end

    def run_validation(self) -> ToContext:
        """Compare the final potential with the reference method."""
        config = self.ctx.config
        settings = {**config["validate"], "kspacing_per_A": config["label"]["kspacing_per_A"]}
        node = self.submit(
            ValidateWorkChain,
            potential=self.ctx.training.outputs.potential,
            crystal=self.inputs.crystal,
            settings=Dict(settings),
            label={
                "settings": self.inputs.method,
                "code": self.inputs.codes.label,
                "pseudos": self.inputs.pseudos,
                "max_attempts": Int(config["label"]["max_attempts"]),
                "max_concurrent": Int(config["resources"]["max_concurrent"]),
                "options": self._options("label"),
            },
        )
        return ToContext(validation=node)

    def inspect_validation(self) -> None:
        """Pass the table on when there is one."""
        if "table" in self.ctx.validation.outputs:
            self.out("validation", self.ctx.validation.outputs.table)

    def results(self) -> ExitCode | None:
        """Attach what the run was for; without a validation it is not a success."""
        training = self.ctx.training
        self.out("potential", training.outputs.potential)
        self.out("metrics", training.outputs.metrics)
        if "parity" in training.outputs:
            self.out("parity", training.outputs.parity)
        self.out("dataset", self.ctx.dataset)
        history = {
            "generations": self.ctx.history,
            "labels": self.ctx.counts,
            "stop_reason": self.ctx.stop_reason,
            "final_train_uuid": training.uuid,
            "validation_uuid": self.ctx.validation.uuid,
        }
        self.out("history", Dict(history).store())
        self._out_rejected()
        if not self.ctx.validation.is_finished_ok:
            return self.exit_codes.ERROR_VALIDATION.format(
                reason=failure_reason(self.ctx.validation)
            )
        return None

    def _out_rejected(self) -> None:
        """The rejected structures of all generations; a by-product must not cost the run."""
        if not self.ctx.rejected:
            return
        parts = {f"part_{i:03d}": node for i, node in enumerate(self.ctx.rejected)}
        try:
            self.out("rejected", call(merge, **parts))
        except AutopipeError as error:
            self.report(f"the rejected structures could not be put together: {error}")


def _define_outputs(spec: WorkChainSpec) -> None:
    spec.output("potential", valid_type=PotentialData, help="The final potential.")
    spec.output("dataset", valid_type=DatasetData, help="Everything labelled.")
    spec.output("rejected", valid_type=DatasetData, required=False, help="With reasons.")
    spec.output("metrics", valid_type=Dict, help="Errors of the final potential.")
    spec.output("parity", valid_type=ArrayData, required=False)
    spec.output("history", valid_type=Dict, help="Generations, label counts, stop reason.")
    spec.output("validation", valid_type=Dict, required=False, help="The validation table.")


def _define_exit_codes(spec: WorkChainSpec) -> None:
    for status, name, message in (
        (301, "ERROR_REFERENCES", "The isolated atoms of {elements} could not be labelled."),
        (302, "ERROR_GENERATE", "No first structures: {reason}"),
        (303, "ERROR_NO_LABELS", "Not one of the first structures could be labelled: {reason}"),
        (304, "ERROR_MERGE", "The labels cannot be put together: {reason}"),
        (305, "ERROR_TRAINING", "The training failed: {reason}"),
        (306, "ERROR_MD", "All simulations failed: {reason}"),
        (307, "ERROR_SELECT", "The selection failed: {reason}"),
        (401, "ERROR_VALIDATION", "There is a potential, but it was not validated: {reason}"),
    ):
        spec.exit_code(status, name, message=message)
