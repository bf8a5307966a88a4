"""`mlip-auto run`: what is submitted, what is told, and with which status it ends."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiida.common.exceptions import ModificationNotAllowed
from aiida.engine.processes.control import kill_processes
from aiida.orm import CalcFunctionNode, ProcessNode, QueryBuilder, WorkChainNode, load_node

from aiida_autopipe.cli import daemon, follow
from aiida_autopipe.cli import run as run_module
from aiida_autopipe.cli.main import invoke
from aiida_autopipe.workflows.progress import active_below, snapshot

SILICON = "material: Si\ngoal: elastic\nprotocol: fast\n"


def n_processes() -> int:
    return int(QueryBuilder().append(ProcessNode).count())


def ticking(*actions: Callable[[], None]) -> SimpleNamespace:
    """A clock for `follow`: instead of sleeping it does one action after the other."""
    waiting = iter(actions)
    return SimpleNamespace(
        sleep=lambda _: next(waiting)(),
        monotonic=time.monotonic,
        strftime=time.strftime,
        gmtime=time.gmtime,
    )


def state(node: Any, name: str, status: int | None = None) -> Callable[[], None]:
    def change() -> None:
        node.set_process_state(name)
        if status is not None:
            node.set_exit_status(status)

    return change


@pytest.fixture
def killed_afterwards(started_daemon_client: Any) -> Iterator[list[int]]:
    """PKs of submitted runs, which the test must not leave behind."""
    pks: list[int] = []
    yield pks
    end = time.monotonic() + 60
    while active := [node for node in map(load_node, pks) if not node.is_terminated]:
        assert time.monotonic() < end, f"still active: {active}"
        # One that ends by itself just now is sealed already.
        with suppress(ModificationNotAllowed):
            kill_processes(active, timeout=5.0)
        # A process that no worker has taken up yet cannot be reached.
        time.sleep(0.5)


LATTICE = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("material: Sj\ngoal: elastic\n", "unknown element 'Sj'; did you mean 'Si'?"),
        ("material: gone.cif\ngoal: elastic\n", "gone.cif does not exist"),
        ("material: empty.cif\ngoal: elastic\n", "empty.cif is empty"),
        ("material: nan.extxyz\ngoal: elastic\n", "the position of atom 0 is not a number"),
        (SILICON + "md: {temperatures_K: [-300]}\n", "md.temperatures_K[0]: -300 must be greater"),
        (SILICON + "label: {cutof_wfc_Ry: 1}\n", "did you mean 'cutoff_wfc_Ry'?"),
        (SILICON + "budget: {labels: 0}\n", "budget.labels: 0 must be greater than 0"),
        (
            SILICON + "label: {code: nopw@localhost}\n",
            "no pw.x, AiiDA has no code 'nopw@localhost'",
        ),
        ("material: Ba\ngoal: elastic\n", "no pseudopotential for Ba in the installed families"),
        ("material: Ge\ngoal: elastic\nlabel: {functional: PZ}\n", "no pseudopotential for PZ for"),
    ],
)
def test_bad_input_is_one_sentence_and_submits_nothing(
    programs: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    message: str,
) -> None:
    (tmp_path / "empty.cif").write_text("")
    (tmp_path / "nan.extxyz").write_text(f"1\n{LATTICE}\nSi 0 nan 0\n")
    (tmp_path / "bad.yaml").write_text(text)
    before = n_processes()
    assert invoke(["run", str(tmp_path / "bad.yaml")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: ") and captured.err.count("\n") == 1
    assert message in captured.err
    assert n_processes() == before


def test_missing_input_file(aiida_profile: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "none.yaml"]) == 1
    assert "none.yaml does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--detach"]])
def test_finished_run_is_shown_without_a_daemon(
    make_run: Any,
    input_file: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run("finished", 0)
    monkeypatch.setattr(daemon, "ensure_daemon", lambda _: pytest.fail("a daemon was started"))
    before = n_processes()
    assert invoke(["run", str(input_file), *options]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"This input was run before, as {run.pk}; --new starts it anew.")
    assert "Submitted" not in captured.out and captured.err == ""
    summary = json.loads((Path("runs") / input_file.stem / "summary.json").read_text())
    assert summary["generations"] == 0
    assert n_processes() == before


def test_run_that_ends_while_it_is_followed(
    make_run: Any,
    input_file: Path,
    started_daemon_client: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run("running")
    failed = state(run, "finished", 402)
    monkeypatch.setattr(follow, "time", ticking(lambda: None, failed))
    assert invoke(["run", str(input_file), "--runs", "elsewhere"]) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == f"Going on with run {run.pk}."
    assert [line.split(" | ")[0].strip() for line in lines[1:3]] == ["generate", "done"]
    assert f"Run {run.pk} failed" in captured.err
    assert f"verdi -p {profile_name()} process report {run.pk}" in captured.err
    assert (Path("elsewhere") / input_file.stem / "report.html").exists()


def profile_name() -> str:
    from aiida.manage.configuration import get_profile

    return str(get_profile().name)


def interrupt() -> None:
    """What Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


def test_leaving_a_run_says_how_to_come_back(
    make_run: Any,
    input_file: Path,
    started_daemon_client: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run("waiting")
    monkeypatch.setenv("AIIDA_PATH", "/a folder")
    monkeypatch.setattr(follow, "time", ticking(interrupt))
    assert invoke(["run", str(input_file), "--runs", "my runs"]) == 130
    text = capsys.readouterr().out
    assert f"Run {run.pk} goes on." in text
    assert f"mlip-auto run {input_file} --runs 'my runs'\n" in text
    assert f"mlip-auto status {run.pk}\n" in text
    assert f"verdi -p {profile_name()} process kill {run.pk}\n" in text
    assert text.count("AIIDA_PATH='/a folder' ") == 3
    assert not run.is_terminated
    # Ctrl-C after the end, while the report is written.
    monkeypatch.setattr(follow, "time", ticking(state(run, "finished", 0)))
    monkeypatch.setattr(run_module, "_show_results", lambda *_: interrupt())
    assert invoke(["run", str(input_file)]) == 130
    assert f"Run {run.pk} has ended. Its results: " in capsys.readouterr().out


def test_interrupt_before_anything_was_submitted(
    programs: None,
    input_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(daemon, "ensure_daemon", lambda _: interrupt())
    before = n_processes()
    assert invoke(["run", str(input_file)]) == 130
    assert capsys.readouterr().err.strip() == "Interrupted."
    assert n_processes() == before


def test_interrupt_during_the_submission_is_held_back() -> None:
    """The node is known when the interrupt arrives; a second one does not wait."""
    reached = []
    with pytest.raises(KeyboardInterrupt), run_module._interrupts_held_back():
        interrupt()
        reached.append("end")
    with pytest.raises(KeyboardInterrupt), run_module._interrupts_held_back():
        interrupt()
        interrupt()
        reached.append("never")
    assert reached == ["end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_submit_kill_and_submit_again(
    programs: None,
    input_file: Path,
    killed_afterwards: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The real thing: a killed run is started anew, and what it left running is killed first."""
    pks = killed_afterwards
    assert invoke(["run", str(input_file), "--detach"]) == 0
    text = capsys.readouterr().out
    pks.append(int(re.search(r"^Submitted as (\d+)\.$", text, re.M)[1]))  # type: ignore[index]
    assert text.endswith(f"mlip-auto run {input_file}\n") and "Follow it with: " in text

    # The same input again, followed this time, and left with a Ctrl-C.
    threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert invoke(["run", str(input_file)]) == 130
    text = capsys.readouterr().out
    assert f"Going on with run {pks[0]}." in text and f"Run {pks[0]} goes on." in text

    # A run that excepted leaves its children behind.
    run = load_node(pks[0])
    end = time.monotonic() + 60
    while snapshot(run).labels_running == 0:
        assert time.monotonic() < end
        time.sleep(0.5)
    run.set_process_state("excepted")
    left = {node.pk for node in active_below(run)}
    assert invoke(["run", str(input_file), "--detach"]) == 0
    captured = capsys.readouterr()
    pks.append(int(re.search(r"^Submitted as (\d+)\.$", captured.out, re.M)[1]))  # type: ignore[index]
    told = re.search(rf"Run {run.pk} has ended, but its processes ([\d ]+) were", captured.out)
    assert told is not None and left & set(map(int, told[1].split()))
    assert captured.err == ""
    assert list(active_below(run)) == []
    assert f"Run {run.pk} did not finish; the new run starts over" in captured.out
    assert "config set --append caching.enabled_for" in captured.out


def test_new_run_beside_one_that_goes_on(
    make_run: Any, input_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("running")
    run_module._prepare_anew(run, new=True)
    assert f"Run {run.pk} of the same input goes on beside" in capsys.readouterr().out
    run_module._prepare_anew(None, new=True)
    assert capsys.readouterr().out == ""


def test_what_is_taken_over_depends_on_caching(aiida_profile: Any) -> None:
    from aiida.manage.caching import enable_caching

    assert "starts over" in run_module._what_is_taken_over()
    with enable_caching(identifier="aiida.calculations:quantumespresso.pw"):
        assert "taken over from AiiDA's cache" in run_module._what_is_taken_over()


class DeafDaemon:
    """A daemon client whose daemon does not answer."""

    def stop_daemon(self, wait: bool) -> None:
        from aiida.engine.daemon.client import DaemonTimeoutException

        raise DaemonTimeoutException("Connection to the daemon timed out.")


@pytest.fixture
def nothing_active(stopped_daemon_client: Any) -> None:
    """Processes that other tests have only set up count as killed."""
    states = {"attributes.process_state": {"in": ["created", "running", "waiting"]}}
    for node in QueryBuilder().append(ProcessNode, filters=states).all(flat=True):
        node.set_process_state("killed")


def test_daemon_that_does_not_stop_is_a_warning(
    nothing_active: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A function that was killed with its daemon stays 'running' for ever and needs no daemon.
    function = CalcFunctionNode().store()
    function.set_process_state("running")
    monkeypatch.setattr("aiida.engine.daemon.client.get_daemon_client", DeafDaemon)
    daemon.stop_idle_daemon()
    text = capsys.readouterr().err
    assert text.startswith("Warning: the daemon did not stop (Connection") and text.count("\n") == 1
    assert "daemon stop" in text
    # Another active run needs the daemon.
    other = WorkChainNode().store()
    other.set_process_state("waiting")
    daemon.stop_idle_daemon()
    assert capsys.readouterr().err == ""
    other.set_process_state("killed")
    function.set_process_state("killed")
