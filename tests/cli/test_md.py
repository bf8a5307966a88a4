"""`mlip-auto md` with real LAMMPS, as a user types it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import read, write

from aiida_autopipe.cli.main import invoke
from aiida_autopipe.engines.lammps import local
from aiida_autopipe.engines.lammps.local import LocalRun, run_local
from tests.reference.copper import copper_potential


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copper potential with its active set, and a crystal."""
    path = tmp_path_factory.mktemp("md")
    copper_potential().save(path / "cu")
    write(path / "cu.xyz", bulk("Cu").repeat(2))
    write(path / "molecule.xyz", molecule("H2O"))
    return path


def run(folder: Path, monkeypatch: Any, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    return invoke(["md", "cu.yace", "cu.xyz", *arguments])


def test_a_run_reaches_its_end_and_is_repeated_by_its_seed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--temperature", "60:120", "--steps", "200", "--every", "50", "--seed", "3"]
    for name in ("one", "two"):
        outputs = ["-o", f"{name}.extxyz", "--json", f"{name}.json"]
        assert run(folder, monkeypatch, *arguments, *outputs) == 0
    result = json.loads((folder / "one.json").read_text())
    assert (result["outcome"], result["steps_done"], result["frames"]) == ("finished", 200, 5)
    one, two = (read(folder / f"{name}.extxyz", ":") for name in ("one", "two"))
    assert [atoms.info["step"] for atoms in one] == [0, 50, 100, 150, 200]
    np.testing.assert_array_equal(one[-1].positions, two[-1].positions)
    # Frames come back in the frame of reference of the input, with velocities and gamma.
    np.testing.assert_allclose(one[0].cell, bulk("Cu").repeat(2).cell, atol=1e-9)
    np.testing.assert_allclose(one[0].positions, bulk("Cu").repeat(2).positions, atol=1e-9)
    # LAMMPS does not count the momentum, which is zero; ASE does.
    assert one[0].get_temperature() == pytest.approx(60 * 7 / 8, rel=1e-4)
    assert one[-1].arrays["gamma"].max() == pytest.approx(one[-1].info["gamma_max"])


def test_a_hot_run_is_halted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That is a success, and JSON says so."""
    arguments = ["--temperature", "3000", "--supercell", "2", "2", "2", "--gamma-halt", "5"]
    assert run(folder, monkeypatch, *arguments, "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["halted"] and result["steps_done"] < result["steps_asked"] == 10000
    assert "above gamma_halt 5" in result["halt_reason"]
    assert len(read(folder / "trajectory.extxyz", ":")) == result["frames"]


def test_a_schedule(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "schedule.yaml").write_text(
        "schedule:\n"
        "  - {ensemble: npt, temperature_K: [50, 90], steps: 60}\n"
        "  - {ensemble: nvt, temperature_K: 90, steps: 40}\n"
    )
    arguments = ["--schedule", "schedule.yaml", "-o", "s.extxyz", "--every", "20"]
    assert run(folder, monkeypatch, *arguments) == 0
    frames = read(folder / "s.extxyz", ":")
    assert [atoms.info["step"] for atoms in frames] == [0, 20, 40, 60, 80, 100]
    assert frames[3].get_volume() != pytest.approx(frames[0].get_volume(), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "hot"], "--temperature hot: give K"),
        (["--steps", "0"], "steps must be a positive whole number"),
        (["--every", "15"], "keep_every (15) must be a multiple of gamma_every (10)"),
        (["--gamma-every", "0"], "--gamma-every 0"),
        (["--supercell", "2", "0", "2"], "every number must be at least 1"),
        (["-o", "frames.h5"], "must end in .extxyz"),
        (["--index", "4"], "has no structure 4"),
        (["--schedule", "bad.yaml"], "'schedule:' with a list of segments"),
        (["--timestep", "1000", "--gamma-halt", "0", "--temperature", "5000"], "The run ended at"),
    ],
)
def test_what_is_wrong_is_said(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (folder / "bad.yaml").write_text("schedule: 5\n")
    assert run(folder, monkeypatch, *arguments) == 1
    assert message in capsys.readouterr().err


def test_files_that_do_not_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    copper_potential().save(folder / "bare")
    (folder / "bare.asi").unlink()
    for arguments, message in (
        (["cu.yace", "molecule.xyz"], "the structure contains H, O"),
        (["bare.yace", "cu.xyz"], "has no active set beside it"),
        (["none.yace", "cu.xyz"], "There is no file 'none.yace'"),
        (["cu.yace", "none.xyz"], "There is no file 'none.xyz'"),
    ):
        assert invoke(["md", *arguments]) == 1
        assert message in capsys.readouterr().err


def test_ctrl_c_keeps_the_frames_so_far(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes while the run is followed, when 100 steps are made."""

    def interrupted(*arguments: Any) -> LocalRun:
        def progress(step: int) -> None:
            if step >= 100:
                raise KeyboardInterrupt

        return run_local(*arguments[:-1], progress)

    monkeypatch.setattr(local, "run_local", interrupted)
    arguments = ["--temperature", "50", "--steps", "1000000", "--every", "10"]
    assert run(folder, monkeypatch, *arguments, "-o", "part.extxyz") == 130
    assert 10 < len(read(folder / "part.extxyz", ":")) < 100_000
    out = capsys.readouterr()
    assert " of 1000000" in out.out
    assert "Interrupted." in out.err
