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
LESS_MEMORY = {"diago_david_ndim": 2, "mixing_ndim": 4}
"""The smallest useful numbers of trial vectors and of old densities."""
MEMORY_GROWTH = 4
"""How many times the memory that was asked for first may be asked for at last."""
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
    """Pools hold copies of the density and every rank its own tables: fewer of both need less.

    The machines stay the same: on fewer of them there would be less memory, not more.
    """
    last = history[-1]
    if last.pools > 1:
        return Step(f"using 1 pool instead of {last.pools}, which share memory", pools=1)
    if last.ranks > last.machines:
        each = last.ranks // last.machines
        where = " on each machine" if last.machines > 1 else ""
        return Step(f"using {each // 2} instead of {each} MPI processes{where}", ranks=each // 2)
    more = _more_memory(history)
    if more is not None:
        return more
    reason = f"it does not fit into memory with one process either ({last.seen})"
    return Reject("ERROR_OUT_OF_MEMORY", reason)


def _more_memory(history: Sequence[Attempt]) -> Step | None:
    """Twice the memory, where some was asked for, and fewer vectors to keep in it."""
    last = history[-1]
    changes: Parameters = {}
    if any(last.get("ELECTRONS", key) != value for key, value in LESS_MEMORY.items()):
        changes = {"ELECTRONS": dict(LESS_MEMORY)}
    fewer = "keeping fewer trial vectors and densities"
    asked = last.memory_kb
    if not asked:
        return Step(fewer, changes) if changes else None
    first = next(a.memory_kb for a in history if a.memory_kb)
    if asked >= MEMORY_GROWTH * first:
        return None
    words = f"asking for twice the memory ({asked} -> {2 * asked} kB)"
    words += f" and {fewer}" if changes else ""
    return Step(words, changes, memory_kb=2 * asked)


def killed(history: Sequence[Attempt], own: Parameters, situation: Situation) -> Decision:
    """A signal says nothing about its reason: once it is bad luck, twice it may be memory."""
    last = history[-1]
    times = sum(a.failure is Kind.KILLED for a in history)
    if times == 1:
        return Step("starting over with the same settings")
    if last.pools > 1 or last.ranks > last.machines:
        return out_of_memory(history, own, situation)
    if last.memory_kb and times == 2:
        more = _more_memory(history)
        if more is not None:
            return more
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
