"""The coverage of a selection as one self-contained HTML page or one PNG image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from aiida_autopipe import __version__
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.files import complete_file
from aiida_autopipe.core.select.coverage import Coverage
from aiida_autopipe.report.figures import BLUE, GREEN, ORANGE, Figure, axis
from aiida_autopipe.report.formatting import number, percent
from aiida_autopipe.report.page import _environment, _script_json

GREY = "#9AA0A6"
MAP_POINTS = 6000
KNOWN_POINTS = 3000
BINS = 60
SUFFIXES = (".html", ".png")


def check_suffix(path: Path) -> None:
    """Raise InputError for a report that would be neither HTML nor PNG."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"the report '{path}' must end in .html or .png")


def write_selection_report(coverage: Coverage, title: str, path: Path) -> None:
    """Write the page or the image; it appears under ``path`` only when it is complete.

    Raises:
        InputError: another ending than .html or .png.
        OSError: the file cannot be written.
    """
    check_suffix(path)
    content = (
        render_page(coverage, title).encode("utf-8")
        if path.suffix.lower() == ".html"
        else draw_png(coverage, title)
    )
    with complete_file(path) as target:
        target.write_bytes(content)


def table(coverage: Coverage) -> list[tuple[str, str, str]]:
    """Rows of a table: what, of the choice, of random choices."""
    mine, random = coverage.chosen, coverage.random
    pairs = ((mine.mean_distance, random.mean_distance), (mine.max_distance, random.max_distance))
    mean, largest = [(number(a, 3), number(b, 3)) for a, b in pairs]
    return [
        ("coverage score", percent(mine.score), percent(random.score)),
        ("pool within reach", percent(mine.within_reach), percent(random.within_reach)),
        ("mean distance to the nearest", *mean),
        ("largest distance to the nearest", *largest),
    ]


def render_page(coverage: Coverage, title: str) -> str:
    """The page as HTML text, nearly all of it plotly.js; it loads nothing from elsewhere."""
    plots = {"map": _map(coverage), "bars": _bars(coverage), "distances": _distances(coverage)}
    return (
        _environment()
        .get_template("selection.html.j2")
        .render(
            title=title,
            coverage=coverage,
            table=table(coverage),
            reach=number(coverage.reach, 3),
            explained=percent(coverage.explained),
            plots_json=_script_json(plots),
            # plotly.js is trusted package content, and must not be escaped inside a script.
            plotly_js=Markup(get_plotlyjs()),
            version=__version__,
        )
    )


def draw_png(coverage: Coverage, title: str) -> bytes:
    """The same three plots as a PNG image, 150 dots per inch."""
    from io import BytesIO

    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(14, 4.8), layout="constrained")
    canvas.suptitle(title, parse_math=False)
    left, middle, right = canvas.subplots(1, 3, width_ratios=[1.5, 0.9, 1.2])
    for points, name, colour, size in _map_points(coverage):
        left.scatter(
            points[:, 0], points[:, 1], s=size, c=colour, linewidths=0, label=name, rasterized=True
        )
    left.set(xlabel="first component", ylabel="second component")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3, frameon=False)
    names, mine, random = _bar_values(coverage)
    places = np.arange(len(names))
    for shift, values, colour, label in (
        (-0.2, mine, BLUE, "chosen"),
        (0.2, random, GREY, "random"),
    ):
        bars = middle.bar(places + shift, values, 0.38, color=colour, label=label)
        middle.bar_label(bars, fmt="%.0f", fontsize=8)
    middle.set_xticks(places, names)
    middle.set(ylabel="%", ylim=(0, 112))
    middle.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2, frameon=False)
    centres, counts = _histograms(coverage)
    right.step(centres, counts[0], where="mid", color=BLUE, label="chosen")
    right.step(centres, counts[1], where="mid", color=GREY, label="random")
    right.axvline(coverage.reach, color=ORANGE, linestyle="--", label="reach")
    right.set(xlabel="distance to the nearest chosen row", ylabel="% of the pool", ylim=(0, None))
    right.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3, frameon=False)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    stream = BytesIO()
    canvas.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def _thinned(points: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    return points[:: max(1, -(-len(points) // most))]


def _map_points(coverage: Coverage) -> list[tuple[NDArray[np.float64], str, str, int]]:
    layers = [(_thinned(coverage.map_pool, MAP_POINTS), "pool", GREY, 4)]
    if len(coverage.map_known):
        layers.append((_thinned(coverage.map_known, KNOWN_POINTS), "known", GREEN, 12))
    return [*layers, (coverage.map_chosen, "chosen", ORANGE, 12)]


def _map(coverage: Coverage) -> Figure:
    data = [
        {
            # Markers in WebGL would be blocked by the page's own security policy in some browsers.
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": _rounded(points[:, 0]),
            "y": _rounded(points[:, 1]),
            "marker": {"color": colour, "size": 3 if name == "pool" else 6, "opacity": 0.7},
            "hoverinfo": "name",
        }
        for points, name, colour, _ in _map_points(coverage)
    ]
    layout = {
        "height": 560,
        "xaxis": axis("first principal component"),
        "yaxis": axis("second principal component"),
        "hovermode": "closest",
    }
    return {"data": data, "layout": layout}


def _bar_values(coverage: Coverage) -> tuple[list[str], list[float], list[float]]:
    mine, random = coverage.chosen, coverage.random
    return (
        ["coverage score", "within reach"],
        [100 * mine.score, 100 * mine.within_reach],
        [100 * random.score, 100 * random.within_reach],
    )


def _bars(coverage: Coverage) -> Figure:
    names, mine, random = _bar_values(coverage)
    data = [
        {
            "type": "bar",
            "name": label,
            "x": names,
            "y": values,
            "text": [f"{value:.1f} %" for value in values],
            "marker": {"color": colour},
            "hoverinfo": "name+y",
        }
        for label, values, colour in (("chosen", mine, BLUE), ("random", random, GREY))
    ]
    layout = {
        "height": 360,
        "yaxis": axis("%", range=[0, 105]),
        "xaxis": axis(""),
        "barmode": "group",
    }
    return {"data": data, "layout": layout}


def _histograms(coverage: Coverage) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Centres of bins, and the share in percent of each, of the choice and of a random one."""
    largest = max(coverage.distances.max(), coverage.random_distances.max(), 1e-12)
    edges = np.linspace(0.0, largest, BINS + 1)
    counts = [
        100 * np.histogram(distances, edges)[0] / len(distances)
        for distances in (coverage.distances, coverage.random_distances)
    ]
    return (edges[:-1] + edges[1:]) / 2, counts


def _distances(coverage: Coverage) -> Figure:
    centres, counts = _histograms(coverage)
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": _rounded(centres),
            "y": _rounded(values),
            "line": {"color": colour, "width": 2, "shape": "hvh"},
            "hovertemplate": "%{x:.3~g}: %{y:.3~g} %<extra>" + name + "</extra>",
        }
        for name, values, colour in (("chosen", counts[0], BLUE), ("random", counts[1], GREY))
    ]
    top = float(max(values.max() for values in counts))
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "reach",
            "x": [coverage.reach, coverage.reach],
            "y": [0, top],
            "line": {"color": ORANGE, "width": 2, "dash": "dash"},
            "hoverinfo": "name+x",
        }
    )
    layout = {
        "height": 360,
        "xaxis": axis("distance to the nearest chosen or known row", rangemode="tozero"),
        "yaxis": axis("% of the pool", rangemode="tozero"),
    }
    return {"data": data, "layout": layout}


def _rounded(values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
