"""Exploring: many trajectories of a surrogate, their frames in one dataset file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ase.data import chemical_symbols

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.dataset_checks import check_block
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.explore.batched import BatchRunner, can_batch, mace_evaluator
from aiida_autopipe.core.explore.md import Outcome, Stopped
from aiida_autopipe.core.explore.parts import ATTRIBUTE, Parts, difference, parts_folder
from aiida_autopipe.core.explore.processes import Dealer
from aiida_autopipe.core.explore.runner import Runner, remaining
from aiida_autopipe.core.explore.screen import REASONS
from aiida_autopipe.core.explore.settings import ExploreSettings, Trajectory, fingerprint, plan
from aiida_autopipe.core.explore.worker import WORKER_FILE
from aiida_autopipe.core.files import write_json
from aiida_autopipe.core.surrogates.registry import Surrogate, SurrogateSpec, load_surrogate

Engine = Literal["auto", "ase", "torch-sim"]
ENGINES = ("auto", "ase", "torch-sim")
Progress = Callable[["State"], None]


class NoFramesError(DataError):
    """Every trajectory ended before its first frame."""


@dataclass
class State:
    """How far an exploration is: steps and trajectories done, of how many."""

    steps: int
    all_steps: int
    trajectories: int
    all_trajectories: int


@dataclass(frozen=True)
class Explored:
    """What an exploration gave.

    Attributes:
        frames: frames in the file.
        trajectories: one entry for each finished trajectory, its conditions and how it ended.
        all_trajectories: how many there are in all; more than those finished when the time ended.
        method: that of the surrogate.
        seconds: of this run.
    """

    frames: int
    trajectories: list[dict[str, Any]]
    all_trajectories: int
    method: dict[str, Any]
    seconds: float

    @property
    def complete(self) -> bool:
        """All trajectories are finished."""
        return len(self.trajectories) == self.all_trajectories

    @property
    def rejected(self) -> dict[str, int]:
        """Frames rejected, by reason; each ended its trajectory."""
        counts = Counter(t["ended"] for t in self.trajectories)
        return {reason: counts[reason] for reason in REASONS}

    def summary(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "frames": self.frames,
            "rejected": self.rejected,
            "steps": sum(t["steps"] for t in self.trajectories),
            "finished": len(self.trajectories),
            "trajectories": self.trajectories,
            "all_trajectories": self.all_trajectories,
            "surrogate": self.method,
            "seconds": self.seconds,
        }


def explore(
    starts: Dataset,
    spec: SurrogateSpec,
    settings: ExploreSettings,
    seed: int,
    path: str | Path,
    *,
    processes: int = 1,
    engine: Engine = "auto",
    max_seconds: float | None = None,
    progress: Progress = lambda state: None,
) -> Explored:
    """Run all trajectories from all starts, and write their frames to a dataset file.

    While it runs, parts are in a folder beside the file; the same call after an interruption goes
    on with the trajectories that are not finished. The frames depend on neither interruptions nor
    the number of processes. They carry the surrogate's energies, forces and stresses, and the
    columns `origin`, `trajectory`, `start`, `step`, `ensemble`, `temperature_K` and `pressure_GPa`.

    Args:
        starts: start structures; their labels do not matter.
        spec: the surrogate.
        settings: conditions, length and limits.
        seed: of everything random.
        path: the HDF5 file to write; an earlier result of the same exploration is left as it is.
        processes: trajectories that run at the same time, each in a process of one thread.
        engine: 'torch-sim' runs many trajectories in one batch, 'ase' one after the other; 'auto'
            takes the first on a GPU where it is possible.
        max_seconds: finish what is done in that time; what is not is left out.
        progress: called now and then.

    Raises:
        InputError: a value that cannot be used, or the file or its parts belong to something else.
        DataError: an unusable start, an element the surrogate does not know, or no frame is left.
        EngineError: the surrogate is not installed or fails.
        PotentialFileError: its file cannot be used.
        OSError: a file cannot be written.
    """
    began = time.monotonic()
    path = Path(path)
    if engine not in ENGINES:
        raise InputError(f"engine is '{engine}'; it can be {', '.join(ENGINES)}.")
    _check_starts(starts, settings)
    surrogate = load_surrogate(spec)
    _check_with_surrogate(starts, surrogate)
    batched = _is_batched(engine, surrogate, processes)
    identity = fingerprint(settings, starts, surrogate.method, seed)
    identity["engine"] = "torch-sim" if batched else "ase"
    trajectories = plan(settings, len(starts))
    if path.exists():
        return _explored_before(path, identity, len(trajectories))
    parts = Parts(parts_folder(path))
    deadline = None if max_seconds is None else began + max_seconds
    with parts.locked():
        parts.prepare(identity, starts)
        job = {"surrogate": spec.to_dict(), "settings": settings.to_dict(), "seed": seed}
        write_json(parts.folder / WORKER_FILE, job)
        track = _Track(parts, trajectories, settings, progress, deadline)
        runner = Runner(parts, starts, surrogate, settings, seed)
        if batched:
            track.run_batches(BatchRunner(runner, mace_evaluator(surrogate)))
        elif processes > 1 and len(track.left) > 1:
            track.run_processes(processes)
        else:
            track.run_here(runner)
        found = _collect(parts, path, trajectories, surrogate.method, identity, began)
        parts.remove()
    return found


class _Track:
    """Follows what is done, and stops when the time is over."""

    def __init__(
        self,
        parts: Parts,
        trajectories: list[Trajectory],
        settings: ExploreSettings,
        progress: Progress,
        deadline: float | None,
    ) -> None:
        done = parts.outcomes()
        self.left = remaining(trajectories, done)
        n, steps = len(trajectories), settings.steps
        self._state = State(len(done) * steps, n * steps, len(done), n)
        self._parts = parts
        self._progress, self._deadline = progress, deadline
        progress(self._state)

    def steps(self, n: int) -> None:
        """Some steps are done; raises `Stopped` when the time is over."""
        self._state.steps += n
        self._progress(self._state)
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise Stopped

    def finished(self) -> None:
        """A trajectory has an outcome."""
        self._state.trajectories += 1
        self._progress(self._state)

    def run_here(self, runner: Runner) -> None:
        """All in this process."""
        try:
            for index in self.left:
                runner.run(index, self.steps)
                self.finished()
        except Stopped:
            return

    def run_processes(self, processes: int) -> None:
        """In several processes."""
        folder = self._parts.folder
        dealer = Dealer(folder, self.left, self._count, self.finished, self._deadline)
        try:
            dealer.run(processes)
        except Stopped:
            return

    def _count(self, n: int) -> None:
        self._state.steps += n
        self._progress(self._state)

    def run_batches(self, batches: BatchRunner) -> None:
        """Many at a time on one device."""
        try:
            batches.run(self.left, self.steps, self.finished)
        except Stopped:
            return


def _check_starts(starts: Dataset, settings: ExploreSettings) -> None:
    if not len(starts):
        raise DataError("There are no structures to start from.")
    first = 0
    for block in starts.iter_blocks():
        check_block(block, first)
        if "npt" in settings.ensembles and not block.pbc.all():
            index = first + int((~block.pbc.all(axis=1)).argmax())
            raise InputError(
                f"Structure {index} is not periodic in three directions, which npt needs; take "
                "the ensemble nvt alone."
            )
        first += len(block)


def _check_with_surrogate(starts: Dataset, surrogate: Surrogate) -> None:
    known = None if surrogate.elements is None else set(surrogate.elements)
    for index in range(len(starts)):
        rows = slice(int(starts.offsets[index]), int(starts.offsets[index + 1]))
        symbols = {chemical_symbols[z] for z in starts.numbers[rows].tolist()}
        if known is not None and not symbols <= known:
            listed = ", ".join(surrogate.elements or ())
            told = listed if len(known) <= 20 else f"{len(known)} others"
            raise DataError(
                f"Structure {index} contains {', '.join(sorted(symbols - known))}, which the "
                f"surrogate '{surrogate.name}' does not know; it knows {told}."
            )
        if surrogate.periodic_only and not starts.pbc[index].all():
            raise DataError(
                f"Structure {index} is not periodic in three directions, which the surrogate "
                f"'{surrogate.name}' needs; put it into a periodic cell, or take another surrogate."
            )


def _is_batched(engine: Engine, surrogate: Surrogate, processes: int) -> bool:
    if engine == "ase":
        return False
    problem = can_batch(surrogate)
    if engine == "torch-sim":
        if problem:
            raise InputError(f"The engine torch-sim cannot be used: {problem}.")
        if processes > 1:
            raise InputError(
                "With the engine torch-sim one process runs all; leave processes at 1."
            )
        return True
    on_gpu = str(getattr(surrogate.calculator, "device", "cpu")).startswith("cuda")
    return on_gpu and processes == 1 and not problem


def _explored_before(path: Path, identity: Mapping[str, Any], n: int) -> Explored:
    """The result that is there, if it is of the same exploration."""
    with Dataset.open(path) as found:
        stored = found.attributes.get(ATTRIBUTE)
        frames, method = len(found), dict(found.attributes.get("method", {}))
    if not isinstance(stored, dict):
        raise InputError(f"'{path}' exists and is no exploration; choose another output.")
    text = difference(stored["plan"], identity)
    if text:
        raise InputError(
            f"'{path}' is the result of an exploration with another {text}; remove it or choose "
            "another output."
        )
    return Explored(frames, stored["trajectories"], n, method, 0.0)


def _collect(
    parts: Parts,
    path: Path,
    trajectories: list[Trajectory],
    method: dict[str, Any],
    identity: Mapping[str, Any],
    began: float,
) -> Explored:
    outcomes = parts.outcomes()
    records = [record(trajectories[i], outcomes[i]) for i in sorted(outcomes)]
    if not any(outcome.frames for outcome in outcomes.values()):
        if len(outcomes) == len(trajectories):
            parts.remove()  # again would end the same way
        raise NoFramesError(_nothing_left(list(outcomes.values()), len(trajectories)))
    content = {"plan": dict(identity), "trajectories": records}
    frames = parts.merge(path, {"method": method, ATTRIBUTE: content})
    return Explored(frames, records, len(trajectories), method, time.monotonic() - began)


def record(trajectory: Trajectory, outcome: Outcome) -> dict[str, Any]:
    """What is kept of one trajectory."""
    return {
        "index": trajectory.index,
        "start": trajectory.start,
        "ensemble": trajectory.ensemble,
        "temperature_K": trajectory.temperature_K,
        "pressure_GPa": trajectory.pressure_GPa,
        "repeat": trajectory.repeat,
        "frames": outcome.frames,
        "steps": outcome.steps,
        "ended": outcome.ended,
        "detail": outcome.detail,
    }


def _nothing_left(outcomes: list[Outcome], n: int) -> str:
    if not outcomes:
        return f"The time was over before one of {n} trajectories was finished; give it more."
    counts = Counter(o.ended for o in outcomes)
    told = ", ".join(f"{REASONS.get(k, k)} {v}" for k, v in counts.most_common())
    details = next((o.detail for o in outcomes if o.detail), "").rstrip(".")
    return (
        f"No frame is left of {len(outcomes)} trajectories ({told}). The first to end: {details}. "
        "Check the start structures, or take another surrogate or a smaller time step."
    )
