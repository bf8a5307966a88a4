"""Structures of a file to labelled and rejected structures."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.cli.commands import verdi_command
from aiida_autopipe.cli.main import EXIT_ERROR, EXIT_INTERRUPTED
from aiida_autopipe.core.errors import EngineError, InputError

if TYPE_CHECKING:
    from aiida.orm import WorkChainNode

    from aiida_autopipe.core.dataset import Dataset
    from aiida_autopipe.workflows.label_launch import LabelJob, Limits

POLL_SECONDS = 1.0
WATCH_SECONDS = 5.0
SHOWN_REASONS = 5


@dataclass(frozen=True)
class Targets:
    """Where the results go."""

    labelled: Path
    rejected: Path | None
    json_path: Path | None

    @property
    def quiet(self) -> bool:
        """True where the standard output is for the JSON."""
        return str(self.json_path) == "-"

    def check(self) -> None:
        """Refuse places that cannot be written before anything is calculated."""
        for path, what in ((self.labelled, "the output"), (self.rejected, "the rejected")):
            if path is None:
                continue
            options.check_place(path, what)
            if path.suffix.lower() not in (".extxyz", ".xyz", ".h5", ".hdf5"):
                raise InputError(f"{what} '{path}' must end in .extxyz, .xyz, .h5 or .hdf5")
        options.check_json_path(self.json_path)


def read_settings(path: Path | None, given: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """The user's settings with what was given on the command line, and their folder.

    :param given: keys of the `label` section; None where an option was not given.
    """
    from aiida_autopipe.config.loading import load_input

    user = {} if path is None else load_input(path, "'label: {kspacing_per_A: 0.25}'")
    section = dict(user["label"]) if isinstance(user.get("label"), dict) else user
    section |= {key: value for key, value in given.items() if value is not None}
    sections = {"label": section}
    if section is not user and "resources" in user:
        sections["resources"] = user["resources"]
    return sections, Path() if path is None else path.resolve().parent


def oracle_settings(calculator: str | None, keywords: str | None) -> dict[str, Any] | None:
    """Settings of `autopipe.ase` from the command line; None where there are none."""
    if calculator is None:
        if keywords is not None:
            raise InputError("--keywords are those of a --calculator, which is missing")
        return None
    try:
        values = {} if keywords is None else json.loads(keywords)
    except ValueError as error:
        raise InputError(f"--keywords is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError('--keywords must be JSON such as \'{"method": "GFN1-xTB"}\'')
    return {"calculator": calculator, "keywords": values}


def label_structures(
    path: Path, user: dict[str, Any], folder: Path, limits: Limits, targets: Targets,
    new: bool, again: str,
) -> int:  # fmt: skip
    """Label the structures of a file; the exit status of the command.

    :param again: the command that comes back to this one.
    :raises InputError: something is missing or wrong.
    """
    from aiida_autopipe.core.dataset import read_dataset
    from aiida_autopipe.workflows.label_launch import (
        find_label_run,
        label_config,
        prepare_labels,
    )

    targets.check()
    dataset = read_dataset(path)
    job = prepare_labels(dataset, label_config(user, dataset.elements, folder), limits)
    node = None if new else find_label_run(job.key)
    if node is not None and not targets.quiet:
        goes_on = "goes on" if not node.is_terminated else "was done before"
        click.echo(f"This {goes_on} as process {node.pk}; --new starts it anew.")
    if node is None or not node.is_terminated:
        node = _run(job, node, path, limits, targets.quiet, again)
    if node is None:
        return EXIT_INTERRUPTED
    return _write_results(node, dataset, targets)


def _run(
    job: LabelJob, node: WorkChainNode | None, path: Path, limits: Limits, quiet: bool, again: str
) -> WorkChainNode | None:
    """Run the process to its end; None after Ctrl-C."""
    from aiida.engine import run_get_node, submit
    from aiida.manage.configuration import get_profile

    from aiida_autopipe.cli.daemon import ensure_daemon, stop_idle_daemon

    job.builder.metadata.label = path.name[:255]
    started = False
    try:
        profile = get_profile()
        if profile is not None and profile.process_control_backend is not None:
            try:
                started = ensure_daemon(min(2, limits.max_concurrent))
            except EngineError as error:
                click.echo(f"{error} The calculations run in this process.", err=True)
            else:
                node = submit(job.builder) if node is None else node
                _follow(node, quiet)
                return node
        node = run_get_node(job.builder)[1]
        if node.is_killed:
            # That is what AiiDA makes of Ctrl-C.
            raise KeyboardInterrupt
        return node
    except KeyboardInterrupt:
        _say_how_to_come_back(node, again)
        return None
    finally:
        if started and (node is None or node.is_terminated):
            stop_idle_daemon()


def _follow(node: WorkChainNode, quiet: bool) -> None:
    from aiida_autopipe.cli.follow import DaemonWatch
    from aiida_autopipe.workflows.functions import calculations_of, label_jobs

    if not quiet:
        click.echo(f"Submitted as process {node.pk}.")
    watch, looked, last = DaemonWatch(), time.monotonic(), ""
    while not node.is_terminated:
        jobs = label_jobs(node)
        done = sum(calculations_of(job) for job in jobs if job.is_terminated)
        active = sum(calculations_of(job) for job in jobs if not job.is_terminated)
        line = f"{done} calculations done, {active} begun"
        if line != last and not quiet:
            click.echo(line)
        last = line
        if time.monotonic() - looked > WATCH_SECONDS:
            looked = time.monotonic()
            watch.look_at([node])
        time.sleep(POLL_SECONDS)


def _say_how_to_come_back(node: WorkChainNode | None, again: str) -> None:
    if node is not None and not node.is_terminated:
        click.echo(
            f"\nProcess {node.pk} goes on.\n"
            f"  come back:  {again}\n"
            f"  end it:     {verdi_command('process', 'kill', node.pk)}",
            err=True,
        )
    else:
        click.echo(f"\nInterrupted.\n  start again:  {again}", err=True)


def _write_results(node: WorkChainNode, dataset: Dataset, targets: Targets) -> int:
    """Files, JSON and summary of a process that has ended."""
    from aiida_autopipe.core.dataset import write_dataset
    from aiida_autopipe.workflows.functions import failure_reason

    if "summary" not in node.outputs:
        raise EngineError(f"process {node.pk} labelled nothing: {failure_reason(node)}")
    summary = node.outputs.summary.get_dict()
    files: dict[str, str] = {}
    rejected: list[dict[str, Any]] = []
    method: dict[str, Any] = {}
    if "labelled" in node.outputs:
        labelled = node.outputs.labelled.get_dataset()
        method = dict(labelled.attributes.get("method") or {})
        write_dataset(labelled, targets.labelled)
        files["labelled"] = str(targets.labelled)
    if "rejected" in node.outputs:
        failed = node.outputs.rejected.get_dataset()
        columns = (failed.columns["source_index"], failed.columns["reason"])
        rejected = [{"index": int(i), "reason": str(why)} for i, why in zip(*columns, strict=True)]
        if targets.rejected is not None:
            write_dataset(failed, targets.rejected)
            files["rejected"] = str(targets.rejected)
    content = {**summary, "method": method, "rejected_structures": rejected, "files": files}
    options.write_json(targets.json_path, content)
    if not targets.quiet:
        _print_summary(summary, rejected, files, len(dataset))
    return 0 if "labelled" in files else EXIT_ERROR


def _print_summary(
    summary: dict[str, Any], rejected: list[dict[str, Any]], files: dict[str, str], total: int
) -> None:
    click.echo(
        f"{summary['ok']} of {total} structures labelled ({summary['rescued']} rescued), "
        f"{summary['rejected']} rejected, {summary['not_run']} not run; "
        f"{summary['calculations']} calculations."
    )
    if summary["stopped"]:
        click.echo(f"Stopped because {summary['stopped']}.")
    for reason, count in Counter(one["reason"] for one in rejected).most_common(SHOWN_REASONS):
        click.echo(f"  {count} rejected: {reason}")
    if files:
        click.echo(f"Wrote {', '.join(files.values())}.")
