"""Parsing retrieved files as the engine would, without running a job."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

ParseJob = Callable[..., tuple[dict[str, Any], Any]]


@pytest.fixture
def parse_job(localhost: Any) -> ParseJob:
    """Parse files of a job with an entry point; returns the outputs and the exit code."""
    from aiida.common import LinkType
    from aiida.orm import CalcJobNode, FolderData
    from aiida.plugins import ParserFactory

    def run(
        entry_point: str,
        inputs: Mapping[str, Any],
        files: Mapping[str, bytes],
        scheduler_status: int | None = None,
        own_files: Mapping[str, bytes] | None = None,
    ) -> tuple[dict[str, Any], Any]:
        node = CalcJobNode(computer=localhost, process_type=f"aiida.calculations:{entry_point}")
        node.set_option("resources", {"num_machines": 1, "num_mpiprocs_per_machine": 1})
        node.set_option("scheduler_stderr", "_scheduler-stderr.txt")
        for label, value in inputs.items():
            node.base.links.add_incoming(value.store(), LinkType.INPUT_CALC, label)
        if scheduler_status is not None:
            node.set_exit_status(scheduler_status)
            node.set_exit_message("The job ran out of memory.")
        for name, content in (own_files or {}).items():
            node.base.repository.put_object_from_bytes(content, name)
        node.store()
        retrieved = FolderData()
        for name, content in files.items():
            retrieved.base.repository.put_object_from_bytes(content, name)
        retrieved.base.links.add_incoming(node, LinkType.CREATE, "retrieved")
        retrieved.store()
        parser = ParserFactory(entry_point)(node)
        code = parser.parse()
        return dict(parser.outputs), code

    return run
