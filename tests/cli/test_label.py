"""`mlip-auto label FILE`: structures in, labelled and rejected structures out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiida.orm import QueryBuilder, WorkChainNode
from ase.build import bulk
from ase.calculators import emt
from ase.io import read, write

from aiida_autopipe.cli import daemon, label_file
from aiida_autopipe.cli.main import invoke
from aiida_autopipe.core.dataset import read_dataset
from aiida_autopipe.core.errors import EngineError

EMT = ["--oracle", "autopipe.ase", "--calculator", "ase.calculators.emt.EMT"]


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Silicon, silicon with two atoms on top of each other, silicon."""
    monkeypatch.chdir(tmp_path)
    structures = [bulk("Si") for _ in range(3)]
    for number, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=number)
    structures[1].positions[1] = structures[1].positions[0] + [0.05, 0.0, 0.0]
    write("pool.extxyz", structures)
    return Path("pool.extxyz")


@pytest.fixture
def copper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    structures = [bulk("Cu", cubic=True) for _ in range(2)]
    for number, atoms in enumerate(structures):
        atoms.rattle(0.1, seed=number)
    write("cu.extxyz", structures)
    return Path("cu.extxyz")


def n_runs() -> int:
    return int(QueryBuilder().append(WorkChainNode).count())


def test_pw_labels_and_rejects(
    pw_code: Any,
    pz_family: Any,
    started_daemon_client: Any,
    pool: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("set.yaml").write_text("label: {kspacing_per_A: 0.3, smearing: none, cutoff_wfc_Ry: 40}\n")
    arguments = ["label", str(pool), "--settings", "set.yaml", "--kspacing", "1.5"]
    arguments += ["--cutoff-wfc", "8", "--cutoff-rho", "32"]
    files = ["-o", "out.h5", "--rejected", "bad.extxyz", "--json", "out.json"]
    assert invoke([*arguments, *files]) == 0
    data = read_dataset("out.h5")
    assert len(data) == 2 and data.labelled and list(data.columns["source_index"]) == [0, 2]
    found = json.loads(Path("out.json").read_text())
    assert found["method"]["settings"]["cutoff_wfc_Ry"] == 8.0
    assert found["method"]["settings"]["smearing"] == "none"
    assert (found["ok"], found["rejected"], found["not_run"]) == (2, 1, 0)
    bad = read("bad.extxyz")
    assert "Å apart" in bad.info["reason"]
    assert found["rejected_structures"] == [{"index": 1, "reason": bad.info["reason"]}]
    text = capsys.readouterr().out
    assert "2 of 3 structures labelled (0 rescued), 1 rejected, 0 not run" in text
    assert "1 rejected: Atoms 0 and 1 are" in text and "Wrote out.h5, bad.extxyz." in text

    before = n_runs()
    assert invoke([*arguments, "-o", "again.h5"]) == 0
    assert n_runs() == before
    assert "This was done before as process" in capsys.readouterr().out
    assert read_dataset("again.h5").content_hash() == data.content_hash()


def test_any_ase_calculator_without_a_daemon(
    python_code: Any,
    copper: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_daemon(_: int) -> bool:
        raise EngineError("The AiiDA daemon does not start.")

    monkeypatch.setattr(daemon, "ensure_daemon", no_daemon)
    assert invoke(["label", str(copper), *EMT, "--json", "-", "--max-labels", "1"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["ok"], found["not_run"], found["calculations"]) == (1, 1, 1)
    assert found["files"] == {"labelled": "labelled.extxyz"}
    assert "run in this process" in captured.err
    labelled, bare = read("labelled.extxyz"), read("cu.extxyz@0")
    bare.calc = emt.EMT()
    assert labelled.get_potential_energy() == pytest.approx(bare.get_potential_energy(), abs=1e-6)


def test_interrupt_tells_how_to_come_back(
    python_code: Any,
    copper: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    node = WorkChainNode().store()
    node.set_process_state("running")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(daemon, "ensure_daemon", lambda _: False)
    monkeypatch.setattr("aiida.engine.submit", lambda _: node)
    monkeypatch.setattr(label_file, "_follow", interrupt)
    keywords = ["--keywords", '{"asap_cutoff": true}']
    assert invoke(["label", str(copper), *EMT, *keywords, "--max-wall-time", "60"]) == 130
    told = capsys.readouterr().err
    assert f"Process {node.pk} goes on." in told and f"process kill {node.pk}" in told
    assert "mlip-auto label cu.extxyz --oracle autopipe.ase --calculator" in told
    assert "--max-wall-time 60" in told and """--keywords '{"asap_cutoff": true}'""" in told
    node.set_process_state("killed")
    monkeypatch.setattr("aiida.engine.submit", interrupt)
    assert invoke(["label", str(copper), *EMT, *keywords]) == 130
    assert "start again:" in capsys.readouterr().err


def test_nothing_labelled_is_a_failure(
    pw_code: Any, pz_family: Any, started_daemon_client: Any, pool: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write("bad.extxyz", read(f"{pool}@1"))
    assert invoke(["label", "bad.extxyz", "--json", "-", "--rejected", "why.extxyz"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] == 0 and found["files"] == {"rejected": "why.extxyz"}
    assert not Path("labelled.extxyz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.extxyz"], "There is no file 'gone.extxyz'"),
        (["cu.extxyz", "cu.extxyz"], "give one file of structures, not 2"),
        (["a.in", "b.in"], "inputs of pw.x need --pw-input"),
        (["cu.extxyz", "-o", "out.cif"], "the output 'out.cif' must end in .extxyz"),
        (["cu.extxyz", "-o", "no/out.h5"], "the folder 'no' of the output does not exist"),
        (["cu.extxyz", "--keywords", "{}"], "--keywords are those of a --calculator"),
        (["cu.extxyz", "--calculator", "a.B", "--keywords", "{"], "--keywords is no JSON"),
        (["cu.extxyz", "--calculator", "a.B", "--keywords", "[]"], "--keywords must be JSON such"),
        (["cu.extxyz", "--oracle", "autopipe.none"], "There is no oracle 'autopipe.none'"),
        (["cu.extxyz", "--oracle", "other.none"], "there is no oracle 'other.none'; install the"),
        (["cu.extxyz", "--oracle", "autopipe.asse"], "did you mean 'autopipe.ase'?"),
        (["cu.extxyz", "--oracle", "autopipe.ase"], "settings are needed for the oracle"),
        (["cu.extxyz", "--calculator", "a.B"], "settings are those of other oracles"),
        (["cu.extxyz", "--code", "none@localhost"], "AiiDA has no code 'none@localhost'"),
        (["cu.extxyz", "--kspacing", "-1"], "label.kspacing_per_A: -1.0 must be greater than 0"),
        (["cu.extxyz", "--pseudopotentials", "none"], "'none' is neither a folder nor an install"),
        (["cu.extxyz", "--settings", "typo.yaml"], "did you mean 'kspacing_per_A'?"),
        (["cu.extxyz", "--settings", "none.yaml"], "none.yaml does not exist"),
        (["--pw-input", "a.in", "--max-labels", "3"], "--max-labels is for files of structures"),
    ],
)
def test_wrong_requests_are_one_sentence(
    pw_code: Any, python_code: Any, pz_family: Any, copper: Path, arguments: list[str],
    message: str, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Path("typo.yaml").write_text("label: {kspacing: 0.3}\n")
    before = n_runs()
    extra = EMT[2:] if "autopipe.none" in arguments else []
    assert invoke(["label", *arguments, *extra]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and error.count("\n") == 1 and message in error
    assert n_runs() == before


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    """In a process of its own: here a profile is loaded already."""
    code = "from aiida_autopipe.cli.main import main; main()"
    (tmp_path / "x.in").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", code, "label", "--pw-input", "x.in", "--profile", "none"],
        capture_output=True,
        text=True,
        env={**os.environ, "AIIDA_PATH": str(tmp_path)},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert "AiiDA has no profile" in done.stderr and done.stderr.count("\n") == 1
