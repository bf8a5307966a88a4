"""The settings of a fit: plain fields, so that they travel as JSON and as an AiiDA Dict."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, get_args

from aiida_autopipe.core.ace.active_set import FLOOR, TOLERANCE
from aiida_autopipe.core.errors import InputError

RADIAL_NAMES = ("SBessel", "ChebExpCos", "ChebPow", "ChebLinear")
SOLVERS = ("normal", "qr")


@dataclass(frozen=True)
class FitSettings:
    """How to fit a linear ACE potential; None leaves a number to the data.

    Attributes:
        cutoff: radius in Å; None searches, from 2.3 median nearest-neighbour distances.
        max_rank: largest number of neighbours in one function, 1 to 6; None tries 3 and 4.
        radial: radial functions, SBessel, ChebExpCos, ChebPow or ChebLinear.
        radial_lambda: shape parameter of the Chebyshev ones.
        degree_l_weight, rank_cost: functions are taken in order of
            sum(n + degree_l_weight l) + rank_cost (rank - 2), see `BasisSettings`.
        max_functions: largest number of functions per element; fewer are used when they predict
            held-out labels as well, or when the data has fewer than ``environments_per_function``
            distinct environments for each.
        environments_per_function: see ``max_functions``; 0 switches that limit off.
        candidates_per_function: the functions are chosen from so many times as many, by what they
            do for the labels; 1 takes the first ones in the order above.
        search: how many bases may be compared for what is None and for the number of functions;
            1 takes the first, with ``max_functions``.
        search_atoms: structures of about so many atoms, drawn by the seed, decide the search.
        time_limit: seconds after which no further basis is tried; None = no limit.
        energy_weight: factor on residuals in eV/atom; None = by cross validation.
        force_weight: factor on residuals in eV/Å.
        stress_weight: factor on residuals of the virial per atom in eV/atom; None = 0.05 times
            the energy weight, less where energies are fitted far better; 0 leaves stresses out.
        energy_scale: eV/atom above the lowest energy at which a structure counts half; 0 = never.
        force_scale: eV/Å at which the square of a residual counts half; 0 = never.
        regularisation: ridge parameter relative to the scaled columns; None = by cross validation.
        smoothness: prior widths fall as degree^-smoothness; None = by cross validation.
        n_folds: parts of the cross validation.
        solver: 'normal' for normal equations, 'qr' for triangular factors.
        zbl: take a ZBL core repulsion off the labels, which the potential then adds.
        zbl_inner, zbl_outer: its cut-offs in Å; None = from elements and shortest distances.
        cutout_energies: also learn the energy and stress of structures with masked atoms, whose
            boundary is part of these labels but not of the material.
        active_set_tolerance: largest gamma of a training environment.
        active_set_floor: relative size below which differences of environments are taken as noise.
        posterior: keep the posterior beside the potential, as uncertainties need it.
        threads: None = all cores this process may use. The result does not depend on it.
    """

    cutoff: float | None = None
    max_rank: int | None = None
    radial: str = "SBessel"
    radial_lambda: float = 2.0
    degree_l_weight: float = 0.4
    rank_cost: float = 1.0
    max_functions: int = 1200
    environments_per_function: float = 2.0
    candidates_per_function: int = 1
    search: int = 40
    search_atoms: int = 15000
    time_limit: float | None = None
    energy_weight: float | None = None
    force_weight: float = 1.0
    stress_weight: float | None = None
    energy_scale: float = 0.5
    force_scale: float = 5.0
    regularisation: float | None = None
    smoothness: float | None = None
    n_folds: int = 5
    solver: str = "normal"
    zbl: bool = False
    zbl_inner: float | None = None
    zbl_outer: float | None = None
    cutout_energies: bool = False
    active_set_tolerance: float = TOLERANCE
    active_set_floor: float = FLOOR
    posterior: bool = False
    threads: int | None = None

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
        for name, known in (("radial", RADIAL_NAMES), ("solver", SOLVERS)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"The fit setting {name} is '{getattr(self, name)}'; it must be one of "
                    f"{', '.join(known)}."
                )
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(
                    f"The fit setting {name} is {value}; it must be between {low:g} and {high:g}."
                )
        if (self.zbl_inner is None) != (self.zbl_outer is None):
            raise InputError("Give both zbl_inner and zbl_outer, or neither.")


_BOUNDS = {
    "cutoff": (1.0, 20.0),
    "max_rank": (1, 6),
    "radial_lambda": (1e-3, 100.0),
    "degree_l_weight": (0.1, 10.0),
    "rank_cost": (0.0, 10.0),
    "max_functions": (1, 5000),
    "environments_per_function": (0.0, 1e6),
    "candidates_per_function": (1, 10),
    "search": (1, 1000),
    "search_atoms": (100, 10**7),
    "time_limit": (0.0, 1e7),
    "energy_weight": (0.0, 1e6),
    "force_weight": (0.0, 1e6),
    "stress_weight": (0.0, 1e6),
    "energy_scale": (0.0, 1e6),
    "force_scale": (0.0, 1e6),
    "regularisation": (0.0, 1e6),
    "smoothness": (0.0, 10.0),
    "n_folds": (2, 20),
    "zbl_inner": (1e-3, 10.0),
    "zbl_outer": (1e-3, 10.0),
    "active_set_tolerance": (1.0 + 1e-6, 2.0),
    "active_set_floor": (1e-10, 0.1),
    "threads": (1, 256),
}


def _check_type(name: str, value: Any, annotation: Any) -> None:
    if value is None:
        if type(None) not in get_args(annotation):
            raise InputError(f"The fit setting {name} cannot be empty; leave it out or give it.")
        return
    if annotation is str:
        if not isinstance(value, str):
            raise InputError(f"The fit setting {name} is {value!r}; it must be a name.")
        return
    if annotation is bool:
        if not isinstance(value, bool):
            raise InputError(f"The fit setting {name} is {value!r}; it must be true or false.")
        return
    whole = annotation is int or int in get_args(annotation)
    allowed = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not math.isfinite(value):
        kind = "a whole number" if whole else "a number"
        raise InputError(f"The fit setting {name} is {value!r}; it must be {kind}.")
