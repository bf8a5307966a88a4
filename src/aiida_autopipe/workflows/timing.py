"""Where the wall time of a run went."""

from __future__ import annotations

from datetime import datetime

from aiida.orm import CalcJobNode, WorkChainNode

KINDS = {
    "quantumespresso.pw": "pw.x",
    "autopipe.pw_batch": "pw.x",
    "autopipe.ase": "ASE",
    "autopipe.ace": "training",
    "autopipe.lammps": "MD",
}
ALWAYS = ("pw.x", "training", "MD")

Interval = tuple[float, float]


def time_shares(run: WorkChainNode) -> dict[str, float]:
    """Seconds of wall time by what was running.

    A kind of program gets the time during which at least one of its jobs ran; when kinds overlap,
    each gets its own. 'AiiDA' is the rest: the time in which no program ran at all.
    """
    end = run.mtime.timestamp()
    intervals: dict[str, list[Interval]] = {kind: [] for kind in KINDS.values()}
    for node in run.called_descendants:
        if isinstance(node, CalcJobNode):
            kind = KINDS.get(str(node.process_type).rsplit(":", 1)[-1])
            interval = _interval(node, end)
            if kind is not None and interval is not None:
                intervals[kind].append(interval)
    shares = {kind: _union(found) for kind, found in intervals.items() if found or kind in ALWAYS}
    busy = _union([interval for found in intervals.values() for interval in found])
    shares["AiiDA"] = max(0.0, (run.mtime - run.ctime).total_seconds() - busy)
    return shares


def _interval(node: CalcJobNode, end: float) -> Interval | None:
    """When a job ran: until the scheduler was last asked, for as long as the program says."""
    if node.base.caching.is_created_from_cache:
        return None
    checked = node.get_scheduler_lastchecktime()
    stop = min(
        end, checked.timestamp() if isinstance(checked, datetime) else node.mtime.timestamp()
    )
    seconds = _seconds(node)
    start = (
        node.ctime.timestamp() if seconds is None else max(node.ctime.timestamp(), stop - seconds)
    )
    return (start, stop) if stop > start else None


def _seconds(node: CalcJobNode) -> float | None:
    for output, key in (
        ("output_parameters", "wall_time_seconds"),
        ("metrics", "seconds"),
        ("results", "wall_seconds"),
    ):
        if output in node.outputs:
            value = node.outputs[output].get_dict().get(key)
            if value is not None:
                return float(value)
    return None


def _union(intervals: list[Interval]) -> float:
    total, reached = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return total
