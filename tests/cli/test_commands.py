"""Commands to type: they name the profile, the folder and the program that the shell needs."""

import sys
from pathlib import Path
from typing import Any

import pytest

from aiida_autopipe.cli import commands


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in which the environment of the tests is activated."""
    monkeypatch.delenv("AIIDA_PATH", raising=False)
    monkeypatch.delenv("AIIDA_PROFILE", raising=False)
    monkeypatch.setattr(commands, "USER_PATH", str(Path(sys.executable).parent))


def test_activated_environment(aiida_profile: Any) -> None:
    name = aiida_profile.name
    assert commands.verdi_command("process", "play", 1, 2) == f"verdi -p {name} process play 1 2"
    assert (
        commands.mlip_auto_command("run", Path("my input.yaml")) == "mlip-auto run 'my input.yaml'"
    )


def test_folder_and_profile_of_the_user(
    aiida_profile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIIDA_PATH", "/my folder")
    monkeypatch.setenv("AIIDA_PROFILE", "mine")
    verdi, ours = commands.verdi_command("status"), commands.mlip_auto_command("status")
    assert verdi == f"AIIDA_PATH='/my folder' verdi -p {aiida_profile.name} status"
    assert ours == "AIIDA_PATH='/my folder' AIIDA_PROFILE=mine mlip-auto status"


def test_environment_that_is_not_activated(
    aiida_profile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Another environment's programs do not count.
    for name in ("verdi", "mlip-auto"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(commands, "USER_PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["here/bin/mlip-auto", "run"])
    beside = Path(sys.executable).parent
    assert commands.verdi_command("status").startswith(f"{beside / 'verdi'} -p ")
    assert commands.mlip_auto_command("status") == "here/bin/mlip-auto status"
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert commands.mlip_auto_command("status") == f"{beside / 'mlip-auto'} status"
