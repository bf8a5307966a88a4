"""`mlip-auto status`: runs in every state, as text and as JSON."""

import json
from typing import Any

import pytest

from aiida_autopipe.cli.main import invoke


@pytest.mark.parametrize(
    ("state", "status", "message", "told"),
    [
        ("finished", 0, None, "finished"),
        ("finished", 402, "All [simulations] failed.", "failed: All [simulations] failed."),
        ("excepted", None, "ValueError: [bold]\n", "failed: ValueError: [bold]"),
        ("killed", None, None, "failed: killed"),
        ("waiting", None, None, "waiting"),
    ],
)
def test_one_run(
    make_run: Any,
    capsys: pytest.CaptureFixture[str],
    state: str,
    status: int | None,
    message: str | None,
    told: str,
) -> None:
    run = make_run(state, status, message)
    run.label = "with [brackets]"
    assert invoke(["status", str(run.pk)]) == 0
    captured = capsys.readouterr()
    assert f"with [brackets] (pk {run.pk}), {state}" in captured.out
    assert told in captured.out
    assert ("The daemon is not running" in captured.err) <= (state == "waiting")

    assert invoke(["status", str(run.pk), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["pk"], row["name"], row["state"]) == (run.pk, "with [brackets]", state)
    assert row["stage"] == ("generate" if state == "waiting" else "done")
    assert (row["labels_done"], row["budget"], row["paused"]) == (0, 80, [])


def test_all_runs(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        make_run("finished", 0).pk: "finished",
        make_run("finished", 402, "no").pk: "failed",
        make_run("killed").pk: "killed",
        make_run("running").pk: "running",
    }
    assert invoke(["status"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = {int(words[0]): words[2] for words in lines if words and words[0].isdigit()}
    assert found.items() >= told.items()


def test_daemon_that_is_down(
    make_run: Any, stopped_daemon_client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("waiting")
    assert invoke(["status", str(run.pk)]) == 0
    text = capsys.readouterr().err
    assert "The daemon is not running: `" in text and "daemon start` lets the runs go on." in text


def test_unknown_run(aiida_profile: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["status", "nonsense"]) == 1
    assert "There is no run 'nonsense'; known names are: " in capsys.readouterr().err
