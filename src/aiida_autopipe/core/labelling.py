"""Which structures are labelled together in one job, and how many attempts a budget pays for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Mode = Literal["auto", "batch", "single"]
MODES: tuple[Mode, ...] = ("auto", "batch", "single")

SMALL_SECONDS = 120.0
"""A structure of at most so many CPU seconds shares a job: AiiDA spends seconds on each job."""
LONGEST_BATCH_SECONDS = 1200.0
"""A batch should be over in so long: its labels are known, and safe, only when it ends."""


@dataclass(frozen=True)
class Task:
    """One process to start.

    Attributes:
        name: unique in a campaign, so that a restarted work chain finds what it started.
        kind: 'batch' or 'single'.
        indices: structures of the dataset, in order.
    """

    name: str
    kind: Literal["batch", "single"]
    indices: tuple[int, ...]


def plan_batches(
    seconds: Mapping[int, float], slots: int, jobs: int, longest: float = LONGEST_BATCH_SECONDS
) -> list[list[int]]:
    """Share structures out to batches of about equal length, each sorted by index.

    Args:
        seconds: index -> estimated CPU seconds.
        slots: structures that run at the same time in one batch.
        jobs: batches that run at the same time.
        longest: estimated wall seconds of one batch.
    """
    if not seconds:
        return []
    count = math.ceil(sum(seconds.values()) / (slots * longest))
    count = min(max(count, min(jobs, len(seconds) // slots), 1), len(seconds))
    batches: list[list[int]] = [[] for _ in range(count)]
    loads = [0.0] * count
    # Longest first, each to the batch that has least: no batch ends much later than the others.
    for index in sorted(seconds, key=lambda i: (-seconds[i], i)):
        least = loads.index(min(loads))
        batches[least].append(index)
        loads[least] += seconds[index]
    return [sorted(batch) for batch in batches]


def affordable_attempts(left: int, waiting: int, most: int) -> int:
    """Calculations that one structure may use now.

    Args:
        left: calculations the budget still has, those reserved by running processes taken off.
        waiting: structures behind this one; each keeps one calculation as far as the budget goes.
        most: the most for one structure.
    """
    return max(0, min(most, left, 1 + max(0, left - 1 - waiting)))
