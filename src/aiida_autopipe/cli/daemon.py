"""AiiDA's daemon as `mlip-auto run` needs it: started, cleared of leftovers, stopped when idle."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from aiida_autopipe.cli.commands import verdi_command
from aiida_autopipe.core.errors import EngineError

if TYPE_CHECKING:
    from aiida.engine.daemon.client import DaemonClient
    from aiida.orm import ProcessNode

ACTIVE = {"attributes.process_state": {"in": ["created", "running", "waiting"]}}
KILL_SECONDS = 30.0
"""A daemon that was just started needs seconds to take up the processes it is to kill."""


def is_alive(client: DaemonClient) -> bool:
    """True when the daemon answers; its PID file alone proves nothing, it outlives a killed one."""
    from aiida.engine.daemon.client import (
        DaemonException,
        DaemonNotRunningException,
        DaemonStalePidException,
    )

    if not client.is_daemon_running:
        return False
    try:
        client.get_status()
    except (DaemonNotRunningException, DaemonStalePidException):
        return False
    except DaemonException:
        # It is there, but too busy to answer in time.
        return True
    return True


def ensure_daemon(workers: int) -> bool:
    """Start the daemon where it is not running; True when this call started it.

    Raises:
        EngineError: it does not start.
    """
    from aiida.engine.daemon.client import DaemonException, get_daemon_client

    client = get_daemon_client()
    if is_alive(client):
        return False
    requeue_lost(client)
    try:
        client.start_daemon(number_workers=workers)
    except DaemonException as error:
        raise EngineError(
            f"The AiiDA daemon does not start ({error}); look at {client.daemon_log_file}."
        ) from error
    return True


def requeue_lost(client: DaemonClient) -> None:
    """Put active processes whose task was lost back into the queue; the daemon must not run.

    A broker that is killed forgets what it was given last: such a process would wait for ever.
    """
    from aiida.engine.daemon.client import DaemonException
    from aiida.orm import CalcJobNode, QueryBuilder, WorkChainNode

    active = QueryBuilder().append((WorkChainNode, CalcJobNode), filters=ACTIVE)
    if active.count() == 0:
        return
    with suppress(DaemonException):
        # It does not run; this removes the PID file that a killed one has left.
        client.stop_daemon(wait=True)
    # AiiDA has this as a command only.
    words = [sys.executable, "-m", "aiida", "-p", get_profile_name(), "process", "repair"]
    done = subprocess.run(words, input="y\n", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = " ".join((done.stderr or done.stdout).split())[-200:]
        click.echo(f"Warning: lost processes could not be looked for ({told})", err=True)


def get_profile_name() -> str:
    """Name of the loaded profile."""
    from aiida.manage import get_manager

    profile = get_manager().get_profile()
    return "" if profile is None else str(profile.name)


def stop_idle_daemon() -> None:
    """Stop the daemon this command started, unless another run needs it."""
    from aiida.engine.daemon.client import DaemonException, get_daemon_client
    from aiida.orm import CalcJobNode, QueryBuilder, WorkChainNode

    # A function that was killed stays 'running' for ever, and no daemon runs one on its own.
    active = QueryBuilder().append((WorkChainNode, CalcJobNode), filters=ACTIVE)
    if active.count() > 0:
        return
    try:
        get_daemon_client().stop_daemon(wait=True)
    except (DaemonException, OSError) as error:
        reason = " ".join(str(error).split())
        stop = verdi_command("daemon", "stop")
        click.echo(f"Warning: the daemon did not stop ({reason}); type: {stop}", err=True)


def kill_orphans(run: ProcessNode) -> None:
    """Kill what an ended run has left active, and say so; needs the daemon."""
    from aiida.engine.processes.control import kill_processes

    orphans = _orphans(run)
    if not orphans:
        return
    pks = " ".join(str(node.pk) for node in orphans)
    click.echo(f"Run {run.pk} has ended, but its processes {pks} were still active: killing them.")
    # AiiDA logs every request and every answer; what counts is told below.
    logging.getLogger("aiida.process_control").setLevel(logging.CRITICAL)
    end = time.monotonic() + KILL_SECONDS
    while orphans and time.monotonic() < end:
        kill_processes(orphans, msg_text=f"left by run {run.pk}", timeout=5.0)
        orphans = _orphans(run)
        if orphans:
            time.sleep(1.0)
    if orphans:
        left = [node.pk for node in orphans]
        kill = verdi_command("process", "kill", *left)
        click.echo(
            f"Warning: the processes {' '.join(map(str, left))} cannot be reached; type: {kill}",
            err=True,
        )


def _orphans(run: ProcessNode) -> list[ProcessNode]:
    from aiida.orm import CalcJobNode, WorkChainNode

    from aiida_autopipe.workflows.progress import active_below

    return [node for node in active_below(run) if isinstance(node, WorkChainNode | CalcJobNode)]
