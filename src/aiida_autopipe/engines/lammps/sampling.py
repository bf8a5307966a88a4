"""Structure along a simulation: what LAMMPS itself records, and how its files are read.

Of each segment LAMMPS writes the radial distribution functions (`compute rdf`), about 20 times, and
density and mean-square displacement (`compute msd`), about 200 times. These commands need no force,
so they are the same whatever evaluates the potential. Each segment has files of its own, and a run
that goes on from a restart begins its own: displacements are from the first step of the piece.

A file that was cut off or damaged gives what is whole in it: nothing here ever fails a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.rdf import (
    ANY,
    BINS,
    CUTOFF,
    Pair,
    bin_middles,
    coordination_within,
    element_pairs,
    first_minimum,
)
from aiida_autopipe.engines.lammps.settings import MdSettings

RDF_PATTERN = "rdf.*.dat"
MSD_PATTERN = "msd.*.dat"

SKIN = 1.0
"""Skin of the neighbour lists of the deck, Å."""

_RDF_SAMPLES = 20
_MSD_SAMPLES = 200


def rdf_file(segment: int) -> str:
    """File with the distributions of a segment, counted from 1."""
    return RDF_PATTERN.replace("*", str(segment))


def msd_file(segment: int) -> str:
    """File with density and displacements of a segment, counted from 1."""
    return MSD_PATTERN.replace("*", str(segment))


def displacement_names(present: Sequence[str]) -> tuple[str, ...]:
    """Of which atoms the displacement is recorded: all, then each of several elements."""
    names = sorted(set(present))
    return (ANY, *(names if len(names) > 1 else ()))


def sampling_setup(elements: Sequence[str], present: Sequence[str]) -> list[str]:
    """Commands before the first segment.

    Args:
        elements: element of each atom type.
        present: elements of the structure.
    """
    # `compute rdf` may look further than the potential, whose range may be short.
    lines = [
        f"comm_modify cutoff {CUTOFF + SKIN:.10g}",
        "variable autopipe_density equal density",
        'variable autopipe_flown equal "!(temp < 1.0e15)"',
    ]
    for name in displacement_names(present)[1:]:
        lines.append(f"group autopipe_{name} type {elements.index(name) + 1}")
    return lines


def sampling_begin(
    settings: MdSettings, segment: int, elements: Sequence[str], present: Sequence[str]
) -> list[str]:
    """Commands before a segment, counted from 1, also where only its rest is run."""
    steps = settings.segments[segment - 1].steps
    rdf_every = _every(steps, _RDF_SAMPLES, settings)
    msd_every = _every(steps, _MSD_SAMPLES, settings)
    types = {name: str(index) for index, name in enumerate(elements, start=1)} | {ANY: "*"}
    pairs = " ".join(f"{types[a]} {types[b]}" for a, b in element_pairs(present))
    lines = [f"compute autopipe_rdf all rdf {BINS} {pairs} cutoff {CUTOFF:.10g}"]
    columns = ["v_autopipe_density"]
    for name in displacement_names(present):
        # All atoms without the drift of their centre, which is that of none of the elements.
        group, com = ("all", "yes") if name == ANY else (f"autopipe_{name}", "no")
        compute = "autopipe_msd" if name == ANY else f"autopipe_msd_{name}"
        lines.append(f"compute {compute} {group} msd com {com}")
        columns.append(f"c_{compute}[4]")
    return [
        *lines,
        # `compute rdf` crashes on positions that are no numbers; the temperature tells of them.
        f"fix autopipe_flown all halt {settings.thermo_every} v_autopipe_flown > 0.5 error hard",
        f"fix autopipe_rdf all ave/time {rdf_every} 1 {rdf_every} c_autopipe_rdf[*] "
        f'mode vector file {rdf_file(segment)} format " %.10g"',
        f"fix autopipe_msd all ave/time {msd_every} 1 {msd_every} {' '.join(columns)} "
        f'file {msd_file(segment)} format " %.10g"',
    ]


def sampling_end(present: Sequence[str]) -> list[str]:
    """Commands behind a segment."""
    computes = [f"autopipe_msd_{name}" for name in displacement_names(present)[1:]]
    ended = ["autopipe_rdf", "autopipe_msd", *computes]
    return [
        "unfix autopipe_flown",
        "unfix autopipe_rdf",
        "unfix autopipe_msd",
        *(f"uncompute {name}" for name in ended),
    ]


def _every(steps: int, samples: int, settings: MdSettings) -> int:
    """Steps between samples, of which a segment has about so many.

    A multiple of `thermo_every`: the line of the trace, written before, tells of NaN in time.
    """
    return max(1, steps // (samples * settings.thermo_every)) * settings.thermo_every


# ---------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Table:
    """Samples of one file: steps (n,) and values (n, columns) or (n, rows, columns)."""

    step: NDArray[np.int64]
    values: NDArray[np.float64]


def parse_vectors(text: str) -> Table:
    """Blocks of `fix ave/time mode vector`, up to the first that is not whole."""
    lines = [line for line in text.split("\n")[:-1] if not line.startswith("#")]
    steps: list[int] = []
    blocks: list[NDArray[np.float64]] = []
    position = 0
    while position < len(lines):
        try:
            step, rows = (int(word) for word in lines[position].split())
            words = [line.split()[1:] for line in lines[position + 1 : position + 1 + rows]]
            block = np.array([[float(word) for word in row] for row in words])
        except ValueError:
            break
        if rows < 1 or len(words) < rows or block.ndim != 2:
            break
        if not np.all(np.isfinite(block)) or (blocks and block.shape != blocks[0].shape):
            break
        steps.append(step)
        blocks.append(block)
        position += 1 + rows
    values = np.array(blocks) if blocks else np.zeros((0, 0, 0))
    return Table(np.array(steps, dtype=np.int64), values)


def parse_scalars(text: str) -> Table:
    """Rows of `fix ave/time`, up to the first that is not whole."""
    steps: list[int] = []
    rows: list[list[float]] = []
    for line in text.split("\n")[:-1]:
        if line.startswith("#"):
            continue
        try:
            step, *words = line.split()
            row = [float(word) for word in words]
            number = int(step)
        except ValueError:
            break
        if (rows and len(row) != len(rows[0])) or not np.all(np.isfinite(row)):
            break
        steps.append(number)
        rows.append(row)
    return Table(np.array(steps, dtype=np.int64), np.array(rows, dtype=np.float64, ndmin=2))


def structure_arrays(
    files: Mapping[str, str], present: Sequence[str], timestep_fs: float
) -> dict[str, NDArray[Any]] | None:
    """Arrays of the output `structure` from the files of a run; None without a sample.

    For s segments with p pairs of elements and b bins: `segment` (s,), from 1; `first_step`,
    `last_step` and `samples` (s,) of the mean distributions; `r` (b,) in Å; `pairs` (p, 2);
    `g` and `coordination` (s, p, b), partners up to the end of each bin; `first_minimum` (s, p) in
    Å and `coordination_number` (s, p) up to there, NaN where there is none.
    For n samples of the displacement of a kinds of atoms: `time_segment`, `step` and `time_ps`
    (n,); `density` (n,) in g/cm³; `displaced` (a,), elements; `msd` (n, a) in Å² from the first
    step of each segment of this run.

    Args:
        files: content by name; others than those of segments are left aside.
        present: elements of the structure.
        timestep_fs: time step in fs.
    """
    numbers = sorted({int(name.split(".")[1]) for name in files if _is_ours(name)})
    pairs, displaced = element_pairs(present), displacement_names(present)
    rdf = {k: parse_vectors(files.get(rdf_file(k), "")) for k in numbers}
    msd = {k: parse_scalars(files.get(msd_file(k), "")) for k in numbers}
    # A table with other columns is not of this deck.
    rdf = {k: t for k, t in rdf.items() if t.values.shape[1:] == (BINS, 1 + 2 * len(pairs))}
    msd = {k: t for k, t in msd.items() if t.values.shape[1:] == (1 + len(displaced),)}
    if not any(len(table.step) for table in [*rdf.values(), *msd.values()]):
        return None
    arrays = _distributions({k: t for k, t in rdf.items() if len(t.step)}, pairs)
    steps = [t.step for t in msd.values()] or [np.zeros(0, dtype=np.int64)]
    values = [t.values for t in msd.values()] or [np.zeros((0, 1 + len(displaced)))]
    step, table = np.concatenate(steps), np.concatenate(values)
    return {
        **arrays,
        "time_segment": np.concatenate([np.full(len(t.step), k) for k, t in msd.items()] or steps),
        "step": step,
        "time_ps": step * timestep_fs * 1e-3,
        "density": table[:, 0],
        "displaced": np.array(displaced),
        "msd": table[:, 1:],
    }


def _is_ours(name: str) -> bool:
    parts = name.split(".")
    return len(parts) == 3 and parts[0] in ("rdf", "msd") and parts[1].isdigit()


def _distributions(tables: Mapping[int, Table], pairs: Sequence[Pair]) -> dict[str, NDArray[Any]]:
    r = bin_middles()
    shape = (len(tables), len(pairs), BINS)
    g, coordination = np.zeros(shape), np.zeros(shape)
    minimum, number = np.zeros(shape[:2]), np.zeros(shape[:2])
    for row, table in enumerate(tables.values()):
        mean = table.values.mean(axis=0)
        g[row], coordination[row] = mean[:, 1::2].T, mean[:, 2::2].T
        for p in range(len(pairs)):
            minimum[row, p] = first_minimum(r, g[row, p])
            number[row, p] = coordination_within(r, coordination[row, p], minimum[row, p])
    return {
        "segment": np.array(list(tables), dtype=np.int64),
        "first_step": np.array([t.step[0] for t in tables.values()], dtype=np.int64),
        "last_step": np.array([t.step[-1] for t in tables.values()], dtype=np.int64),
        "samples": np.array([len(t.step) for t in tables.values()], dtype=np.int64),
        "r": r,
        "pairs": np.array(pairs),
        "g": g,
        "coordination": coordination,
        "first_minimum": minimum,
        "coordination_number": number,
    }
