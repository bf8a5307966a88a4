"""Calling calculation functions from work chains."""

from __future__ import annotations

from typing import Any

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
