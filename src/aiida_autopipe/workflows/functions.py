"""Calling calculation functions from work chains, and reading what became of a process."""

from __future__ import annotations

from typing import Any

from aiida.orm import CalcJobNode, ProcessNode, WorkChainNode

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


def jobs(node: ProcessNode) -> list[CalcJobNode]:
    """Jobs that a process started itself, in order."""
    found = [called for called in node.called if isinstance(called, CalcJobNode)]
    return sorted(found, key=lambda job: job.pk)


def count_jobs(node: ProcessNode) -> int:
    """Jobs below a process, whatever became of them: what a budget has to pay for."""
    return sum(isinstance(called, CalcJobNode) for called in node.called_descendants)


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
