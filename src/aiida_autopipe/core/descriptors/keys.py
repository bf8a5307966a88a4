"""Groups of an HDF5 file that hold structures, by name, by pattern, or all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import h5py

from aiida_autopipe.core.errors import AutopipeError, InputError
from aiida_autopipe.core.foreign_arrays import NUMBERS, POSITIONS, find, follow

MAX_GROUPS = 1_000_000


def structure_groups(
    handle: h5py.File, positions: str | None = None, numbers: str | None = None
) -> list[str]:
    """Paths of the groups that have positions and atomic numbers, in the order of their names.

    Whether these can be used is not looked at. Links are not followed.

    Args:
        handle: the open file.
        positions: name of the positions; None takes the usual names.
        numbers: the same for the atomic numbers.
    """
    return [
        path
        for path, group in _all_groups(handle)
        if _has(group, positions, POSITIONS) and _has(group, numbers, NUMBERS)
    ]


def expand_keys(
    handle: h5py.File,
    patterns: Sequence[str],
    positions: str | None = None,
    numbers: str | None = None,
) -> list[str]:
    """Groups meant by paths and patterns such as ``runs/*``; each group once.

    A pattern, with ``*``, ``?`` or ``[]``, stands for the groups it matches that have positions and
    atomic numbers; ``*`` stops at a slash. A path stands for itself, even where there is nothing;
    so does a pattern that is the name of a group.

    Raises:
        InputError: a pattern that matches no such group.
    """
    chosen: dict[str, None] = {}
    known: list[str] | None = None
    for pattern in patterns:
        is_path = not any(mark in pattern for mark in "*?[")
        if is_path or isinstance(follow(handle, pattern), h5py.Group):
            chosen["/" + pattern.strip("/")] = None
            continue
        if known is None:
            known = structure_groups(handle, positions, numbers)
        absolute = "/" + pattern.strip("/")
        found = [path for path in known if PurePosixPath(path).match(absolute)]
        if not found:
            raise InputError(
                f"No group of '{handle.filename}' matches '{pattern}' and holds structures; "
                f"{describe_groups(known)}."
            )
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def describe_groups(groups: Sequence[str], most: int = 10) -> str:
    """A clause that lists groups with structures, for messages."""
    if not groups:
        return "no group holds positions and atomic numbers under the usual names"
    more = f" and {len(groups) - most} more" if len(groups) > most else ""
    return "groups with structures: " + ", ".join(groups[:most]) + more


def _all_groups(handle: h5py.File) -> list[tuple[str, h5py.Group]]:
    groups: list[tuple[str, h5py.Group]] = [("/", handle)]

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Group):
            groups.append((f"/{name}", item))
        return True if len(groups) > MAX_GROUPS else None

    handle.visititems(visit)
    return groups


def _has(group: h5py.Group, name: str | None, usual: Sequence[str]) -> bool:
    try:
        return find(group, name, usual, "") is not None
    except AutopipeError:
        return False
