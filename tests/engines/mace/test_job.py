"""The process above the training: how the death of the training is told."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.engines.mace.job import main, n_validated, read_job
from tests.engines.mace.small import silicon, write_job


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(one) for one in text.split()]


def error(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "error.json").read_text())
    return content


def test_a_killed_training_is_told(tmp_path: Path) -> None:
    """SIGKILL is what the system sends when memory is short."""
    write_job(tmp_path, {"train": silicon(4)})
    command = [sys.executable, "-m", "aiida_autopipe.engines.mace.job", "job.json"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        for _ in range(600):
            found = children(process.pid)
            if found:
                break
            time.sleep(0.1)
        os.kill(found[0], signal.SIGKILL)
        _, words = process.communicate()
    assert process.returncode == 1
    assert b"memory is short" in words
    assert error(tmp_path)["type"] == "memory"
    assert error(tmp_path)["new_epochs"] == 0


def test_an_unknown_setting_needs_no_pytorch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_job(tmp_path, {"train": silicon(4)}, {"cutof": 4.0})
    assert main([str(tmp_path / "job.json")]) == 1
    assert error(tmp_path)["type"] == "InputError"
    assert "did you mean 'cutoff'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold an object"),
        ('{"train": "t.h5"}', "missing: seed"),
        ('{"train": "t.h5", "seed": 1, "epochs": 3}', "unknown: epochs"),
        ('{"train": "t.h5", "seed": -1}', "must be a whole number from 0"),
    ],
)
def test_job_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_job(tmp_path)


def test_no_job_file(tmp_path: Path) -> None:
    assert main([str(tmp_path / "job.json")]) == 1
    assert "There is no job file" in str(error(tmp_path)["message"])
    assert main([str(tmp_path / "nowhere" / "job.json")]) == 1


def test_epochs_of_all_runs_are_counted(tmp_path: Path) -> None:
    assert n_validated(tmp_path) == 0
    (tmp_path / "results").mkdir()
    lines = '{"mode": "opt", "epoch": 0}\n{"mode": "eval", "epoch": 0}\n{"mode": "opt", "epoch": 1}'
    (tmp_path / "results" / "mace_run-3_train.txt").write_text(lines)
    assert n_validated(tmp_path) == 2
