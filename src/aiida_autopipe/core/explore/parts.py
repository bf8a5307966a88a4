"""What an exploration has on disk while it runs: one part for each trajectory.

The folder `NAME.parts` beside the result holds `plan.json` (everything that decides the frames),
`starts.h5`, and for each trajectory `NNNNNN.h5` with its frames and, written last, `NNNNNN.json`
with its outcome. A part without an outcome was interrupted: it is thrown away and its trajectory
starts anew with the same random numbers, so that what comes out is what an uninterrupted run gives.
The parts become one dataset file, in the order of the trajectories, and then the folder is removed.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ase import Atoms

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.dataset_writer import DatasetWriter
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.explore.md import Outcome
from aiida_autopipe.core.explore.settings import Trajectory
from aiida_autopipe.core.files import complete_file, write_json

PLAN_FILE = "plan.json"
STARTS_FILE = "starts.h5"
LOCK_FILE = "lock"
ATTRIBUTE = "explore"
"""Attribute of the result with its plan and the outcomes of its trajectories."""


def parts_folder(path: Path) -> Path:
    """The folder of the parts of a result."""
    return path.with_name(path.name + ".parts")


class Parts:
    """The folder of an exploration that is not complete."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out.

        Raises:
            InputError: one is in already.
        """
        self.folder.mkdir(exist_ok=True)
        with (self.folder / LOCK_FILE).open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"Another process explores into '{self.folder}': wait for it, or choose "
                    "another output."
                ) from None
            yield

    def prepare(self, plan: Mapping[str, Any], starts: Dataset) -> None:
        """Begin, or check that what is there belongs to the same exploration.

        Raises:
            InputError: it belongs to another.
        """
        target = self.folder / PLAN_FILE
        if target.is_file():
            self._compare(plan)
            return
        starts.write_hdf5(self.folder / STARTS_FILE)
        write_json(target, plan)

    def _compare(self, plan: Mapping[str, Any]) -> None:
        try:
            found = json.loads((self.folder / PLAN_FILE).read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(
                f"'{self.folder / PLAN_FILE}' is damaged: {error}; remove it."
            ) from error
        text = difference(found, plan)
        if text:
            raise InputError(
                f"'{self.folder}' holds an unfinished exploration with another {text}; remove it "
                "or choose another output."
            )

    def starts(self) -> Dataset:
        """The start structures."""
        return Dataset.read_hdf5(self.folder / STARTS_FILE)

    def outcomes(self) -> dict[int, Outcome]:
        """How the finished trajectories ended, by their numbers."""
        found = {}
        for path in self.folder.glob("[0-9]*.json"):
            outcome = Outcome(**json.loads(path.read_text(encoding="utf-8")))
            found[outcome.index] = outcome
        return found

    def frames_file(self, index: int) -> Path:
        """The file of the frames of a trajectory."""
        return self.folder / f"{index:06d}.h5"

    @contextmanager
    def writer(self, trajectory: Trajectory) -> Iterator[PartWriter]:
        """Write the frames of a trajectory anew."""
        path = self.frames_file(trajectory.index)
        for rest in self.folder.glob(path.name + "*"):  # of an interrupted process
            rest.unlink()
        writer = PartWriter(path, trajectory)
        try:
            yield writer
        finally:
            writer.close()

    def finish(self, outcome: Outcome) -> None:
        """Note the outcome of a trajectory whose frames are complete."""
        write_json(self.folder / f"{outcome.index:06d}.json", outcome.to_dict())

    def merge(self, path: Path, attributes: Mapping[str, Any]) -> int:
        """One dataset file of all finished trajectories, in their order; the number of frames."""
        outcomes = self.outcomes()
        with complete_file(path) as target:
            target.unlink(missing_ok=True)
            with DatasetWriter(target, attributes=attributes, commit_seconds=None) as writer:
                for index in sorted(outcomes):
                    if outcomes[index].frames:
                        with Dataset.open(self.frames_file(index)) as part:
                            writer.append(part)
                n_frames = len(writer)
        return n_frames

    def remove(self) -> None:
        """The result is complete: forget the parts."""
        shutil.rmtree(self.folder)


class PartWriter:
    """Appends the frames of one trajectory to its file; only a block of them is in memory."""

    def __init__(self, path: Path, trajectory: Trajectory) -> None:
        self._path, self._trajectory = path, trajectory
        self._writer: DatasetWriter | None = None

    def append(self, frame: Atoms, step: int) -> None:
        """Add a frame.

        Raises:
            OSError: the disk is full.
        """
        if self._writer is None:
            self._writer = DatasetWriter(self._path)
        self._writer.append([frame], columns=frame_columns(self._trajectory, step))

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def frame_columns(trajectory: Trajectory, step: int) -> dict[str, Sequence[Any]]:
    """Columns of one frame in the result."""
    pressure = trajectory.pressure_GPa
    return {
        "origin": ["explore"],
        "trajectory": [trajectory.index],
        "start": [trajectory.start],
        "step": [step],
        "ensemble": [trajectory.ensemble],
        "temperature_K": [float(trajectory.temperature_K)],
        "pressure_GPa": [float("nan") if pressure is None else float(pressure)],
    }


def difference(found: Any, wanted: Any, name: str = "plan") -> str:
    """The first value in which two plans differ, in words; '' when they are equal."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in [*wanted, *(k for k in found if k not in wanted)]:
            text = difference(found.get(key), wanted.get(key), str(key))
            if text:
                return text
        return ""
    if found == wanted:
        return ""
    return f"{name} ({json.dumps(found)} instead of {json.dumps(wanted)})"
