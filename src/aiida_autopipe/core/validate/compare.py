"""The verdict: a potential's properties next to the reference's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.validate.properties import PropertyValue


@dataclass(frozen=True)
class Comparison:
    """One row of the validation table; `relative_error` is NaN when it is not defined."""

    name: str
    potential: float
    reference: float
    unit: str
    relative_error: float
    passed: bool
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with None for NaN."""
        row = dict(vars(self))
        for key in ("potential", "reference", "relative_error"):
            row[key] = row[key] if math.isfinite(row[key]) else None
        return row


def compare(
    potential: Mapping[str, PropertyValue],
    reference: Mapping[str, PropertyValue],
    tolerance: float = 0.1,
) -> list[Comparison]:
    """Rows in the order of the reference.

    A row passes when |potential - reference| <= tolerance |reference|. A property that either side
    could not determine does not pass; a reference of zero passes only when the potential gives
    zero too and has no relative error.

    Raises:
        InputError: a tolerance that is not positive, or a property the potential side lacks.
    """
    if not tolerance > 0:
        raise InputError(f"The tolerance of the validation must be positive, not {tolerance}.")
    missing = sorted(set(reference) - set(potential))
    if missing:
        raise InputError(
            f"The potential's properties lack '{missing[0]}', which the reference has."
        )
    return [_row(name, potential[name], reference[name], tolerance) for name in reference]


def _row(
    name: str, potential: PropertyValue, reference: PropertyValue, tolerance: float
) -> Comparison:
    difference = abs(potential.value - reference.value)
    zero = reference.value == 0
    notes = [
        f"{side}: {found.note}"
        for side, found in (("potential", potential), ("reference", reference))
        if found.note
    ]
    if zero:
        notes.append("the reference is zero, so there is no relative error")
    return Comparison(
        name=name,
        potential=potential.value,
        reference=reference.value,
        unit=reference.unit,
        relative_error=float("nan") if zero else difference / abs(reference.value),
        passed=difference <= tolerance * abs(reference.value),
        note="; ".join(notes),
    )
