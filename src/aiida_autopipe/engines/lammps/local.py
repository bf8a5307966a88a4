"""MD of one structure on this machine with the LAMMPS library, without AiiDA."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.errors import EngineError, InputError
from aiida_autopipe.engines.lammps import deck
from aiida_autopipe.engines.lammps.parse import (
    Frame,
    Outcome,
    Trace,
    outcome,
    parse_dump,
    parse_log,
    parse_trace,
)
from aiida_autopipe.engines.lammps.results import summarise
from aiida_autopipe.engines.lammps.settings import MdSettings

_PROGRAM = "import sys; from aiida_autopipe.engines.lammps.runner import main; sys.exit(main())"
_POLL_SECONDS = 0.5
_STDERR_CHARACTERS = 300


@dataclass(frozen=True)
class LocalRun:
    """What a run left.

    Attributes:
        frames: every `keep_every` steps, with their gamma by atom.
        trace: temperature, pressure, volume, energy and the largest gamma over time.
        results: as `summarise` gives it.
        ending: how the run ended.
        message: what LAMMPS said where it failed.
        interrupted: it was stopped by Ctrl-C.
    """

    frames: list[Frame]
    trace: Trace
    results: dict[str, Any]
    ending: Outcome
    message: str
    interrupted: bool


def run_local(
    atoms: Atoms,
    potential: Path,
    settings: MdSettings,
    seed: int,
    folder: Path,
    progress: Callable[[int], None] = lambda step: None,
) -> LocalRun:
    """Run MD in a folder and read what came out; Ctrl-C ends the run with what it has.

    Args:
        atoms: where to start; a molecule without a cell is put into a box.
        potential: a .yace or B-basis .yaml of a linear ACE with its active set beside it.
        settings: what to run, with the interface 'library', watched by gamma.
        seed: decides the initial velocities.
        folder: an empty folder, for the files of LAMMPS.
        progress: told the last step from time to time.

    Raises:
        InputError: the structure does not fit the potential, or the potential lacks a file.
        PotentialFileError: the potential cannot be read.
        EngineError: LAMMPS did not start, or what it wrote cannot be read.
    """
    model = _potential_files(potential, folder)
    elements = model.elements
    start = deck.in_vacuum(atoms)
    rotation = deck.lammps_rotation(start.cell.array)
    deck.check_structure(start, elements)
    for name, text in (
        (deck.INPUT_FILE, deck.input_deck(settings, elements, seed)),
        (deck.POTENTIAL_FILE, deck.potential_include(settings, elements, model.cutoff)),
        (deck.DATA_FILE, deck.data_file(start, elements, rotation)),
    ):
        (folder / name).write_text(text)
    stderr, interrupted = _execute(folder, progress)
    if not (folder / deck.LOG_FILE).is_file():
        if interrupted:
            raise KeyboardInterrupt
        raise EngineError(f"LAMMPS did not start: {stderr[-_STDERR_CHARACTERS:].strip()}")
    log = parse_log((folder / deck.LOG_FILE).read_text(errors="replace"), stderr)
    trace = parse_trace(_text(folder / deck.TRACE_FILE))
    frames = parse_dump(_text(folder / deck.KEPT_FILE), len(start), rotation)
    ending = outcome(log, trace)
    results = summarise(log, trace, None, settings)
    return LocalRun(frames, trace, results, ending, log.error or stderr.strip(), interrupted)


def _potential_files(path: Path, folder: Path) -> ACEPotential:
    """Write the potential under the names that the deck knows."""
    model = ACEPotential.load(path)
    if not model.has_active_set:
        raise InputError(
            f"'{path}' has no active set beside it, so MD cannot know when it is lost; use a "
            "potential with its .yaml and .asi, as 'mlip-auto fit' writes it."
        )
    model.save(folder / Path(deck.POTENTIAL_FILES[0]).stem)
    return model


def _execute(folder: Path, progress: Callable[[int], None]) -> tuple[str, bool]:
    """Standard error of LAMMPS, and whether Ctrl-C ended it."""
    command = [sys.executable, "-c", _PROGRAM, "-in", deck.INPUT_FILE, "-screen", "none"]
    interrupted = False
    with (folder / "stderr").open("w+") as stderr:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            for step in _steps(process, folder / deck.TRACE_FILE):
                progress(step)
        except KeyboardInterrupt:
            # The terminal has sent it to LAMMPS as well, which completes its files.
            interrupted = True
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
        stderr.seek(0)
        return stderr.read(), interrupted


def _steps(process: subprocess.Popen[bytes], trace: Path) -> Iterator[int]:
    while process.poll() is None:
        time.sleep(_POLL_SECONDS)
        last = _text(trace).rsplit("\n", 2)[-2:]
        word = last[0].split()[0] if last and last[0].split() else ""
        if word.isdigit():
            yield int(word)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
