"""A pool of structures at a glance: a summary by origin, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_autopipe.core.files import complete_file
from aiida_autopipe.core.generate.rattle import smallest_distance

PICTURED = 12
"""Structures in the grid of a picture, at most."""


@dataclass(frozen=True)
class OriginSummary:
    """What the structures of one origin have in common.

    Attributes:
        origin: recorded by the generator.
        count: structures.
        atoms: smallest and largest number.
        volume_per_atom: smallest and largest in Å^3; None where a structure is not periodic.
        shortest_distance: of all structures, Å; None for single atoms.
    """

    origin: str
    count: int
    atoms: tuple[int, int]
    volume_per_atom: tuple[float, float] | None
    shortest_distance: float | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def summarise(structures: Sequence[Atoms]) -> list[OriginSummary]:
    """One summary for each origin, in the order of their first structures."""
    groups: dict[str, list[Atoms]] = {}
    for atoms in structures:
        groups.setdefault(str(atoms.info.get("origin", "unknown")), []).append(atoms)
    return [_summary(origin, group) for origin, group in groups.items()]


def _summary(origin: str, group: Sequence[Atoms]) -> OriginSummary:
    sizes = [len(atoms) for atoms in group]
    volumes = [_volume_per_atom(atoms) for atoms in group]
    known = [v for v in volumes if v is not None]
    shortest = min(smallest_distance(atoms) for atoms in group)
    return OriginSummary(
        origin=origin,
        count=len(group),
        atoms=(min(sizes), max(sizes)),
        volume_per_atom=(min(known), max(known)) if len(known) == len(volumes) else None,
        shortest_distance=float(shortest) if np.isfinite(shortest) else None,
    )


def _volume_per_atom(atoms: Atoms) -> float | None:
    return float(atoms.get_volume() / len(atoms)) if np.all(atoms.pbc) else None


def draw_pool(structures: Sequence[Atoms], path: Path) -> None:
    """A picture of a pool: a page for `.html`, otherwise what the suffix says (`.png`, `.svg` ...).

    The map shows for each structure its shortest distance over the volume for each atom, or over
    the number of atoms where structures are not periodic. An image has the first structures of
    each origin beside it.
    """
    if path.suffix.lower() in (".html", ".htm"):
        with complete_file(path) as target:
            target.write_text(_page(structures), encoding="utf-8")
        return
    _draw_image(structures, path)


def _map(structures: Sequence[Atoms]) -> tuple[str, dict[str, list[tuple[float, float, str]]]]:
    """Label of the horizontal axis, and the points of each origin: x, y and a text."""
    volumes = [_volume_per_atom(atoms) for atoms in structures]
    periodic = all(volume is not None for volume in volumes)
    points: dict[str, list[tuple[float, float, str]]] = {}
    for atoms, volume in zip(structures, volumes, strict=True):
        shortest = smallest_distance(atoms)
        if not np.isfinite(shortest):
            continue
        x = float(volume) if periodic and volume is not None else float(len(atoms))
        text = f"{atoms.get_chemical_formula()} {atoms.info.get('parameters', '')}"
        origin = str(atoms.info.get("origin", "unknown"))
        points.setdefault(origin, []).append((x, float(shortest), text))
    return ("volume per atom (Å³)" if periodic else "atoms"), points


def _page(structures: Sequence[Atoms]) -> str:
    import plotly.graph_objects as go

    label, points = _map(structures)
    figure = go.Figure()
    for origin, group in points.items():
        x, y, text = zip(*group, strict=True)
        figure.add_scatter(x=x, y=y, text=text, mode="markers", name=f"{origin} ({len(group)})")
    figure.update_layout(
        title=f"{len(structures)} structures",
        xaxis_title=label,
        yaxis_title="shortest distance (Å)",
        template="plotly_white",
    )
    return str(figure.to_html(include_plotlyjs=True))


def _draw_image(structures: Sequence[Atoms], path: Path) -> None:
    # Without pyplot: nothing global, no window.
    from ase.visualize.plot import plot_atoms
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = _examples(structures)
    columns = 4
    rows = max(1, -(-len(chosen) // columns))
    figure = Figure(figsize=(15.0, max(5.5, 2.6 * rows)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.0, 1.5])[0]
    _draw_map(left.add_subplot(), structures)
    panels = right.subplots(rows, columns, squeeze=False).ravel()
    for axes, atoms in zip(panels, chosen, strict=False):
        plot_atoms(atoms, axes, rotation="-75x,20y,5z", show_unit_cell=2)
        axes.set_title(f"{atoms.info.get('origin', '')}\n{atoms.get_chemical_formula()}", size=9)
    for axes in panels:
        axes.set_axis_off()
    suffix = path.suffix.lstrip(".").lower() or "png"
    with complete_file(path) as target:
        figure.savefig(target, format=suffix, dpi=110)


def _draw_map(axes: Any, structures: Sequence[Atoms]) -> None:
    label, points = _map(structures)
    markers = "osD^v<>PX*hd"
    for number, (origin, group) in enumerate(points.items()):
        x, y, _ = zip(*group, strict=True)
        axes.scatter(
            x,
            y,
            s=26,
            alpha=0.8,
            marker=markers[number % len(markers)],
            color=f"C{number % 10}",
            label=f"{origin} ({len(group)})",
        )
    axes.set_xlabel(label)
    axes.set_ylabel("shortest distance (Å)")
    axes.set_title(f"{len(structures)} structures")
    if points:
        axes.legend(fontsize=8)


def _examples(structures: Sequence[Atoms]) -> list[Atoms]:
    """Up to twelve structures, of each origin the first, then the second, and so on."""
    groups: dict[str, list[Atoms]] = {}
    for atoms in structures:
        groups.setdefault(str(atoms.info.get("origin", "")), []).append(atoms)
    chosen: list[Atoms] = []
    rank = 0
    while len(chosen) < PICTURED and any(len(group) > rank for group in groups.values()):
        chosen += [group[rank] for group in groups.values() if len(group) > rank]
        rank += 1
    # Those of an origin side by side.
    order = list(groups)
    chosen = chosen[:PICTURED]
    chosen.sort(key=lambda atoms: order.index(str(atoms.info.get("origin", ""))))
    return chosen
