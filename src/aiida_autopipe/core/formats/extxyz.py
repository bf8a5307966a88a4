"""Extended XYZ, frame by frame."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.io.extxyz import SPECIAL_3_3_KEYS, key_val_dict_to_str, key_val_str_to_dict
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.formats.frames import Frame, FrameRange, TextFile, open_text, unreadable

_EXTENDED = re.compile(r"(properties|lattice)\s*=", re.IGNORECASE)
_PAIR = re.compile(r'([A-Za-z_][A-Za-z0-9_-]*)=(?:"([^"\\{}\[\]]*)"|([^\s"{}\[\]\\,]+))(?:\s+|$)')
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.+:/-]*")
_NOT_WORDS = ("t", "f", "true", "false", "nan", "inf", "infinity")
_TYPES = {"S": str, "R": np.float64, "I": np.int64, "L": np.bool_}
_NAMES = {"pos": "positions", "species": "symbols", "Z": "numbers", "force": "forces"}
_NOT_COLUMNS = ("free_energy", "magmom", "dipole")
"""Results that ASE keeps apart from `info`."""


def read_extxyz(path: Path, wanted: FrameRange) -> Iterator[Frame]:
    """Frames of an (extended) XYZ file; a plain XYZ file has no cell.

    Raises:
        DataError: with the file and the frame: truncated, garbled, or an element nobody knows.
    """
    index = 0
    with open_text(path) as file:
        while not wanted.past(index):
            line = file.line()
            if not line.strip():
                if line and not file.line().strip():  # blank lines at the end
                    continue
                if not line:
                    break
            with unreadable(path, index):
                atoms = _read_frame(file, _count(line), index in wanted)
            yield Frame(index, atoms, file.progress)
            index += 1
    if index == 0:
        raise DataError(f"'{path}' contains no structures.")


def _count(line: str) -> int:
    try:
        return int(line)
    except ValueError:
        raise DataError(
            f"expected a number of atoms, not '{line.strip()[:60]}'; the frame before may have "
            "more or fewer lines than it says."
        ) from None


def _read_frame(file: TextFile, n_atoms: int, wanted: bool) -> Atoms | None:
    if n_atoms <= 0:
        raise DataError("it has no atoms.")
    if not wanted:
        if file.skip(n_atoms + 1) < n_atoms + 1:
            raise DataError(f"the file ends before its {n_atoms} atoms are complete.")
        return None
    comment = file.line()
    lines = file.lines(n_atoms)
    if len(lines) < n_atoms:
        raise DataError(f"the file ends after {len(lines)} of its {n_atoms} atoms.")
    extended = _EXTENDED.search(comment) is not None
    info = _parsed(comment.strip()) if extended else {}
    lattice = info.pop("Lattice", None)
    pbc = info.pop("pbc", lattice is not None)
    layout = _layout(str(info.pop("Properties", "species:S:1:pos:R:3")))
    arrays = _fast_arrays(lines, layout) or _arrays(lines, layout, exact=extended)
    numbers = arrays.pop("numbers", None)
    symbols = arrays.pop("symbols", None)
    if symbols is not None:
        numbers = np.array([_number(symbol) for symbol in symbols])
    for name in _NOT_COLUMNS:
        info.pop(name, None)
    cell = None if lattice is None else np.reshape(np.asarray(lattice, dtype=np.float64), (3, 3)).T
    atoms = Atoms(numbers, arrays.pop("positions"), cell=cell, pbc=pbc, info=info)
    atoms.arrays |= arrays
    return atoms


def _parsed(comment: str) -> dict[str, Any]:
    """Values of a comment line; the usual forms are parsed here, others by ASE, with its result."""
    info: dict[str, Any] = {}
    end = 0
    for match in _PAIR.finditer(comment):
        key, quoted, word = match.groups()
        if match.start() != end or key in info:
            break
        value = _value(word) if quoted is None else _vector(key, quoted)
        if value is None:
            break
        info[key] = value
        end = match.end()
    return info if end == len(comment) else dict(key_val_str_to_dict(comment))


def _value(word: str) -> Any:
    """Number, logical or plain word; None for anything else."""
    if _INTEGER.fullmatch(word):
        return int(word)
    if _REAL.fullmatch(word):
        return float(word)
    if word in ("T", "F"):
        return word == "T"
    return word if _WORD.fullmatch(word) and word.lower() not in _NOT_WORDS else None


def _vector(key: str, text: str) -> Any:
    """Several reals or logicals, or text that starts with a word; None for anything else."""
    words = text.split()
    if words and isinstance(_value(words[0]), str):
        return text
    if len(words) < 2:
        return None
    if all(word in ("T", "F") for word in words):
        return np.array([word == "T" for word in words])
    if not all(_REAL.fullmatch(word) for word in words):
        return None
    values = np.array([float(word) for word in words])
    # The columns of a lattice are written one behind the other; so is any tensor.
    return values.reshape(3, 3).T if len(values) == 9 and key in SPECIAL_3_3_KEYS else values


def _fast_arrays(
    lines: list[str], layout: tuple[tuple[str, Any, int, int], ...]
) -> dict[str, Any] | None:
    """Arrays where one column of symbols is followed by reals alone; None for other layouts."""
    width = layout[-1][3]
    if layout[0][1:] != (str, 0, 1) or any(field[1] is not np.float64 for field in layout[1:]):
        return None
    words = "\n".join(lines).split()
    if len(words) != width * len(lines):
        return None
    arrays: dict[str, Any] = {layout[0][0]: words[::width]}
    del words[::width]
    try:
        values = np.array(list(map(float, words))).reshape(len(lines), width - 1)
    except ValueError:
        return None
    for name, _kind, first, end in layout[1:]:
        part = values[:, first - 1] if end - first == 1 else values[:, first - 1 : end - 1]
        arrays[name] = np.ascontiguousarray(part)
    return arrays


@lru_cache(maxsize=64)
def _layout(properties: str) -> tuple[tuple[str, Any, int, int], ...]:
    """Name, type, first column and end of each array that 'Properties' names."""
    parts = properties.split(":")
    fields, column = [], 0
    if len(parts) % 3:
        raise DataError(f"Properties={properties} is not NAME:TYPE:COLUMNS:...")
    for name, kind, count in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if kind not in _TYPES or not count.isdigit():
            raise DataError(f"Properties={properties} is not NAME:TYPE:COLUMNS:...")
        fields.append((_NAMES.get(name, name), _TYPES[kind], column, column + int(count)))
        column += int(count)
    names = [field[0] for field in fields]
    if "positions" not in names or not {"symbols", "numbers"} & set(names):
        raise DataError(f"Properties={properties} has no positions or no species.")
    return tuple(fields)


def _arrays(
    lines: list[str], layout: tuple[tuple[str, Any, int, int], ...], exact: bool
) -> dict[str, NDArray[Any]]:
    rows = [line.split() for line in lines]
    width = layout[-1][3]
    wrong = [k for k, row in enumerate(rows) if len(row) < width or (exact and len(row) != width)]
    if wrong:
        raise DataError(
            f"the line of atom {wrong[0]} has {len(rows[wrong[0]])} values, not {width}."
        )
    arrays = {}
    for name, kind, first, end in layout:
        values: Any = [row[first] if end - first == 1 else row[first:end] for row in rows]
        if kind is np.bool_:
            values = np.isin(np.array(values), ("T", "True", "true", "1"))
        elif kind is not str:
            values = np.array(values, dtype=kind)
        arrays[name] = values if kind is str and end - first == 1 else np.asarray(values)
    return arrays


def _number(symbol: str) -> int:
    number = atomic_numbers.get(symbol) or atomic_numbers.get(symbol.capitalize())
    if number is None:
        raise DataError(f"'{symbol}' is no chemical symbol.")
    return number


# ---------------------------------------------------------------------- writing


@contextmanager
def extxyz_writer(path: Path) -> Iterator[Callable[[Dataset], None]]:
    """A function that appends the structures of a block to a new file, with 8 decimals."""
    with path.open("w", encoding="utf-8") as file:

        def write(block: Dataset) -> None:
            for index in range(len(block)):
                file.write(_frame_text(block, index))

        yield write


def _frame_text(block: Dataset, index: int) -> str:
    rows = slice(int(block.offsets[index]), int(block.offsets[index + 1]))
    labels = block.labels(index)
    properties, arrays = ["species:S:1:pos:R:3"], [block.positions[rows]]
    if labels.forces is not None:
        properties.append("forces:R:3")
        arrays.append(labels.forces)
    if labels.force_mask is not None:
        properties.append("force_mask:R:1")
        arrays.append(labels.force_mask[:, None])
    info: dict[str, Any] = {name: values[index] for name, values in block.columns.items()}
    if labels.energy is not None:
        info["energy"] = labels.energy
    if labels.stress is not None:
        info["stress"] = voigt_6_to_full_3x3_stress(labels.stress).ravel()
    if block.weight is not None:
        info["weight"] = labels.weight
    pbc = " ".join("T" if periodic else "F" for periodic in block.pbc[index])
    words = [f"Properties={':'.join(properties)}", *map(_pair, info, info.values()), f'pbc="{pbc}"']
    if np.any(block.cell[index]) or np.any(block.pbc[index]):
        words.insert(0, f'Lattice="{_reals(block.cell[index].ravel())}"')
    values = np.concatenate(arrays, axis=1)
    table = np.empty((len(values), values.shape[1] + 1), dtype=object)
    table[:, 0] = [chemical_symbols[number] for number in block.numbers[rows]]
    table[:, 1:] = values
    row = "%-2s" + " %16.8f" * values.shape[1] + "\n"
    body = (row * len(values)) % tuple(table.ravel().tolist())
    return f"{len(values)}\n{' '.join(word for word in words if word)}\n{body}"


def _reals(values: NDArray[Any]) -> str:
    return " ".join(map(repr, values.tolist()))


def _pair(name: str, value: Any) -> str:
    """An entry of the comment line; nothing for an empty text, which would swallow the next key."""
    if isinstance(value, str | np.str_):
        if not value:
            return ""
        simple = isinstance(_value(value), str) and _KEY.fullmatch(name)
        return f"{name}={value}" if simple else str(key_val_dict_to_str({name: str(value)}))
    if not _KEY.fullmatch(name):
        return str(key_val_dict_to_str({name: value}))
    if isinstance(value, bool | np.bool_):
        return f"{name}={'T' if value else 'F'}"
    return (
        f'{name}="{_reals(value)}"'
        if np.ndim(value)
        else f"{name}={value.item() if isinstance(value, np.generic) else value!r}"
    )
