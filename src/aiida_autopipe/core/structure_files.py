"""Structure files that ASE reads and writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms
from ase.data import atomic_numbers
from ase.io import read as ase_read
from ase.io import write as ase_write

from aiida_autopipe.core.errors import DataError


def read_structures(path: Path) -> list[Atoms]:
    """All structures of a file in any format ASE reads.

    Raises:
        DataError: an empty or unreadable file, or one without structures.
    """
    if path.stat().st_size == 0:
        raise DataError(f"'{path}' is empty.")
    try:
        frames = ase_read(path, index=":")
    # ASE's readers raise whatever their parsers happen to raise: all of it means "unreadable".
    except Exception as error:
        raise DataError(f"'{path}' cannot be read as structures: {_said(error)}") from error
    structures = frames if isinstance(frames, list) else [frames]
    if not structures:
        raise DataError(f"'{path}' contains no structures.")
    return structures


def _said(error: Exception) -> str:
    """What an error says; a word alone, such as an element nobody knows, says too little."""
    # ASE looks a symbol up and says nothing but what it looked for; its keys are no such words.
    if isinstance(error, KeyError) and error.args and _is_like_a_symbol(error.args[0]):
        return f"an atom has the element '{error.args[0]}', which does not exist"
    text = str(error)
    return text if len(text.split()) > 1 else f"{type(error).__name__} {text}"


def _is_like_a_symbol(key: object) -> bool:
    """Whether a word is written as an element's symbol is, and none."""
    return (
        isinstance(key, str)
        and re.fullmatch("[A-Z][a-z]{0,2}", key) is not None
        and key not in atomic_numbers
    )


def write_extxyz(structures: Sequence[Atoms], path: Path) -> None:
    """Write extended XYZ; the file appears under `path` only when it is complete."""
    cleaned = []
    for atoms in structures:
        copy = atoms.copy()
        # An empty value would swallow the key behind it when the file is read.
        copy.info = {k: v for k, v in atoms.info.items() if not (isinstance(v, str) and not v)}
        cleaned.append(copy)
    partial = path.with_name(path.name + ".partial")
    try:
        ase_write(partial, cleaned, format="extxyz")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
