"""`mlip-auto report`: the report of a run, finished or not."""

from __future__ import annotations

from pathlib import Path

import click

from aiida_autopipe.cli import options


@click.command()
@click.argument("identifier", metavar="ID")
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    default=None,
    help="Folder to write to.  [default: runs/NAME]",
)
def report(identifier: str, output: Path | None) -> None:
    """Write the report of run ID (pk, UUID, or the name of the run) and its summary.json.

    \b
    Example:
        mlip-auto report silicon
    """
    from aiida_autopipe.cli.results import print_results, write_results
    from aiida_autopipe.workflows.launch import load_run
    from aiida_autopipe.workflows.preflight import load_profile

    load_profile()
    node = load_run(identifier)
    folder = output or Path("runs") / str(node.inputs.config["name"])
    print_results(node, write_results(node, folder))
