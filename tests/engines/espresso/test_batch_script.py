"""The runner of a batch, with small programs in the place of pw.x."""

import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from aiida_autopipe.engines.espresso.batch import SCRIPT, inputs_archive, order_text
from aiida_autopipe.engines.espresso.batch_output import best_archives, read_run

SHELLS = [name for name in ("sh", "bash") if shutil.which(name)]
# Prints its input, and what its input says it should do.
PROGRAM = """
echo "on stdout: $1"; echo "on stderr" >&2
echo "start $(date +%s.%N)" >>../../times
. ./pw.in
echo "end $(date +%s.%N)" >>../../times
"""


class Batch:
    """A folder as a job has it."""

    def __init__(self, folder: Path, inputs: dict[int, str]) -> None:
        self.folder = folder
        (folder / "batch.sh").write_bytes(SCRIPT.read_bytes())
        (folder / "inputs.tar.gz").write_bytes(inputs_archive(inputs))
        (folder / "order").write_text(order_text(sorted(inputs)))
        (folder / "program").write_text(PROGRAM)

    def start(
        self, shell: str = "sh", slots: int = 2, each: int = 0, job: int = 0, word: str = "x"
    ) -> subprocess.Popen[bytes]:
        program = str(self.folder / "program")
        limits = [str(slots), str(each), str(job)]
        return subprocess.Popen(
            [shell, "batch.sh", *limits, "--", "sh", program, word], cwd=self.folder
        )

    def run(self, **arguments: str | int) -> None:
        assert self.start(**arguments).wait(30) == 0  # type: ignore[arg-type]

    def outcomes(self) -> dict[int, str]:
        found = {}
        for position, name in best_archives(self.names()).items():
            run = read_run((self.folder / "results" / name).read_bytes())
            found[position] = f"{run.ended} {run.status}"
        return found

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "results").iterdir())

    def log(self) -> list[str]:
        return (self.folder / "batch.log").read_text().splitlines()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_failure_ends_nothing_else(tmp_path: Path, shell: str) -> None:
    batch = Batch(tmp_path, {0: "exit 0", 1: "exit 3", 2: "kill -9 $$", 3: "true", 7: "true"})
    batch.run(shell=shell, word="$(touch /tmp/x) 'a' \"b\"")
    assert batch.outcomes() == {0: "exit 0", 1: "exit 3", 2: "exit 137", 3: "exit 0", 7: "exit 0"}
    run = read_run((tmp_path / "results" / "000001.tgz").read_bytes())
    # Words reach the program as they are.
    assert run.stdout == "on stdout: $(touch /tmp/x) 'a' \"b\"\n"
    assert run.stderr == "on stderr\n"
    assert 0 <= run.seconds < 10
    assert batch.log()[-1] == "finished"


def test_no_more_run_at_a_time_than_there_are_slots(tmp_path: Path) -> None:
    batch = Batch(tmp_path, dict.fromkeys(range(6), "sleep 0.3"))
    batch.run(slots=2)
    events = [line.split() for line in (tmp_path / "times").read_text().splitlines()]
    running = most = 0
    for kind, _ in sorted(events, key=lambda event: float(event[1])):
        running += 1 if kind == "start" else -1
        most = max(most, running)
    assert len(events) == 12
    assert most == 2


def test_a_second_run_does_only_what_is_left(tmp_path: Path) -> None:
    batch = Batch(tmp_path, dict.fromkeys(range(4), "true"))
    batch.run()
    # As if the machine had died in the middle: one result is missing, one was half written.
    (tmp_path / "results" / "000001.tgz").unlink()
    (tmp_path / "results" / "000002.tgz").rename(tmp_path / "results" / "000002.tgz.tmp")
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "000001").mkdir()
    batch.run()
    assert batch.outcomes() == dict.fromkeys(range(4), "exit 0")
    assert (tmp_path / "times").read_text().count("start") == 6


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("how", ["signal", "limit"])
def test_the_end_of_the_job_is_recorded(tmp_path: Path, shell: str, how: str) -> None:
    inputs = {0: "true", 1: "[ -e ../../again ] || exec sleep 60", 2: "exec sleep 60", 3: "true"}
    batch = Batch(tmp_path, inputs)
    job = batch.start(shell=shell, slots=2, job=4 if how == "limit" else 0)
    if how == "signal":
        wait_for_starts(tmp_path / "times", 3)
        job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 0
    assert batch.outcomes() == {0: "exit 0", 1: "stopped 143", 2: "stopped 143"}
    assert batch.names() == ["000000.tgz", "000001.part.tgz", "000002.part.tgz"]
    assert [line for line in batch.log() if line.startswith("stopped")]
    # What was interrupted runs again.
    (tmp_path / "again").touch()
    batch.run(each=1)
    assert batch.outcomes() == {0: "exit 0", 1: "exit 0", 2: "timeout 124", 3: "exit 0"}
    assert not [name for name in batch.names() if "part" in name]


def wait_for_starts(times: Path, count: int) -> None:
    for _ in range(400):
        if times.exists() and times.read_text().count("start") >= count:
            return
        time.sleep(0.05)
    raise AssertionError("The runs did not start.")


def test_scratch_is_kept_only_where_it_helps_and_is_small(tmp_path: Path) -> None:
    small, large = (f"dd if=/dev/zero of=out/wfc bs=1M count={n} 2>/dev/null" for n in (1, 25))
    batch = Batch(tmp_path, {0: small, 1: f"{small}; exit 1", 2: f"{large}; exit 1"})
    batch.run()
    kept = [(tmp_path / "runs" / f"00000{i}" / "out" / "wfc").exists() for i in range(3)]
    assert kept == [False, True, False]


def test_the_xml_file_and_the_crash_file_are_packed(tmp_path: Path) -> None:
    write = "mkdir -p out/aiida.save; echo xml >out/aiida.save/data-file-schema.xml; echo no >CRASH"
    batch = Batch(tmp_path, {0: write})
    batch.run(slots=1)
    run = read_run((tmp_path / "results" / "000000.tgz").read_bytes())
    assert (run.xml, run.crash) == (b"xml\n", "no\n")
    with tarfile.open(tmp_path / "results" / "000000.tgz") as archive:
        assert sorted(archive.getnames()) == [
            "CRASH",
            "data-file-schema.xml",
            "outcome",
            "pw.err",
            "pw.in",
            "pw.out",
        ]


def test_a_program_that_does_not_exist(tmp_path: Path) -> None:
    batch = Batch(tmp_path, {0: "true"})
    command = ["sh", "batch.sh", "1", "0", "0", "--", "/nowhere/pw.x"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    assert batch.outcomes() == {0: "exit 127"}
    run = read_run((tmp_path / "results" / "000000.tgz").read_bytes())
    assert "/nowhere/pw.x" in run.stderr
