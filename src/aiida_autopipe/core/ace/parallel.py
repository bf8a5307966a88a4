"""Independent tasks on all cores, their results in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController, threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_threads(wanted: int | None) -> int:
    """The number asked for, or every core this process may use."""
    if wanted is not None:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_blas_thread() -> AbstractContextManager[Any]:
    """BLAS on one thread, for products of a millisecond: its threads wait by turning round, which
    costs several times the product where cores are shared. Entered in 30 microseconds, which look
    for the libraries once only."""
    limit: AbstractContextManager[Any] = _blas_libraries().limit(limits=1, user_api="blas")
    return limit


@cache
def _blas_libraries() -> ThreadpoolController:
    return ThreadpoolController()


def in_threads(
    task: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Results in the order of the items; no more than ``threads`` + 1 wait to be taken.

    BLAS itself stays on one thread: many small independent tasks use the cores better.
    """
    with threadpool_limits(1, "blas"):
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


def short_tasks(
    task: Callable[[Item], Result], items: Sequence[Item], threads: int
) -> list[Result]:
    """All results in the order of the items, of tasks of a millisecond without BLAS.

    The calling thread works as well: one that only hands out tasks and waits wakes up after each
    of them, and takes a core from those that work. The first task that fails ends all.
    """
    results: dict[int, Result] = {}
    # Taking the next one is a single step of the interpreter, so no two threads get the same.
    left = iter(range(len(items)))

    def work() -> None:
        try:
            for k in left:
                results[k] = task(items[k])
        finally:
            for _ in left:
                pass

    with ThreadPoolExecutor(max(1, threads - 1)) as pool:
        others = [pool.submit(work) for _ in range(min(threads, len(items)) - 1)]
        work()
    for other in others:
        other.result()
    return [results[k] for k in range(len(items))]
