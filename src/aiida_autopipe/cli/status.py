"""`mlip-auto status`: what runs, what is done, what failed and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from aiida_autopipe.cli import options
from aiida_autopipe.cli.commands import mlip_auto_command, verdi_command
from aiida_autopipe.cli.daemon import is_alive

if TYPE_CHECKING:
    from aiida.orm import WorkChainNode

LISTED = 20


@click.command()
@click.argument("identifier", metavar="[ID]", required=False)
@options.JSON_FLAG
def status(identifier: str | None, as_json: bool) -> None:
    """Show run ID (pk, UUID or name) in detail, or the newest runs.

    \b
    Example:
        mlip-auto status
    """
    from aiida_autopipe.workflows.launch import find_runs, load_run
    from aiida_autopipe.workflows.preflight import load_profile
    from aiida_autopipe.workflows.progress import snapshot

    load_profile()
    runs = [load_run(identifier)] if identifier else find_runs()[:LISTED]
    if as_json:
        rows = [{"pk": r.pk, "uuid": r.uuid, "name": r.label, **asdict(snapshot(r))} for r in runs]
        click.echo(json.dumps(rows, indent=2))
    elif identifier:
        _print_one(runs[0])
    elif runs:
        _print_all(runs)
    else:
        click.echo(f"There are no runs yet: `{mlip_auto_command('run')} INPUT` starts one.")
    _print_daemon(runs)


def _print_all(runs: list[WorkChainNode]) -> None:
    from aiida_autopipe.workflows.progress import snapshot

    table = Table(box=None)
    for name in ("pk", "name", "state", "stage", "generation", "labels", "rejected"):
        table.add_column(name)
    for run in runs:
        now = snapshot(run)
        table.add_row(
            str(run.pk),
            run.label,
            _state(run),
            now.stage,
            str(now.generation),
            f"{now.labels_done}/{now.budget}",
            str(now.rejected),
        )
    Console(markup=False).print(table)


def _print_one(run: WorkChainNode) -> None:
    from aiida_autopipe.cli.follow import panel
    from aiida_autopipe.cli.results import why_it_ended
    from aiida_autopipe.workflows.progress import failures, snapshot

    console = Console(markup=False)
    console.print(panel(run, snapshot(run)))
    if run.is_terminated and not run.is_finished_ok:
        console.print(f"failed: {why_it_ended(run)}", style="red", markup=False)
    for pk, reason in failures(run):
        console.print(f"{pk}: {reason}", style="yellow", markup=False)


def _state(run: WorkChainNode) -> str:
    from aiida_autopipe.workflows.progress import state_of

    return "failed" if run.is_finished and not run.is_finished_ok else state_of(run)


def _print_daemon(runs: list[WorkChainNode]) -> None:
    from aiida.engine.daemon.client import get_daemon_client

    waiting = any(not run.is_terminated for run in runs)
    if waiting and not is_alive(get_daemon_client()):
        start = verdi_command("daemon", "start")
        click.echo(f"The daemon is not running: `{start}` lets the runs go on.", err=True)
