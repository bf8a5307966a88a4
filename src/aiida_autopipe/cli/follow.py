"""Follow a run with a live display; leaving it does not touch the run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aiida_autopipe.cli.commands import verdi_command
from aiida_autopipe.cli.daemon import is_alive

if TYPE_CHECKING:
    from aiida.orm import WorkChainNode

    from aiida_autopipe.workflows.progress import Progress

INTERVAL_SECONDS = 4.0
STUCK_SECONDS = 60.0
"""A process that nobody picks up for so long means that the daemon does not listen."""


def follow(run: WorkChainNode) -> Progress:
    """Show a run until it ends.

    On a terminal the display is redrawn in place, elsewhere a line is printed when something
    changes.

    Raises:
        KeyboardInterrupt: the user left; the run goes on.
    """
    from aiida_autopipe.workflows.progress import snapshot

    # No markup: names and messages may hold brackets.
    console = Console(markup=False)
    progress = snapshot(run)
    watch = DaemonWatch()
    if not console.is_terminal:
        return _follow_by_lines(run, progress, watch)
    with Live(panel(run, progress), console=console, refresh_per_second=4) as live:
        while progress.stage != "done":
            watch.look(run, progress)
            time.sleep(INTERVAL_SECONDS)
            progress = snapshot(run)
            live.update(panel(run, progress))
    return progress


def _follow_by_lines(run: WorkChainNode, progress: Progress, watch: DaemonWatch) -> Progress:
    from aiida_autopipe.workflows.progress import snapshot

    last = ""
    paused: tuple[int, ...] = ()
    while True:
        line = one_line(progress)
        if line != last:
            click.echo(line)
        if progress.paused and progress.paused != paused:
            click.echo(paused_message(run, progress))
        last, paused = line, progress.paused
        if progress.stage == "done":
            return progress
        watch.look(run, progress)
        time.sleep(INTERVAL_SECONDS)
        progress = snapshot(run)


def one_line(progress: Progress) -> str:
    """The state of a run as one line of text."""
    parts = [
        f"{progress.stage:8s}",
        f"generation {progress.generation}",
        f"labels {progress.labels_done}/{progress.budget}",
    ]
    if progress.rejected:
        parts.append(f"{progress.rejected} rejected")
    if progress.stage == "md":
        parts.append(f"{progress.simulations_done} simulations done")
    if progress.stage == "validate":
        parts.append(f"{progress.validation_done} calculations done")
    if progress.energy_rmse is not None:
        parts.append(f"test error {_errors(progress)}")
    if progress.paused:
        parts.append(f"{len(progress.paused)} paused")
    return " | ".join(parts)


def panel(run: WorkChainNode, progress: Progress) -> Group:
    """The state of a run as a block for the terminal."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    elapsed = time.strftime("%H:%M:%S", time.gmtime(progress.seconds))
    table.add_row("run", f"{run.label} (pk {run.pk}), {progress.state}, {elapsed}")
    detail = f" - {progress.detail}" if progress.detail else ""
    if progress.stage == "md":
        detail += f", {progress.simulations_done} simulations done"
    if progress.stage == "validate":
        detail += f", {progress.validation_done} calculations done"
    table.add_row("stage", f"{progress.stage}{detail}")
    table.add_row("generation", str(progress.generation or "before the first"))
    labels = f"{progress.labels_done} of {progress.budget}"
    running = f", {progress.labels_running} running" if progress.labels_running else ""
    failed = f", {progress.rejected} rejected" if progress.rejected else ""
    table.add_row("labels", f"{labels}{running}{failed}")
    table.add_row("", ProgressBar(total=progress.budget, completed=progress.labels_done, width=40))
    if progress.energy_rmse is not None:
        table.add_row("test error", _errors(progress))
    rows: list[Table | Text] = [table]
    if progress.paused:
        rows.append(Text(paused_message(run, progress), style="yellow"))
    rows.append(Text("Ctrl-C leaves the run going.", style="dim"))
    return Group(*rows)


def paused_message(run: WorkChainNode, progress: Progress) -> str:
    """What to do about processes that AiiDA paused."""
    pks = " ".join(str(pk) for pk in progress.paused)
    return (
        f"AiiDA paused the processes {pks} after repeated failures: look at the cause with "
        f"`{verdi_command('process', 'status', run.pk)}`, repair it, then type "
        f"`{verdi_command('process', 'play', *progress.paused)}`."
    )


def _errors(progress: Progress) -> str:
    if progress.energy_rmse is None or progress.forces_rmse is None:
        return "unknown"
    return f"{1000 * progress.energy_rmse:.1f} meV/atom, {progress.forces_rmse:.3f} eV/Å"


class DaemonWatch:
    """Notices a daemon that died or went deaf (its workers lost the broker) and says so once.

    When it was repaired in between, it is told again.
    """

    def __init__(self) -> None:
        self.waiting_since: dict[int, float] = {}
        self.trouble = ""

    def look(self, run: WorkChainNode, progress: Progress) -> None:
        """Check the daemon and the processes that were created but not picked up."""
        if progress.stage == "done":
            return
        self.look_at([run])

    def look_at(self, runs: Sequence[WorkChainNode]) -> None:
        """Check the daemon for several active processes."""
        trouble = self._trouble(runs)
        if trouble and trouble != self.trouble:
            click.echo(trouble, err=True)
        self.trouble = trouble

    def _trouble(self, runs: Sequence[WorkChainNode]) -> str:
        from aiida.engine.daemon.client import get_daemon_client

        from aiida_autopipe.workflows.progress import active_below, state_of

        if not is_alive(get_daemon_client()):
            return "The AiiDA daemon is not running; start this command again and the run goes on."
        now = time.monotonic()
        nodes = [node for run in runs for node in (run, *active_below(run))]
        created = [node.pk for node in nodes if state_of(node) == "created"]
        self.waiting_since = {pk: self.waiting_since.get(pk, now) for pk in created}
        if any(now - since > STUCK_SECONDS for since in self.waiting_since.values()):
            return (
                "A process has not been picked up for a minute: the daemon lost its broker; type "
                f"`{verdi_command('daemon', 'stop')}`, then this command again: it puts lost "
                "processes right and the run goes on."
            )
        return ""
