"""The section `md` of the configuration: molecular dynamics with the potential."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from aiida_autopipe.config.section import CodeLabel, Count, Positive, Repeats, Section
from aiida_autopipe.config.trainers import ACE_TRAINER
from aiida_autopipe.core.descriptors.make import check_settings
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.strain_rate import check_strained_axes
from aiida_autopipe.core.thresholds import AUTO

Ensemble = Literal["nve", "nvt", "npt"]


def _temperature(value: Any) -> float | list[float]:
    """A temperature in K, or the two ends of a ramp."""
    if isinstance(value, list) and len(value) != 2:
        raise ValueError(f"{value!r} must be a temperature, or a ramp [from, to]")
    for kelvin in value if isinstance(value, list) else [value]:
        if isinstance(kelvin, bool) or not isinstance(kelvin, int | float):
            raise ValueError(f"{kelvin!r} must be a number")
        if not math.isfinite(kelvin):
            raise ValueError(f"{kelvin!r} must be a finite number")
        if kelvin <= 0:
            raise ValueError(f"{kelvin!r} must be greater than 0")
    return [float(kelvin) for kelvin in value] if isinstance(value, list) else float(value)


Temperature = Annotated[Any, AfterValidator(_temperature)]


def _threshold(value: Any) -> float | str:
    """A number above zero, or 'auto'."""
    if value == AUTO:
        return AUTO
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} must be a number, or 'auto'")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{value!r} must be a finite number greater than 0, or 'auto'")
    return float(value)


Threshold = Annotated[Any, AfterValidator(_threshold)]


class MdDescriptors(Section):
    """Features of the candidate frames of the MD."""

    descriptor: Literal["soap", "ace"]
    """What describes the surroundings of an atom."""
    average: bool = True
    """The mean over the atoms of each frame instead of a row for each atom."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the descriptor; without any, ACE takes the basis of the potential itself."""

    @model_validator(mode="after")
    def _known_settings(self) -> Self:
        try:
            check_settings(self.descriptor, self.settings)
        except InputError as error:
            raise ValueError(str(error)) from error
        return self


class MdSegment(Section):
    """One stretch of the schedule."""

    ensemble: Ensemble
    """Its ensemble."""
    temperature_K: Temperature
    """Temperature, K, or a ramp [from, to]."""
    steps: Count | None = None
    """Its steps; null: those of a trajectory."""
    pressure_GPa: float | Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Pressure of npt, GPa, or a ramp [from, to]; null: that of the trajectories."""
    coupling: Literal["iso", "aniso", "tri"] = "iso"
    """What npt changes: the volume, the three lengths, or also the angles."""
    strain_rate_per_ps: dict[Literal["x", "y", "z"], float] = Field(default_factory=dict)
    """Change of the length of an axis per ps, as a part of the length, such as {x: 0.001}."""

    @model_validator(mode="after")
    def _barostat_beside_strain(self) -> Self:
        try:
            check_strained_axes(self.ensemble, self.coupling, self.strain_rate_per_ps)
        except InputError as error:
            raise ValueError(str(error)) from error
        return self


class MdEmbed(Section):
    """Small cells around uncertain atoms, labelled instead of whole frames."""

    radius_A: Positive
    """Atoms this close to the uncertain one are learned from, Å."""
    buffer_A: Positive
    """What surrounds them in the cell, Å; about the cutoff of the potential."""


class Md(Section):
    """Molecular dynamics with the potential, in search of structures it does not know."""

    code: CodeLabel
    """The LAMMPS code in AiiDA."""
    interface: Literal["auto", "library", "ml-pace"]
    """How LAMMPS gets the forces: its ML-PACE package, or the built-in evaluator as a library."""
    temperatures_K: list[Temperature]
    """Temperatures, K, or ramps [from, to]; one trajectory for each and each ensemble."""
    ensembles: Annotated[list[Ensemble], Field(min_length=1)]
    """Ensembles of the trajectories."""
    pressure_GPa: float
    """Pressure of the npt trajectories, GPa."""
    steps: Count
    """Steps of one trajectory."""
    schedule: list[MdSegment]
    """Segments of one more trajectory, such as {ensemble: nvt, temperature_K: [300, 900]}."""
    schedule_supercell: Repeats | None
    """Supercell of the schedule alone; with `embed` it may be large. Null: that of the others."""
    resume: bool
    """A trajectory that was halted goes on from its last safe frame with the next potential."""
    overlap: bool
    """Label and train once a trajectory is halted, while others run on; not reproducible."""
    timestep_fs: Annotated[float, Field(gt=0, le=20)]
    """Time step, fs."""
    uncertainty: Literal["gamma", "committee"]
    """What watches the MD: the extrapolation grade, or the posterior spread of the forces, eV/Å."""
    gamma_select: Threshold
    """Frames with an uncertainty above this become candidates; auto: calibrated by each fit."""
    gamma_halt: Threshold
    """A trajectory stops at an uncertainty above this; auto: calibrated by each fit."""
    gamma_every: Count
    """Steps between evaluations of the uncertainty."""
    max_frames: Count
    """Most candidate frames kept of one trajectory."""
    keep_every: Count | None
    """Also keep a dump of every frame after so many steps; null: only candidates are kept."""
    supercell: Repeats
    """Supercell of the primitive cell; its frames are labelled, so keep it small."""
    include_vacancy: bool
    """Also run each trajectory in the supercell with one atom removed."""
    embed: MdEmbed | None
    """Label cells around uncertain atoms, as {radius_A: 4, buffer_A: 4}; null: whole frames."""
    descriptors: MdDescriptors | None
    """Features for the candidate frames, such as {descriptor: soap, average: true}; null: none."""

    @model_validator(mode="after")
    def _something_to_run(self) -> Self:
        if not self.temperatures_K and not self.schedule:
            raise ValueError("temperatures_K and schedule are both empty: there is no MD to run")
        return self

    @model_validator(mode="after")
    def _supercell_of_a_schedule(self) -> Self:
        if self.schedule_supercell is not None and not self.schedule:
            raise ValueError("schedule_supercell is given, but there is no schedule")
        return self

    @model_validator(mode="after")
    def _thresholds(self) -> Self:
        numbers = AUTO not in (self.gamma_select, self.gamma_halt)
        if numbers and self.gamma_halt <= self.gamma_select:
            raise ValueError(
                f"gamma_halt ({self.gamma_halt}) must be greater than "
                f"gamma_select ({self.gamma_select})"
            )
        if self.uncertainty == "committee" and self.interface == "ml-pace":
            raise ValueError(
                "uncertainty: ML-PACE has no committee; take the interface library, or gamma"
            )
        if self.keep_every is not None and self.keep_every % self.gamma_every:
            raise ValueError(
                f"keep_every ({self.keep_every}) must be a multiple of gamma_every "
                f"({self.gamma_every})"
            )
        if self.gamma_every > self.steps:
            raise ValueError(
                f"gamma_every ({self.gamma_every}) must not be greater than steps ({self.steps})"
            )
        return self


def follow_uncertainty(merged: dict[str, Any], user: Mapping[str, Any]) -> None:
    """What follows from `md: {uncertainty: committee}` where the user does not say otherwise.

    The default thresholds are grades, which mean nothing in eV/Å, and the fit has to keep its
    posterior.
    """
    md = merged.get("md")
    if not isinstance(md, dict) or md.get("uncertainty") != "committee":
        return
    asked = user.get("md") or {}
    thresholds = {key: AUTO for key in ("gamma_select", "gamma_halt") if key not in asked}
    merged["md"] = {**md, **thresholds}
    train, wanted = merged.get("train"), user.get("train") or {}
    if isinstance(train, dict) and isinstance(wanted, dict) and "posterior" not in wanted:
        merged["train"] = {**train, "posterior": train.get("trainer") == ACE_TRAINER}


def check_committee(uncertainty: str, trainer: str, posterior: bool) -> str | None:
    """The sentence that says why MD cannot be watched by a committee, if anything."""
    if uncertainty != "committee":
        return None
    if trainer != ACE_TRAINER:
        return (
            f"md.uncertainty: potentials of '{trainer}' have no committee that MD can use; take "
            f"gamma, or the trainer {ACE_TRAINER}"
        )
    if not posterior:
        return "md.uncertainty: committee needs train.posterior: true, from which the spread comes"
    return None
