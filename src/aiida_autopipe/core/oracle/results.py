"""What a job of an oracle left behind: an outcome for each structure, and the labels.

The file is read line by line, so it counts for what it holds however the job ended. Its first line
tells the versions of the programs, its last one that the job came to its end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError

OUTCOMES = ("ok", "failed", "not_run")


@dataclass(frozen=True)
class JobResults:
    """The lines of a results file.

    Attributes:
        records: position -> the worker's record, for structures that have one.
        started: positions that a worker was given.
        versions: of the calculator's package and of ASE.
        ended: how the job ended, 'done' or 'time'; None when it was cut off.
    """

    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    started: set[int] = field(default_factory=set)
    versions: dict[str, Any] = field(default_factory=dict)
    ended: str | None = None

    def outcomes(self, n_structures: int, reason: str) -> list[dict[str, Any]]:
        """Exactly one entry for each structure.

        Args:
            n_structures: of the data set.
            reason: why structures that have no record were not run.
        """
        return [
            outcome(position, self.records.get(position), self._reason(position, reason))
            for position in range(n_structures)
        ]

    def _reason(self, position: int, reason: str) -> str:
        if position in self.started:
            return f"It was being calculated when the job stopped: {reason}"
        return reason


def outcome(position: int, record: Mapping[str, Any] | None, reason: str) -> dict[str, Any]:
    """The entry of one structure; without a record it was not run, for the given reason."""
    entry = record or {"outcome": "not_run", "reason": reason}
    return {
        "position": position,
        "outcome": entry["outcome"],
        "reason": entry.get("reason"),
        "exit_status": entry.get("exit_status"),
        "seconds": entry.get("seconds"),
    }


def read_results(text: str, sizes: Mapping[int, int]) -> JobResults:
    """Read a results file; a last line that was cut off does not count.

    Args:
        text: the file.
        sizes: number of atoms by position.

    Raises:
        DataError: a line that no job of an oracle writes.
    """
    results = JobResults()
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            kind = entry["kind"]
            if kind == "versions":
                results.versions.update(entry["versions"])
            elif kind == "started":
                results.started.add(int(entry["position"]))
            elif kind == "result":
                results.records[int(entry["position"])] = _checked(entry, sizes)
            elif kind == "end":
                results = replace(results, ended=str(entry["ended"]))
            else:
                raise ValueError(f"it is of the unknown kind '{kind}'")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"line {number} is not what the job writes: {error}") from error
    return results


def _checked(entry: dict[str, Any], sizes: Mapping[int, int]) -> dict[str, Any]:
    size = sizes[int(entry["position"])]
    if entry["outcome"] not in OUTCOMES:
        raise ValueError(f"the outcome is '{entry['outcome']}'")
    if entry["outcome"] != "ok":
        return entry
    shapes = {"energy": (), "forces": (size, 3), "stress": (6,), "positions": (size, 3)}
    for name, shape in shapes.items():
        value = entry[name]
        if value is None and name in ("stress", "positions"):
            continue
        array = np.asarray(value, dtype=float)
        if array.shape != shape or not np.all(np.isfinite(array)):
            raise ValueError(f"{name} of shape {array.shape} instead of {shape}, or not finite")
    return entry


def labelled(source: Dataset, results: JobResults, method: Mapping[str, Any]) -> Dataset | None:
    """The structures that have labels, with the column `position`; None when there are none.

    What the source had of labels and reference energies is of another method and dropped.
    """
    ok = sorted(p for p, record in results.records.items() if record["outcome"] == "ok")
    if not ok:
        return None
    chosen = source[np.array(ok, dtype=int)]
    records = [results.records[position] for position in ok]
    positions = chosen.positions[:].copy()
    for i, record in enumerate(records):
        if record["positions"] is not None:
            positions[chosen.offsets[i] : chosen.offsets[i + 1]] = record["positions"]
    missing = [np.nan] * 6
    stress = np.array([r["stress"] or missing for r in records], dtype=float)
    attributes = {k: v for k, v in source.attributes.items() if k != "reference_energies"}
    found = replace(
        chosen,
        positions=positions,
        energy=np.array([r["energy"] for r in records], dtype=float),
        forces=np.concatenate([np.asarray(r["forces"], dtype=float) for r in records]),
        stress=None if np.all(np.isnan(stress)) else stress,
        attributes={**attributes, "method": dict(method)},
    )
    return found.with_columns(position=ok)
