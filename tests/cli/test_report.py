"""`mlip-auto report`: the results of a run in any state."""

import json
from pathlib import Path
from typing import Any

import pytest

from aiida_autopipe.cli.main import invoke


@pytest.mark.parametrize(
    ("state", "status", "message", "out", "err"),
    [
        ("finished", 0, None, "", ""),
        ("finished", 402, "All simulations failed.", "", "failed: All simulations failed."),
        ("excepted", None, "ValueError: no", "", "failed: ValueError: no"),
        ("killed", None, None, "", "failed: killed"),
        ("running", None, None, "is still running (stage generate).", ""),
        ("created", None, None, "is still running (stage generate).", ""),
    ],
)
def test_any_state(
    make_run: Any,
    input_file: Path,
    capsys: pytest.CaptureFixture[str],
    state: str,
    status: int | None,
    message: str | None,
    out: str,
    err: str,
) -> None:
    run = make_run(state, status, message)
    assert invoke(["report", str(run.pk)]) == 0
    captured = capsys.readouterr()
    assert out in captured.out
    if err:
        assert captured.err.startswith(f"Run {run.pk} {err}\nDetails: ")
        assert captured.err.endswith(f" process report {run.pk}\n")
    else:
        assert captured.err == ""
    folder = Path("runs") / input_file.stem
    assert f"report   {folder / 'report.html'}" in captured.out
    assert run.uuid in (folder / "report.html").read_text()


def test_run_nobody_has_picked_up(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Right after its submission a process may have no state."""
    run = make_run("created")
    run.base.attributes.delete("process_state")
    assert invoke(["report", str(run.pk), "-o", "here"]) == 0
    assert "is still running" in capsys.readouterr().out
    assert json.loads(Path("here/summary.json").read_text())["labels"]["requested"] == 0


def test_unknown_run(aiida_profile: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["report", "nonsense"]) == 1
    assert capsys.readouterr().err.startswith("Error: There is no run 'nonsense'")
