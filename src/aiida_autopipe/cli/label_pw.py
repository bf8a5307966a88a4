"""Existing inputs of pw.x through the recovery ladder, each to one outcome."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.cli.commands import verdi_command
from aiida_autopipe.cli.main import EXIT_ERROR, EXIT_INTERRUPTED
from aiida_autopipe.core.errors import EngineError, InputError

if TYPE_CHECKING:
    from aiida.orm import AbstractCode, WorkChainNode

    from aiida_autopipe.workflows.pw_input import PwJob

POLL_SECONDS = 0.5
WATCH_SECONDS = 5.0
"""How often the daemon is looked after."""
KILL_SECONDS = 30.0


@dataclass
class Entry:
    """One input on its way to its outcome; its twin is the same input earlier in the list."""

    path: Path
    job: PwJob | None = None
    node: WorkChainNode | None = None
    twin: Entry | None = None
    result: dict[str, Any] | None = None
    unusable: bool = False
    note: str = ""

    def reject(self, reason: str) -> None:
        """End it without an energy."""
        self.result = _rejected(reason)


@dataclass
class Campaign:
    """All inputs of one command, and what limits it."""

    entries: list[Entry]
    json_path: Path | None
    max_concurrent: int
    max_wall_time: int | None = None
    started_daemon: bool = False
    began: float = field(default_factory=time.monotonic)
    told: set[int] = field(default_factory=set)

    @property
    def quiet(self) -> bool:
        """True where the standard output is for the JSON."""
        return str(self.json_path) == "-"

    @property
    def out_of_time(self) -> bool:
        """True when the time limit is over."""
        limit = self.max_wall_time
        return limit is not None and time.monotonic() - self.began > limit

    @property
    def time_limit_reason(self) -> str:
        """Why something was not done in time."""
        return f"the time limit of {self.max_wall_time} s was reached"

    @property
    def running(self) -> list[Entry]:
        """Inputs whose process was started and is not done."""
        return [e for e in self.entries if e.node is not None and e.result is None]

    @property
    def waiting(self) -> list[Entry]:
        """Inputs that are to be started."""
        return [e for e in self.entries if (e.node, e.result, e.twin) == (None, None, None)]

    def as_json(self, unfinished: str) -> list[dict[str, Any]]:
        """One entry for each input in the given order; the reason is for those not done."""
        rows = []
        for entry in self.entries:
            result = _rejected(unfinished) if entry.result is None else entry.result
            rows.append({"input": str(entry.path), **result})
        return rows

    def write(self, unfinished: str = "not finished yet") -> None:
        """Write the JSON file as it stands; the standard output waits for the end."""
        if not self.quiet:
            options.write_json(self.json_path, self.as_json(unfinished))

    def collect(self) -> None:
        """Note what has ended, say so, and keep it in the JSON file."""
        from aiida_autopipe.workflows.pw_input import result_of

        for entry in self.running:
            if entry.node is not None and entry.node.is_terminated:
                entry.result = result_of(entry.node)
        for entry in self.entries:
            if entry.twin is not None and entry.result is None:
                entry.result = entry.twin.result
        done = [i for i, entry in enumerate(self.entries) if entry.result is not None]
        new = [i for i in done if i not in self.told]
        for index in new:
            self.told.add(index)
            self._tell(self.entries[index])
        if new:
            self.write()

    def _tell(self, entry: Entry) -> None:
        if self.quiet or entry.result is None:
            return
        outcome, reason = entry.result["outcome"], entry.result["reason"]
        because = f": {reason}" if reason else ""
        count = f"[{len(self.told)}/{len(self.entries)}]"
        click.echo(f"{count} {entry.path} {outcome}{entry.note}{because}")


def _rejected(reason: str) -> dict[str, Any]:
    return {
        "outcome": "rejected",
        "reason": reason,
        "steps": [],
        "energy": None,
        "magnetic_moment": None,
    }


def label_inputs(
    campaign: Campaign, code_label: str, max_attempts: int | None, new: bool, again: str
) -> int:
    """Run inputs of pw.x and write what became of each; the exit status of the command.

    :param again: the command that goes on with this one.
    :raises InputError: the code cannot be used.
    """
    code = _code(code_label)
    unfinished = "not finished"
    try:
        _prepare(campaign, code, max_attempts, new)
        if campaign.running or campaign.waiting:
            _run(campaign)
        status = EXIT_ERROR if any(entry.unusable for entry in campaign.entries) else 0
    except KeyboardInterrupt:
        unfinished = "not finished: the command was interrupted; the same command goes on with it"
        status = EXIT_INTERRUPTED
        _say_how_to_come_back(campaign, again)
    finally:
        campaign.write(unfinished)
        if campaign.started_daemon and not campaign.running:
            from aiida_autopipe.cli.daemon import stop_idle_daemon

            stop_idle_daemon()
    rows = campaign.as_json(unfinished)
    if campaign.quiet:
        options.write_json(campaign.json_path, rows)
    else:
        _print_table(rows)
    return status


def _code(label: str) -> AbstractCode:
    from aiida.orm import load_code

    from aiida_autopipe.workflows.preflight import code_problem

    problem = code_problem("--code", "pw.x", label)
    if problem:
        raise InputError(problem)
    return load_code(label)


def _prepare(campaign: Campaign, code: AbstractCode, max_attempts: int | None, new: bool) -> None:
    """Read all inputs, and find the processes of those that were run before."""
    from aiida_autopipe.workflows.pw_input import find_earlier, prepare

    first: dict[str, Entry] = {}
    for entry in campaign.entries:
        try:
            entry.job = prepare(entry.path, code, max_attempts)
        except (InputError, OSError) as error:
            entry.unusable = True
            entry.reject(str(error))
            continue
        entry.twin = first.setdefault(entry.job.key, entry)
        if entry.twin is entry:
            entry.twin = None
            entry.node = None if new else find_earlier(entry.job.key)
        if entry.node is not None:
            entry.note = f" (process {entry.node.pk} of an earlier command)"
    campaign.collect()
    campaign.write()


def _run(campaign: Campaign) -> None:
    """Run what is not done yet: by the daemon, or in this process where there can be none."""
    from aiida.manage.configuration import get_profile

    from aiida_autopipe.cli.daemon import ensure_daemon

    profile = get_profile()
    if profile is not None and profile.process_control_backend is not None:
        try:
            campaign.started_daemon = ensure_daemon(min(2, campaign.max_concurrent))
        except EngineError as error:
            click.echo(f"{error} The calculations run in this process, one at a time.", err=True)
        else:
            _follow(campaign)
            return
    _run_here(campaign)


def _follow(campaign: Campaign) -> None:
    """Submit as many as may run at once, and wait for all of them."""
    from aiida_autopipe.cli.follow import DaemonWatch

    watch, looked = DaemonWatch(), time.monotonic()
    while campaign.running or campaign.waiting:
        if campaign.out_of_time:
            _end(campaign.running, campaign.time_limit_reason)
            for entry in campaign.waiting:
                entry.reject(f"not started: {campaign.time_limit_reason}")
            campaign.collect()
            return
        for entry in campaign.waiting[: campaign.max_concurrent - len(campaign.running)]:
            _submit(entry)
        campaign.collect()
        if time.monotonic() - looked > WATCH_SECONDS:
            looked = time.monotonic()
            watch.look_at([entry.node for entry in campaign.running if entry.node is not None])
            _end(_paused(campaign.running), "AiiDA paused it after repeated failures")
        time.sleep(POLL_SECONDS)


def _submit(entry: Entry) -> None:
    from aiida.common.exceptions import AiidaException
    from aiida.engine import submit

    if entry.job is None:
        return
    try:
        entry.node = submit(entry.job.builder)
    except (AiidaException, ValueError, TypeError) as error:
        entry.unusable = True
        entry.reject(f"AiiDA refuses it: {' '.join(str(error).split())}")


def _paused(entries: list[Entry]) -> list[Entry]:
    from aiida_autopipe.workflows.progress import active_below

    return [
        entry
        for entry in entries
        if entry.node is not None
        and any(node.paused for node in (entry.node, *active_below(entry.node)))
    ]


def _end(entries: list[Entry], reason: str) -> None:
    """Kill what still runs, and reject it for the reason."""
    from aiida.engine.processes.control import kill_processes

    nodes = [entry.node for entry in entries if entry.node is not None]
    logging.getLogger("aiida.process_control").setLevel(logging.CRITICAL)
    end = time.monotonic() + KILL_SECONDS
    while (left := [node for node in nodes if not node.is_terminated]) and time.monotonic() < end:
        kill_processes(left, msg_text=reason, timeout=5.0)
        time.sleep(POLL_SECONDS)
    for entry in entries:
        if entry.node is not None and not entry.node.is_finished_ok:
            entry.reject(reason)


def _run_here(campaign: Campaign) -> None:
    from aiida.engine import run_get_node

    for entry in campaign.entries:
        if entry.job is None or entry.twin is not None or entry.result is not None:
            continue
        if campaign.out_of_time:
            entry.reject(f"not started: {campaign.time_limit_reason}")
            continue
        # A process of an earlier command that still runs belongs to a daemon that is not there.
        entry.node = run_get_node(entry.job.builder)[1]
        if entry.node.is_killed:
            # That is what AiiDA makes of Ctrl-C.
            entry.node = None
            raise KeyboardInterrupt
        campaign.collect()
    campaign.collect()


def _say_how_to_come_back(campaign: Campaign, again: str) -> None:
    done = sum(entry.result is not None for entry in campaign.entries)
    click.echo(f"\n{done} of {len(campaign.entries)} are done.", err=True)
    running = [entry.node.pk for entry in campaign.running if entry.node is not None]
    if running:
        click.echo(f"What was started goes on ({len(running)} running).", err=True)
    click.echo(f"  go on:   {again}", err=True)
    if running:
        click.echo(f"  end it:  {verdi_command('process', 'kill', *running)}", err=True)


def _print_table(rows: list[dict[str, Any]]) -> None:
    width = max(5, *(len(row["input"]) for row in rows))
    click.echo(
        f"\n{'input':{width}s}  {'outcome':8s}  {'runs':>4s}  {'energy (eV)':>14s}  "
        f"{'moment':>7s}  reason"
    )
    for row in rows:
        energy, moment = row["energy"], row["magnetic_moment"]
        cells = (
            f"{row['input']:{width}s}  {row['outcome']:8s}  {len(row['steps']):4d}  "
            f"{'-' if energy is None else format(energy, '.6f'):>14s}  "
            f"{'-' if moment is None else format(moment, '.2f'):>7s}  {row['reason'] or ''}"
        )
        click.echo(cells.rstrip())
    outcomes = [row["outcome"] for row in rows]
    counts = [f"{outcomes.count(name)} {name}" for name in ("ok", "rescued", "rejected")]
    click.echo(", ".join(counts) + ".")
