"""The verdict in words: what the numbers of a report do and do not support."""

from dataclasses import dataclass
from typing import Literal

from aiida_autopipe.report.formatting import (
    finite,
    milli,
    number,
    percent,
    plural,
    sentence,
    setting,
    signed_percent,
    tolerance,
)
from aiida_autopipe.report.model import Generation, Report, ValidationRow

Level = Literal["good", "mixed", "bad", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """A level for the colour, a headline of a few words, and the sentences that back it."""

    level: Level
    headline: str
    sentences: tuple[str, ...]


def is_checked(row: ValidationRow) -> bool:
    """Whether all values that the row's rule asks for exist, so that it can be judged."""
    needed = [row.potential, row.reference, row.relative_error]
    if has_limit(row):
        needed = [row.potential, row.limit]
    elif row.rule == "precision":
        needed = [row.potential, row.relative_error]
    return all(finite(x) is not None for x in needed)


def has_limit(row: ValidationRow) -> bool:
    """Whether the potential alone is held against a limit, without a reference."""
    return row.rule in ("at_most", "at_least")


def is_alone(row: ValidationRow) -> bool:
    """Whether the row is about the potential alone, without a reference."""
    return has_limit(row) or row.rule == "precision"


def demand(row: ValidationRow) -> str:
    """What stands in place of a reference, in words, such as 'at most 1'."""
    if row.rule == "precision":
        return "none"
    words = "at most" if row.rule == "at_most" else "at least"
    return f"{words} {setting(row.limit)}"


def error_text(row: ValidationRow) -> str:
    """The relative error as a percentage, with a sign where it has one; empty for a limit."""
    if has_limit(row):
        return ""
    show = signed_percent if row.rule == "difference" else percent
    return show(row.relative_error)


def has_passed(row: ValidationRow) -> bool:
    """Whether the row was judged and passed; a value that is missing never passes."""
    return row.passed and is_checked(row)


def worst_row(rows: list[ValidationRow]) -> ValidationRow | None:
    """The checked property with the largest relative error to the reference."""
    checked = [row for row in rows if is_checked(row) and not is_alone(row)]
    return max(checked, key=lambda row: abs(row.relative_error or 0.0), default=None)


def verdict(report: Report) -> Verdict:
    """Judge a report; missing parts are named, and never counted as success."""
    level, headline = _level(report)
    sentences: list[str] = []
    if report.status == "failed":
        sentences.append(sentence(f"Reason: {report.failure or 'none was recorded'}"))
    elif report.status == "running":
        sentences.append("All numbers are provisional.")
    sentences += _validation_sentences(report)
    if report.final is not None:
        sentences += _error_sentences(report.final) + _md_sentences(report.final)
    return Verdict(level, headline, tuple(sentences))


def _level(report: Report) -> tuple[Level, str]:
    if report.status == "failed":
        return "bad", "The run failed"
    if report.status == "running":
        return "unknown", "The run is not finished"
    if report.final is None:
        return "bad", "No potential was trained"
    rows = report.validation
    passed = sum(has_passed(row) for row in rows)
    if not rows:
        return "unknown", "Trained, not validated"
    if passed == len(rows):
        return "good", "Validated"
    return ("mixed", "Partly validated") if passed else ("bad", "Validation failed")


def _within(rows: list[ValidationRow]) -> str:
    limits = {row.tolerance for row in rows}
    return f"within {tolerance(limits.pop())}" if len(limits) == 1 else "within their tolerances"


def _validation_sentences(report: Report) -> list[str]:
    rows = report.validation
    if not rows:
        reason = f": {report.validation_missing}" if report.validation_missing else ""
        return [sentence(f"No property was checked against {report.method.oracle}{reason}")]
    compared = [row for row in rows if not is_alone(row)]
    alone = [row for row in rows if is_alone(row)]
    sentences = []
    if compared:
        passed = sum(has_passed(row) for row in compared)
        agree = "agrees" if len(compared) == 1 else "agree"
        text = f"{passed} of {plural(len(compared), 'property')} {agree} with "
        text += f"{report.method.oracle} {_within(compared)}"
        worst = worst_row(rows)
        if worst is not None:
            text += f"; the largest difference is {error_text(worst)} ({worst.label})"
        sentences.append(text + ".")
    if alone:
        passed = sum(has_passed(row) for row in alone)
        holds = "holds" if len(alone) == 1 else "hold"
        sentences.append(
            f"{passed} of {plural(len(alone), 'demand')} on the potential alone {holds}."
        )
    failing = [row for row in rows if is_checked(row) and not row.passed]
    if failing:
        sentences.append(f"Outside the tolerance: {'; '.join(map(_comparison, failing))}.")
    missing = [row.label for row in rows if not is_checked(row)]
    if missing:
        sentences.append(f"Could not be checked: {', '.join(missing)}.")
    if report.validation_missing:
        sentences.append(sentence(report.validation_missing))
    return sentences


def _comparison(row: ValidationRow) -> str:
    if has_limit(row):
        return f"{row.label} ({number(row.potential)} {row.unit}, {demand(row)})"
    if row.rule == "precision":
        return f"{row.label} ({number(row.potential)} {row.unit}, {row.note})"
    values = f"{number(row.potential)} against {number(row.reference)} {row.unit}".rstrip()
    return f"{row.label} ({error_text(row)}: {values})"


def _error_sentences(final: Generation) -> list[str]:
    energy, forces = final.test.energy_rmse_per_atom, final.test.forces_rmse
    if not final.n_test or (finite(energy) is None and finite(forces) is None):
        return ["No errors on held-out labels are available."]
    return [
        f"On {plural(final.n_test, 'held-out structure')} the RMSE is {milli(energy)} meV/atom in "
        f"energy and {milli(forces)} meV/Å in forces."
    ]


def _md_sentences(final: Generation) -> list[str]:
    runs = final.simulations
    if not runs:
        return ["The final potential was not tested in MD."]
    halted = sum(run.halted for run in runs)
    ended = sum(not run.halted and run.steps_done >= run.steps_asked for run in runs)
    temperatures = sorted({run.temperature_K for run in runs})
    span = " to ".join(f"{t:g}" for t in dict.fromkeys((temperatures[0], temperatures[-1])))
    text = f"In the last generation {ended} of {plural(len(runs), 'MD simulation')} at {span} K "
    text += "ran to the end"
    if halted:
        text += f"; {halted} halted because the potential extrapolated"
    return [text + "."]
