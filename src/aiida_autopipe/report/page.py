"""A report as one self-contained HTML page: it loads nothing, opens offline and prints."""

import json
import math
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from aiida_autopipe.report import figures, formatting
from aiida_autopipe.report.calibration import SYMBOLS, calibration, sentence
from aiida_autopipe.report.extrapolation import extrapolation
from aiida_autopipe.report.formatting import (
    MISSING,
    duration,
    finite,
    milli,
    percent,
    plural,
    signed_percent,
    tolerance,
)
from aiida_autopipe.report.model import Report
from aiida_autopipe.report.trajectories import trajectory_figures
from aiida_autopipe.report.validation_plots import validation_plot
from aiida_autopipe.report.values import NodeRef
from aiida_autopipe.report.verdict import (
    demand,
    error_text,
    has_limit,
    has_passed,
    is_alone,
    is_checked,
    verdict,
    worst_row,
)


@dataclass(frozen=True)
class Card:
    """One headline number: what, value with unit, and a remark."""

    title: str
    value: str
    unit: str
    remark: str
    node: NodeRef | None = None
    level: str = "plain"


@dataclass(frozen=True)
class TimeShare:
    """Where time went: seconds and their share of the wall time or of all recorded time."""

    what: str
    seconds: float
    share: float


def render(report: Report) -> str:
    """The page as HTML text (4 to 5 MB, nearly all of it plotly.js).

    Every string of the report is escaped; parts that are missing are said to be missing.
    """
    parity_figure, parity_note = figures.parity(report.parity)
    shares, overlap = time_shares(report)
    plots = {
        "learning": figures.learning_curve(report.generations),
        "parity": parity_figure,
        "gamma": extrapolation(report),
        "calibration": calibration(report.uncertainty, report.calibration),
        **trajectory_figures(report.trajectories),
        "eos": figures.equation_of_state(report),
        "time": figures.bars(
            [share.what for share in shares],
            [share.seconds / 60 for share in shares],
            "time (min)",
            [f"{duration(share.seconds)} ({percent(share.share)})" for share in shares],
        ),
        **{
            f"validation-{k}": validation_plot(plot, report.method.oracle)
            for k, plot in enumerate(report.validation_plots)
        },
    }
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            verdict=verdict(report),
            cards=cards(report),
            any_alone=any(is_alone(row) for row in report.validation),
            plots={name: plot for name, plot in plots.items() if plot is not None},
            plots_json=_script_json({k: v for k, v in plots.items() if v is not None}),
            parity_note=parity_note,
            symbol=Markup(SYMBOLS[report.uncertainty]),
            calibration_sentence=sentence(report.uncertainty, report.calibration)
            if report.calibration
            else "",
            shares=shares,
            overlap=overlap,
            # plotly.js is trusted package content, and must not be escaped inside a script.
            plotly_js=Markup(get_plotlyjs()),
        )
    )


def cards(report: Report) -> list[Card]:
    """The headline numbers, each honest about what is missing."""
    judged = verdict(report)
    rows = report.validation
    passed = sum(has_passed(row) for row in rows)
    labels, final, worst = report.labels, report.final, worst_row(rows)
    asked = f"of {plural(labels.requested, 'calculation')} requested"
    if labels.budget is not None:
        asked += f", budget {formatting.count(labels.budget)}"
    held_out = f"RMSE on {plural(final.n_test, 'structure')}" if final else "no potential"
    return [
        Card(
            "Validation",
            f"{passed} / {len(rows)}" if rows else "none",
            "",
            f"properties within {tolerance(rows[0].tolerance)}"
            + (" or their limit" if any(has_limit(row) for row in rows) else "")
            if len({row.tolerance for row in rows}) == 1
            else ("properties within tolerance" if rows else "no property was checked"),
            level=judged.level,
        ),
        Card(
            "Largest property error",
            error_text(worst) if worst else MISSING,
            "",
            worst.label if worst else "nothing to compare",
            worst.potential_node if worst else None,
            "bad" if worst and not worst.passed else "plain",
        ),
        Card("Labels", formatting.count(labels.ok), "ok", asked, labels.labelled_node),
        Card(
            "Held-out energy error",
            milli(final.test.energy_rmse_per_atom) if final else MISSING,
            "meV/atom",
            held_out,
            final.metrics_node if final else None,
        ),
        Card(
            "Held-out force error",
            milli(final.test.forces_rmse) if final else MISSING,
            "meV/Å",
            held_out,
            final.metrics_node if final else None,
        ),
        Card(
            "Wall time",
            duration(report.wall_seconds),
            "",
            f"{plural(report.n_generations, 'generation')}, "
            f"{plural(len(report.generations), 'fit')}",
            report.process,
        ),
    ]


def time_shares(report: Report) -> tuple[list[TimeShare], bool]:
    """Seconds by kind, longest first, with the time not accounted for; and whether they overlap.

    Shares are of the wall time, or, where work ran side by side, of the recorded seconds.
    """
    finite_seconds = {what: finite(value) or 0.0 for what, value in report.time_shares.items()}
    known = {what: seconds for what, seconds in finite_seconds.items() if seconds > 0}
    total, wall = sum(known.values()), finite(report.wall_seconds) or 0.0
    overlap = total > wall * 1.01
    # Less than a percent is rounding of time stamps, not a kind of work.
    if known and not overlap and wall - total > 0.01 * wall:
        known["not recorded"] = wall - total
    base = total if overlap else wall
    shares = [TimeShare(what, s, s / base) for what, s in known.items()]
    return sorted(shares, key=lambda share: -share.seconds), overlap


def _script_json(value: Any) -> Markup:
    """JSON that is safe inside a script element: no character can end it or open a comment."""
    encoded = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for character in "<>&'":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return Markup(encoded)


def _bar_width(relative_error: float | None, limit: float) -> float:
    """Width in percent of a bar whose middle of the scale is the tolerance."""
    value = finite(relative_error)
    if value is None or limit <= 0 or math.isinf(limit):
        return 0.0
    return round(min(50 * abs(value) / limit, 100.0), 1)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("aiida_autopipe.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": formatting.number,
        "setting": formatting.setting,
        "milli": milli,
        "percent": percent,
        "signed_percent": signed_percent,
        "tolerance": tolerance,
        "duration": duration,
        "count": formatting.count,
        "plural": plural,
        "sentence": formatting.sentence,
        "file_url": formatting.file_url,
    }
    environment.globals |= {
        "is_checked": is_checked,
        "has_passed": has_passed,
        "has_limit": has_limit,
        "is_alone": is_alone,
        "demand": demand,
        "error_text": error_text,
        "bar_width": _bar_width,
    }
    return environment
