"""What an MD run may be asked to do, checked before anything is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.strain_rate import AXES, check_strained_axes

Interface = Literal["library", "ml-pace"]
Ensemble = Literal["nve", "nvt", "npt"]
Coupling = Literal["iso", "aniso", "tri"]
Uncertainty = Literal["gamma", "committee"]


@dataclass(frozen=True)
class Segment:
    """One stretch of a run in one ensemble.

    Attributes:
        ensemble: 'nve', 'nvt' (Nosé-Hoover) or 'npt' (Nosé-Hoover).
        steps: number of time steps.
        temperature_K: at the start and at the end; only the first matters for 'nve', and there only
            when it is the first segment (initial velocities).
        pressure_GPa: target of 'npt', at the start and at the end.
        coupling: what 'npt' changes: the volume ('iso'), the three lengths ('aniso') or also the
            angles ('tri').
        strain_rate_per_ps: by axis x, y, z, the change of its length per ps as a part of what it is
            at the start of the segment; 'npt' leaves these axes alone.
    """

    ensemble: Ensemble
    steps: int
    temperature_K: tuple[float, float]
    pressure_GPa: tuple[float, float] = (0.0, 0.0)
    coupling: Coupling = "iso"
    strain_rate_per_ps: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Segment:
        """Check and convert one entry of `segments`.

        Raises:
            InputError: unknown or missing key, or a value out of range.
        """
        _check_keys(values, cls, "segment")
        ensemble, coupling = values["ensemble"], values.get("coupling", cls.coupling)
        if ensemble not in get_args(Ensemble):
            raise InputError(f"A segment's ensemble must be nve, nvt or npt, not {ensemble!r}.")
        if coupling not in get_args(Coupling):
            raise InputError(f"A segment's coupling must be iso, aniso or tri, not {coupling!r}.")
        rates = _strain_rates(values.get("strain_rate_per_ps") or {})
        check_strained_axes(ensemble, coupling, rates)
        return cls(
            ensemble=ensemble,
            steps=_count("steps", values["steps"]),
            temperature_K=_ramp("temperature_K", values["temperature_K"], above=0.0),
            pressure_GPa=_ramp("pressure_GPa", values.get("pressure_GPa", 0.0)),
            coupling=coupling,
            strain_rate_per_ps=rates,
        )

    def after(self, steps: int, timestep_fs: float) -> Segment:
        """What is left of the segment when so many of its steps are done.

        A strain rate refers to the length that the axis has then: a run that goes on keeps the
        speed in Å/ps.
        """
        part = steps / self.steps
        grown = 1e-3 * timestep_fs * steps
        return replace(
            self,
            steps=self.steps - steps,
            temperature_K=_rest(self.temperature_K, part),
            pressure_GPa=_rest(self.pressure_GPa, part),
            strain_rate_per_ps={
                axis: rate / (1.0 + rate * grown) for axis, rate in self.strain_rate_per_ps.items()
            },
        )


@dataclass(frozen=True)
class MdSettings:
    """An MD run watched by an uncertainty: the extrapolation grade gamma, or a committee.

    All that is called gamma here and in what the run writes is that uncertainty, in its unit.

    Attributes:
        segments: run one after the other; velocities go on from one to the next.
        gamma_select: frames whose largest gamma is above it are written.
        gamma_halt: the run ends, successfully, at the first check above it.
        uncertainty: 'gamma', without a unit, or 'committee': the standard deviation of the force on
            an atom over the posterior of the coefficients, in eV/Å.
        interface: 'ml-pace' for a LAMMPS with ML-PACE, 'library' for `autopipe-lammps`.
        timestep_fs: time step in fs.
        gamma_every: steps between two evaluations of gamma.
        thermo_every: steps between two lines of the trace; a multiple of gamma_every.
        max_frames: cap on the frames kept above gamma_select, spread evenly over them.
        keep_every: write every frame after so many steps, a multiple of gamma_every; 0 writes none.
    """

    segments: tuple[Segment, ...]
    gamma_select: float
    gamma_halt: float
    uncertainty: Uncertainty = "gamma"
    interface: Interface = "library"
    timestep_fs: float = 2.0
    gamma_every: int = 10
    thermo_every: int = 10
    max_frames: int = 100
    keep_every: int = 0

    @property
    def steps(self) -> int:
        """Steps of all segments together."""
        return sum(segment.steps for segment in self.segments)

    def remaining(self, first_step: int) -> tuple[Segment, ...]:
        """The segments that are left for a run that goes on from a step, the first of them cut.

        Raises:
            InputError: no step is left.
        """
        if not 0 <= first_step < self.steps:
            raise InputError(f"A run of {self.steps} steps cannot go on from step {first_step}.")
        left, done = [], first_step
        for segment in self.segments:
            if done >= segment.steps:
                done -= segment.steps
                continue
            left.append(segment.after(done, self.timestep_fs) if done else segment)
            done = 0
        return tuple(left)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MdSettings:
        """Check and convert plain settings, as they come from a node or a file.

        Raises:
            InputError: unknown or missing key, or a value out of range.
        """
        _check_keys(values, cls, "MD settings")
        segments = values["segments"]
        if not isinstance(segments, Sequence) or isinstance(segments, str) or not segments:
            raise InputError(f"segments must be a list of at least one segment, not {segments!r}.")
        interface = values.get("interface", cls.interface)
        if interface not in get_args(Interface):
            raise InputError(f"interface must be 'library' or 'ml-pace', not {interface!r}.")
        uncertainty = values.get("uncertainty", cls.uncertainty)
        if uncertainty not in get_args(Uncertainty):
            raise InputError(f"uncertainty must be 'gamma' or 'committee', not {uncertainty!r}.")
        kept = values.get("keep_every", cls.keep_every)
        settings = cls(
            segments=tuple(Segment.from_dict(segment) for segment in segments),
            gamma_select=_number("gamma_select", values["gamma_select"], above=0.0),
            gamma_halt=_number("gamma_halt", values["gamma_halt"], above=0.0),
            uncertainty=uncertainty,
            interface=interface,
            timestep_fs=_number(
                "timestep_fs", values.get("timestep_fs", cls.timestep_fs), above=0.0
            ),
            gamma_every=_count("gamma_every", values.get("gamma_every", cls.gamma_every)),
            thermo_every=_count("thermo_every", values.get("thermo_every", cls.thermo_every)),
            max_frames=_count("max_frames", values.get("max_frames", cls.max_frames)),
            keep_every=_count("keep_every", kept) if kept != 0 else 0,
        )
        settings._check_consistent()
        return settings

    def _check_consistent(self) -> None:
        if self.gamma_halt < self.gamma_select:
            raise InputError(
                f"gamma_halt ({self.gamma_halt}) must not be below gamma_select "
                f"({self.gamma_select}): a run would halt before it gives a candidate."
            )
        if self.uncertainty == "committee" and self.interface == "ml-pace":
            raise InputError(
                "ML-PACE has no committee: uncertainty 'committee' needs the interface 'library'."
            )
        for name in ("thermo_every", "keep_every"):
            if getattr(self, name) % self.gamma_every:
                raise InputError(
                    f"{name} ({getattr(self, name)}) must be a multiple of gamma_every "
                    f"({self.gamma_every}): gamma is known only at those steps."
                )


def _check_keys(values: Any, model: type[Any], name: str) -> None:
    if not isinstance(values, Mapping):
        raise InputError(f"{name} must be a mapping of keys to values, not {values!r}.")
    known = {f.name for f in fields(model)}
    required = {"segments", "gamma_select", "gamma_halt", "ensemble", "steps", "temperature_K"}
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = (
                f"did you mean '{near[0]}'" if near else f"known keys: {', '.join(sorted(known))}"
            )
            raise InputError(f"Unknown key '{key}' in {name}; {hint}.")
    missing = sorted((known & required) - set(values))
    if missing:
        raise InputError(f"{name} lacks the key '{missing[0]}'; add it.")


def _ramp(name: str, value: Any, above: float = -math.inf) -> tuple[float, float]:
    """[start, stop] or one number for both."""
    pair = (value, value) if isinstance(value, (int, float)) else value
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise InputError(f"A segment's {name} must be [start, stop], not {value!r}.")
    start, stop = (_number(name, one, above=above) for one in pair)
    return start, stop


def _rest(ramp: tuple[float, float], part: float) -> tuple[float, float]:
    return ramp[0] + part * (ramp[1] - ramp[0]), ramp[1]


def _strain_rates(values: Any) -> dict[str, float]:
    if not isinstance(values, Mapping) or set(values) - set(AXES):
        raise InputError(
            f"strain_rate_per_ps must be a mapping of x, y or z to a rate, not {values!r}."
        )
    return {axis: _number("strain_rate_per_ps", values[axis]) for axis in sorted(values)}


def _number(name: str, value: Any, above: float = -math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, not {value!r}.")
    if value <= above:
        raise InputError(f"{name} must be above {above:g}, not {value!r}.")
    return float(value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be a positive whole number, not {value!r}.")
    return value
