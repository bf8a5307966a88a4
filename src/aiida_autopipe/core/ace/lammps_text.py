"""LAMMPS commands that use a potential through the package ML-PACE.

ML-PACE knows no ZBL repulsion beside the ACE; LAMMPS adds one with `pair_style hybrid/overlay`. Its
documentation asks there for a `pair_coeff` of every pair of types, and lets `fix pair` name a
sub-style.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal

from ase.data import atomic_numbers

from aiida_autopipe.core.ace.potential_text import number_text

if TYPE_CHECKING:
    # Its kernel needs numba, which a program that only reads a log can do without.
    from aiida_autopipe.core.ace.zbl import ZBL

PairStyle = Literal["pace", "pace/extrapolation"]

_PLAIN_WORD = re.compile(r"[\w./+=:@~-]+")
_FIRST_LINE = "# For a LAMMPS with the package ML-PACE: 'include' this file after the box is made."


def pair_commands(
    style: PairStyle, files: Sequence[str], types: Sequence[str], zbl: ZBL | None
) -> list[str]:
    """`pair_style` and `pair_coeff` commands of a potential.

    files: .yace for pace; .yaml and .asi for pace/extrapolation, as LAMMPS finds them; types:
    element of each LAMMPS atom type, in any order, also several types of one element.
    """
    words = " ".join([*(_quoted(name) for name in files), *types])
    if zbl is None:
        return [f"pair_style {style}", f"pair_coeff * * {words}"]
    numbers = [atomic_numbers[element] for element in types]
    return [
        f"pair_style hybrid/overlay {style} zbl {number_text(zbl.inner)} {number_text(zbl.outer)}",
        f"pair_coeff * * {style} {words}",
        *(
            f"pair_coeff {i + 1} {j + 1} zbl {numbers[i]} {numbers[j]}"
            for i in range(len(types))
            for j in range(i, len(types))
        ),
    ]


def include_text(files: Sequence[str], elements: Sequence[str], zbl: ZBL | None) -> str:
    """Text of the file to include in a LAMMPS input; `files` are the names of one potential.

    Type i is `elements[i - 1]`. The style that knows gamma stands in comments, where there are
    files for it.
    """
    by_suffix = {PurePath(name).suffix: name for name in files}
    types = ", ".join(f"{k} = {element}" for k, element in enumerate(elements, start=1))
    lines = [
        _FIRST_LINE,
        f"# It needs 'units metal' and these atom types: {types}.",
        "# Files are looked for where LAMMPS is started.",
        *pair_commands("pace", [by_suffix[".yace"]], elements, zbl),
    ]
    if ".asi" in by_suffix:
        watched = [by_suffix[".yaml"], by_suffix[".asi"]]
        lines += [
            "",
            "# The same with the extrapolation grade of each atom, without reference energies:",
            *(f"# {c}" for c in pair_commands("pace/extrapolation", watched, elements, zbl)),
            "# fix gamma all pair 10 pace/extrapolation gamma 1",
        ]
    return "\n".join(lines) + "\n"


def include_path(prefix: Path) -> Path:
    """PREFIX.in, or PREFIX.lammps.in where somebody else's PREFIX.in must not be overwritten."""
    path = prefix.with_name(prefix.name + ".in")
    if path.exists() and not path.read_bytes().startswith(_FIRST_LINE.encode()):
        return prefix.with_name(prefix.name + ".lammps.in")
    return path


def _quoted(name: str) -> str:
    """A file name that LAMMPS takes as one word and in which it replaces nothing."""
    if _PLAIN_WORD.fullmatch(name):
        return name
    quote = "'" if '"' in name else '"'
    return f"{quote}{name}{quote}"
