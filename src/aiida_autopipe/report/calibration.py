"""The plot of the uncertainty against the error of held-out forces."""

import math
from typing import Any

from aiida_autopipe.report.calibration_model import Calibration, Uncertainty
from aiida_autopipe.report.figures import BLUE, ORANGE, Figure, axis
from aiida_autopipe.report.formatting import finite, number
from aiida_autopipe.report.thinning import largest_errors_and_even_sample

MAX_POINTS = 2000
SYMBOLS: dict[Uncertainty, str] = {"gamma": "γ", "committee": "σ<sub>F</sub>"}
# Of the largest error: forces that are zero by symmetry have an error of rounding only, which would
# stretch the axis over fifteen decades.
_LEAST_ERROR = 1e-6
UNITS: dict[Uncertainty, str] = {"gamma": "", "committee": " eV/Å"}


def calibration(measure: Uncertainty, found: Calibration | None) -> Figure | None:
    """Error over uncertainty with the calibrated curve and thresholds; None without a point."""
    if found is None:
        return None
    pairs = [
        (u, e)
        for u, e in zip(found.uncertainty, found.error, strict=True)
        if math.isfinite(u) and math.isfinite(e) and u > 0 and e > 0
    ]
    least = _LEAST_ERROR * max((e for _, e in pairs), default=0.0)
    pairs = [(u, e) for u, e in pairs if e >= least]
    if not pairs:
        return None
    xs, ys = [u for u, _ in pairs], [e for _, e in pairs]
    shown = largest_errors_and_even_sample([0.0] * len(ys), ys, MAX_POINTS)
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "held-out forces",
            "x": [float(f"{xs[i]:.4g}") for i in shown],
            "y": [float(f"{ys[i]:.4g}") for i in shown],
            "marker": {"color": BLUE, "size": 5, "opacity": 0.5},
            "hovertemplate": "%{x:.3~g}: error %{y:.3~g} eV/Å<extra></extra>",
        }
    ]
    if found.curve_error:
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "expected error",
                "x": list(map(finite, found.curve_uncertainty)),
                "y": [
                    e if e is not None and e > 0 else None for e in map(finite, found.curve_error)
                ],
                "line": {"color": ORANGE, "width": 2},
                "hovertemplate": "%{x:.3~g}: expected %{y:.3~g} eV/Å<extra></extra>",
            }
        )
    lines = (("select", found.select, "dot"), ("halt", found.halt, "dash"))
    symbol, unit = SYMBOLS[measure], UNITS[measure]
    return {
        "data": data,
        "layout": {
            "height": 420,
            "hovermode": "closest",
            "xaxis": axis(f"{symbol}{f' ({unit.strip()})' if unit else ''}", type="log"),
            "yaxis": axis("error of the force (eV/Å)", type="log"),
            "shapes": [
                _line(f"{name}, {symbol} = {number(value, 3)}{unit}", value, dash)
                for name, value, dash in lines
                if value is not None and math.isfinite(value) and value > 0
            ],
        },
    }


def _line(name: str, value: float, dash: str) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "x",
        "yref": "y domain",
        "x0": value,
        "x1": value,
        "y0": 0,
        "y1": 1,
        "line": {"color": "#888888", "width": 1.5, "dash": dash},
        "name": name,
        "showlegend": True,
    }


def sentence(measure: Uncertainty, found: Calibration) -> str:
    """What the figure says, in words."""
    if found.select is None or found.halt is None or found.rank_correlation is None:
        return found.note
    unit = UNITS[measure]
    words = (
        f"On {found.n_forces} held-out forces the uncertainty and the error of the final potential "
        f"have a rank correlation of {found.rank_correlation:.2f}; an error of "
        f"{number(found.select_error, 2)} eV/Å is expected at {number(found.select, 3)}{unit} "
        f"and one of {number(found.halt_error, 2)} eV/Å at {number(found.halt, 3)}{unit}."
    )
    return f"{words} {found.note}".strip()
