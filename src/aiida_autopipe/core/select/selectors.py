"""Selection by the name of the method: ours, or one that another package registers.

A selector is a function ``(features, n, already, seed) -> indices``: an array (pool, d), how many
rows, an array (m, d) of what is known (m may be 0), and a whole number from which alone randomness
comes. It returns ``n`` different indices. Another package registers it as an entry point in the
group ``autopipe.selectors``; its name there is the name of the method.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.select.rows import Rows, TooFewRowsError, as_rows, check_number

GROUP = "autopipe.selectors"
BUILT_IN = ("direct", "fps")

Selector = Callable[[NDArray[Any], int, NDArray[Any], int], Any]


def check_method(method: str) -> None:
    """Raise InputError when nothing is registered under the name of a method."""
    if method not in BUILT_IN and method not in entry_points(group=GROUP).names:
        known = ", ".join([*BUILT_IN, *sorted(entry_points(group=GROUP).names)])
        raise InputError(f"There is no selection method '{method}'; known are {known}.")


def select_rows(
    method: str,
    features: Any,
    n: int,
    already: Any = None,
    seed: int = 0,
    k: int = 1,
    threads: int = 1,
) -> NDArray[np.int64]:
    """``n`` rows of ``features`` by a method.

    Args:
        method: 'direct', 'fps', or the name of a registered selector.
        features: the pool, as `rows.as_rows` takes it; a registered selector gets it as one array.
        n: how many.
        already: known rows, or None.
        seed: of what is random: the sample of DIRECT; farthest points need none.
        k: rows of each cluster, for DIRECT.
        threads: results do not depend on it.

    Raises:
        InputError: an unknown method, ``n`` or ``k`` out of range, too few different rows, or a
            registered selector that cannot be loaded or returns something else than ``n`` indices.
        DataError: NaN, infinity, or shapes that do not match.
    """
    check_method(method)
    rows = as_rows(features)
    check_number(n, rows.shape[0])
    if k != 1 and method != "direct":
        raise InputError(f"k = {k} is for the method 'direct'; '{method}' has no clusters.")
    # Here, because the configuration checks names of methods and must not wait for the kernels.
    from aiida_autopipe.core.select.direct import direct
    from aiida_autopipe.core.select.fps import farthest_point

    if method == "direct":
        rng = np.random.default_rng(seed)
        return direct(rows, n, already, rng, k=k, threads=threads)
    if method == "fps":
        return farthest_point(rows, n, already)
    return _foreign(method, rows, n, already, seed)


def select_at_most(
    method: str, features: Any, n: int, already: Any = None, seed: int = 0
) -> NDArray[np.int64]:
    """As `select_rows`, but fewer rows, perhaps none, where the pool has fewer different ones."""
    try:
        return select_rows(method, features, n, already, seed)
    except TooFewRowsError as error:
        return select_rows(method, features, error.available, already, seed)


def _foreign(method: str, rows: Rows, n: int, already: Any, seed: int) -> NDArray[np.int64]:
    (entry,) = list(entry_points(group=GROUP, name=method))[:1]
    try:
        selector: Selector = entry.load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"The selector '{method}' ({entry.value}) cannot be loaded: {error}."
        ) from error
    pool = rows.read(0, rows.shape[0])
    known = np.empty((0, pool.shape[1]), dtype=pool.dtype)
    if already is not None:
        covered = as_rows(already, "covered set")
        known = covered.read(0, covered.shape[0])
    chosen = np.asarray(selector(pool, n, known, seed))
    right = chosen.shape == (n,) and (n == 0 or chosen.dtype.kind in "iu")
    if (
        not right
        or len(np.unique(chosen)) < n
        or (n and not 0 <= chosen.min() <= chosen.max() < len(pool))
    ):
        raise InputError(
            f"The selector '{method}' ({entry.value}) did not return {n} different indices of the "
            f"{len(pool)} rows."
        )
    return chosen.astype(np.int64)
