"""Values of properties, rows of the validation table, and what is drawn of curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Rule = Literal["difference", "curve", "at_most", "at_least", "precision"]


@dataclass(frozen=True)
class PropertyValue:
    """One property; the value is NaN, and `note` says why, when it could not be determined.

    `data` holds the curve behind the value, for comparisons and plots of curves.
    """

    value: float
    unit: str
    note: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One row of the validation table.

    Attributes:
        name: as in the configuration.
        potential: value of the potential, NaN when it could not be determined.
        reference: value of the oracle, NaN as well where a rule asks for none.
        unit: of both, and of the limit.
        relative_error: what is held against the tolerance, NaN where it is not defined.
        passed: the verdict.
        note: why a value is missing, or what to know about it.
        rule: 'difference': |potential - reference| / |reference|; 'curve': the error of a curve,
            which the note names; 'at_most', 'at_least': the potential alone against `limit`;
            'precision': the standard error of the potential's value over that value.
        limit: demanded of the potential, None where a rule has none.
    """

    name: str
    potential: float
    reference: float
    unit: str
    relative_error: float
    passed: bool
    note: str = ""
    rule: Rule = "difference"
    limit: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with None for NaN."""
        row = dict(vars(self))
        for key in ("potential", "reference", "relative_error"):
            row[key] = row[key] if math.isfinite(row[key]) else None
        return row


class Series(NamedTuple):
    """One line of a plot: of the 'reference' or the 'potential', as 'lines' or 'markers'.

    `y` may hold None, where a line has a gap.
    """

    side: str
    mode: str
    x: list[float]
    y: list[float | None]


@dataclass(frozen=True)
class Plot:
    """What a family draws of a property, for any program that draws lines and points.

    Attributes:
        name: of the property.
        title: what is seen.
        x_label: with unit; empty where `ticks` say all.
        y_label: with unit.
        series: the lines.
        ticks: positions and labels on the x axis; none for a plain axis.
        note: what to know about it, a sentence.
        y_range: part of the y axis that is shown; None for all.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    ticks: tuple[tuple[float, str], ...] = ()
    note: str = ""
    y_range: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        series = [one._asdict() for one in self.series]
        return {**vars(self), "series": series, "ticks": [list(tick) for tick in self.ticks]}


def compare_values(
    name: str,
    potential: PropertyValue,
    reference: PropertyValue,
    tolerance: float,
    least: float = 0.0,
) -> Comparison:
    """The row of two numbers: |potential - reference| <= tolerance |reference|.

    A reference smaller than `least` counts as `least`, and the note says so. A reference of zero
    has no relative error without it.
    """
    difference = abs(potential.value - reference.value)
    scale = abs(reference.value)
    notes = side_notes(potential, reference)
    if scale < least:
        scale = least
        notes.append(f"the error is relative to {least:g} {reference.unit}")
    if scale == 0:
        notes.append("the reference is zero, so there is no relative error")
    return Comparison(
        name=name,
        potential=potential.value,
        reference=reference.value,
        unit=reference.unit,
        relative_error=float("nan") if scale == 0 else difference / scale,
        passed=bool(difference <= tolerance * scale),
        note="; ".join(notes),
    )


def compare_curves(
    name: str,
    potential: PropertyValue,
    reference: PropertyValue,
    tolerance: float,
    error: float,
    notes: Sequence[str],
) -> Comparison:
    """The row of two curves with a relative error between them; NaN does not pass."""
    return Comparison(
        name=name,
        potential=potential.value,
        reference=reference.value,
        unit=reference.unit,
        relative_error=error,
        passed=bool(error <= tolerance),
        note="; ".join([*notes, *side_notes(potential, reference)]),
        rule="curve",
    )


def side_notes(potential: PropertyValue, reference: PropertyValue) -> list[str]:
    """The notes of both sides, each with its side."""
    sides = (("potential", potential), ("reference", reference))
    return [f"{side}: {found.note}" for side, found in sides if found.note]
