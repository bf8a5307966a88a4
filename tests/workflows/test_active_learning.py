"""`autopipe.active_learning`: the whole loop on real codes, and its ways of failing."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.orm import CalcJobNode, Dict, WorkChainNode

from aiida_autopipe.cli.results import write_results
from aiida_autopipe.config.expand import expand_with_material
from aiida_autopipe.config.loading import load_input
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.workflows.active_learning import ActiveLearningWorkChain
from aiida_autopipe.workflows.launch import Launch, find_run, prepare, start
from aiida_autopipe.workflows.progress import snapshot

EXAMPLE = Path(__file__).parents[2] / "examples" / "silicon-short.yaml"


@pytest.fixture
def launch(pw_code: Any, python_code: Any, lammps_code: Any, pz_family: Any) -> Any:
    """Prepare the short example with changes."""

    def make(**changes: Any) -> Launch:
        user = {**load_input(EXAMPLE), **changes}
        config, material = expand_with_material(user, EXAMPLE.parent, "short")
        return prepare(config, material)

    return make


def wait(run: WorkChainNode, until: Any, seconds: float = 900.0) -> None:
    """Wait until something is true of a run, or fail."""
    end = time.monotonic() + seconds
    while not until(snapshot(run)):
        assert time.monotonic() < end, f"still {snapshot(run)}"
        time.sleep(1.0)


@pytest.mark.loop
@pytest.mark.timeout(1200)
def test_loop_survives_a_killed_daemon(
    launch: Any, started_daemon_client: Any, tmp_path: Path
) -> None:
    """The loop runs to a validated potential although its daemon is killed in the middle."""
    prepared = launch()
    run = start(prepared)
    wait(run, lambda now: now.labels_done >= 3)
    # The whole group at once: supervisor, broker and workers, as a power cut would do.
    os.kill(started_daemon_client.get_daemon_pid(), signal.SIGKILL)
    os.system  # noqa: B018
    found = find_run(prepared.key)
    assert found is not None
    assert found.pk == run.pk
