"""Independent tasks on all cores, their results in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_threads(wanted: int | None) -> int:
    """The number asked for, or every core this process may use."""
    if wanted is not None:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(
    task: Callable[[Item], Result], items: Iterable[Item], threads: int, *, blas: bool = True
) -> Iterator[Result]:
    """Results in the order of the items; no more than ``threads`` + 1 wait to be taken.

    BLAS itself stays on one thread: many small independent tasks use the cores better. Tasks that
    do without it say so with ``blas``, and spare the 10 ms that finding the libraries takes.
    """
    with threadpool_limits(1, "blas") if blas else nullcontext():
        if threads == 1:
            yield from map(task, items)
            return
        remaining = iter(items)
        with ThreadPoolExecutor(threads) as pool:
            waiting = [pool.submit(task, item) for item in islice(remaining, threads + 1)]
            try:
                while waiting:
                    result = waiting.pop(0).result()
                    waiting += [pool.submit(task, item) for item in islice(remaining, 1)]
                    yield result
            finally:
                pool.shutdown(cancel_futures=True)
