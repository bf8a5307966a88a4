"""Settings of a fit with Pacemaker and the input.yaml they make.

Key names of the input are those of Pacemaker's documentation (pacemaker.readthedocs.io); the
defaults are its own recommendations for a general metal or semiconductor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

import yaml
from ase.data import atomic_numbers

from aiida_autopipe.core.errors import InputError

LADDERS = ("body_order", "power_order")
RADIAL = ("SBessel", "ChebExpCos", "ChebPow", "ChebLinear")
OPTIMIZERS = ("BFGS", "L-BFGS-B")

# Pacemaker refuses energies outside -20 to 250 eV/atom, and with them all labels.
LOWEST_ENERGY, HIGHEST_ENERGY = -20.0, 250.0


@dataclass(frozen=True)
class PacemakerSettings:
    """What a fit is asked for.

    Attributes:
        cutoff: radius of an environment, Å.
        n_functions: basis functions for each element; Pacemaker chooses them by its own ladder.
        n_densities: 1 for a linear potential, 2 adds the square root of a second density.
        radial: radial functions.
        kappa: share of forces in the loss, between 0 (energies only) and 1.
        l1, l2: weights of the sums of absolute and squared coefficients in the loss.
        smoothness: weight of the radial smoothness terms w0, w1 and w2.
        optimizer: 'BFGS', or 'L-BFGS-B' for many functions.
        max_iterations: steps of the optimiser in each fit.
        ladder_step: functions added in each step of ladder fitting; 0 fits all at once.
        ladder_type: order in which functions are added.
        fit_cycles: repetitions of a fit from its own, slightly changed result.
        batch_size: structures in one batch of TensorFlow.
        cutout_energies: also learn energies of structures with masked forces.
    """

    cutoff: float = 6.0
    n_functions: int = 300
    n_densities: int = 2
    radial: str = "SBessel"
    kappa: float = 0.3
    l1: float = 1e-8
    l2: float = 1e-8
    smoothness: float = 1e-8
    optimizer: str = "BFGS"
    max_iterations: int = 2000
    ladder_step: int = 0
    ladder_type: str = "body_order"
    fit_cycles: int = 1
    batch_size: int = 100
    cutout_energies: bool = False

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> PacemakerSettings:
        """Settings from plain values; missing ones take their defaults.

        Raises:
            InputError: an unknown key, a wrong type or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        for key in settings:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
                raise InputError(f"Unknown setting of Pacemaker '{key}'; {hint}")
        return cls(**settings)

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            self._check_type(name, value)
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(
                    f"The setting {name} of Pacemaker is {value}; it must be between {low:g} and "
                    f"{high:g}."
                )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(
                    f"The setting {name} of Pacemaker is '{getattr(self, name)}'; it must be one "
                    f"of {', '.join(choices)}."
                )

    def _check_type(self, name: str, value: Any) -> None:
        default = type(self).__dataclass_fields__[name].default
        wanted: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
        if isinstance(value, bool) != (wanted == (bool,)) or not isinstance(value, wanted):
            raise InputError(
                f"The setting {name} of Pacemaker is {value!r}; it must be {_WORDS[wanted[-1]]}."
            )


_BOUNDS = {
    "cutoff": (1.0, 20.0),
    "n_functions": (1, 10000),
    "n_densities": (1, 2),
    "kappa": (0.0, 1.0),
    "l1": (0.0, 1e6),
    "l2": (0.0, 1e6),
    "smoothness": (0.0, 1e6),
    "max_iterations": (1, 10**7),
    "ladder_step": (0, 10000),
    "fit_cycles": (1, 1000),
    "batch_size": (1, 10**6),
}
_WORDS: dict[type, str] = {
    float: "a number",
    int: "a whole number",
    str: "a word",
    bool: "true or false",
}
_CHOICES = {"radial": RADIAL, "ladder_type": LADDERS, "optimizer": OPTIMIZERS}


def fit_input(
    settings: PacemakerSettings,
    elements: Sequence[str],
    seed: int,
    train_file: str,
    test_file: str | None = None,
    base_file: str | None = None,
) -> str:
    """The text of input.yaml.

    Args:
        settings: what to fit.
        elements: symbols of the elements.
        seed: seed of the random numbers.
        train_file, test_file: datasets as Pacemaker reads them.
        base_file: B-basis .yaml of a potential to continue: its functions start with their
            coefficients, functions that the settings add start with zero.

    Raises:
        InputError: no element, or one that does not exist.
    """
    unknown = [e for e in elements if e not in atomic_numbers]
    if unknown or not elements:
        raise InputError(f"Pacemaker needs the elements of the data, not {list(elements)}.")
    potential: dict[str, Any] = {
        "deltaSplineBins": 0.001,
        "elements": sorted(elements),
        "embeddings": {"ALL": _embedding(settings)},
        "bonds": {"ALL": _bond(settings)},
        "functions": {"number_of_functions_per_element": settings.n_functions, **_SHAPE},
    }
    if base_file is not None:
        potential["initial_potential"] = base_file
    smoothness = {f"w{k}_rad": settings.smoothness for k in range(3)}
    fit: dict[str, Any] = {
        "loss": {
            "kappa": settings.kappa,
            "L1_coeffs": settings.l1,
            "L2_coeffs": settings.l2,
            **smoothness,
        },
        "optimizer": settings.optimizer,
        "maxiter": settings.max_iterations,
        "fit_cycles": settings.fit_cycles,
    }
    if settings.ladder_step:
        fit |= {"ladder_step": settings.ladder_step, "ladder_type": settings.ladder_type}
    data = {"filename": train_file}
    if test_file is not None:
        data["test_filename"] = test_file
    text: str = yaml.safe_dump(
        {
            "cutoff": float(settings.cutoff),
            "seed": seed,
            "potential": potential,
            "data": data,
            "fit": fit,
            "backend": {
                "evaluator": "tensorpot",
                "batch_size": settings.batch_size,
                "display_step": 50,
            },
        },
        sort_keys=False,
    )
    return text


# Radial and angular degrees by body order, from which Pacemaker takes the number asked for.
_SHAPE = {
    "ALL": {
        "nradmax_by_orders": [15, 6, 4, 3, 2],
        "lmax_by_orders": [0, 5, 3, 2, 1],
    }
}


def _embedding(settings: PacemakerSettings) -> dict[str, Any]:
    parameters = [1, 1] if settings.n_densities == 1 else [1, 1, 1, 0.5]
    return {
        "npot": "FinnisSinclairShiftedScaled",
        "fs_parameters": parameters,
        "ndensity": settings.n_densities,
    }


def _bond(settings: PacemakerSettings) -> dict[str, Any]:
    return {
        "radbase": settings.radial,
        "radparameters": [5.25],
        "rcut": float(settings.cutoff),
        "dcut": 0.01,
    }
