"""`mlip-auto label` in a profile of its own, while kill -9 hits what it is made of."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ase.build import bulk
from ase.io import read, write

N = 8
SECONDS = 400
BIN = Path(sys.executable).parent


class Workplace:
    """A folder with an AiiDA profile, and the processes that belong to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "AIIDA_PATH": str(folder),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """A command of this package or of AiiDA."""
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def do(self, *words: str) -> str:
        """What a command says; it must succeed."""
        process = self.start(*words)
        said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, said
        return said

    def processes(self, wanted: Callable[[list[str]], bool]) -> list[psutil.Process]:
        """Of this workplace, by their command lines."""
        found = []
        for process in psutil.process_iter():
            try:
                if wanted(process.cmdline()) and self._owns(process):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _owns(self, process: psutil.Process) -> bool:
        inside = Path(process.cwd()).is_relative_to(self.folder)
        return inside or process.environ().get("AIIDA_PATH") == str(self.folder)

    def kill(self, name: str, wanted: Callable[[list[str]], bool]) -> int:
        """kill -9 of the first such process, as soon as there is one; its number."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for process in self.processes(wanted):
                process.send_signal(signal.SIGKILL)
                return int(process.pid)
            time.sleep(0.02)
        raise AssertionError(f"{name} never came")


def is_pw(words: list[str]) -> bool:
    return bool(words) and Path(words[0]).name == "pw.x"


def is_worker(words: list[str]) -> bool:
    return "daemon" in words and "worker" in words


def is_broker(words: list[str]) -> bool:
    return "broker" in words


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace(tmp_path)
    place.do("mlip-auto", "setup")
    yield place
    place.start("verdi", "daemon", "stop").communicate(timeout=120)
    for process in place.processes(bool):
        process.kill()


def test_every_structure_has_one_outcome(workplace: Workplace) -> None:
    """pw.x, a worker of the daemon, the broker and at last the command itself are killed."""
    structures = [bulk("Si") for _ in range(N)]
    for number, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=number)
    write(workplace.folder / "pool.extxyz", structures)
    words = ["mlip-auto", "label", "pool.extxyz", "-o", "out.extxyz", "--kspacing", "0.4"]
    words += ["--rejected", "bad.extxyz", "--json", "out.json", "--max-labels", str(N + 5)]
    first = workplace.start(*words)
    workplace.kill("pw.x", is_pw)
    workplace.kill("a worker", is_worker)
    time.sleep(3)
    workplace.kill("the broker", is_broker)
    time.sleep(1)
    workplace.kill("pw.x", is_pw)
    first.kill()
    first.communicate()
    # Somebody comes back to a machine on which little works any more.
    workplace.start("verdi", "daemon", "stop").communicate(timeout=120)
    said = workplace.do(*words)
    assert "This goes on as process" in said
    found: dict[str, Any] = json.loads((workplace.folder / "out.json").read_text())
    assert (found["ok"], found["rejected"], found["not_run"]) == (N, 0, 0), said
    labelled = read(workplace.folder / "out.extxyz", index=":")
    assert sorted(int(atoms.info["source_index"]) for atoms in labelled) == list(range(N))
    # Two runs of pw.x were killed; all others were done once.
    assert found["calculations"] == N + found["rescued"] <= N + 2, said
