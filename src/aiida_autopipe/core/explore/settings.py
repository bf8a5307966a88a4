"""What an exploration does, and the trajectories it consists of."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

import numpy as np

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError

ENSEMBLES = ("nvt", "npt")


@dataclass(frozen=True)
class ExploreSettings:
    """Conditions of the trajectories, and what ends them.

    Attributes:
        temperatures_K: of the trajectories, K.
        pressures_GPa: of the npt trajectories, GPa; positive compresses.
        ensembles: 'nvt' and 'npt'; npt changes the volume, not the shape of the cell.
        steps: of each trajectory.
        timestep_fs: fs; None takes 0.5 with hydrogen and 2 without.
        every: steps between two frames.
        seeds: trajectories for each start and condition, which differ in their random numbers.
        max_force: a larger force on an atom ends the trajectory, eV/Å.
        min_distance: two atoms closer than this part of the sum of their covalent radii end it.
        max_volume_change: a volume larger or smaller by this factor than at the start ends it.
        lost_distance: an atom without another within this distance ends it, Å.
        thermostat_fs: time constant of the Langevin thermostat, fs.
        barostat_fs: time constant of the barostat, fs.
    """

    temperatures_K: tuple[float, ...] = (300.0,)
    pressures_GPa: tuple[float, ...] = (0.0,)
    ensembles: tuple[str, ...] = ("nvt",)
    steps: int = 1000
    timestep_fs: float | None = None
    every: int = 20
    seeds: int = 1
    max_force: float = 50.0
    min_distance: float = 0.5
    max_volume_change: float = 2.0
    lost_distance: float = 6.0
    thermostat_fs: float = 100.0
    barostat_fs: float = 1000.0

    def __post_init__(self) -> None:
        for name in ("temperatures_K", "pressures_GPa", "ensembles"):
            value = getattr(self, name)
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                raise InputError(f"{name} must be a list, not {value!r}.")
            object.__setattr__(self, name, tuple(value))
        _check_conditions(self)
        for name in ("steps", "every", "seeds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {value!r}.")
        if self.every > self.steps:
            raise InputError(
                f"every ({self.every}) is more than steps ({self.steps}): there would be no frame."
            )
        positive = [f.name for f in fields(self) if f.type == "float"]
        for name in (*positive, *(["timestep_fs"] if self.timestep_fs is not None else [])):
            if not _is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise InputError(f"{name} must be a positive number, not {getattr(self, name)!r}.")
        if self.max_volume_change <= 1:
            raise InputError(
                f"max_volume_change must be more than 1, not {self.max_volume_change!r}."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExploreSettings:
        """Settings from a plain dictionary.

        Raises:
            InputError: an unknown key, or a value that cannot be used.
        """
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                near = get_close_matches(str(key), known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
                raise InputError(f"Unknown setting '{key}' of an exploration; {hint}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    def timestep_for(self, starts: Dataset) -> float:
        """The time step in fs for structures with these elements."""
        if self.timestep_fs is not None:
            return self.timestep_fs
        return 0.5 if "H" in starts.elements else 2.0


@dataclass(frozen=True)
class Trajectory:
    """One trajectory of an exploration.

    index: its number, which with the seed decides its random numbers; start: index of the start
    structure; ensemble; temperature_K; pressure_GPa, None for nvt; repeat: 0 to seeds - 1.
    """

    index: int
    start: int
    ensemble: str
    temperature_K: float
    pressure_GPa: float | None
    repeat: int

    def rng(self, seed: int) -> np.random.Generator:
        """Random numbers that depend on the seed and the index alone."""
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(self.index,)))


def plan(settings: ExploreSettings, n_starts: int) -> list[Trajectory]:
    """All trajectories: for each repeat, each condition, and each start."""
    conditions: list[tuple[str, float, float | None]] = []
    for temperature in settings.temperatures_K:
        for ensemble in settings.ensembles:
            pressures = settings.pressures_GPa if ensemble == "npt" else (None,)
            conditions += [(ensemble, temperature, pressure) for pressure in pressures]
    found: list[Trajectory] = []
    for repeat in range(settings.seeds):
        for ensemble, temperature, pressure in conditions:
            for start in range(n_starts):
                index = len(found)
                found.append(Trajectory(index, start, ensemble, temperature, pressure, repeat))
    return found


def fingerprint(
    settings: ExploreSettings, starts: Dataset, method: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Everything that decides the frames, as JSON values: equal ones may be continued."""
    geometry = hashlib.sha256()
    for array in (starts.offsets, starts.numbers, starts.positions, starts.cell, starts.pbc):
        geometry.update(np.ascontiguousarray(array[:]).tobytes())
    content = {
        "settings": settings.to_dict(),
        "starts": geometry.hexdigest()[:16],
        "surrogate": {key: method[key] for key in ("program", "settings", "fingerprint")},
        "seed": seed,
    }
    return json.loads(json.dumps(content))  # type: ignore[no-any-return]


def _check_conditions(settings: ExploreSettings) -> None:
    if not settings.temperatures_K or not settings.ensembles:
        raise InputError("An exploration needs at least one temperature and one ensemble.")
    for temperature in settings.temperatures_K:
        if not _is_number(temperature) or temperature <= 0:
            raise InputError(f"A temperature must be a positive number of K, not {temperature!r}.")
    for ensemble in settings.ensembles:
        if ensemble not in ENSEMBLES:
            near = get_close_matches(str(ensemble), ENSEMBLES, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "there are nvt and npt."
            raise InputError(f"There is no ensemble '{ensemble}'; {hint}")
    for pressure in settings.pressures_GPa:
        if not _is_number(pressure):
            raise InputError(f"A pressure must be a number of GPa, not {pressure!r}.")
    if "npt" in settings.ensembles and not settings.pressures_GPa:
        raise InputError("npt trajectories need at least one pressure.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
