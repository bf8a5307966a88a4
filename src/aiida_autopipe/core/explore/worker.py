"""One process of an exploration: ``python -m aiida_autopipe.core.explore.worker FOLDER FD``.

It takes numbers of trajectories as lines on its standard input, and answers with JSON lines on the
file descriptor FD. When its input ends because the process that started it is gone, it ends too.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.core.explore.parts import Parts
from aiida_autopipe.core.explore.runner import Runner
from aiida_autopipe.core.explore.settings import ExploreSettings
from aiida_autopipe.core.surrogates.registry import SurrogateSpec, load_surrogate

WORKER_FILE = "worker.json"
"""What the processes are told: `surrogate`, `settings` and `seed`."""
QUIT = "quit"


class Answers:
    """JSON lines to the process that started this one."""

    def __init__(self, descriptor: int) -> None:
        self._stream = os.fdopen(descriptor, "w", encoding="utf-8")

    def say(self, kind: str, **values: Any) -> None:
        """One line."""
        self._stream.write(json.dumps({"kind": kind, **values}) + "\n")
        self._stream.flush()


def _listen(lines: queue.Queue[str]) -> None:
    for line in sys.stdin:
        lines.put(line.strip())
        if line.strip() == QUIT:
            return
    os._exit(1)  # nobody is there to tell


def work(folder: Path, answers: Answers) -> None:
    """Answer until told to quit."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    job = json.loads((folder / WORKER_FILE).read_text(encoding="utf-8"))
    parts = Parts(folder)
    surrogate = load_surrogate(SurrogateSpec.from_dict(job["surrogate"]))
    settings = ExploreSettings.from_dict(job["settings"])
    runner = Runner(parts, parts.starts(), surrogate, settings, job["seed"])
    answers.say("ready")
    while (line := lines.get()) != QUIT:
        outcome = runner.run(int(line), lambda steps: answers.say("steps", n=steps))
        answers.say("outcome", **outcome.to_dict())


def main() -> int:
    """Work for the folder and descriptor on the command line; the exit status."""
    faulthandler.enable()
    answers = Answers(int(sys.argv[2]))
    try:
        work(Path(sys.argv[1]), answers)
    except AutopipeError as error:
        answers.say("error", type="AutopipeError", message=str(error))
        return 1
    except OSError as error:
        answers.say(
            "error", type="OSError", errno=error.errno, strerror=error.strerror,
            message=str(error), filename=None if error.filename is None else str(error.filename),
        )  # fmt: skip
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
