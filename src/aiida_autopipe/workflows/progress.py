"""Where a run stands, read from its provenance graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aiida.common import timezone
from aiida.orm import ProcessNode, WorkChainNode

from aiida_autopipe.workflows.functions import calculations_of, exists, failure_reason, label_jobs

STAGES = {
    "LabelWorkChain": "label",
    "TrainWorkChain": "train",
    "MdWorkChain": "md",
    "ValidateWorkChain": "validate",
}


@dataclass(frozen=True)
class Progress:
    """A snapshot of a run.

    Attributes:
        state: AiiDA's process state ('running', 'finished', ...).
        stage: what runs now: 'generate', 'label', 'train', 'md', 'validate' or 'done'.
        detail: label of the running step.
        generation: number of the current generation, 0 before the first.
        labels_done: label calculations of the loop that ended.
        labels_running: label calculations that run now.
        budget: most label calculations.
        rejected: labels that failed.
        simulations_done: simulations of the current generation that ended.
        validation_done: calculations of the validation that ended; outside the budget.
        energy_rmse: of the held-out labels, newest fit, eV/atom; None before the first fit.
        forces_rmse: likewise, eV/Å.
        seconds: since the run was started.
        paused: processes AiiDA paused after repeated failures; they need a person.
    """

    state: str
    stage: str
    detail: str
    generation: int
    labels_done: int
    labels_running: int
    budget: int
    rejected: int
    simulations_done: int
    validation_done: int
    energy_rmse: float | None
    forces_rmse: float | None
    seconds: float
    paused: tuple[int, ...]


def snapshot(run: WorkChainNode) -> Progress:
    """Look at a run now."""
    steps = [node for node in children(run) if node.process_label in STAGES]
    current = steps[-1] if steps else None
    done = running = rejected = 0
    for step in steps:
        if step.process_label != "LabelWorkChain":
            continue
        if step.is_terminated and "summary" in step.outputs:
            summary = step.outputs.summary
            done += summary["calculations"]
            rejected += summary["rejected"]
            continue
        for job in label_jobs(step):
            done += calculations_of(job) * job.is_terminated
            running += calculations_of(job) * (not job.is_terminated)
        rejected += sum(one.is_terminated and not one.is_finished_ok for one in _structures(step))
    simulations = [step for step in steps if step.process_label == "MdWorkChain"]
    errors = _test_errors(steps)
    stage = STAGES[current.process_label] if current is not None else "generate"
    return Progress(
        state=state_of(run),
        stage="done" if run.is_terminated else stage,
        detail=str(current.label) if current is not None else "",
        generation=len(simulations),
        labels_done=done,
        labels_running=running,
        budget=int(run.inputs.config["budget"]["labels"]),
        rejected=rejected,
        simulations_done=_ended_jobs(simulations[-1]) if simulations else 0,
        validation_done=_ended_jobs(current) if current is not None and stage == "validate" else 0,
        energy_rmse=errors[0],
        forces_rmse=errors[1],
        seconds=((run.mtime if run.is_terminated else timezone.now()) - run.ctime).total_seconds(),
        paused=tuple(
            node.pk for node in active_below(run) if node.paused and not node.is_terminated
        ),
    )


def state_of(node: ProcessNode) -> str:
    """AiiDA's process state; a process nobody has picked up yet may have none."""
    return str(node.process_state.value) if node.process_state is not None else "created"


def children(node: ProcessNode) -> list[ProcessNode]:
    """Called processes in the order in which they were started."""
    return sorted(node.called, key=lambda called: called.pk)


def active_below(node: ProcessNode) -> Iterator[ProcessNode]:
    """The active processes below this one."""
    for child in children(node):
        if exists(child) and not child.is_terminated:
            yield child
            yield from active_below(child)


def _ended_jobs(step: ProcessNode) -> int:
    return sum(calculations_of(job) for job in label_jobs(step) if job.is_terminated)


def _structures(step: ProcessNode) -> list[WorkChainNode]:
    return [child for child in step.called if isinstance(child, WorkChainNode)]


def _test_errors(steps: list[ProcessNode]) -> tuple[float | None, float | None]:
    for step in reversed(steps):
        if step.process_label == "TrainWorkChain" and "metrics" in step.outputs:
            test = step.outputs.metrics["metrics"]["test"]
            return test["energy_rmse_per_atom"], test["forces_rmse"]
    return None, None


def failures(run: WorkChainNode) -> list[tuple[int, str]]:
    """Processes of a run that failed (pk and reason): rejected labels and failed steps."""
    found = []
    for step in children(run):
        nodes = [
            step,
            *(_structures(step) if step.process_label == "LabelWorkChain" else step.called),
        ]
        found += [
            (n.pk, failure_reason(n)) for n in nodes if n.is_terminated and not n.is_finished_ok
        ]
    return found
