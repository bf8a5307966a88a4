"""The job of an oracle as it runs on a machine: its two programs, in a folder, without AiiDA."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.oracle import job as job_program
from aiida_autopipe.core.oracle import pyscf_calculator
from aiida_autopipe.core.oracle import worker as worker_program
from aiida_autopipe.core.oracle.settings import AseSettings
from aiida_autopipe.core.oracle.structures import structure_lines

ODD = "odd_calculators.Odd"
REFERENCE = Path(__file__).parents[1] / "reference"


class Folder:
    """A job folder: what AiiDA would upload, started by hand."""

    def __init__(self, path: Path, troubles: list[str], **values: Any) -> None:
        self.path = path
        job = {
            "calculator": ODD,
            "keywords": {},
            "force_threshold": 0.01,
            "relax_steps": 50,
            "seconds_per_structure": None,
            "reuse_calculator": False,
            "slots": 1,
            "max_seconds": None,
            **values,
        }
        (path / job_program.JOB_FILE).write_text(json.dumps(job))
        # Each is larger than the next, so that they run in this order.
        structures = [Atoms(f"H{len(troubles) - k}") for k in range(len(troubles))]
        for atoms in structures:
            atoms.positions[:, 0] = range(1, len(atoms) + 1)
        columns = {"trouble": troubles, "relax": [word == "relax" for word in troubles]}
        columns["trouble"] = ["" if word == "relax" else word for word in troubles]
        data = Dataset.from_atoms(structures, columns=columns)
        lines = structure_lines(data, AseSettings(ODD))
        (path / job_program.STRUCTURES_FILE).write_text("".join(f"{line}\n" for line in lines))
        shutil.copy(str(job_program.__file__), path / job_program.JOB_PROGRAM)
        shutil.copy(str(worker_program.__file__), path / job_program.WORKER_PROGRAM)
        shutil.copy(str(pyscf_calculator.__file__), path / job_program.PYSCF_PROGRAM)

    def run(self, *python: str) -> int:
        environment = {**os.environ, "PYTHONPATH": str(REFERENCE)}
        command = [*(python or (sys.executable,)), job_program.JOB_PROGRAM, job_program.JOB_FILE]
        done = subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True, check=False
        )
        self.stderr = done.stderr
        return done.returncode

    def lines(self) -> list[dict[str, Any]]:
        text = (self.path / job_program.RESULTS_FILE).read_text()
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def results(self) -> dict[int, dict[str, Any]]:
        return {line["position"]: line for line in self.lines() if line["kind"] == "result"}

    def error(self) -> dict[str, str]:
        content: dict[str, str] = json.loads((self.path / job_program.ERROR_FILE).read_text())
        return content


def is_alive(pid: int) -> bool:
    """True while a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_dead(pids: list[int]) -> None:
    end = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize("program", [job_program, worker_program, pyscf_calculator])
def test_the_programs_need_nothing_of_this_package(program: Any) -> None:
    """They run with an interpreter that has ASE only."""
    imported = set()
    for node in ast.walk(ast.parse(Path(program.__file__).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    foreign = imported - sys.stdlib_module_names
    assert foreign == (set() if program is job_program else {"ase", "numpy"})


def test_each_failure_costs_its_structure_only(tmp_path: Path) -> None:
    troubles = ["raise", "", "abort", "nan", "exit", "shape", "unconverged", "print", "relax", ""]
    folder = Folder(tmp_path, troubles, keywords={"entropy": 0.5})
    assert folder.run() == 0, folder.stderr
    results = folder.results()
    assert sorted(results) == list(range(10))
    failures = {i: r["reason"] for i, r in results.items() if r["outcome"] != "ok"}
    assert failures == {
        0: "RuntimeError: SCF did not converge after 100 iterations",
        2: "The calculator's process died of SIGABRT.",
        3: "the calculator gave forces that is not a finite number",
        4: "SystemExit: I give up",
        5: "the calculator gave forces of shape (5, 2)",
        6: "the calculator says that it did not converge",
    }
    assert results[2]["exit_status"] == -signal.SIGABRT
    # Forces are the derivative of the free energy.
    assert results[9]["energy"] == pytest.approx(0.5 * 0.3 * 1.0 - 0.5)
    assert results[9]["forces"] == [pytest.approx([-0.3, 0.0, 0.0])]
    assert results[9]["stress"] is None
    assert all(abs(x) < 0.04 for row in results[8]["positions"] for x in row)
    assert folder.lines()[-1] == {"kind": "end", "ended": "done"}
    assert [path.name for path in (tmp_path / "structures").rglob("*.txt")] == ["left_behind.txt"]
    versions = next(line for line in folder.lines() if line["kind"] == "versions")["versions"]
    assert versions["ase"]


def test_a_structure_over_its_time_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ["sleep", "", ""], seconds_per_structure=2.5)
    assert folder.run() == 0, folder.stderr
    results = folder.results()
    assert [results[i]["outcome"] for i in range(3)] == ["failed", "ok", "ok"]
    assert "2.5 s, the limit per structure" in results[0]["reason"]
    pids = next(tmp_path.rglob("sleeping.pid")).read_text().split()
    wait_until_dead([int(pid) for pid in pids])


def test_a_killed_job_leaves_what_is_complete_and_no_process(tmp_path: Path) -> None:
    """SIGKILL of the job while one structure hangs and another has just ended."""
    folder = Folder(tmp_path, ["sleep", "", "", "kill_job", ""], slots=2)
    assert folder.run() == -signal.SIGKILL
    assert sorted(folder.results()) == [1, 2]
    started = {line["position"] for line in folder.lines() if line["kind"] == "started"}
    assert started == {0, 1, 2, 3}
    pids = next(tmp_path.rglob("sleeping.pid")).read_text().split()
    wait_until_dead([int(pid) for pid in pids])


@pytest.mark.parametrize(("part", "outcome"), [("1.0", None), ("0.1", "failed")])
def test_a_job_out_of_time_ends_itself(tmp_path: Path, part: str, outcome: str | None) -> None:
    """A structure that had nearly all the time failed, one that came late was not run."""
    folder = Folder(tmp_path, ["", "sleep", ""], max_seconds=4.0)
    program = tmp_path / job_program.JOB_PROGRAM
    text = program.read_text()
    assert "WHOLE_JOB = 0.9" in text
    program.write_text(text.replace("WHOLE_JOB = 0.9", f"WHOLE_JOB = {part}"))
    assert folder.run() == 0, folder.stderr
    results = folder.results()
    assert results[0]["outcome"] == "ok"
    assert results.get(1, {}).get("outcome") == outcome
    assert 2 not in results
    assert folder.lines()[-1] == {"kind": "end", "ended": "time"}


@pytest.mark.parametrize(
    ("calculator", "keywords", "kind", "message"),
    [
        ("not_installed.Calculator", {}, "import", "No module named 'not_installed'"),
        ("odd_calculators.Od", {}, "import", "no 'Od'; did you mean 'Odd'"),
        ("odd_calculators.not_a_class", {}, "import", "is not the class of an ASE calculator"),
        ("subprocess.Popen", {"args": ["touch", "x"]}, "import", "is not the class"),
        (ODD, {"sprng": 1}, "keywords", "unknown keyword 'sprng'; did you mean 'spring'"),
        ("ase.calculators.emt.EMT", {"rc": 1}, "keywords", "unknown keyword 'rc'; it takes asap"),
        ("odd_calculators.Picky", {}, "keywords", "missing 1 required .* 'licence'"),
        ("odd_calculators.Picky", {"licence": 7}, "keywords", "licence 7 is not valid"),
        ("oracle_pyscf.PySCF", {"functional": "pbe"}, "keywords", "'functional'; it takes xc, bas"),
        ("odd_calculators.Stillborn", {}, "start", "died of SIGABRT before it could be used"),
    ],
)
def test_what_prevents_the_whole_job_is_told(
    tmp_path: Path, calculator: str, keywords: dict[str, Any], kind: str, message: str
) -> None:
    folder = Folder(tmp_path, ["", ""], calculator=calculator, keywords=keywords)
    assert folder.run() == 1
    assert folder.error()["kind"] == kind
    assert not folder.results()
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(folder.error()["message"])
    assert not (tmp_path / "x").exists()


def test_an_interpreter_without_ase_is_told(tmp_path: Path) -> None:
    folder = Folder(tmp_path, [""])
    (tmp_path / "ase.py").write_text("raise ImportError('No module named ase')\n")
    assert folder.run() == 1
    assert folder.error()["kind"] == "interpreter"
    assert "No module named ase" in folder.error()["message"]


def test_a_package_that_a_calculator_wants_while_it_is_made(tmp_path: Path) -> None:
    folder = Folder(tmp_path, [""], calculator="oracle_pyscf.PySCF")
    (tmp_path / "pyscf.py").write_text("raise ImportError('No module named pyscf')\n")
    assert folder.run() == 1
    assert folder.error()["kind"] == "import"
    assert "No module named pyscf" in folder.error()["message"]


def test_two_slots_share_the_work(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ["nap"] * 8, slots=2, reuse_calculator=True)
    assert folder.run() == 0, folder.stderr
    assert [r["outcome"] for r in folder.results().values()] == ["ok"] * 8
    assert len({path.read_text() for path in tmp_path.rglob("worker.pid")}) == 2


def test_moments_and_charges_reach_the_calculator(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ["moments"])
    line = json.loads((tmp_path / job_program.STRUCTURES_FILE).read_text())
    line |= {"magmoms": [2.0], "charges": [-1.0]}
    (tmp_path / job_program.STRUCTURES_FILE).write_text(json.dumps(line) + "\n")
    assert folder.run() == 0, folder.stderr
    assert folder.results()[0]["energy"] == pytest.approx(-98.0)
