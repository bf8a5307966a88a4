"""Failures of the machine, not of the physics: time, memory, a killed run, a lost output."""

from __future__ import annotations

from collections.abc import Sequence

from aiida_autopipe.engines.espresso.attempts import (
    Attempt,
    Decision,
    Parameters,
    Reject,
    Situation,
    Step,
)
from aiida_autopipe.engines.espresso.failure import Kind

MAX_SECONDS_GROWTH = 4.0
"""How much longer the next run may take where the input itself set a short limit."""
WALLCLOCK_PART = 0.95
"""Part of the job's wall time that pw.x may use: it needs the rest to write its files."""
MAX_STALLED = 2
"""Runs that end at the walltime without finishing a single iteration."""


def walltime(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """pw.x stopped in time and wrote its state: the next run goes on from it.

    A limit in the input that is shorter than that of the job (`max_seconds`) is raised, or a
    calculation of an hour would be cut into a hundred restarts.
    """
    last = history[-1]
    allowed = None if situation.wallclock_s is None else WALLCLOCK_PART * situation.wallclock_s
    limit = last.get("CONTROL", "max_seconds")
    changes: Parameters = {}
    words = ""
    if limit is not None and (allowed is None or float(limit) < 0.9 * allowed):
        longer = MAX_SECONDS_GROWTH * float(limit)
        longer = longer if allowed is None else min(longer, allowed)
        changes = {"CONTROL": {"max_seconds": longer}}
        words = f" with max_seconds {float(limit):g} -> {longer:g}"
    stalled = [a for a in history if a.failure is Kind.WALLTIME and not a.accuracies]
    if len(stalled) >= MAX_STALLED and not changes:
        seconds = "the limit" if limit is None else f"{float(limit):g} s"
        reason = f"{len(stalled)} runs of {seconds} did not finish a single SCF iteration"
        return Reject("ERROR_WALLTIME_TOO_SHORT", reason)
    if last.elsewhere or not last.accuracies:
        return Step(f"starting over{words}", changes)
    return Step(f"going on from where it stopped{words}", changes, "full", last.number)


def out_of_memory(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """Pools hold copies of the density and every rank its own tables: fewer of both need less."""
    last = history[-1]
    if last.pools > 1:
        return Step(f"using 1 pool instead of {last.pools}, which share memory", pools=1)
    if last.ranks > 1:
        ranks = last.ranks // 2
        return Step(f"using {ranks} instead of {last.ranks} MPI processes", ranks=ranks)
    if count_memory(history) == 1:
        changes: Parameters = {"ELECTRONS": {"diago_david_ndim": 2, "mixing_ndim": 4}}
        return Step(
            "asking for twice the memory, and keeping fewer trial vectors and densities",
            changes,
            memory_factor=2.0,
        )
    reason = f"it does not fit into memory with one process either ({last.seen})"
    return Reject("ERROR_OUT_OF_MEMORY", reason)


def count_memory(history: Sequence[Attempt]) -> int:
    """Runs that ended for want of memory, or may have, with one process."""
    kinds = (Kind.OUT_OF_MEMORY, Kind.KILLED)
    return sum(a.failure in kinds and a.ranks == 1 for a in history)


def killed(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """A signal says nothing about its reason: once it is bad luck, twice it is memory."""
    last = history[-1]
    if sum(a.failure is Kind.KILLED for a in history) == 1:
        return Step("starting over with the same settings")
    if last.pools > 1 or last.ranks > 1:
        return out_of_memory(history, own, situation)
    return Reject("ERROR_KILLED", f"it was killed every time ({last.seen})")


def too_many_pools(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """A pool without k-points has nothing to do; pw.x refuses to start."""
    last = history[-1]
    if last.pools == 1:
        return Reject("ERROR_INPUT_REFUSED", last.seen)
    return Step(f"using 1 pool instead of {last.pools}", pools=1)


def lost_output(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """Neither stdout, CRASH nor stderr say what happened: a full disk, a lost node. Once."""
    if sum(a.failure is Kind.LOST_OUTPUT for a in history) > 1:
        reason = f"its output was lost every time: {history[-1].seen}"
        return Reject("ERROR_OUTPUT_LOST", reason)
    return Step("starting over with the same settings")
