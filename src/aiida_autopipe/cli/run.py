"""`mlip-auto run`: submit a run and follow it, or go on with the one that is there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from aiida_autopipe.cli import options
from aiida_autopipe.cli.commands import mlip_auto_command, verdi_command
from aiida_autopipe.cli.main import EXIT_ERROR, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from aiida.orm import WorkChainNode

RUNS_FOLDER = Path("runs")
LABEL_PROCESS = "aiida.calculations:quantumespresso.pw"


@click.command()
@options.INPUT
@click.option(
    "--runs",
    "runs_folder",
    type=options.FILE,
    default=RUNS_FOLDER,
    show_default=True,
    help="Folder of the results: the report goes to RUNS/NAME.",
)
@click.option(
    "--new",
    is_flag=True,
    help="Start anew although the same input was run before. Calculations that finished are still "
    "taken from AiiDA's cache where the profile has caching.",
)
@click.option("--detach", is_flag=True, help="Submit and return at once.")
def run(input_file: Path, runs_folder: Path, new: bool, detach: bool) -> int:
    """Run INPUT to its end: a potential, its validation and a report.

    The run is done by AiiDA's daemon. Ctrl-C leaves it going; the same command comes back to it. A
    run that failed or was killed is started again and, where the profile has caching, takes over
    every calculation that had finished.

    \b
    Example:
        mlip-auto run silicon.yaml
    """
    from aiida_autopipe.config.expand import load_config

    config, material = load_config(input_file)
    from aiida_autopipe.cli.daemon import ensure_daemon, stop_idle_daemon
    from aiida_autopipe.cli.follow import follow
    from aiida_autopipe.workflows.launch import find_run, prepare, start
    from aiida_autopipe.workflows.preflight import load_profile

    load_profile()
    launch = prepare(config, material)
    previous = find_run(launch.key)
    folder = runs_folder / config.name
    if previous is not None and previous.is_finished_ok and not new:
        click.echo(f"This input was run before, as {previous.pk}; --new starts it anew.")
        return _show_results(previous, folder)
    where = [] if runs_folder == RUNS_FOLDER else ["--runs", runs_folder]
    again = mlip_auto_command("run", input_file, *where)
    goes_on = previous is not None and not previous.is_terminated and not new
    node = previous if goes_on else None
    started_daemon = False
    try:
        started_daemon = ensure_daemon(config.resources.daemon_workers)
        if node is None:
            _prepare_anew(previous, new)
            with _interrupts_held_back():
                node = start(launch)
        click.echo(f"{'Going on with run' if goes_on else 'Submitted as'} {node.pk}.")
        if detach:
            click.echo(f"Follow it with: {again}")
            return 0
        follow(node)
        return _show_results(node, folder)
    except KeyboardInterrupt:
        if node is None:
            raise
        _say_how_to_come_back(node, again)
        return EXIT_INTERRUPTED
    finally:
        if started_daemon and (node is None or node.is_terminated):
            stop_idle_daemon()


def _prepare_anew(previous: WorkChainNode | None, new: bool) -> None:
    """Say what becomes of the run before, and end what it has left running."""
    if previous is None:
        return
    if not previous.is_terminated:
        click.echo(f"Run {previous.pk} of the same input goes on beside the new one.")
        return
    from aiida_autopipe.cli.daemon import kill_orphans

    kill_orphans(previous)
    if not new:
        click.echo(f"Run {previous.pk} did not finish; {_what_is_taken_over()}")


def _what_is_taken_over() -> str:
    from aiida.manage.caching import get_use_cache

    if get_use_cache(identifier=LABEL_PROCESS):
        return "what it had calculated is taken over from AiiDA's cache."
    switch_on = verdi_command("config", "set", "--append", "caching.enabled_for", LABEL_PROCESS)
    return (
        "the new run starts over, because the profile has no caching of pw.x (switch it on for "
        f"later runs: {switch_on})."
    )


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """A Ctrl-C inside takes effect at the end; the second one takes effect at once."""
    caught: list[int] = []

    def hold_back(number: int, _frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = signal.signal(signal.SIGINT, hold_back)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt


def _say_how_to_come_back(node: WorkChainNode, again: str) -> None:
    if node.is_terminated:
        click.echo(f"\nRun {node.pk} has ended. Its results: {again}")
        return
    click.echo(
        f"\nRun {node.pk} goes on.\n"
        f"  come back:  {again}\n"
        f"  look at it: {mlip_auto_command('status', node.pk)}\n"
        f"  end it:     {verdi_command('process', 'kill', node.pk)}"
    )


def _show_results(node: WorkChainNode, folder: Path) -> int:
    from aiida_autopipe.cli.results import print_results, write_results

    print_results(node, write_results(node, folder))
    return 0 if node.is_finished_ok else EXIT_ERROR
