"""What is in a set of structures, counted block by block."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.conditions import QUANTITIES
from aiida_autopipe.core.dataset import Dataset

MAX_VALUES = 20
"""Texts of a column that are listed; a column with more is only said to have more."""


@dataclass
class Summary:
    """Counts and ranges of structures; add blocks with `add`.

    Attributes:
        n_structures: structures.
        n_atoms: atoms.
        composition: atoms of each element.
        sizes: fewest and most atoms of a structure.
        periodic: structures periodic in all directions.
        labels: structures with an energy, forces and stress.
        ranges: smallest and largest value of each quantity, in eV and Å.
        columns: of each column the type and the range, or the texts with their counts.
    """

    n_structures: int = 0
    n_atoms: int = 0
    composition: Counter[str] = field(default_factory=Counter)
    sizes: tuple[int, int] | None = None
    periodic: int = 0
    labels: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("energy", "forces", "stress"), 0)
    )
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, block: Dataset) -> None:
        """Count the structures of a block."""
        self.n_structures += len(block)
        self.n_atoms += block.n_atoms
        numbers, counts = np.unique(block.numbers, return_counts=True)
        for number, count in zip(numbers, counts, strict=True):
            self.composition[chemical_symbols[number]] += int(count)
        low, high = int(block.sizes.min()), int(block.sizes.max())
        known = self.sizes or (low, high)
        self.sizes = (min(low, known[0]), max(high, known[1]))
        self.periodic += int(np.all(block.pbc, axis=1).sum())
        for name in ("energy_per_atom", "max_force", "max_stress", "volume_per_atom"):
            self._widen(name, QUANTITIES[name](block))
        for name, found in (
            ("energy", block.energy), ("forces", block.forces), ("stress", block.stress)
        ):  # fmt: skip
            if found is not None:
                self.labels[name] += _present(block, np.isfinite(found))
        for name, values in block.columns.items():
            self._add_column(name, np.asarray(values))

    def _widen(self, name: str, values: NDArray[Any]) -> None:
        finite = values[np.isfinite(values)]
        if len(finite):
            low, high = float(finite.min()), float(finite.max())
            known = self.ranges.get(name, (low, high))
            self.ranges[name] = (min(low, known[0]), max(high, known[1]))

    def _add_column(self, name: str, values: NDArray[Any]) -> None:
        kind = {"U": "text", "b": "bool", "i": "int"}.get(values.dtype.kind, "float")
        column = self.columns.setdefault(name, {"type": kind})
        if column["type"] != kind:
            column["type"] = "text" if "text" in (kind, column["type"]) else "float"
        if kind in ("text", "bool"):
            counts = column.setdefault("values", {})
            texts, numbers = np.unique(values, return_counts=True)
            for text, number in zip(texts, numbers, strict=True):
                if str(text) in counts or len(counts) < MAX_VALUES:
                    counts[str(text)] = counts.get(str(text), 0) + int(number)
                else:
                    column["more"] = True
            return
        finite = values[np.isfinite(values)]
        if len(finite):
            low, high = finite.min().item(), finite.max().item()
            known = column.get("range", [low, high])
            column["range"] = [min(low, known[0]), max(high, known[1])]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-able values."""
        return {
            "n_structures": self.n_structures,
            "n_atoms": self.n_atoms,
            "elements": sorted(self.composition),
            "composition": dict(sorted(self.composition.items())),
            "atoms_per_structure": self.sizes,
            "periodic": self.periodic,
            "labels": self.labels,
            "ranges": self.ranges,
            "columns": dict(sorted(self.columns.items())),
        }


def _present(block: Dataset, finite: NDArray[np.bool_]) -> int:
    """Structures of which any value is there; a missing label is NaN altogether."""
    flags = np.asarray(finite.reshape(len(finite), -1).any(axis=1))
    if len(flags) != len(block):
        flags = np.logical_or.reduceat(flags, block.offsets[:-1])
    return int(flags.sum())
