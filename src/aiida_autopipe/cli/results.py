"""Write and print what a run gave; shared by `run` and `report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli.commands import verdi_command

if TYPE_CHECKING:
    from aiida.orm import WorkChainNode


def write_results(node: WorkChainNode, folder: Path) -> dict[str, Path]:
    """Potential files, `report.html` and `summary.json` of a run in any state."""
    from aiida_autopipe.report.write import write_report
    from aiida_autopipe.workflows.report import collect_report, export_files

    files = export_files(node, folder)
    report = collect_report(node)
    written = write_report(report.model_copy(update={"files": files}), folder)
    return {**{kind: folder / name for kind, name in files.items()}, **written}


def print_results(node: WorkChainNode, written: dict[str, Path]) -> None:
    """The verdict, the validation table and where the files are."""
    from aiida_autopipe.workflows.progress import snapshot

    summary: dict[str, Any] = json.loads(written["summary"].read_text(encoding="utf-8"))
    click.echo()
    if not node.is_terminated:
        click.echo(f"Run {node.pk} is still running (stage {snapshot(node).stage}).")
    elif not node.is_finished_ok:
        click.echo(f"Run {node.pk} failed: {why_it_ended(node)}", err=True)
        click.echo(f"Details: {verdi_command('process', 'report', node.pk)}", err=True)
    labels = summary["labels"]
    click.echo(
        f"{summary['generations']} generations, {labels['requested']} labels requested, "
        f"{labels['ok']} ok, {labels['rejected']} rejected. {summary['stop_reason']}"
    )
    for row in summary["validation"]:
        click.echo(validation_line(row))
    for kind, path in written.items():
        click.echo(f"{kind:8s} {path}")


def why_it_ended(node: WorkChainNode) -> str:
    """One line on why an ended run is no success."""
    from aiida_autopipe.workflows.progress import state_of

    return " ".join(str(node.exit_message or node.exception or state_of(node)).split())


def validation_line(row: dict[str, Any]) -> str:
    """One row of the validation table: values, error or limit, and the verdict."""
    if not row["checked"]:
        return f"  {row['name']:26s} could not be computed"
    verdict = "ok" if row["passed"] else "FAILED"
    value = f"  {row['name']:26s} {row['potential']:10.4g} {row['unit']:5s} "
    if row["rule"] in ("at_most", "at_least"):
        demanded = f"{row['rule'].replace('_', ' '):9s} {row['limit']:10.4g} {row['unit']:5s}"
        return f"{value}{demanded}           {verdict}"
    if row["rule"] == "precision":
        error = f"standard error {100 * row['relative_error']:.1f} %"
        return f"{value}{error:42s}{verdict}"
    sign = "" if row["rule"] == "curve" else "+"
    return (
        f"{value}reference {row['reference']:10.4g} {row['unit']:5s} "
        f"{100 * row['relative_error']:{sign}6.1f} %  {verdict}"
    )
