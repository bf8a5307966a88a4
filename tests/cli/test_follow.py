"""The display of a run: lines, panel, and what is told when something is wrong."""

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from aiida_autopipe.cli import follow
from aiida_autopipe.workflows.progress import snapshot


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stage": "label", "rejected": 2}, "2 rejected"),
        ({"stage": "md", "simulations_done": 3}, "3 simulations done"),
        ({"stage": "validate", "validation_done": 4}, "4 calculations done"),
        ({"energy_rmse": 0.0021, "forces_rmse": 0.05}, "2.1 meV/atom, 0.050 eV/Å"),
        ({"paused": (1, 2)}, "2 paused"),
    ],
)
def test_line_and_panel(make_run: Any, changes: dict[str, Any], told: str) -> None:
    run = make_run("running")
    progress = replace(snapshot(run), **changes)
    assert told in follow.one_line(progress)
    console = Console(width=1000, markup=False)
    with console.capture() as capture:
        console.print(follow.panel(run, progress))
    text = capture.get()
    assert told in text or follow.paused_message(run, progress) in text
    assert "Ctrl-C leaves the run going." in text


def test_paused_processes_are_told_once_a_set(
    make_run: Any,
    started_daemon_client: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run("running")
    now = snapshot(run)
    paused = [(), (7,), (7,), (7, 8)]
    seen = iter(replace(now, paused=pks) for pks in paused)
    end = replace(now, stage="done", state="finished")
    monkeypatch.setattr("aiida_autopipe.workflows.progress.snapshot", lambda _: next(seen, end))
    monkeypatch.setattr(follow, "INTERVAL_SECONDS", 0.0)
    assert follow.follow(run) == end
    text = capsys.readouterr().out
    assert text.count("AiiDA paused the processes 7 after repeated failures") == 1
    assert text.count("AiiDA paused the processes 7 8 after repeated failures") == 1
    assert "process play 7 8`." in text and f"process status {run.pk}`" in text


class Client:
    """A daemon client that only says whether its daemon runs, and answers when it does."""

    is_daemon_running = False

    def get_status(self) -> dict[str, str]:
        return {"status": "active"}


def test_daemon_trouble_is_told_again_after_a_repair(
    make_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("created")
    client = Client()
    monkeypatch.setattr("aiida.engine.daemon.client.get_daemon_client", lambda: client)
    watch, now = follow.DaemonWatch(), snapshot(run)
    down = "The AiiDA daemon is not running"
    for running, told in [(False, 1), (False, 0), (True, 0), (False, 1)]:
        client.is_daemon_running = running
        watch.look(run, now)
        assert capsys.readouterr().err.count(down) == told
    client.is_daemon_running = True
    watch.waiting_since[run.pk] -= 2 * follow.STUCK_SECONDS
    watch.look(run, now)
    assert "daemon stop`, then this command again" in capsys.readouterr().err
