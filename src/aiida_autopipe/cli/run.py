"""`mlip-auto run`: submit a run and follow it, or go on with the one that is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import AutopipeError

if TYPE_CHECKING:
    from aiida.orm import WorkChainNode

    from aiida_autopipe.workflows.launch import Launch


@click.command()
@options.INPUT
@click.option(
    "--runs",
    "runs_folder",
    type=options.FILE,
    default=Path("runs"),
    show_default=True,
    help="Folder of the results: the report goes to RUNS/NAME.",
)
@click.option("--new", is_flag=True, help="Start anew although the same input was run before.")
@click.option("--detach", is_flag=True, help="Submit and return at once.")
def run(input_file: Path, runs_folder: Path, new: bool, detach: bool) -> int:
    """Run INPUT to its end: a potential, its validation and a report.

    The run is done by AiiDA's daemon. Ctrl-C leaves it going; the same command comes back to it. A
    run that failed or was killed is started again and takes over every calculation that had
    finished.

    \b
    Example:
        mlip-auto run silicon.yaml
    """
    from aiida_autopipe.config.expand import load_config

    config, material = load_config(input_file)
    from aiida_autopipe.workflows.launch import find_run, prepare
    from aiida_autopipe.workflows.preflight import load_profile

    load_profile()
    launch = prepare(config, material)
    previous = None if new else find_run(launch.key)
    started_daemon = ensure_daemon(config.resources.daemon_workers)
    node = _node(launch, previous)
    if detach:
        click.echo(f"Submitted as {node.pk}; 'mlip-auto run {input_file}' follows it.")
        return 0
    status = _follow_to_end(node, runs_folder / config.name, input_file)
    if started_daemon:
        _stop_idle_daemon()
    return status


def _node(launch: Launch, previous: WorkChainNode | None) -> WorkChainNode:
    from aiida_autopipe.workflows.launch import start

    if previous is not None and previous.is_finished_ok:
        click.echo(f"This input was run before, as {previous.pk}; --new starts it anew.")
        return previous
    if previous is not None and not previous.is_terminated:
        click.echo(f"Going on with run {previous.pk}.")
        return previous
    if previous is not None:
        click.echo(f"Run {previous.pk} did not finish; what it had calculated is taken over.")
    node = start(launch)
    click.echo(f"Submitted as {node.pk}.")
    return node


def _follow_to_end(node: WorkChainNode, folder: Path, input_file: Path) -> int:
    from aiida_autopipe.cli.follow import follow
    from aiida_autopipe.cli.results import print_results, write_results

    try:
        follow(node)
    except KeyboardInterrupt:
        click.echo(
            f"\nRun {node.pk} goes on. Come back with 'mlip-auto run {input_file}', look with "
            f"'mlip-auto status {node.pk}', end it with 'verdi process kill {node.pk}'."
        )
        return 130
    written = write_results(node, folder)
    print_results(node, written)
    return 0 if node.is_finished_ok else 1


def ensure_daemon(workers: int) -> bool:
    """Start the daemon where it is not running; True when this call started it.

    Raises:
        AutopipeError: it does not start.
    """
    from aiida.engine.daemon.client import DaemonException, get_daemon_client

    client = get_daemon_client()
    if client.is_daemon_running:
        return False
    try:
        client.start_daemon(number_workers=workers)
    except DaemonException as error:
        raise AutopipeError(
            f"The AiiDA daemon does not start ({error}); look at {client.daemon_log_file}."
        ) from error
    return True


def _stop_idle_daemon() -> None:
    """Stop the daemon this command started, unless another run needs it."""
    from aiida.engine.daemon.client import get_daemon_client
    from aiida.orm import ProcessNode, QueryBuilder

    active = QueryBuilder().append(
        ProcessNode,
        filters={"attributes.process_state": {"in": ["created", "running", "waiting"]}},
    )
    if active.count() == 0:
        get_daemon_client().stop_daemon(wait=True)
