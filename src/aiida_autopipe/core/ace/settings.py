"""The settings of a fit: plain fields, so that they travel as JSON and as an AiiDA Dict."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, get_args

from aiida_autopipe.core.ace.active_set import FLOOR, TOLERANCE
from aiida_autopipe.core.errors import InputError

RADIAL_NAMES = ("SBessel", "ChebExpCos", "ChebPow", "ChebLinear")


@dataclass(frozen=True)
class FitSettings:
    """How to fit a linear ACE potential; None leaves a number to the data.

    Attributes:
        cutoff: radius in Å; None takes 2.3 median nearest-neighbour distances.
        max_rank: largest number of neighbours in one function, 1 to 5.
        radial: radial functions, SBessel, ChebExpCos, ChebPow or ChebLinear.
        radial_lambda: shape parameter of the Chebyshev ones.
        degree_l_weight: functions are taken in order of sum(n + degree_l_weight l).
        max_functions: largest number of functions per element; fewer are used when the data has
            fewer than ``environments_per_function`` distinct environments for each.
        environments_per_function: see ``max_functions``; 0 always uses ``max_functions``.
        energy_weight: factor on residuals in eV/atom; None = by cross validation.
        force_weight: factor on residuals in eV/Å.
        stress_weight: factor on residuals of the virial per atom in eV/atom; None = 0.05 times
            the energy weight; 0 leaves stresses out.
        regularisation: ridge parameter relative to the scaled columns; None = by cross validation.
        smoothness: prior widths fall as degree^-smoothness; None = by cross validation.
        n_folds: parts of the cross validation.
        active_set_tolerance: largest gamma of a training environment.
        active_set_floor: relative size below which differences of environments are taken as noise.
        threads: design matrices computed at the same time.
    """

    cutoff: float | None = None
    max_rank: int = 4
    radial: str = "SBessel"
    radial_lambda: float = 2.0
    degree_l_weight: float = 0.5
    max_functions: int = 300
    environments_per_function: float = 2.0
    energy_weight: float | None = None
    force_weight: float = 1.0
    stress_weight: float | None = None
    regularisation: float | None = None
    smoothness: float | None = None
    n_folds: int = 5
    active_set_tolerance: float = TOLERANCE
    active_set_floor: float = FLOOR
    threads: int = 1

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FitSettings":
        """Settings from plain values; raises InputError for unknown keys, types and ranges."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
                raise InputError(f"Unknown fit setting '{key}'; {hint}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), field.type)
        if self.radial not in RADIAL_NAMES:
            raise InputError(
                f"The fit setting radial is '{self.radial}'; it must be one of "
                f"{', '.join(RADIAL_NAMES)}."
            )
        bounds = {
            "cutoff": (1.0, 20.0),
            "max_rank": (1, 5),
            "radial_lambda": (1e-3, 100.0),
            "degree_l_weight": (0.1, 10.0),
            "max_functions": (1, 5000),
            "environments_per_function": (0.0, 1e6),
            "energy_weight": (0.0, 1e6),
            "force_weight": (0.0, 1e6),
            "stress_weight": (0.0, 1e6),
            "regularisation": (0.0, 1e3),
            "smoothness": (0.0, 10.0),
            "n_folds": (2, 20),
            "active_set_tolerance": (1.0 + 1e-6, 2.0),
            "active_set_floor": (1e-10, 0.1),
            "threads": (1, 256),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(
                    f"The fit setting {name} is {value}; it must be between {low:g} and {high:g}."
                )


def _check_type(name: str, value: Any, annotation: Any) -> None:
    if value is None:
        if type(None) not in get_args(annotation):
            raise InputError(f"The fit setting {name} cannot be empty; leave it out or give it.")
        return
    if annotation is str:
        if not isinstance(value, str):
            raise InputError(f"The fit setting {name} is {value!r}; it must be a name.")
        return
    allowed = int if annotation is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not math.isfinite(value):
        kind = "a whole number" if annotation is int else "a number"
        raise InputError(f"The fit setting {name} is {value!r}; it must be {kind}.")
