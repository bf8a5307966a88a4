"""Text written by LAMMPS -> values. Nothing here reads a file or knows AiiDA.

All functions accept the output of a run that was cut off anywhere: what is complete is returned.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from aiida_autopipe.core.errors import EngineError
from aiida_autopipe.engines.lammps.deck import END_MESSAGE

_VERSION = re.compile(r"^LAMMPS \((.+)\)$", re.MULTILINE)
_LOOP = re.compile(r"^Loop time of (\S+) on \d+ procs for (\d+) steps with (\d+) atoms", re.M)
_HALT = re.compile(r"^Fix halt condition for fix-id \S+ met on step (\d+) with value (\S+)", re.M)
_ERROR = re.compile(r"^ERROR(?: on proc \d+)?: (.*)$", re.MULTILINE)
_SOURCE = re.compile(r"\s*\((?:src/|\.\./|/)[^()]*:\d+\)")
_BANNER = re.compile(r"Massively Parallel Simulator - (.+)$", re.MULTILINE)
_PACKAGES = re.compile(r"^Installed packages:\s*\n\s*\n(.*?)\n\s*\n", re.MULTILINE | re.DOTALL)

# LAMMPS counts its atoms with the thermodynamics, and in `compute msd`.
_LOST = ("Lost atoms", "Number of atoms in compute msd group must not change")

TRACE_COLUMNS = 7


class Outcome(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    HALTED = "halted"
    OUT_OF_WALLTIME = "out of walltime"
    LOST_ATOMS = "lost atoms"
    UNSTABLE = "unstable"
    ERROR = "error"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Log:
    """What `log.lammps` says.

    Attributes:
        version: such as '22 Jul 2025 - Update 4'; '' when the log is empty.
        finished: the last line of our input was reached.
        error: LAMMPS' own words, without the place in its source, or None.
        halt_step, halt_value: where `fix halt` ended the run, or None.
        out_of_walltime: LAMMPS' timer ended the run.
        steps: steps of all completed run commands.
        n_atoms: number of atoms of the last one.
        loop_seconds: wall time of these steps.
    """

    version: str
    finished: bool
    error: str | None
    halt_step: int | None
    halt_value: float | None
    out_of_walltime: bool
    steps: int
    n_atoms: int
    loop_seconds: float


@dataclass(frozen=True)
class Trace:
    """Time series; all arrays (n,).

    Attributes:
        step: MD step.
        time_ps: time in ps.
        temperature_K: temperature in K.
        pressure: in eV/Å^3, positive when compressed.
        volume: in Å^3.
        potential_energy: in eV, without reference energies.
        gamma_max: largest extrapolation grade.
    """

    step: NDArray[np.int64]
    time_ps: NDArray[np.float64]
    temperature_K: NDArray[np.float64]
    pressure: NDArray[np.float64]
    volume: NDArray[np.float64]
    potential_energy: NDArray[np.float64]
    gamma_max: NDArray[np.float64]

    @property
    def is_finite(self) -> bool:
        """False when temperature, pressure or energy became NaN or infinite."""
        values = (self.temperature_K, self.pressure, self.potential_energy)
        return all(bool(np.all(np.isfinite(v))) for v in values)


@dataclass(frozen=True)
class Frame:
    """One dumped configuration.

    Attributes:
        step: MD step.
        atoms: structure in the orientation of the input structure, atoms in its order, unwrapped;
            with velocities where the dump has them.
        gamma: (n,) extrapolation grades.
    """

    step: int
    atoms: Atoms
    gamma: NDArray[np.float64]


@dataclass(frozen=True)
class Program:
    """What a LAMMPS executable says about itself with `-h`."""

    version: str
    packages: tuple[str, ...]


def parse_log(text: str, stderr: str = "") -> Log:
    """Summary of a (possibly cut off) log; an error that reached only `stderr` counts too.

    Raises:
        EngineError: a number in it is not one.
    """
    version = _VERSION.search(text)
    error = _ERROR.search(text) or _ERROR.search(stderr)
    halt = _HALT.search(text)
    loops = _LOOP.findall(text)
    try:
        halt_value = float(halt.group(2)) if halt else None
        loop_seconds = sum(float(seconds) for seconds, _, _ in loops)
    except ValueError as failure:
        raise EngineError(f"The log cannot be read: {failure}.") from failure
    return Log(
        version=version.group(1) if version else "",
        # The echoed `print "..."` command contains the message too: only a line of its own counts.
        finished=re.search(rf"^{re.escape(END_MESSAGE)}$", text, re.MULTILINE) is not None,
        error=_SOURCE.sub("", error.group(1)).strip() if error else None,
        halt_step=int(halt.group(1)) if halt else None,
        halt_value=halt_value,
        out_of_walltime="Wall time limit reached" in text,
        steps=sum(int(steps) for _, steps, _ in loops),
        n_atoms=int(loops[-1][2]) if loops else 0,
        loop_seconds=loop_seconds,
    )


def parse_trace(text: str) -> Trace:
    """The file written by `fix print`; an incomplete last line and repeated steps are dropped.

    Raises:
        EngineError: another line is not a row of numbers.
    """
    rows: dict[int, list[float]] = {}
    for number, line in enumerate(text.split("\n")[1:-1], start=2):
        words = line.split()
        try:
            if len(words) != TRACE_COLUMNS:
                raise ValueError(f"{len(words)} columns instead of {TRACE_COLUMNS}")
            rows.setdefault(int(words[0]), [float(word) for word in words])
        except ValueError as error:
            raise EngineError(f"Line {number} of the trace cannot be read: {error}.") from error
    table = np.array(list(rows.values()), dtype=np.float64).reshape(-1, TRACE_COLUMNS)
    return Trace(
        step=table[:, 0].astype(np.int64),
        time_ps=table[:, 1],
        temperature_K=table[:, 2],
        pressure=table[:, 3] * units.bar,
        volume=table[:, 4],
        potential_energy=table[:, 5],
        gamma_max=table[:, 6],
    )


def parse_dump(text: str, n_atoms: int, rotation: NDArray[np.float64]) -> list[Frame]:
    """Frames of a dump with columns id element xu yu zu, gamma and perhaps vx vy vz, rotated back.

    Args:
        text: the dump file.
        n_atoms: atoms of the input structure; frames that have lost some are left out.
        rotation: `deck.lammps_rotation` of the input structure's cell.

    Raises:
        EngineError: the text is not such a dump.
    """
    frames: dict[int, Frame] = {}
    for block in text.split("ITEM: TIMESTEP\n")[1:]:
        try:
            frame = _parse_frame(block, rotation)
        except (ValueError, LookupError) as error:
            raise EngineError(f"A frame of the dump cannot be read: {error}.") from error
        if frame is not None and len(frame.atoms) == n_atoms:
            frames.setdefault(frame.step, frame)
    return list(frames.values())


def _parse_frame(block: str, rotation: NDArray[np.float64]) -> Frame | None:
    """None for a block that was cut off or holds NaN."""
    lines = block.split("\n")
    # Header of 8 lines (step, number of atoms, box), one line an atom, the rest after the last.
    if len(lines) < 9 or not lines[2].isdigit() or len(lines) < 9 + int(lines[2]):
        return None
    n_atoms = int(lines[2])
    if "xu yu zu" not in lines[7]:
        raise EngineError(
            f"The dump has columns '{lines[7]}' instead of id element xu yu zu gamma."
        )
    cell, origin = _box([line.split() for line in lines[4:7]])
    rows = [line.split() for line in lines[8 : 8 + n_atoms]]
    rows.sort(key=lambda row: int(row[0]))
    table = np.array([[float(word) for word in row[2:9]] for row in rows])
    if not np.all(np.isfinite(table)):
        return None
    atoms = Atoms(
        symbols=[row[1] for row in rows],
        positions=(table[:, :3] - origin) @ rotation.T,
        cell=cell @ rotation.T,
        pbc=True,
    )
    if lines[7].split()[-3:] == ["vx", "vy", "vz"]:
        atoms.set_velocities(table[:, 4:7] @ rotation.T / (1e3 * units.fs))
    return Frame(step=int(lines[0]), atoms=atoms, gamma=table[:, 3])


def _box(bounds: Sequence[Sequence[str]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cell (3, 3) and origin (3,) from dump bounds: those of a tilted box are of its hull."""
    values = np.array([[float(word) for word in row] for row in bounds])
    xy, xz, yz = values[:, 2] if values.shape[1] == 3 else (0.0, 0.0, 0.0)
    low, high = values[:, 0].copy(), values[:, 1].copy()
    low[0] -= min(0.0, xy, xz, xy + xz)
    high[0] -= max(0.0, xy, xz, xy + xz)
    low[1] -= min(0.0, yz)
    high[1] -= max(0.0, yz)
    lx, ly, lz = high - low
    return np.array([[lx, 0.0, 0.0], [xy, ly, 0.0], [xz, yz, lz]]), low


def spread(frames: Sequence[Frame], most: int) -> list[Frame]:
    """At most `most` of the frames, evenly over them, the last one always among them."""
    if len(frames) <= most:
        return list(frames)
    chosen = np.unique(np.round(np.linspace(len(frames) - 1, 0, most)).astype(int))
    return [frames[i] for i in chosen]


def outcome(log: Log, trace: Trace) -> Outcome:
    """How the run ended; a numerical explosion is named before what it led to."""
    if log.error is not None and any(words in log.error for words in _LOST):
        return Outcome.LOST_ATOMS
    # Positions, pressure or gamma; LAMMPS says so of whichever it meets first.
    if not trace.is_finite or (log.error is not None and "Non-numeric" in log.error):
        return Outcome.UNSTABLE
    if log.halt_value is not None and not math.isfinite(log.halt_value):
        return Outcome.UNSTABLE
    if log.error is not None:
        return Outcome.ERROR
    if not log.finished:
        return Outcome.INTERRUPTED
    if log.out_of_walltime:
        return Outcome.OUT_OF_WALLTIME
    return Outcome.FINISHED if log.halt_step is None else Outcome.HALTED


def parse_help(text: str) -> Program:
    """Version and installed packages from the output of `lmp -h` or `autopipe-lammps -h`.

    Raises:
        EngineError: the text is not from LAMMPS.
    """
    banner = _BANNER.search(text)
    packages = _PACKAGES.search(text)
    if banner is None or packages is None:
        raise EngineError(
            "This is not the help text of LAMMPS, which names its version and packages: "
            f"{text[:80]!r}."
        )
    return Program(version=banner.group(1).strip(), packages=tuple(packages.group(1).split()))
