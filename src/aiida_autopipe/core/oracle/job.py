"""A job of an oracle: deals structures out to worker processes and writes down what they answer.

This file is copied into the job beside the worker and needs nothing but Python:
``python oracle_job.py job.json``. ``results.jsonl`` grows by one line at a time, so whatever ends
the job leaves what is complete. A worker that crashes or takes too long costs its structure only.
What prevents the whole job is written to ``error.json``, with exit status 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import IO, Any

JOB_FILE = "job.json"
STRUCTURES_FILE = "structures.jsonl"
RESULTS_FILE = "results.jsonl"
ERROR_FILE = "error.json"
JOB_PROGRAM = "oracle_job.py"
WORKER_PROGRAM = "oracle_worker.py"
PYSCF_PROGRAM = "oracle_pyscf.py"

MOST_FAILED_STARTS = 3
"""Workers that die before they are ready, after others were: something else is wrong."""
LONGEST_GOODBYE = 20.0
"""Seconds for a worker that has nothing left to do to end."""
WHOLE_JOB = 0.9
"""A structure that had this part of the job's time will not end in another job like it."""


class Fatal(Exception):  # noqa: N818 - how a job ends
    """Nothing can be labelled; `kind` says what is wrong."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class LineProcess:
    """A process that gets lines on its standard input and answers with lines of JSON.

    Attributes:
        answers: file descriptor of its answers, for a selector.
    """

    def __init__(
        self, command: list[str], log: Path, environment: dict[str, str] | None = None
    ) -> None:
        """Start the command, which gets the descriptor of its answers as last argument."""
        self._rest = b""
        self.answers, writing = os.pipe()
        with log.open("ab") as output:
            # A group of its own: what the process started can be ended with it, and Ctrl-C reaches
            # this program alone, which then ends the others.
            self._process = subprocess.Popen(
                [*command, str(writing)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
                env=environment,
                start_new_session=True,
            )
        os.close(writing)

    def send(self, line: str) -> None:
        """One line; that the process is dead is noticed when its answers end."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def receive(self) -> list[dict[str, Any]] | None:
        """The answers that have come; None when the process is gone."""
        block = os.read(self.answers, 1 << 20)
        *lines, self._rest = (self._rest + block).split(b"\n")
        return [json.loads(line) for line in lines] if block else None

    def end(self, kill: bool) -> int:
        """Wait for the process, or end its group; its return code, minus the signal if one."""
        if kill:
            self._kill()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            code = self._process.wait(LONGEST_GOODBYE)
        except subprocess.TimeoutExpired:
            self._kill()
            code = self._process.wait()
        os.close(self.answers)
        return code

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class Worker(LineProcess):
    """One worker process and the structure it is at."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = False
        self.position: int | None = None
        self.since = 0.0
        super().__init__([sys.executable, WORKER_PROGRAM, JOB_FILE], Path(f"worker_{number}.log"))


class Job:
    """Keeps as many workers busy as there are slots."""

    def __init__(self, settings: dict[str, Any], waiting: deque[str], results: IO[str]) -> None:
        self.settings = settings
        self.waiting = waiting
        self.results = results
        self.workers: list[Worker] = []
        self.selector = selectors.DefaultSelector()
        self.started = time.monotonic()
        self.versions: dict[str, Any] | None = None
        self.failed_starts = 0

    def run(self) -> None:
        """Work until nothing is left, or the time of the job is over."""
        slots = range(min(self.settings["slots"], len(self.waiting)))
        try:
            for number in slots:
                self.start(number)
            while self.workers and not self.over():
                for key, _ in self.selector.select(self.patience()):
                    self.listen(key.data)
                self.stop_slow_ones()
            ended = "time" if self.workers else "done"
            for worker in list(self.workers):
                self.give_up(worker)
            self.write("end", ended=ended)
        finally:
            for worker in list(self.workers):
                self.remove(worker, kill=True)

    def start(self, number: int) -> None:
        """A new worker in a slot."""
        worker = Worker(number)
        self.workers.append(worker)
        self.selector.register(worker.answers, selectors.EVENT_READ, worker)

    def remove(self, worker: Worker, kill: bool) -> int:
        """End a worker; its return code."""
        self.selector.unregister(worker.answers)
        self.workers.remove(worker)
        return worker.end(kill)

    def listen(self, worker: Worker) -> None:
        """Take what a worker answers, and give it the next structure."""
        answers = worker.receive()
        if answers is None:
            self.bury(worker)
            return
        for answer in answers:
            if answer["kind"] == "refused":
                raise Fatal(answer["reason"], answer["message"])
            if answer["kind"] == "ready":
                worker.ready = True
                if self.versions is None:
                    self.versions = answer["versions"]
                    self.write("versions", versions=self.versions)
            else:
                worker.position = None
                self.write(**answer)
            self.deal(worker)

    def deal(self, worker: Worker) -> None:
        """The next structure for an idle worker, or its rest."""
        if not self.waiting:
            worker.send("quit")
            self.remove(worker, kill=False)
            return
        line = self.waiting.popleft()
        worker.position = int(json.loads(line)["position"])
        worker.since = time.monotonic()
        self.write("started", position=worker.position)
        worker.send(line)

    def bury(self, worker: Worker) -> None:
        """Write down that a worker crashed, and replace it."""
        code = self.remove(worker, kill=True)
        died = f"died of signal {-code}" if code < 0 else f"ended with exit status {code}"
        if code < 0 and -code in set(signal.Signals):
            died = f"died of {signal.Signals(-code).name}"
        if not worker.ready:
            self.failed_starts += 1
            if self.versions is None or self.failed_starts >= MOST_FAILED_STARTS:
                raise Fatal("start", f"its process {died} before it could be used")
        elif worker.position is not None:
            self.fail(worker, f"The calculator's process {died}.", code)
        self.refill(worker.number)

    def refill(self, number: int) -> None:
        """Another worker for a slot whose worker is gone, if there is work."""
        if self.waiting:
            self.start(number)

    def stop_slow_ones(self) -> None:
        """End workers whose structure takes longer than is allowed."""
        limit = self.settings["seconds_per_structure"]
        if limit is None:
            return
        for worker in list(self.workers):
            if worker.position is not None and time.monotonic() - worker.since > limit:
                self.remove(worker, kill=True)
                self.fail(worker, f"It was stopped after {limit:g} s, the limit per structure.")
                self.refill(worker.number)

    def give_up(self, worker: Worker) -> None:
        """End a worker because the job's time is over."""
        self.remove(worker, kill=True)
        spent = time.monotonic() - worker.since
        if worker.position is not None and spent > WHOLE_JOB * self.settings["max_seconds"]:
            self.fail(worker, f"It did not end in {spent:.0f} s, the time of the whole job.")

    def fail(self, worker: Worker, reason: str, code: int | None = None) -> None:
        """The record of a structure whose worker is gone."""
        seconds = time.monotonic() - worker.since
        values = {"reason": reason, "exit_status": code, "seconds": seconds}
        self.write("result", position=worker.position, outcome="failed", **values)

    def over(self) -> bool:
        """True when the time of the job is over."""
        limit = self.settings["max_seconds"]
        return limit is not None and time.monotonic() - self.started > limit

    def patience(self) -> float | None:
        """How long to wait for an answer before looking at the clock."""
        ends = []
        if self.settings["max_seconds"] is not None:
            ends.append(self.started + self.settings["max_seconds"])
        if self.settings["seconds_per_structure"] is not None:
            busy = [worker.since for worker in self.workers if worker.position is not None]
            ends += [since + self.settings["seconds_per_structure"] for since in busy]
        return max(0.01, min(ends) - time.monotonic() + 0.01) if ends else None

    def write(self, kind: str, **values: Any) -> None:
        """One complete line of the results."""
        self.results.write(json.dumps({"kind": kind, **values}) + "\n")
        self.results.flush()


def main() -> int:
    """Run the job of this folder; the exit status."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    lines = Path(STRUCTURES_FILE).read_text(encoding="utf-8").splitlines()
    with open(RESULTS_FILE, "w", encoding="utf-8") as results:
        job = Job(settings, deque(), results)
        for line in lines:
            structure = json.loads(line)
            if "problem" not in structure:
                job.waiting.append(line)
                continue
            values = {"outcome": "failed", "reason": structure["problem"], "seconds": 0.0}
            job.write("result", position=structure["position"], **values)
        try:
            job.run()
        except Fatal as error:
            content = json.dumps({"kind": error.kind, "message": str(error)})
            Path(ERROR_FILE).write_text(content, encoding="utf-8")
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
