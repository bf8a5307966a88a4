"""What became of a fit with Pacemaker.

Its exit code says little: a fit that diverged writes a potential all the same, one that ran out of
iterations ends with 0, and every refusal of data is a traceback with 1. The log, the metrics of
each iteration and the last line of the traceback together tell the cases apart.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

Failure = Literal["data", "energies", "diverged", "interrupted", "crashed"]

METRIC_NAMES = {
    "energy_rmse_per_atom": "rmse_epa",
    "forces_rmse": "rmse_f_comp",
    "forces_mae": "mae_f_comp",
}
"""Our names of errors (eV/atom, eV/Å) and those of the columns of Pacemaker's metrics files."""

_START = " I - Start pacemaker"
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|inf|nan)"


@dataclass(frozen=True)
class Outcome:
    """A fit as its files tell it.

    Attributes:
        version: of Pacemaker, '' where the log does not say.
        n_structures: structures in the training set, 0 where none were read.
        n_functions: basis functions of the last fit.
        iterations: of the last fit.
        loss: the last total loss; NaN where there was none.
        converged: the optimiser ended by itself and not at the limit of iterations.
        failure: why there is no usable potential; None for a good fit.
        message: one sentence for a failure, '' for a good fit.
    """

    version: str
    n_structures: int
    n_functions: int
    iterations: int
    loss: float
    converged: bool
    failure: Failure | None
    message: str


def last_run(log: str) -> str:
    """The part of a log that belongs to the last start: Pacemaker appends to an older log."""
    starts = [match.start() for match in re.finditer(re.escape(_START), log)]
    if not starts:
        return log
    return log[log.rfind("\n", 0, starts[-1]) + 1 :]


def read_metrics(text: str) -> dict[str, list[float]]:
    """Columns of metrics.txt, ladder_metrics.txt or test_metrics.txt.

    Rows that do not have all columns are left out: a fit that is killed leaves half of its last.
    The header is repeated where a fit was started again; only rows behind the last one count.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    headers = [k for k, words in enumerate(lines) if words[0] == "ladder_step"]
    if not headers:
        return {}
    names = lines[headers[-1]]
    columns: dict[str, list[float]] = {name: [] for name in names}
    for words in lines[headers[-1] + 1 :]:
        if len(words) == len(names) and all(re.fullmatch(_NUMBER, word) for word in words):
            for name, word in zip(names, words, strict=True):
                columns[name].append(float(word))
    return columns


def errors(metrics: dict[str, list[float]]) -> dict[str, float]:
    """The last errors under our names, in eV/atom and eV/Å; empty without any row."""
    return {
        ours: metrics[theirs][-1] for ours, theirs in METRIC_NAMES.items() if metrics.get(theirs)
    }


def judge(log: str, metrics: str, stderr: str = "") -> Outcome:
    """Whether a fit gave a potential that can be used, and if not, why.

    Args:
        log: log.txt.
        metrics: metrics.txt.
        stderr: the standard error, of which the last line counts.
    """
    run = last_run(log)
    table = read_metrics(metrics)
    losses = _losses(run) or table.get("loss", [])
    loss = losses[-1] if losses else math.nan
    failure, message = _failure(run, losses, stderr)
    results = re.findall(r"Optimization result\(success=(True|False)", run)
    version = re.search(r"pacemaker/pyace version: (\S+)", run)
    found = re.findall(r"(\d+) structures found", run)
    functions = re.findall(r"Number of params\./funcs:\s*\d+/(\d+)", run)
    iterations = re.findall(r"Iteration:\s*#(\d+)", run)
    return Outcome(
        version.group(1) if version else "",
        int(found[0]) if found else 0,
        int(functions[-1]) if functions else 0,
        int(iterations[-1]) if iterations else 0,
        loss,
        bool(results) and results[-1] == "True",
        failure,
        message,
    )


def _losses(run: str) -> list[float]:
    """Total losses of the iterations that the log shows."""
    return [float(text) for text in re.findall(rf"Loss:\s+Total:\s+({_NUMBER})", run)]


def _failure(run: str, losses: list[float], stderr: str) -> tuple[Failure | None, str]:
    """The kind of failure and a sentence, in the order in which they can be told apart."""
    said = _last_line(stderr)
    if "corrected energy" in run and "too extreme" in run:
        low, high = _energy_range(run)
        return "energies", (
            f"Pacemaker refused energies from {low} to {high} eV/atom; they must be between -20 "
            "and 250, so take off the energies of the isolated atoms."
        )
    if "NaNs" in said or "contains NaN" in said:
        return "data", f"The data contain values that are not numbers: {said}"
    if "FileNotFoundError" in said or "No such file" in said:
        return "data", f"A file of the data is missing: {said}"
    for step, loss in enumerate(losses):
        if not math.isfinite(loss):
            return "diverged", (
                f"The loss became {loss:g} in state {step} of those shown: look for forces or "
                "energies that are absurd, or fit fewer functions."
            )
    if said and ("Error" in said or "Exception" in said):
        return "crashed", f"Pacemaker ended with an error: {said}"
    if "Fitting done" not in run:
        return "interrupted", "Pacemaker was interrupted before its fit was done."
    return None, ""


def _energy_range(run: str) -> tuple[str, str]:
    found = re.search(
        rf"corrected energy \(min=({_NUMBER}) eV/atom, max=({_NUMBER}) eV/atom\)", run
    )
    return (found.group(1), found.group(2)) if found else ("?", "?")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
