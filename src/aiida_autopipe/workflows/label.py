"""`autopipe.label`: structures in, labelled and rejected structures out, within a hard budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from aiida.common import timezone
from aiida.engine import ExitCode, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import AbstractCode, Dict, Int, ProcessNode, Str, load_node
from aiida_pseudo.data.pseudo.upf import UpfData

from aiida_autopipe.calculations.labels import collect_labels
from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.core.labelling import (
    MODES,
    Task,
    affordable_attempts,
    plan_batches,
)
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.workflows.functions import call, count_calculations, failure_reason
from aiida_autopipe.workflows.oracles import PW, Oracle, oracle_of, validate_oracle
from aiida_autopipe.workflows.rolling import RollingWorkChain

AGAIN = "_again"
MAX_BATCH_TRIES = 2
"""A structure whose batch ended before it was begun is tried again in a batch so many times."""


def validate_positive(node: Int, _: Any) -> str | None:
    """A count of at least one."""
    return None if node.value > 0 else f"must be at least 1, not {node.value}"


def validate_mode(node: Str, _: Any) -> str | None:
    """One of the ways to share structures out to jobs."""
    return None if node.value in MODES else f"must be one of {', '.join(MODES)}, not '{node.value}'"


class LabelWorkChain(RollingWorkChain):
    """Label the structures of a dataset with an oracle, `autopipe.pw` or any other.

    At most `max_concurrent` jobs run at once. Structures are started in the order of the dataset as
    far as the budget reaches. Small ones share jobs (`batching`); a structure that fails in a batch
    is tried by itself where the oracle has a way to rescue it. What fails for good is rejected with
    its reason and the others go on. Every calculation counts against the budget, retries included.
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
            "oracle",
            valid_type=Str,
            default=lambda: Str(PW),
            help="Entry point of the process that labels.",
        )
        spec.input("settings", valid_type=Dict, help="The method, in the words of the oracle.")
        spec.input("code", valid_type=AbstractCode, help="The program of the oracle.")
        spec.input_namespace("pseudos", valid_type=UpfData, dynamic=True, required=False)
        for name, default in (("budget", None), ("max_attempts", 3), ("max_concurrent", 1)):
            given = {} if default is None else {"default": lambda n=default: Int(n)}
            spec.input(name, valid_type=Int, validator=validate_positive, **given)
        spec.input(
            "max_wall_time",
            valid_type=Int,
            validator=validate_positive,
            required=False,
            help="Seconds after which nothing is started and what runs is ended.",
        )
        spec.input(
            "batching",
            valid_type=Str,
            validator=validate_mode,
            default=lambda: Str("auto"),
            help="'auto' by estimated cost, 'batch' or 'single'.",
        )
        spec.input(
            "options", valid_type=Dict, required=False, help="`metadata.options` of one job."
        )
        spec.inputs.validator = validate_oracle
        spec.outline(cls.setup, while_(cls.should_label)(cls.start, cls.inspect), cls.results)
        spec.output("labelled", valid_type=DatasetData, required=False)
        spec.output("rejected", valid_type=DatasetData, required=False)
        spec.output(
            "summary",
            valid_type=Dict,
            help="requested, ok, rescued, rejected, not_run, calculations, stopped.",
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

    # ------------------------------------------------------------------ plan

    @property
    def oracle(self) -> Oracle:
        """How the oracle's processes are built."""
        return oracle_of(self.inputs)

    def setup(self) -> ExitCode | None:
        """Decide what the budget reaches, in the order of the dataset, and what shares a job."""
        missing = self.oracle.missing_pseudos()
        if missing:
            return self.exit_codes.ERROR_MISSING_PSEUDOPOTENTIAL.format(elements=", ".join(missing))
        data = self.inputs.dataset.get_dataset()
        self.ctx.ok, self.ctx.rejected, self.ctx.tries = {}, {}, {}
        self.ctx.running, self.ctx.begun, self.ctx.stopped = {}, {}, None
        seconds: dict[int, float] = {}
        for index in range(len(data)):
            if len(seconds) == self.inputs.budget.value:
                break
            try:
                seconds[index] = self.oracle.seconds(data.atoms(index))
            except AutopipeError as error:
                self._reject(index, str(error))
        mode = self.inputs.batching.value
        alone = {i: s for i, s in seconds.items() if self.oracle.is_single(s, mode)}
        together = {i: s for i, s in seconds.items() if i not in alone}
        if len(together) == 1 and self.oracle.has_singles and mode == "auto":
            alone, together = seconds, {}
        batches = plan_batches(
            together,
            self.oracle.slots,
            self.inputs.max_concurrent.value,
            self.oracle.longest_batch,
        )
        # The longest first, so that none of them is still running when all others are done.
        order = sorted(alone, key=lambda index: (-alone[index], index))
        self.ctx.queue = []
        self._enqueue(Task(f"structure_{i}", "single", (i,)) for i in order)
        self._enqueue(Task(f"batch_{k}", "batch", tuple(b)) for k, b in enumerate(batches))
        return None

    def _enqueue(self, tasks: Iterable[Task]) -> None:
        """Put tasks behind the others, as plain values that AiiDA keeps in its checkpoints."""
        self.ctx.queue += [asdict(task) for task in tasks]

    # ------------------------------------------------------------------ limits

    @property
    def budget_left(self) -> int:
        """Calculations that may still be started, those promised to running processes taken off.

        They are counted in the provenance graph: whatever was started is paid for, also when a
        worker died before it could take note of it.
        """
        promised = 0
        for name, pk in self.ctx.running.items():
            used = count_calculations(load_node(pk))
            promised += max(0, self.ctx.begun[name]["calculations"] - used)
        return int(self.inputs.budget.value - count_calculations(self.node) - promised)

    @property
    def seconds_left(self) -> float | None:
        """Until the campaign has to end; None without such a limit."""
        if "max_wall_time" not in self.inputs:
            return None
        spent = (timezone.now() - self.node.ctime).total_seconds()
        return float(self.inputs.max_wall_time.value - spent)

    def should_label(self) -> bool:
        """True while something runs, or may be started."""
        return bool(self.ctx.running) or self._may_start()

    def _may_start(self) -> bool:
        if not self.ctx.queue:
            return False
        left = self.seconds_left
        if self.budget_left < 1:
            self.ctx.stopped = "the budget of calculations is used up"
        elif left is not None and left < 1:
            self.ctx.stopped = "the time is over"
        else:
            return True
        return False

    # ------------------------------------------------------------------ work

    def start(self) -> ToContext | None:
        """Start as much as may run at once, and wait for the first to end."""
        while len(self.ctx.running) < self.inputs.max_concurrent.value and self._may_start():
            task = Task(**self.ctx.queue.pop(0))
            try:
                self._start(task)
            except AutopipeError as error:
                for index in task.indices:
                    self._reject(index, str(error))
        return self.wait_for_running() if self.ctx.running else None

    def _start(self, task: Task) -> None:
        left = self.budget_left
        if task.kind == "batch":
            # What the budget does not reach is left out: it is not run, nor rejected.
            task = Task(task.name, "batch", task.indices[:left])
            calculations = len(task.indices)
        else:
            waiting = sum(len(other["indices"]) for other in self.ctx.queue)
            tried = self.ctx.tries.get(task.indices[0], {}).get("calculations", 0)
            most = self.inputs.max_attempts.value - tried
            calculations = affordable_attempts(left, waiting, most)
        self.ctx.begun[task.name] = {
            "kind": task.kind,
            "indices": list(task.indices),
            "calculations": calculations,
        }
        node = self.adopt(task.name)
        if node is None:
            known = self.ctx.tries.get(task.indices[0], {}) if task.kind == "single" else {}
            builder = self.oracle.builder(
                task, self.inputs.dataset, calculations, known, self.seconds_left
            )
            builder.metadata.label = task.name
            node = self.submit(builder)
        self.ctx.running[task.name] = node.pk

    def _reject(self, index: int, reason: str) -> None:
        self.ctx.rejected[str(index)] = reason
        self.report(f"structure {index} is rejected: {reason}")

    def inspect(self) -> None:
        """Sort what has ended into labelled, rejected and to be tried again."""
        for name, node in self.take_ended().items():
            begun = self.ctx.begun[name]
            if begun["kind"] == "batch":
                self._inspect_batch(name, node, begun["indices"])
            else:
                self._inspect_single(name, node, begun["indices"][0])
            self.oracle.clean(node)

    def _inspect_single(self, name: str, node: ProcessNode, index: int) -> None:
        if (node.is_excepted or node.is_killed) and not name.endswith(AGAIN):
            # The machine's fault or AiiDA's, not the structure's.
            self.report(f"{name} is started again: {failure_reason(node)}")
            self._enqueue([Task(name + AGAIN, "single", (index,))])
            return
        label = self.oracle.single_label(node)
        if label.out_of_time:
            return
        if label.reason is not None:
            self._reject(index, label.reason)
            return
        self.ctx.ok[str(index)] = {"from": name, "position": 0, "rescue": label.rescue}

    def _inspect_batch(self, name: str, node: ProcessNode, indices: list[int]) -> None:
        outcomes = node.outputs.outcomes["outcomes"] if "outcomes" in node.outputs else []
        known = {int(one["position"]): one for one in outcomes}
        again = []
        for position, index in enumerate(indices):
            one = known.get(position, {"outcome": "not_run", "reason": failure_reason(node)})
            if one["outcome"] == "ok":
                self.ctx.ok[str(index)] = {"from": name, "position": position, "rescue": ""}
            elif one["outcome"] == "failed":
                self._failed_in_batch(index, one)
            else:
                again.append((index, str(one["reason"] or "it was not begun")))
        self._run_again(name, again)

    def _failed_in_batch(self, index: int, one: dict[str, Any]) -> None:
        """To the oracle's own rescue, knowing what was tried; or rejected where it has none."""
        if not self.oracle.has_singles or self.inputs.max_attempts.value < 2:
            self._reject(index, str(one["reason"]))
            return
        self.ctx.tries[index] = {
            "calculations": 1,
            "exit_status": one.get("exit_status"),
            "failure": one.get("reason"),
        }
        self.report(f"structure {index} failed in its batch and is tried alone: {one['reason']}")
        self._enqueue([Task(f"structure_{index}", "single", (index,))])

    def _run_again(self, name: str, again: list[tuple[int, str]]) -> None:
        """Structures whose batch ended before they were begun."""
        if not again:
            return
        tries = name.count(AGAIN) + 1
        self.report(f"{name} ended with {len(again)} structures not begun: {again[0][1]}")
        if tries < MAX_BATCH_TRIES:
            indices = tuple(index for index, _ in again)
            self._enqueue([Task(name + AGAIN, "batch", indices)])
        elif self.oracle.has_singles:
            self._enqueue(Task(f"structure_{i}", "single", (i,)) for i, _ in again)
        else:
            for index, reason in again:
                self._reject(index, reason)

    # ------------------------------------------------------------------ end

    def results(self) -> ExitCode | None:
        """Collect labels and reasons into datasets."""
        nodes: dict[str, Any] = {}
        for index, one in self.ctx.ok.items():
            nodes |= self.oracle.label_nodes(self.adopt(one["from"]), one["from"], int(index))
        outcome = {
            "oracle": self.inputs.oracle.value,
            "ok": self.ctx.ok,
            "rejected": self.ctx.rejected,
            "pseudos": self.oracle.pseudo_hashes(),
            "calculations": count_calculations(self.node),
            "stopped": self.ctx.stopped,
        }
        try:
            collected = call(
                collect_labels, self.inputs.dataset, self.inputs.settings, Dict(outcome), **nodes
            )
        except AutopipeError as error:
            return self.exit_codes.ERROR_COLLECT.format(reason=error)
        self.out_many(collected)
        if "labelled" not in collected and "rejected" in collected:
            reasons = collected["rejected"].get_dataset().columns["reason"]
            return self.exit_codes.ERROR_NOTHING_LABELLED.format(
                requested=len(reasons), reason=reasons[0]
            )
        return None
