"""`mlip-auto label --pw-input`: existing inputs as they are, one entry for each, always."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiida.common.links import LinkType
from aiida.orm import Dict, QueryBuilder, WorkChainNode

from aiida_autopipe.cli import daemon, label_pw
from aiida_autopipe.cli.main import invoke
from aiida_autopipe.core.errors import EngineError

RYDBERG = 13.6056917253
"""eV, as aiida-quantumespresso has it."""
SILICON = """&CONTROL
  calculation = 'scf', prefix = 'si', outdir = './out', pseudo_dir = 'PSEUDO'
/
&SYSTEM
  ibrav = 2, celldm(1) = 10.2, nat = 2, ntyp = 1, ecutwfc = 8.0, occupations = 'fixed'
/
&ELECTRONS
  conv_thr = 1d-10
/
ATOMIC_SPECIES
  Si 28.085 Si.pz-vbc.UPF
ATOMIC_POSITIONS alat
  Si 0.0 0.0 0.0
  Si 0.25 0.25 0.25
K_POINTS tpiba
  1
  0.1 0.2 0.3 1.0
"""
HYDROGEN = """&CONTROL
  calculation = 'relax', tprnfor = .true., pseudo_dir = 'PSEUDO'
/
&SYSTEM
  ibrav = 6, A = 4.0, C = 7.0, nat = 2, ntyp = 2, ecutwfc = 12, nspin = 2
  occupations = 'smearing', degauss = 0.005
  starting_magnetization(1) = 0.7, starting_magnetization(2) = 0.9
/
&ELECTRONS
  conv_thr = 1d-9
/
&IONS
/
ATOMIC_SPECIES
  H2 1.0 H.pz-vbc.UPF
  H1 2.0 H.pz-vbc.UPF
ATOMIC_POSITIONS crystal
  H1 0 0 0 0 0 0
  H2 0 0 1/2 1 1 1
K_POINTS gamma
"""
"""Two atoms of different kinds with parallel spins."""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pseudo_folder: Path) -> Any:
    """Write an input into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ESPRESSO_PSEUDO", raising=False)

    def write(name: str, text: str) -> str:
        Path(name).write_text(text.replace("PSEUDO", str(pseudo_folder)))
        return name

    return write


def entries(path: str = "out.json") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(path).read_text())
    keys = ["input", "outcome", "reason", "steps", "energy", "magnetic_moment"]
    assert all(list(one) == keys for one in found)
    return found


def bare(name: str) -> tuple[float, float | None]:
    """Energy (eV) and moment that pw.x itself gets from an input, the last of a relaxation."""
    done = subprocess.run(["pw.x", "-in", name], capture_output=True, text=True, check=True)
    energies = re.findall(r"^!\s+total energy\s+=\s+(\S+) Ry", done.stdout, re.M)
    moments = re.findall(r"total magnetization\s+=\s+(\S+) Bohr", done.stdout)
    return float(energies[-1]) * RYDBERG, float(moments[-1]) if moments else None


def test_inputs_as_they_are(
    pw_code: Any, started_daemon_client: Any, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Energies are those of pw.x itself; twins are calculated once, an earlier result is used."""
    names = [
        write("si.in", SILICON),
        write("overlap.in", SILICON.replace("0.25 0.25 0.25", "0.0 0.0 0.01")),
        write("h2.in", HYDROGEN),
        write("twin.in", SILICON),
    ]
    assert invoke(["label", "--pw-input", *names, "--json", "out.json"]) == 0
    silicon, overlap, hydrogen, twin = entries()
    assert [one["input"] for one in entries()] == names
    assert silicon["outcome"] == hydrogen["outcome"] == "ok"
    energy, moment = bare("si.in")
    assert silicon["energy"] == pytest.approx(energy, abs=2e-6)
    assert silicon["magnetic_moment"] is None and moment is None
    energy, moment = bare("h2.in")
    assert hydrogen["energy"] == pytest.approx(energy, abs=2e-6)
    assert hydrogen["magnetic_moment"] == moment == 2.0
    assert overlap["outcome"] == "rejected" and overlap["energy"] is None
    assert "Å apart" in overlap["reason"]
    assert twin == {**silicon, "input": "twin.in"}
    text = capsys.readouterr().out
    assert "[4/4] " in text and "3 ok, 0 rescued, 1 rejected." in text

    before = QueryBuilder().append(WorkChainNode).count()
    assert invoke(["label", "--pw-input", "si.in", "--json", "again.json"]) == 0
    assert entries("again.json")[0] == silicon
    assert QueryBuilder().append(WorkChainNode).count() == before


def test_without_a_daemon_it_runs_in_this_process(
    pw_code: Any, write: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_daemon(_: int) -> bool:
        raise EngineError("The AiiDA daemon does not start.")

    monkeypatch.setattr(daemon, "ensure_daemon", no_daemon)
    write("here.in", SILICON.replace("10.2", "10.3"))
    assert invoke(["label", "--pw-input", "here.in", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]["outcome"] == "ok"
    assert "run in this process, one at a time" in captured.err


def test_what_cannot_be_run_is_rejected_before_anything_runs(
    pw_code: Any, write: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(daemon, "ensure_daemon", lambda _: pytest.fail("a daemon was started"))
    Path("odd.UPF").write_text("not a pseudopotential " * 100)
    Path("folder.in").mkdir()
    species = "Si 28.085 Si.pz-vbc.UPF"
    wrong = {
        "gone.in": "the file does not exist",
        "folder.in": "the file cannot be read",
        write("typo.in", SILICON.replace("ecutwfc", "ecutwcf")): "did you mean 'ecutwfc'?",
        write("nat.in", SILICON.replace("nat = 2", "nat = 3")): "nat is 3 in &SYSTEM",
        write("nan.in", SILICON.replace("0.25 0.25 0.25", "0.25 nan 0.25")): "nan is no finite",
        write("upf.in", SILICON.replace("Si.pz-vbc", "Si.none")): "Si.none.UPF of Si is not in",
        write("odd.in", SILICON.replace("PSEUDO", ".").replace("Si.pz-vbc", "odd")): "UPF only",
        write("al.in", SILICON.replace(species, "Si 28 Al.pz-vbc.UPF")): "which is of Al",
        write("empty.in", ""): "the input is empty",
    }
    assert invoke(["label", "--pw-input", *wrong, "--json", "out.json"]) == 1
    for entry, (name, reason) in zip(entries(), wrong.items(), strict=True):
        assert entry["input"] == name and entry["outcome"] == "rejected"
        assert reason in entry["reason"] and len(entry["reason"]) < 300
        assert entry["steps"] == [] and entry["energy"] is None
    text = capsys.readouterr().out
    assert "0 ok, 0 rescued, 9 rejected." in text and "Traceback" not in text


@pytest.fixture
def pretended(pw_code: Any, monkeypatch: pytest.MonkeyPatch) -> list[WorkChainNode]:
    """Submission makes a process that runs for ever; the nodes in the order of submission."""
    nodes: list[WorkChainNode] = []

    def submit(entry: label_pw.Entry) -> None:
        node = WorkChainNode(label=entry.path.name).store()
        node.set_process_state("running")
        nodes.append(node)
        entry.node = node

    monkeypatch.setattr(label_pw, "_submit", submit)
    monkeypatch.setattr(daemon, "ensure_daemon", lambda _: False)
    return nodes


def ticking(*actions: Callable[[], None]) -> SimpleNamespace:
    """A clock: instead of sleeping it does one action after the other."""
    waiting = iter(actions)
    return SimpleNamespace(sleep=lambda _: next(waiting)(), monotonic=time.monotonic)


def finish(nodes: list[WorkChainNode], index: int) -> None:
    rescue = {"outcome": "rescued", "reason": "beta 0.3", "steps": [{"attempt": 1}, {"attempt": 2}]}
    output = Dict({**rescue, "energy": -1.5, "magnetic_moment": None, "method": "own"}).store()
    if "rescue" not in nodes[index].outputs:
        output.base.links.add_incoming(nodes[index], LinkType.RETURN, "rescue")
    nodes[index].set_exit_status(0)
    nodes[index].set_process_state("finished")


def test_interrupt_keeps_what_is_done(
    pretended: list[WorkChainNode],
    write: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    names = [write(f"{i}.in", SILICON.replace("10.2", f"11.{i}")) for i in range(4)]
    names.append("gone.in")
    monkeypatch.setattr(
        label_pw, "time", ticking(lambda: finish(pretended, 1), lambda: None, interrupt)
    )
    arguments = ["label", "--pw-input", *names, "--max-concurrent", "2", "--json", "out.json"]
    assert invoke(arguments) == 130
    assert len(pretended) == 3
    found = entries()
    assert [one["outcome"] for one in found] == ["rejected", "rescued", *["rejected"] * 3]
    assert found[1] == {
        "input": "1.in", "outcome": "rescued", "reason": "beta 0.3", "energy": -1.5,
        "steps": [{"attempt": 1}, {"attempt": 2}], "magnetic_moment": None,
    }  # fmt: skip
    assert "interrupted; the same command goes on with it" in found[0]["reason"]
    assert found[4]["reason"] == "the file does not exist"
    told = capsys.readouterr().err
    assert "2 of 5 are done." in told and "(2 running)" in told
    assert f"mlip-auto label --pw-input {' '.join(names)} --max-concurrent 2" in told
    assert f"process kill {pretended[0].pk} {pretended[2].pk}" in told
    for node in pretended:
        node.set_process_state("killed")


def test_time_limit_ends_what_runs(
    pretended: list[WorkChainNode], write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(nodes: list[WorkChainNode], **_: Any) -> None:
        for node in nodes:
            node.set_process_state("killed")

    monkeypatch.setattr("aiida.engine.processes.control.kill_processes", kill)
    names = [write(f"{i}.in", SILICON.replace("10.2", f"12.{i}")) for i in range(3)]
    arguments = ["label", "--pw-input", *names, "--max-concurrent", "1", "--json", "out.json"]
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(
        label_pw, "time",
        SimpleNamespace(
            monotonic=lambda: clock.now,
            sleep=lambda _: (finish(pretended, 0), setattr(clock, "now", clock.now + 20.0)),
        ),
    )  # fmt: skip
    monkeypatch.setattr(label_pw.Campaign, "out_of_time", property(lambda _: clock.now > 60))
    assert invoke([*arguments, "--max-wall-time", "60"]) == 0
    first, second, third = entries()
    assert first["outcome"] == "rescued"
    assert second["reason"] == "the time limit of 60 s was reached"
    assert third["reason"] == "not started: the time limit of 60 s was reached"
    assert pretended[1].is_killed and len(pretended) == 2


def test_an_exception_is_told_in_one_line(
    pretended: list[WorkChainNode], write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        pretended[0].set_exception("Traceback:\n  File 'x'\nKeyError: 'children'\n")
        pretended[0].set_process_state("excepted")

    monkeypatch.setattr(label_pw, "time", ticking(fail, lambda: None))
    write("e.in", SILICON.replace("10.2", "13.3"))
    assert invoke(["label", "--pw-input", "e.in", "--json", "out.json"]) == 0
    assert entries()[0]["reason"] == "the process excepted: KeyError: 'children'"


def test_a_paused_process_is_ended(
    pretended: list[WorkChainNode], write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_pw, "WATCH_SECONDS", -1.0)
    monkeypatch.setattr(
        "aiida.engine.processes.control.kill_processes",
        lambda nodes, **_: [node.set_process_state("killed") for node in nodes],
    )
    monkeypatch.setattr("aiida_autopipe.cli.follow.DaemonWatch.look_at", lambda *_: None)
    monkeypatch.setattr(label_pw, "time", ticking(*[lambda: pretended[0].pause()] * 3))
    write("p.in", SILICON.replace("10.2", "13.1"))
    assert invoke(["label", "--pw-input", "p.in", "--json", "out.json"]) == 0
    assert entries()[0]["reason"] == "AiiDA paused it after repeated failures"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["x.in", "--pw-input", "--code", "none@localhost"], 1, "AiiDA has no code 'none@local"),
        (["x.in", "--pw-input", "--json", "no/where.json"], 1, "'no' of the JSON file does not"),
        (["--pw-input"], 2, "Missing argument 'FILES...'"),
        (["x.in", "--pw-input", "--max-concurrent", "0"], 2, "0 is not in the range x>=1"),
    ],
)
def test_wrong_command_lines(
    pw_code: Any,
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert invoke(["label", *arguments]) == status
    assert message in capsys.readouterr().err
