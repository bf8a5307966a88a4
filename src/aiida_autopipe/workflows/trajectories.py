"""Structure along the simulations of a run, collected from its provenance graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiida.orm import ArrayData, ProcessNode, WorkChainNode, load_node
from numpy.typing import NDArray

from aiida_autopipe.core.diffusion import diffusion
from aiida_autopipe.core.rdf import ANY, coordination_within, first_minimum
from aiida_autopipe.report.trajectory_model import (
    LabelledFrames,
    PairStructure,
    Trajectory,
    TrajectorySegment,
)
from aiida_autopipe.report.values import NodeRef

Arrays = dict[str, NDArray[Any]]

MOST_SHOWN = 4
"""Simulations whose structure a report shows; a plot each of more would hide the others."""
LONG_PS = 5.0
"""A plain simulation shorter than this is not shown."""
JUDGED = "judge_unlearned"


@dataclass(frozen=True)
class Piece:
    """What one potential ran of a simulation.

    Attributes:
        generation: whose potential.
        record: of the summary of the MD.
        node: the calculation.
        structure: arrays of its output `structure`.
    """

    generation: int
    record: dict[str, Any]
    node: ProcessNode
    structure: Arrays

    @property
    def first_step(self) -> int:
        """Where it began, counted from the beginning of the simulation."""
        return int(self.record.get("first_step", 0))


@dataclass(frozen=True)
class Frames:
    """Labelled frames and what the potential made of them before it learned them.

    Attributes:
        uuid: the simulation each frame is from.
        arrays: by frame, see `judge_unlearned`.
    """

    uuid: list[str]
    arrays: Arrays


def collect_trajectories(run: WorkChainNode) -> tuple[list[Trajectory], int]:
    """Simulations worth looking at, and how many others there are whose structure is known.

    Of a simulation that was begun again the one that came furthest is shown, with the labelled
    frames of all. Schedules and ramps come first, then the longest.
    """
    rounds = _rounds(run)
    found = [
        passes
        for passes in _passes(rounds).values()
        if any(piece.structure for piece in _furthest(passes))
    ]
    worth = [passes for passes in found if _worth_showing(_furthest(passes))]
    chosen = sorted(worth, key=lambda passes: _rank(_furthest(passes)))[:MOST_SHOWN]
    frames = _frames(run, rounds)
    return [_trajectory(passes, frames) for passes in chosen], len(found) - len(chosen)


# ---------------------------------------------------------------------- from the graph


def _rounds(run: WorkChainNode) -> dict[int, dict[int, dict[str, Any]]]:
    """Records of the simulations by generation, and by the index of their conditions."""
    rounds: dict[int, dict[int, dict[str, Any]]] = {}
    for step in sorted(run.called, key=lambda node: node.pk):
        if step.process_label != "MdWorkChain" or "summary" not in step.outputs:
            continue
        records = step.outputs.summary["simulations"]
        rounds[step.inputs.generation.value] = {
            record.get("index", position): record for position, record in enumerate(records)
        }
    return rounds


def _passes(rounds: dict[int, dict[int, dict[str, Any]]]) -> dict[int, list[list[Piece]]]:
    """Pieces of each simulation, a list for each time that it was begun."""
    passes: dict[int, list[list[Piece]]] = {}
    for records in rounds.values():
        for index, record in records.items():
            piece = _piece(record)
            known = passes.setdefault(index, [])
            if not known or piece.first_step == 0:
                known.append([])
            known[-1].append(piece)
    return passes


def _piece(record: dict[str, Any]) -> Piece:
    node = load_node(record["uuid"])
    structure = arrays_of(node.outputs.structure) if "structure" in node.outputs else {}
    # One that ran on while others were learned from belongs to the potential it has.
    return Piece(node.caller.inputs.generation.value, record, node, structure)


def arrays_of(node: ArrayData) -> Arrays:
    """Arrays of a node by name."""
    return {name: node.get_array(name) for name in node.get_arraynames()}


def _frames(run: WorkChainNode, rounds: dict[int, dict[int, dict[str, Any]]]) -> Frames:
    """All labelled frames of simulations; those of an older version have no place in one."""
    judged: dict[int, Arrays] = {}
    for node in sorted(run.called, key=lambda node: node.pk):
        if node.process_label == JUDGED and node.is_finished_ok:
            arrays = arrays_of(node.outputs.result)
            judged[int(arrays["generation"].max(initial=-1))] = arrays
    if not judged:
        return Frames([], {})
    shared = {name: judged[max(judged)][name] for name in ("r", "pairs")}
    parts = [p for p in judged.values() if np.array_equal(p["pairs"], shared["pairs"])]
    stacked = {n: np.concatenate([p[n] for p in parts]) for n in parts[0] if n not in shared}
    places = zip(stacked["generation"].tolist(), stacked["simulation"].tolist(), strict=True)
    uuids = [rounds.get(g, {}).get(s, {}).get("uuid", "") for g, s in places]
    return Frames(uuids, {**stacked, **shared})


# ---------------------------------------------------------------------- which ones


def _furthest(passes: list[list[Piece]]) -> list[Piece]:
    """The last of the passes that came furthest."""
    reached = [max(piece.record["steps_done"] for piece in pieces) for pieces in passes]
    return passes[max(range(len(passes)), key=lambda i: (reached[i], i))]


def _worth_showing(pieces: list[Piece]) -> bool:
    return _changes(pieces) or _picoseconds(pieces) >= LONG_PS


def _rank(pieces: list[Piece]) -> tuple[bool, bool, float]:
    record = pieces[-1].record
    return record["ensemble"] != "schedule", not _changes(pieces), -_picoseconds(pieces)


def _changes(pieces: list[Piece]) -> bool:
    return len(set(pieces[-1].record["temperature_K"])) > 1


def _picoseconds(pieces: list[Piece]) -> float:
    settings = pieces[-1].node.inputs.settings
    return float(pieces[-1].record["steps_done"] * settings.get("timestep_fs", 2.0) * 1e-3)


# ---------------------------------------------------------------------- one simulation


def _trajectory(passes: list[list[Piece]], frames: Frames) -> Trajectory:
    pieces = _furthest(passes)
    record = pieces[-1].record
    settings = pieces[-1].node.inputs.settings.get_dict()
    picoseconds = 1e-3 * float(settings.get("timestep_fs", 2.0))
    asked = settings["segments"]
    ends = np.cumsum([segment["steps"] for segment in asked])
    known = [piece for piece in pieces if piece.structure]
    time, density, msd = _series(pieces)
    heat_time, heat = _temperatures(pieces)
    mine = _of_simulation(frames, {piece.node.uuid for one in passes for piece in one})
    return Trajectory(
        name=", ".join(filter(None, [pieces[-1].node.label, record.get("start_name")])),
        generations=[piece.generation for piece in pieces],
        times_begun=len(passes),
        steps_done=record["steps_done"],
        steps_asked=record["steps_asked"],
        r=known[0].structure["r"],
        time_ps=time,
        density=density,
        msd=msd,
        temperature_time_ps=heat_time,
        temperature_K=heat,
        ends_ps=ends * picoseconds,
        segments=[
            _segment(number, segment, int(end), known, mine)
            for number, (segment, end) in enumerate(zip(asked, ends, strict=True), start=1)
            if any(number in _numbers(piece) for piece in known)
        ],
        frames=_errors(mine, picoseconds),
        nodes=[
            NodeRef(
                uuid=piece.node.uuid,
                pk=piece.node.pk,
                label=piece.node.label,
                kind=piece.node.process_label,
            )
            for piece in pieces
        ],
    )


def _numbers(piece: Piece) -> set[int]:
    both = (piece.structure["segment"], piece.structure["time_segment"])
    return {int(number) for part in both for number in part}


def _until_next(pieces: Sequence[Piece]) -> Iterable[tuple[Piece, float]]:
    """Pieces, and the step at which the next takes over: what came behind it was given up."""
    limits = [float(piece.first_step) for piece in pieces[1:]]
    return zip(pieces, [*limits, np.inf], strict=True)


def _series(pieces: list[Piece]) -> tuple[list[float], list[float], list[float]]:
    """Time, density and displacement; NaN where the displacement begins anew."""
    columns: tuple[list[float], list[float], list[float]] = ([], [], [])
    for piece, limit in _until_next(pieces):
        if not piece.structure:
            continue
        for number in sorted(set(piece.structure["time_segment"].tolist())):
            found = piece.structure
            rows = (found["time_segment"] == number) & (found["step"] <= limit)
            parts = (found["time_ps"], found["density"], found["msd"][:, 0])
            for column, part in zip(columns, parts, strict=True):
                column.extend([*part[rows].tolist(), float("nan")])
    return columns


def _temperatures(pieces: list[Piece]) -> tuple[list[float], list[float]]:
    times: list[float] = []
    heats: list[float] = []
    for piece, limit in _until_next(pieces):
        if "trace" in piece.node.outputs:
            trace = arrays_of(piece.node.outputs.trace)
            rows = trace["step"] <= limit
            times += trace["time_ps"][rows].tolist()
            heats += trace["temperature_K"][rows].tolist()
    return times, heats


def _of_simulation(frames: Frames, uuids: set[str]) -> Arrays:
    """Frames of one simulation, in the order of its steps."""
    rows = np.array([i for i, uuid in enumerate(frames.uuid) if uuid in uuids], dtype=int)
    if not len(rows):
        return {}
    rows = rows[np.argsort(frames.arrays["step"][rows], kind="stable")]
    shared = ("r", "pairs")
    return {n: array if n in shared else array[rows] for n, array in frames.arrays.items()}


def _errors(frames: Arrays, picoseconds: float) -> LabelledFrames:
    if not frames:
        return LabelledFrames()
    return LabelledFrames(
        time_ps=frames["step"] * picoseconds,
        generation=frames["generation"].tolist(),
        energy_error_per_atom=frames["energy_potential"] - frames["energy_reference"],
        forces_rmse=frames["forces_rmse"],
    )


# ---------------------------------------------------------------------- one segment


def _segment(
    number: int, asked: dict[str, Any], end: int, pieces: list[Piece], frames: Arrays
) -> TrajectorySegment:
    """A segment over all pieces that ran a part of it.

    The few steps behind a halt that were run again count twice in the mean distributions.
    """
    kelvin = asked["temperature_K"]
    pair = kelvin if isinstance(kelvin, list) else [kelvin, kelvin]
    same = pair[0] == pair[1]
    with_it = [piece for piece in pieces if number in _numbers(piece)]
    steps = np.concatenate([_rows(piece, number)["step"] for piece in with_it])
    density = np.concatenate([_rows(piece, number)["density"] for piece in with_it])
    tenth = max(1, len(density) // 10)
    begin = end - asked["steps"]
    inside = _inside(frames, begin, end)
    found, note = (None, "the temperature changes") if not same else _diffusion(with_it, number)
    return TrajectorySegment(
        number=number,
        name=f"{asked['ensemble']} {'-'.join(f'{k:g}' for k in pair[: 1 if same else 2])} K",
        generations=[piece.generation for piece in with_it],
        first_step=int(steps.min()) if len(steps) else begin,
        last_step=int(steps.max()) if len(steps) else begin,
        samples=sum(int(p.structure["samples"][r]) for p, r in _distributed(with_it, number)),
        pairs=_pairs(with_it, number, inside),
        density_start=float(density[:tenth].mean()) if len(density) else None,
        density_end=float(density[-tenth:].mean()) if len(density) else None,
        diffusion=found,
        diffusion_note=note,
        labelled=int(inside["whole"].sum()) if inside else 0,
        energy_rmse_per_atom=_rms(inside, "energy_potential", "energy_reference"),
        forces_rmse=_rms(inside, "forces_rmse"),
        forces_size=_rms(inside, "forces_size"),
    )


def _rows(piece: Piece, number: int) -> Arrays:
    rows = piece.structure["time_segment"] == number
    return {name: piece.structure[name][rows] for name in ("step", "time_ps", "density", "msd")}


def _distributed(pieces: list[Piece], number: int) -> list[tuple[Piece, int]]:
    """Pieces with distributions of a segment, and the row of each."""
    return [
        (piece, int(row))
        for piece in pieces
        for row in np.flatnonzero(piece.structure["segment"] == number)
    ]


def _diffusion(pieces: list[Piece], number: int) -> tuple[float | None, str]:
    """From the piece that is longest: each has an origin of its own."""
    rows = max((_rows(piece, number) for piece in pieces), key=lambda part: len(part["step"]))
    found = diffusion(rows["time_ps"], rows["msd"][:, 0])
    return found.coefficient, found.reason


def _inside(frames: Arrays, begin: int, end: int) -> Arrays:
    """Frames of a segment."""
    if not frames:
        return {}
    rows = (frames["step"] > begin) & (frames["step"] <= end)
    if begin == 0:
        rows |= frames["step"] == 0
    shared = ("r", "pairs")
    return {n: array if n in shared else array[rows] for n, array in frames.items()}


def _rms(frames: Arrays, name: str, minus: str | None = None) -> float | None:
    """Root mean square over frames, which all have the same number of atoms; None without any."""
    if not frames:
        return None
    values = frames[name] - (frames[minus] if minus else 0.0)
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(values**2))) if len(values) else None


def _pairs(pieces: list[Piece], number: int, frames: Arrays) -> list[PairStructure]:
    found = _distributed(pieces, number)
    if not found:
        return []
    r, names = found[0][0].structure["r"], found[0][0].structure["pairs"].tolist()
    weights = [piece.structure["samples"][row] for piece, row in found]
    g, coordination = (
        np.average([piece.structure[name][row] for piece, row in found], axis=0, weights=weights)
        for name in ("g", "coordination")
    )
    pairs = []
    for p, pair in enumerate(names):
        minimum = first_minimum(r, g[p])
        labelled = _labelled(frames, pair)
        own = None if labelled is None else _known(coordination_within(r, labelled[1], minimum))
        pairs.append(
            PairStructure(
                pair="all" if pair == [ANY, ANY] else "-".join(pair),
                g=g[p],
                labelled_g=[] if labelled is None else labelled[0],
                first_minimum=_known(minimum),
                coordination=_known(coordination_within(r, coordination[p], minimum)),
                labelled_coordination=own,
            )
        )
    return pairs


def _labelled(frames: Arrays, pair: list[str]) -> tuple[Any, Any] | None:
    """Mean g and coordination of the whole frames; None without any."""
    if not frames or pair not in frames["pairs"].tolist() or not frames["whole"].any():
        return None
    p = frames["pairs"].tolist().index(pair)
    whole = frames["whole"]
    return frames["g"][whole, p].mean(axis=0), frames["coordination"][whole, p].mean(axis=0)


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
