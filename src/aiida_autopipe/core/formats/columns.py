"""Columns of structures that arrive one block after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.columns import RESERVED
from aiida_autopipe.core.labels import LABEL_INFO, LabelKeys

_WIDER = {"bool": 0, "int": 1, "float": 2, "str": 3}


class ColumnCollector:
    """Scalar entries of `info` as columns whose types do not depend on where blocks end.

    A column has the widest of the types seen so far: bool, int, float, text. Where a structure
    lacks it, it is NaN or ''. A `DatasetWriter` with `promote` converts what it wrote before.
    """

    def __init__(self, keys: LabelKeys) -> None:
        self._skip = LABEL_INFO | {keys.energy, keys.forces, keys.stress} | set(RESERVED)
        self._types: dict[str, str] = {}
        self._count = 0
        self.left_out: set[str] = set()
        """Names of what is no column, such as vectors in `info` and other arrays of atoms."""

    def columns(self, structures: Sequence[Atoms]) -> dict[str, NDArray[Any]]:
        """The columns of the next block."""
        self.left_out |= {
            name
            for atoms in structures
            for name in atoms.arrays
            if name not in ("numbers", "positions", "forces", "REF_forces", "force_mask")
            and name not in self._skip
        }
        names = set(self._types)
        for atoms in structures:
            names.update(atoms.info)
        usable = [str(n) for n in names if n not in self._skip and _storable(str(n))]
        columns = {}
        for name in sorted(usable):
            values = [atoms.info.get(name) for atoms in structures]
            kind = self._kind(name, values)
            if kind is not None:
                self._types[name] = kind
                columns[name] = _as_array(values, kind)
        self._count += len(structures)
        return columns

    def _kind(self, name: str, values: list[Any]) -> str | None:
        kinds = {_kind(value) for value in values if value is not None}
        if None in kinds:
            self.left_out.add(name)
            kinds.discard(None)
        if name in self._types:
            kinds.add(self._types[name])
        if not kinds:
            return None
        widest = max((str(kind) for kind in kinds), key=_WIDER.__getitem__)
        new_late = name not in self._types and self._count > 0
        lacking = new_late or any(_kind(value) is None for value in values)
        return "float" if lacking and widest in ("bool", "int") else widest


def _storable(name: str) -> bool:
    return name not in ("", ".") and not set("/\0") & set(name)


def _kind(value: Any) -> str | None:
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer):
        return "int" if -(1 << 63) <= value < 1 << 63 else "str"
    if isinstance(value, float | np.floating):
        return "float"
    return "str" if isinstance(value, str) else None


def _as_array(values: list[Any], kind: str) -> NDArray[Any]:
    if kind == "str":
        return np.array(["" if _kind(value) is None else str(value) for value in values])
    if kind == "float":
        return np.array([np.nan if _kind(value) is None else float(value) for value in values])
    return np.array(values, dtype=np.bool_ if kind == "bool" else np.int64)
