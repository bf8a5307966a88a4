"""Simple conditions on structures, such as ``max_force < 20``, from text; no code is run."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError

if TYPE_CHECKING:
    from aiida_autopipe.core.dataset import Dataset

_CONDITION = re.compile(r"\s*([^<>=!\s]+)\s*(<=|>=|==|!=|=|<|>)\s*(\S.*?)\s*")
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


def _max_force(block: Dataset) -> NDArray[np.float64]:
    """Largest force on an atom, eV/Å; NaN without forces."""
    if block.forces is None:
        return np.full(len(block), np.nan)
    norms = np.linalg.norm(block.forces, axis=1)
    if block.force_mask is not None:
        norms = np.where(block.force_mask > 0, norms, 0.0)
    return np.asarray(np.maximum.reduceat(norms, block.offsets[:-1]))


def _energy(block: Dataset) -> NDArray[np.float64]:
    return np.full(len(block), np.nan) if block.energy is None else np.asarray(block.energy)


def _volume(block: Dataset) -> NDArray[np.float64]:
    return np.asarray(np.abs(np.linalg.det(block.cell)))


def _max_stress(block: Dataset) -> NDArray[np.float64]:
    if block.stress is None:
        return np.full(len(block), np.nan)
    return np.asarray(np.abs(block.stress).max(axis=1))


QUANTITIES: dict[str, Callable[[Dataset], NDArray[Any]]] = {
    "n_atoms": lambda block: block.sizes,
    "energy": _energy,
    "energy_per_atom": lambda block: _energy(block) / block.sizes,
    "max_force": _max_force,
    "max_stress": _max_stress,
    "volume": _volume,
    "volume_per_atom": lambda block: _volume(block) / block.sizes,
}
"""What conditions know beside columns and numbers of atoms of an element (`n_Si`)."""


def condition(text: str) -> Callable[[Dataset], NDArray[np.bool_]]:
    """A function that gives True for the structures of a block that fulfil a condition.

    The condition is ``NAME OPERATOR VALUE`` with one of < <= > >= = == !=. The name is a column,
    one of `QUANTITIES`, or ``n_`` and an element. A structure that lacks the value does not pass.

    Raises:
        InputError: not of that form; by the function, a name the block does not have or a value of
            the wrong type.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise InputError(f"the condition '{text}' is not NAME OPERATOR VALUE, such as max_force<20")
    name, sign, value = match.groups()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    compare = _OPERATORS[sign]

    def fulfilled(block: Dataset) -> NDArray[np.bool_]:
        found = _values(block, name)
        if found.dtype.kind == "U":
            if compare not in (operator.eq, operator.ne):
                raise InputError(f"'{text}': '{name}' is text, which has no order; use = or !=")
            return np.asarray(compare(found, value) & (found != ""))
        return np.asarray(compare(found, _number(text, found, value)) & ~np.isnan(found))

    return fulfilled


def all_of(texts: Sequence[str]) -> Callable[[Dataset], NDArray[np.bool_]]:
    """Several conditions, all of which must be fulfilled; see `condition`."""
    conditions = [condition(text) for text in texts]

    def fulfilled(block: Dataset) -> NDArray[np.bool_]:
        keep = np.ones(len(block), dtype=bool)
        for one in conditions:
            keep &= one(block)
        return keep

    return fulfilled


def _values(block: Dataset, name: str) -> NDArray[Any]:
    if name in block.columns:
        return np.asarray(block.columns[name])
    if name in QUANTITIES:
        return QUANTITIES[name](block)
    element = name.removeprefix("n_")
    if element != name and element in chemical_symbols:
        of_element = block.numbers == chemical_symbols.index(element)
        return np.asarray(np.add.reduceat(of_element.astype(np.int64), block.offsets[:-1]))
    known = ", ".join([*QUANTITIES, "n_<element>", *sorted(block.columns)])
    raise InputError(f"there is no '{name}' to filter by; there are: {known}")


def _number(text: str, found: NDArray[Any], value: str) -> float:
    if found.dtype.kind == "b" and value.lower() in ("true", "false"):
        return float(value.lower() == "true")
    try:
        return float(value)
    except ValueError:
        raise InputError(f"'{text}': '{value}' is not a number") from None
