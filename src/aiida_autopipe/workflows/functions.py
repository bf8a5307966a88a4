"""Calling calculation functions from work chains, and reading what became of a process."""

from __future__ import annotations

from typing import Any

from aiida.orm import CalcJobNode, ProcessNode, QueryBuilder, WorkChainNode

from aiida_autopipe.core.errors import AutopipeError


def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a calculation function and return its outputs.

    Raises:
        AutopipeError: the function ended with an exit code; its message says why.
    """
    outputs, node = function.run_get_node(*args, **kwargs)
    if not node.is_finished_ok:
        raise AutopipeError(f"{node.process_label}: {node.exit_message}")
    return outputs


def exists(node: ProcessNode) -> bool:
    """False for what is left of a submission whose worker was killed: a node that nothing runs.

    It was stored and has no state; without a checkpoint there is nothing to go on from.
    """
    return node.process_state is not None


def jobs(node: ProcessNode) -> list[CalcJobNode]:
    """Jobs that a process started itself, in order."""
    found = [job for job in node.called if isinstance(job, CalcJobNode) and exists(job)]
    return sorted(found, key=lambda job: job.pk)


def label_jobs(node: ProcessNode) -> list[CalcJobNode]:
    """All jobs below a process, at any depth."""
    return [job for job in node.called_descendants if isinstance(job, CalcJobNode) and exists(job)]


def calculations_of(job: CalcJobNode) -> int:
    """Calculations a job stands for: in a batch, the structures that were begun.

    A batch that said nothing, or has not yet, counts in full: whatever was started is paid for.
    """
    inputs = job.base.links.get_incoming(link_label_filter="dataset").all_nodes()
    if not inputs:
        return 1
    if "outcomes" not in job.outputs:
        # A job that ended before its program was started has cost nothing.
        return 0 if job.is_terminated and job.get_job_id() is None else inputs[0].n_structures
    return sum(one["outcome"] != "not_run" for one in job.outputs.outcomes["outcomes"])


def count_calculations(node: ProcessNode) -> int:
    """Label calculations below a process, whatever became of them: what a budget has to pay for."""
    mine = [node] if isinstance(node, CalcJobNode) else label_jobs(node)
    return sum(calculations_of(job) for job in mine)


def failure_reason(node: ProcessNode) -> str:
    """One sentence on why a process failed: its last calculation's own words, or its own."""
    if node.is_excepted:
        return f"the process excepted: {node.exception}"
    if node.is_killed:
        return "the process was killed"
    calculations = jobs(node) if isinstance(node, WorkChainNode) else []
    last = calculations[-1] if calculations else None
    if last is not None and not last.is_finished_ok:
        attempts = f" (attempt {len(calculations)})" if node.process_label == "PwWorkChain" else ""
        if last.is_excepted or last.is_killed:
            return f"{last.process_label} was {last.process_state.value}{attempts}"
        words = " ".join(str(last.exit_message or "no message").split())
        return f"{last.process_label} failed with [{last.exit_status}] {words}{attempts}"
    return f"[{node.exit_status}] {' '.join(str(node.exit_message).split())}"


def find_described(description: str) -> WorkChainNode | None:
    """The newest process with a description that still runs or has ended well."""
    query = QueryBuilder()
    query.append(WorkChainNode, filters={"description": description}, tag="run")
    query.order_by({"run": {"id": "desc"}})
    for node in query.all(flat=True):
        if not node.is_terminated or node.is_finished_ok:
            found: WorkChainNode = node
            return found
    return None
