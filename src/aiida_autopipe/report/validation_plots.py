"""The curves of the validation as plotly.js figures, whatever property they belong to."""

from typing import Any

from aiida_autopipe.report.figures import BLUE, GREEN, ORANGE, Figure, axis, json_values, text
from aiida_autopipe.report.validation_model import PlotSeries, ValidationPlot

_COLOURS = {"reference": BLUE, "potential": ORANGE, "limit": GREEN}


def validation_plot(plot: ValidationPlot, oracle: str) -> Figure:
    """Lines and points of both sides; the oracle's carry its name.

    Where both sides are lines the potential's are dotted, so that one is seen through the other.
    """
    layout: dict[str, Any] = {
        "height": 400,
        "xaxis": axis(text(plot.x_label)),
        "yaxis": axis(text(plot.y_label)),
        "hovermode": "closest",
    }
    if plot.ticks:
        layout["xaxis"] |= {
            "tickmode": "array",
            "tickvals": [position for position, _ in plot.ticks],
            "ticktext": [text(label) for _, label in plot.ticks],
            "showgrid": True,
        }
    if plot.y_range is not None:
        layout["yaxis"]["range"] = list(plot.y_range)
    overlaid = any(s.side == "reference" and s.mode == "lines" for s in plot.series)
    dashes = {"reference": "solid", "potential": "dot" if overlaid else "solid", "limit": "dash"}
    named: set[str] = set()
    data = []
    for series in plot.series:
        name = text(oracle) if series.side == "reference" else series.side
        data.append(_trace(series, name, dashes[series.side], show=name not in named))
        named.add(name)
    return {"data": data, "layout": layout}


def _trace(series: PlotSeries, name: str, dash: str, show: bool) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": series.mode,
        "name": name,
        "legendgroup": series.side,
        "showlegend": show,
        "x": json_values(series.x),
        "y": json_values(series.y),
        "line": {"color": _COLOURS[series.side], "width": 2, "dash": dash},
        "marker": {"color": _COLOURS[series.side], "size": 7},
        "hovertemplate": "%{x:.5~g}: %{y:.4~g}<extra></extra>",
    }
