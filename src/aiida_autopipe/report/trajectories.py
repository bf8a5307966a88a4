"""The plots of the structure along a simulation."""

from __future__ import annotations

import math
from typing import Any

from aiida_autopipe.report.figures import SERIES, Figure, axis, text
from aiida_autopipe.report.formatting import finite
from aiida_autopipe.report.trajectory_model import PairStructure, Trajectory

MAX_POINTS = 600
_GREY = "#888888"
_SELECT = {
    "type": "dropdown",
    "x": 1,
    "xanchor": "right",
    "y": 1.02,
    "yanchor": "bottom",
    "bgcolor": "rgba(128,128,128,0.15)",
    "showactive": True,
}


def trajectory_figures(trajectories: list[Trajectory]) -> dict[str, Figure]:
    """All plots by name: `rdf-0`, `along-0` and `unlearned-0` for the first simulation."""
    makers = {"rdf": distributions, "along": along, "unlearned": unlearned}
    found = {
        f"{name}-{index}": make(trajectory)
        for index, trajectory in enumerate(trajectories)
        for name, make in makers.items()
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def distributions(trajectory: Trajectory) -> Figure | None:
    """Radial distribution functions by segment, labelled frames dotted; pairs are selectable."""
    segments = [segment for segment in trajectory.segments if segment.pairs]
    if not segments:
        return None
    names = _distinct([pair.pair for pair in segments[0].pairs])
    data, shown = [], []
    for position, segment in enumerate(segments):
        label = text(f"{segment.number}: {segment.name}")
        for pair in segment.pairs:
            if pair.pair not in names:
                continue
            curves = _curves(trajectory.r, pair, label, SERIES[position % len(SERIES)])
            data += curves
            shown += [pair.pair] * len(curves)
    for trace, pair_name in zip(data, shown, strict=True):
        trace["visible"] = pair_name == names[0]
    layout: dict[str, Any] = {
        "height": 430,
        "xaxis": axis("distance (Å)", range=[0, max(trajectory.r, default=1.0)]),
        "yaxis": axis("g(r)", rangemode="tozero"),
        "hovermode": "x",
        "margin": {"t": 110, "b": 60},
        "shapes": [_level(1.0)],
    }
    if len(names) > 1:
        buttons = [
            {
                "label": text(name),
                "method": "restyle",
                "args": [{"visible": [n == name for n in shown]}],
            }
            for name in names
        ]
        layout["updatemenus"] = [{**_SELECT, "buttons": buttons}]
    return {"data": data, "layout": layout}


def _distinct(names: list[str]) -> list[str]:
    """One of each two pairs that differ in the order of their elements: g is the same."""
    kept: dict[tuple[str, ...], str] = {}
    for name in names:
        kept.setdefault(tuple(sorted(name.split("-"))), name)
    return list(kept.values())


def _curves(r: list[float], pair: PairStructure, label: str, colour: str) -> list[dict[str, Any]]:
    parts = (
        ("MD", pair.g, {"color": colour, "width": 2}),
        ("labelled", pair.labelled_g, {"color": colour, "width": 1.5, "dash": "dot"}),
    )
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": label if what == "MD" else f"{label}, labelled",
            "legendgroup": label,
            "x": [round(value, 4) for value in r],
            "y": _rounded(values, 4),
            "line": line,
            "hovertemplate": "%{y:.3~f}<extra>" + label.replace("%", "") + f" {what}</extra>",
        }
        for what, values, line in parts
        if values
    ]


def along(trajectory: Trajectory) -> Figure | None:
    """Temperature, density and mean-square displacement over time, one above the other."""
    if not trajectory.time_ps:
        return None
    panels = (
        ("temperature (K)", trajectory.temperature_time_ps, trajectory.temperature_K, SERIES[1]),
        ("density (g/cm³)", trajectory.time_ps, trajectory.density, SERIES[0]),
        ("MSD (Å²)", trajectory.time_ps, trajectory.msd, SERIES[2]),
    )
    layout: dict[str, Any] = {
        "height": 560,
        "hovermode": "x",
        "showlegend": False,
        "margin": {"t": 25, "b": 60},
        "shapes": [_mark(end) for end in trajectory.ends_ps[:-1]],
        "xaxis": axis("time (ps)", domain=[0, 1], anchor="y3", rangemode="tozero"),
    }
    data = []
    for position, (title, time, values, colour) in enumerate(panels):
        suffix = "" if position == 0 else str(position + 1)
        top = 1 - position * 0.345
        layout[f"yaxis{suffix}"] = axis(title, domain=[max(top - 0.31, 0), top], anchor="x")
        keep = _thinned(values)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": title,
                "x": _rounded([time[i] for i in keep], 5),
                "y": _rounded([values[i] for i in keep], 5),
                "xaxis": "x",
                "yaxis": f"y{suffix}",
                "line": {"color": colour, "width": 1.5},
                "hovertemplate": "%{y:.4~g}<extra>" + title + "</extra>",
            }
        )
    return {"data": data, "layout": layout}


def unlearned(trajectory: Trajectory) -> Figure | None:
    """Energy and force errors on labelled frames before they were learned, over time."""
    frames = trajectory.frames
    if not any(map(math.isfinite, frames.forces_rmse + frames.energy_error_per_atom)):
        return None
    panels = (
        ("force RMSE (meV/Å)", frames.forces_rmse, ""),
        ("energy error (meV/atom)", frames.energy_error_per_atom, "2"),
    )
    layout: dict[str, Any] = {
        "height": 360,
        "hovermode": "closest",
        "shapes": [_mark(end, suffix) for end in trajectory.ends_ps[:-1] for suffix in ("", "2")],
    }
    data: list[dict[str, Any]] = []
    for column, (title, values, suffix) in enumerate(panels):
        domain = [0, 0.44] if column == 0 else [0.56, 1]
        layout[f"xaxis{suffix}"] = axis(
            "time (ps)", domain=domain, anchor=f"y{suffix}", rangemode="tozero"
        )
        layout[f"yaxis{suffix}"] = axis(title, anchor=f"x{suffix}", rangemode="tozero")
        for position, generation in enumerate(sorted(set(frames.generation))):
            rows = [i for i, g in enumerate(frames.generation) if g == generation]
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"potential {generation}",
                    "legendgroup": f"potential {generation}",
                    "showlegend": column == 0,
                    "x": _rounded([frames.time_ps[i] for i in rows], 5),
                    "y": _rounded([1000 * values[i] for i in rows], 4),
                    "xaxis": f"x{suffix}",
                    "yaxis": f"y{suffix}",
                    "marker": {"size": 9, "color": SERIES[position % len(SERIES)]},
                    "hovertemplate": "%{x:.4~g} ps: %{y:.4~g}<extra>potential "
                    + f"{generation}</extra>",
                }
            )
    return {"data": data, "layout": layout}


def _thinned(values: list[float]) -> list[int]:
    """Indices of at most MAX_POINTS of a series, evenly, of both ends and where a line breaks."""
    total = len(values)
    if total <= MAX_POINTS:
        return list(range(total))
    breaks = {i for i, value in enumerate(values) if math.isnan(value)}
    even = MAX_POINTS - min(len(breaks), MAX_POINTS // 2)
    return sorted(breaks | {round(k * (total - 1) / (even - 1)) for k in range(even)})


def _rounded(values: list[float], digits: int) -> list[float | None]:
    known = (finite(value) for value in values)
    return [None if value is None else round(value, digits) for value in known]


def _mark(time: float, suffix: str = "") -> dict[str, Any]:
    """A line where a segment ends, over all panels or over that of an axis."""
    return {
        "type": "line",
        "xref": f"x{suffix}",
        "yref": f"y{suffix} domain" if suffix else "paper",
        "x0": time,
        "x1": time,
        "y0": 0,
        "y1": 1,
        "line": {"color": _GREY, "width": 1, "dash": "dot"},
    }


def _level(value: float) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": value,
        "y1": value,
        "line": {"color": _GREY, "width": 1, "dash": "dash"},
    }
