"""`autopipe.active_learning`: the whole loop, from a crystal to a validated potential."""

from __future__ import annotations

from typing import Any

from aiida.common import timezone
from aiida.engine import ExitCode, ToContext, if_, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import Dict, Int, List, Str

from aiida_autopipe.calculations.functions import (
    generate,
    md_starts,
    merge,
    take,
)
from aiida_autopipe.calculations.labels import set_kpoints_meshes
from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.core.stopping import GenerationRecord, StopRule, decide
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.espresso.pw import is_isolated_atom
from aiida_autopipe.workflows.active_learning_spec import (
    define_exit_codes,
    define_inputs,
    define_outputs,
)
from aiida_autopipe.workflows.explore import ExploreWorkChain
from aiida_autopipe.workflows.exploring import ExploringWorkChain
from aiida_autopipe.workflows.functions import call, count_calculations, failure_reason
from aiida_autopipe.workflows.inputs import (
    explore_inputs,
    initial_choice,
    job_options,
    trainer_settings,
)
from aiida_autopipe.workflows.label import LabelWorkChain
from aiida_autopipe.workflows.train import TrainWorkChain
from aiida_autopipe.workflows.validate import ValidateWorkChain

INITIAL_SHARE = 0.6
"""Largest part of the label budget spent before there is a potential to ask."""


class ActiveLearningWorkChain(ExploringWorkChain):
    """Generate, label, train; then MD, select, label, train again until the stop rule is met;
    validate.

    Attributes of the context: `datasets` (labelled parts in order), `history` (one dictionary a
    generation), `counts` (labels requested, ok, rejected, calculations).
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outputs, outline and exit codes."""
        super().define(spec)
        define_inputs(spec)
        spec.outline(
            cls.setup,
            cls.generate_pool,
            if_(cls.should_explore)(cls.run_exploration, cls.inspect_exploration),
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
            if_(cls.should_validate)(cls.run_validation, cls.inspect_validation),
            cls.wait_for_simulations,
            cls.results,
        )
        define_outputs(spec)
        define_exit_codes(spec)

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
        self.ctx.explored = None
        self.ctx.restarts, self.ctx.unfinished = {}, {}

    def _label_inputs(self) -> dict[str, Any]:
        """What all label processes of a run have in common."""
        label = self.ctx.config["label"]
        # Simulations that run on have their share of what may run at once.
        most = self.ctx.config["resources"]["max_concurrent"]
        free = max(1, most - len(self.running_simulations()))
        pseudos = {"pseudos": self.inputs.pseudos} if self.inputs.get("pseudos") else {}
        return {
            "oracle": Str(label["oracle"]),
            "settings": self.inputs.method,
            "code": self.inputs.codes.label,
            "max_attempts": Int(label["max_attempts"]),
            "max_concurrent": Int(free),
            "batching": Str(label["batching"]),
            "options": self._options("label"),
            **pseudos,
        }

    def _submit_labels(self, dataset: DatasetData, budget: int, label: str) -> Any:
        spent = (timezone.now() - self.node.ctime).total_seconds()
        # A label that is begun in the last minute would hardly end.
        left = max(60, int(3600 * self.ctx.config["budget"]["hours"] - spent))
        if self.ctx.config["label"]["oracle"] == "autopipe.pw":
            dataset = call(set_kpoints_meshes, dataset, self.inputs.crystal, self.inputs.method)
        return self.submit(
            LabelWorkChain,
            dataset=dataset,
            budget=Int(budget),
            max_wall_time=Int(left),
            metadata={"label": label},
            **self._label_inputs(),
        )

    def generate_pool(self) -> ExitCode | None:
        """Generate the first structures."""
        settings = Dict(self.ctx.config["generate"])
        try:
            self.ctx.pool = call(generate, self.inputs.crystal, settings, Int(self.seed))
        except AutopipeError as error:
            return self.exit_codes.ERROR_GENERATE.format(reason=error)
        return None

    def should_explore(self) -> bool:
        """True when a surrogate was asked for."""
        return self.ctx.config["explore"]["surrogate"] is not None

    def run_exploration(self) -> ToContext | ExitCode:
        """Send a surrogate ahead, and let it find what the generators do not think of."""
        explore, md = self.ctx.config["explore"], self.ctx.config["md"]
        shape = {"supercell": explore["supercell"], "include_vacancy": md["include_vacancy"]}
        try:
            starts = call(md_starts, self.inputs.crystal, Dict(shape))
        except AutopipeError as error:
            return self.exit_codes.ERROR_EXPLORE.format(reason=error)
        model = self.inputs.get("surrogate_model")
        node = self.submit(
            ExploreWorkChain,
            starts=starts,
            known=self.ctx.pool,
            code=self.inputs.codes.explore,
            seed=Int(self.seed),
            # Its processes are its own; MPI would start all of it several times.
            options=Dict(job_options(self.ctx.config["resources"]["explore"], False)),
            **({"model": model} if model is not None else {}),
            **explore_inputs(explore),
        )
        return ToContext(exploration=node)

    def inspect_exploration(self) -> ExitCode | None:
        """Keep what was chosen; there may be nothing new."""
        node = self.ctx.exploration
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_EXPLORE.format(reason=failure_reason(node))
        self.out("exploration", node.outputs.summary)
        self.ctx.explored = node.outputs.selected if "selected" in node.outputs else None
        return None

    def run_initial_labels(self) -> ToContext | ExitCode:
        """Label as much of the first structures as the budget allows."""
        pool, explored = self.ctx.pool, self.ctx.explored
        share = int(INITIAL_SHARE * self.ctx.config["budget"]["labels"])
        most = min(self.budget_left, share + len(self.inputs.crystal.elements))
        n_explored = 0 if explored is None else explored.n_structures
        chosen = initial_choice(pool.n_structures, n_explored, most)
        total = pool.n_structures + n_explored
        if n_explored:
            pool = call(merge, part_000=pool, part_001=explored)
        if len(chosen) < total:
            self.report(f"{len(chosen)} of {total} initial structures fit into the budget")
            pool = call(take, pool, List(chosen))
        return ToContext(labels=self._submit_labels(pool, len(chosen), "initial structures"))

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
            self.judge_potential(node.outputs.labelled)
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
        self.ctx.counts["calculations"] = sum(count_calculations(step) for step in steps)

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
        node = self.submit(
            TrainWorkChain,
            dataset=self.ctx.dataset,
            trainer=train["trainer"],
            settings=Dict(trainer_settings(train)),
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
            "unfinished": len(summary["running"])
            + sum(record["earlier_potential"] for record in summary["simulations"]),
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

    def should_validate(self) -> bool:
        """True when there is a property to compare; a molecule has none yet."""
        return bool(self.ctx.config["validate"]["properties"])

    def run_validation(self) -> ToContext:
        """Compare the final potential with the reference method."""
        config = self.ctx.config
        settings = {
            **config["validate"],
            "kspacing_per_A": config["label"]["kspacing_per_A"],
            "seed": config["seed"],
        }
        node = self.submit(
            ValidateWorkChain,
            potential=self.ctx.training.outputs.potential,
            crystal=self.inputs.crystal,
            settings=Dict(settings),
            label=self._label_inputs(),
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
            "validation_uuid": self.ctx.validation.uuid if self.should_validate() else None,
        }
        self.out("history", Dict(history).store())
        self._out_rejected()
        if self.should_validate() and not self.ctx.validation.is_finished_ok:
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
