"""The plot of the extrapolation grade over MD time, one panel per generation."""

import math
from typing import Any

from aiida_autopipe.report.calibration import SYMBOLS
from aiida_autopipe.report.figures import SERIES, Figure, axis, text
from aiida_autopipe.report.formatting import finite
from aiida_autopipe.report.model import Report, Simulation
from aiida_autopipe.report.thinning import peaks

MAX_TRACE_POINTS = 400
COLUMNS = 3
# Panel and gap heights in pixels, so that many rows look like one.
_PANEL, _GAP = 205, 95
# Tick labels 1, 2, 5 per decade: thresholds lie between decades.
_TICKS = [m * 10.0**e for e in range(-3, 7) for m in (1, 2, 5)]


def extrapolation(report: Report) -> Figure | None:
    """Largest extrapolation grade over MD time by generation; None without traces."""
    generations = [g for g in report.generations if any(map(_has_trace, g.simulations))]
    if not generations:
        return None
    runs = [run for g in generations for run in g.simulations if _has_trace(run)]
    kinds = sorted({(run.temperature_K, run.ensemble) for run in runs})
    colours = {kind: SERIES[i % len(SERIES)] for i, kind in enumerate(kinds)}
    thresholds = {g.index: _thresholds(report, g.index) for g in generations}
    symbol = SYMBOLS[report.uncertainty]
    columns = min(COLUMNS, len(generations))
    rows = math.ceil(len(generations) / columns)
    plot_height = rows * (_PANEL + _GAP) - _GAP
    layout: dict[str, Any] = {
        "height": plot_height + 155,
        "hovermode": "closest",
        "annotations": [],
        "shapes": [],
        "margin": {"t": 95, "b": 60},
        "legend": {"orientation": "h", "x": 0, "y": 1 + 32 / plot_height, "yanchor": "bottom"},
    }
    limits = _limits(runs, [value for lines in thresholds.values() for _, value, _ in lines])
    data: list[dict[str, Any]] = []
    shown: set[tuple[float, str]] = set()
    for position, generation in enumerate(generations):
        suffix = "" if position == 0 else str(position + 1)
        _add_panel(layout, generation.index, position, (rows, columns), limits, symbol)
        layout["shapes"] += [_line(*line, suffix) for line in thresholds[generation.index]]
        for run in filter(_has_trace, generation.simulations):
            kind = (run.temperature_K, run.ensemble)
            data += _traces(run, colours[kind], suffix, symbol, first=kind not in shown)
            shown.add(kind)
    return {"data": data, "layout": layout}


def _has_trace(run: Simulation) -> bool:
    return any(math.isfinite(g) and g > 0 for g in run.trace.gamma_max)


def _thresholds(report: Report, generation: int) -> list[tuple[str, float, str]]:
    """Name, value and dash of each threshold that a logarithmic axis can show."""
    own = [used for used in report.thresholds if used.generation == generation]
    pairs: list[tuple[str, float | None, str]] = []
    for name, common, dash in (
        ("select", report.gamma_select, "dot"),
        ("halt", report.gamma_halt, "dash"),
    ):
        # A number in the legend is that of all panels.
        words = name if common is None else f"{name}, {SYMBOLS[report.uncertainty]} = {common:g}"
        pairs.append((words, getattr(own[0], name) if own else common, dash))
    known = ((name, finite(value), dash) for name, value, dash in pairs)
    return [(name, value, dash) for name, value, dash in known if value is not None and value > 0]


def _limits(runs: list[Simulation], thresholds: list[float]) -> list[float]:
    """Range of the logarithmic axis: all grades and thresholds, with a margin."""
    seen = [g for run in runs for g in run.trace.gamma_max if math.isfinite(g) and g > 0]
    low, high = min(seen + thresholds), max(seen + thresholds)
    return [math.log10(low) - 0.08, math.log10(high) + 0.08]


def _add_panel(
    layout: dict[str, Any],
    generation: int,
    position: int,
    shape: tuple[int, int],
    limits: list[float],
    symbol: str,
) -> None:
    rows, columns = shape
    row, column = divmod(position, columns)
    suffix = "" if position == 0 else str(position + 1)
    gap = 0.07
    width = (1 - gap * (columns - 1)) / columns
    left = column * (width + gap)
    plot_height = rows * (_PANEL + _GAP) - _GAP
    top = 1 - row * (_PANEL + _GAP) / plot_height
    # Rounding must not push the last panel below the plot, which plotly refuses.
    bottom = max(top - _PANEL / plot_height, 0.0)
    layout[f"xaxis{suffix}"] = axis(
        "MD time (ps)", domain=[left, left + width], anchor=f"y{suffix}", rangemode="tozero"
    )
    layout[f"yaxis{suffix}"] = axis(
        f"largest {symbol} in the cell" if column == 0 else "",
        domain=[bottom, top],
        anchor=f"x{suffix}",
        type="log",
        range=limits,
        tickvals=_TICKS,
        tickformat="~g",
        showticklabels=column == 0,
        **({} if position == 0 else {"matches": "y"}),
    )
    layout["annotations"].append(
        {
            "text": f"generation {generation}",
            "x": left,
            "y": top,
            "xref": "paper",
            "yref": "paper",
            "xanchor": "left",
            "yanchor": "bottom",
            "showarrow": False,
        }
    )


def _line(name: str, value: float, dash: str, suffix: str) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": f"x{suffix} domain",
        "yref": f"y{suffix}",
        "x0": 0,
        "x1": 1,
        "y0": value,
        "y1": value,
        "line": {"color": "#888888", "width": 1.5, "dash": dash},
        "name": name,
        "legendgroup": name,
        "showlegend": suffix == "",
    }


def _traces(
    run: Simulation, colour: str, suffix: str, symbol: str, first: bool
) -> list[dict[str, Any]]:
    name = text(f"{run.temperature_K:g} K {run.ensemble.upper()}")
    keep = peaks(run.trace.gamma_max, MAX_TRACE_POINTS)
    gammas = [finite(run.trace.gamma_max[i]) for i in keep]
    common = {
        "type": "scatter",
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "legendgroup": name,
    }
    line = {
        **common,
        "mode": "lines+markers" if len(keep) < 3 else "lines",
        "name": name,
        "showlegend": first,
        "x": [finite(run.trace.time_ps[i]) for i in keep],
        "y": [g if g is not None and g > 0 else None for g in gammas],
        "customdata": [finite(run.trace.temperature_K[i]) for i in keep],
        "line": {"color": colour, "width": 1.5},
        "hovertemplate": f"%{{x:.4~g}} ps: {symbol} = "
        + "%{y:.3~g}, T = %{customdata:.0f} K<extra>"
        + name.replace("%", "")
        + "</extra>",
    }
    if not run.halted:
        return [line]
    last = max(i for i, g in enumerate(run.trace.gamma_max) if math.isfinite(g) and g > 0)
    halt = {
        **common,
        "mode": "markers",
        "name": "halted",
        "showlegend": False,
        "x": [finite(run.trace.time_ps[last])],
        "y": [finite(run.trace.gamma_max[last])],
        "marker": {"symbol": "x", "size": 10, "color": colour},
        "hovertext": [text(f"halted: {run.halt_reason or 'no reason recorded'}")],
        "hoverinfo": "text",
    }
    return [line, halt]
