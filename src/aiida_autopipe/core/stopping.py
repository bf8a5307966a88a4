"""The stop rule of active learning: the history goes in, a decision and its reason come out."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isnan

from aiida_autopipe.core.errors import InputError


@dataclass(frozen=True)
class GenerationRecord:
    """What one generation of the loop did.

    ``generation`` counts from 1. ``survival`` is the mean fraction of the asked MD time before a
    halt (1 = nothing was halted), None when no MD was run. ``new_candidates`` is the number of
    frames above the selection threshold. ``labels_used`` and ``wall_seconds`` are totals since the
    start of the run, every attempted label calculation counted. ``energy_rmse`` (eV/atom) and
    ``forces_rmse`` (eV/Å) are those of the held-out set, None when there is none. ``unfinished``
    simulations still run, or ran with the potential of an earlier generation: they say nothing of
    this one.
    """

    generation: int
    survival: float | None
    new_candidates: int
    labels_used: int
    energy_rmse: float | None = None
    forces_rmse: float | None = None
    wall_seconds: float = 0.0
    unfinished: int = 0


@dataclass(frozen=True)
class StopRule:
    """When to stop.

    Hard limits: ``max_generations``, ``max_labels``, ``max_hours`` (None = no limit). Convergence,
    looked at from ``min_generations`` on, asks for all of: ``survival`` at least this fraction, at
    most ``max_new_candidates`` candidates, and held-out errors of at most ``energy_rmse_per_atom``
    (eV/atom) and ``forces_rmse`` (eV/Å); a threshold of None is not asked for.

    Raises InputError for limits that can never be met.
    """

    min_generations: int = 3
    max_generations: int = 10
    survival: float | None = 0.95
    max_new_candidates: int | None = 0
    energy_rmse_per_atom: float | None = None
    forces_rmse: float | None = None
    max_labels: int | None = None
    max_hours: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (value < 0 or isnan(value)):
                raise InputError(f"The stop rule has {field.name} = {value}; it must be positive.")
        for name in ("min_generations", "max_generations", "max_labels", "max_hours"):
            if getattr(self, name) == 0:
                raise InputError(f"The stop rule has {name} = 0; it must be positive.")
        if self.max_generations < self.min_generations:
            raise InputError(
                f"The stop rule has max_generations = {self.max_generations}, which is less than "
                f"min_generations = {self.min_generations}."
            )
        if self.survival is not None and self.survival > 1:
            raise InputError(
                f"The stop rule has survival = {self.survival}; a fraction is at most 1."
            )


@dataclass(frozen=True)
class Decision:
    """Whether to stop, and why in plain words with the values compared."""

    stop: bool
    reason: str


def decide(history: Sequence[GenerationRecord], rule: StopRule) -> Decision:
    """Decide after the last record of ``history`` whether another generation is worth running.

    Hard limits come first and hold from the first generation; convergence counts only once
    ``min_generations`` are done.
    """
    if not history:
        return Decision(False, "No generation has run yet.")
    last = history[-1]
    limit = _hard_limit(last, rule)
    if limit is not None:
        return Decision(True, limit)
    if last.generation < rule.min_generations:
        return Decision(
            False,
            f"Only {last.generation} of at least {rule.min_generations} generations have run.",
        )
    met, missed = _criteria(last, rule)
    if missed:
        return Decision(False, f"Not converged: {'; '.join(missed)}.")
    if not met:
        return Decision(False, "No convergence criterion is set; only hard limits stop the run.")
    return Decision(True, f"Converged after {last.generation} generations: {'; '.join(met)}.")


def _hard_limit(last: GenerationRecord, rule: StopRule) -> str | None:
    """The sentence of the first hard limit reached, if any."""
    if rule.max_labels is not None and last.labels_used >= rule.max_labels:
        return f"The label budget is used up: {last.labels_used} of {rule.max_labels} calculations."
    if rule.max_hours is not None and last.wall_seconds >= rule.max_hours * 3600:
        return (
            f"The time budget is used up: {last.wall_seconds / 3600:.2f} of "
            f"{rule.max_hours:g} hours."
        )
    if last.generation >= rule.max_generations:
        converged = ""
        met, missed = _criteria(last, rule)
        if missed:
            converged = f"; not converged: {'; '.join(missed)}"
        elif met:
            converged = f"; converged: {'; '.join(met)}"
        return f"All {rule.max_generations} generations have run{converged}."
    return None


def _criteria(last: GenerationRecord, rule: StopRule) -> tuple[list[str], list[str]]:
    """The convergence criteria that are met and those that are missed, as phrases."""
    met: list[str] = []
    missed: list[str] = []
    if last.unfinished:
        missed.append(f"{last.unfinished} simulations are those of an earlier potential")
    lower_bounds = [("MD survival", last.survival, rule.survival, "")]
    upper_bounds = [
        ("new candidates", last.new_candidates, rule.max_new_candidates, ""),
        ("held-out energy RMSE", last.energy_rmse, rule.energy_rmse_per_atom, " eV/atom"),
        ("held-out forces RMSE", last.forces_rmse, rule.forces_rmse, " eV/Å"),
    ]
    for sign, bounds in ((1, lower_bounds), (-1, upper_bounds)):
        words = ("at least", "below") if sign > 0 else ("at most", "above")
        for name, value, bound, unit in bounds:
            if bound is None:
                continue
            if value is None or isnan(value):
                missed.append(f"{name} is not known")
            elif sign * (value - bound) >= 0:
                met.append(f"{name} {value:.4g}{unit} ({words[0]} {bound:g}{unit})")
            else:
                missed.append(f"{name} {value:.4g}{unit} is {words[1]} {bound:g}{unit}")
    return met, missed
