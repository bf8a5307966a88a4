"""The plots of the page, as plain plotly.js figures (`{"data": [...], "layout": {...}}`).

Only JSON-able values leave this module, with NaN as null. Colours are Okabe and Ito's, which
readers with colour-blindness can tell apart; text and grid colours are left to the page, which
knows its theme.
"""

import html
import math
from typing import Any

from aiida_autopipe.report.formatting import finite, number
from aiida_autopipe.report.model import (
    Generation,
    Parity,
    ParitySplit,
    Report,
)
from aiida_autopipe.report.thinning import largest_errors_and_even_sample

Figure = dict[str, Any]

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SERIES = (BLUE, ORANGE, GREEN, PINK, "#56B4E9", "#E69F00")
SPLIT_COLOURS = {"train": BLUE, "test": ORANGE}
SPLIT_SYMBOLS = {"train": "circle-open", "test": "circle"}
MAX_PARITY_POINTS = 3000


def axis(title: str, **extra: Any) -> dict[str, Any]:
    """A plotly axis with a title."""
    return {"title": {"text": title}, "automargin": True, "zeroline": False, **extra}


def json_values(values: list[float], factor: float = 1.0) -> list[float | None]:
    """The values times a factor, with None where JSON has no number."""
    return [None if math.isnan(x) or math.isinf(x) else x * factor for x in values]


def _scaled(value: float | None, factor: float) -> float | None:
    value = finite(value)
    return None if value is None else value * factor


def text(value: str) -> str:
    """User text for a plotly label, which would otherwise read `<...>` as markup."""
    return html.escape(value, quote=False)


def learning_curve(generations: list[Generation]) -> Figure | None:
    """Energy and force RMSE over generations, train and test; None without any error."""
    kinds = (("energy_rmse_per_atom", "x", "y"), ("forces_rmse", "x2", "y2"))
    ticks = [f"{g.index}<br>{g.labels_total}" for g in generations]
    positions = list(range(len(generations)))
    data: list[dict[str, Any]] = []
    for field, x_axis, y_axis in kinds:
        for split in ("test", "train"):
            errors = [_scaled(getattr(getattr(g, split), field), 1000) for g in generations]
            if all(error is None for error in errors):
                continue
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": split,
                    "legendgroup": split,
                    "showlegend": not any(trace["name"] == split for trace in data),
                    "x": positions,
                    "y": errors,
                    "xaxis": x_axis,
                    "yaxis": y_axis,
                    "line": {
                        "color": SPLIT_COLOURS[split],
                        "dash": "solid" if split == "test" else "dot",
                        "width": 2.5 if split == "test" else 1.5,
                    },
                    "marker": {"symbol": SPLIT_SYMBOLS[split], "size": 9},
                    "hovertemplate": "%{y:.3~g}<extra>" + split + "</extra>",
                }
            )
    if not data:
        return None
    x_axis_layout = {
        "tickvals": positions,
        "ticktext": ticks,
        "range": [-0.35, len(generations) - 0.65],
    }
    title = "generation, and labels spent so far"
    return {
        "data": data,
        "layout": {
            "height": 360,
            "xaxis": axis(title, domain=[0, 0.45], anchor="y", **x_axis_layout),
            "xaxis2": axis(title, domain=[0.55, 1], anchor="y2", **x_axis_layout),
            "yaxis": axis("energy RMSE (meV/atom)", rangemode="tozero", anchor="x"),
            "yaxis2": axis("force RMSE (meV/Å)", rangemode="tozero", anchor="x2"),
            "hovermode": "x",
        },
    }


def parity(parity: Parity) -> tuple[Figure | None, str]:
    """Energy and force parity of train and test, and a sentence where points were left out."""
    data: list[dict[str, Any]] = []
    notes: list[str] = []
    panels = (
        ("energy", "energies", "eV/atom", "meV/atom", ""),
        ("forces", "force components", "eV/Å", "meV/Å", "2"),
    )
    layout: dict[str, Any] = {"height": 480, "hovermode": "closest"}
    for column, (field, noun, unit, error_unit, suffix) in enumerate(panels):
        seen: list[float] = []
        for split_name in ("train", "test"):
            split: ParitySplit | None = getattr(parity, split_name)
            if split is None:
                continue
            reference, predicted = _pairs(
                getattr(split, f"{field}_reference"), getattr(split, f"{field}_potential")
            )
            if not reference:
                continue
            chosen = largest_errors_and_even_sample(reference, predicted, MAX_PARITY_POINTS)
            if len(chosen) < len(reference):
                notes.append(f"{len(chosen)} of {len(reference)} {split_name} {noun}")
            seen += [reference[i] for i in chosen] + [predicted[i] for i in chosen]
            data.append(
                _parity_trace(split_name, reference, predicted, chosen, unit, error_unit, suffix)
            )
        layout |= _parity_axes(field, unit, suffix, column)
        if seen:
            data.append(_diagonal(min(seen), max(seen), suffix))
    if not data:
        return None, ""
    note = ""
    if notes:
        note = f"Shown: {', '.join(notes)} (the largest errors and an even sample of the rest); "
        note += "the errors in the legends are over all of them."
    layout["legend"] = {"x": 0, "y": 1.02, "yanchor": "bottom", "orientation": "v"}
    layout["legend2"] = {"x": 0.56, "y": 1.02, "yanchor": "bottom", "orientation": "v"}
    layout["margin"] = {"t": 80, "b": 60}
    return {"data": data, "layout": layout}, note


def _pairs(reference: list[float], predicted: list[float]) -> tuple[list[float], list[float]]:
    known = [
        (a, b)
        for a, b in zip(reference, predicted, strict=True)
        if math.isfinite(a) and math.isfinite(b)
    ]
    return [a for a, _ in known], [b for _, b in known]


def _parity_trace(
    split: str,
    reference: list[float],
    predicted: list[float],
    chosen: list[int],
    unit: str,
    error_unit: str,
    suffix: str,
) -> dict[str, Any]:
    errors = [b - a for a, b in zip(reference, predicted, strict=True)]
    rmse = 1000 * math.sqrt(sum(e * e for e in errors) / len(errors))
    mae = 1000 * sum(abs(e) for e in errors) / len(errors)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{split}: RMSE {number(rmse, 3)}, MAE {number(mae, 3)} {error_unit}",
        "x": [round(reference[i], 5) for i in chosen],
        "y": [round(predicted[i], 5) for i in chosen],
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "legend": f"legend{suffix}",
        "marker": {
            "color": SPLIT_COLOURS[split],
            "symbol": SPLIT_SYMBOLS[split],
            "size": 6 if len(chosen) < 500 else 4,
            "opacity": 0.75,
        },
        "hovertemplate": f"reference %{{x}}<br>potential %{{y}} {unit}<extra>{split}</extra>",
    }


def _diagonal(low: float, high: float, suffix: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [low, high],
        "y": [low, high],
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "line": {"color": "#888888", "width": 1, "dash": "dash"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _parity_axes(field: str, unit: str, suffix: str, column: int) -> dict[str, Any]:
    noun = "energy" if field == "energy" else "force"
    domain = [0, 0.44] if column == 0 else [0.56, 1]
    reference, potential = f"reference {noun} ({unit})", f"potential {noun} ({unit})"
    return {
        f"xaxis{suffix}": axis(reference, domain=domain, anchor=f"y{suffix}", nticks=6),
        f"yaxis{suffix}": axis(potential, anchor=f"x{suffix}", nticks=7),
    }


def equation_of_state(report: Report) -> Figure | None:
    """Energy over volume of reference and potential, both from the reference's lowest energy."""
    curves = [
        (text(report.method.oracle), report.eos_reference, "#888888", "markers", "circle"),
        ("potential", report.eos_potential, ORANGE, "lines", "circle"),
    ]
    known = [x for _, c, *_ in curves if c for x in c.energy_per_atom if math.isfinite(x)]
    if not known:
        return None
    reference = report.eos_reference
    own = [x for x in reference.energy_per_atom if math.isfinite(x)] if reference else []
    zero = min(own or known)
    data = []
    for name, curve, colour, mode, symbol in curves:
        if curve is None:
            continue
        order = sorted(range(len(curve.volume_per_atom)), key=curve.volume_per_atom.__getitem__)
        data.append(
            {
                "type": "scatter",
                "mode": mode,
                "name": name,
                "x": json_values([curve.volume_per_atom[i] for i in order]),
                "y": json_values([curve.energy_per_atom[i] - zero for i in order], 1000),
                "line": {"color": colour, "width": 2, "shape": "spline"},
                "marker": {"symbol": symbol, "size": 9, "color": colour},
                "hovertemplate": "%{x:.5~g} Å³: %{y:.4~g} meV<extra></extra>",
            }
        )
    return {
        "data": data,
        "layout": {
            "height": 380,
            "xaxis": axis("volume (Å³/atom)"),
            "yaxis": axis("E − E<sub>min</sub> (meV/atom)"),
            "hovermode": "closest",
        },
    }


def bars(labels: list[str], values: list[float], unit: str, hover: list[str]) -> Figure | None:
    """Horizontal bars, the first label on top; None without a value above zero."""
    known = json_values(values)
    if not any(value for value in known):
        return None
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "x": known,
                "y": list(map(text, labels)),
                "text": list(map(text, hover)),
                "textposition": "auto",
                "hoverinfo": "text",
                "marker": {"color": BLUE},
            }
        ],
        "layout": {
            "height": 90 + 42 * len(labels),
            "xaxis": axis(unit, rangemode="tozero"),
            "yaxis": {"automargin": True, "autorange": "reversed", "type": "category"},
            "showlegend": False,
        },
    }
