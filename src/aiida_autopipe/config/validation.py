"""The section `validate` of the input: what is compared with the oracle, and how it is computed."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from aiida_autopipe.config.section import Positive, Repeats, Section
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.validate.families import family_of


def _known_property(name: str) -> str:
    """The name of a property that a family measures."""
    try:
        family_of(name)
    except InputError as error:
        raise ValueError(str(error)) from error
    return name


Property = Annotated[str, AfterValidator(_known_property)]


class Validate(Section):
    """Properties of the finished potential against the oracle with the same settings."""

    properties: list[Property]
    """Properties to compare, see the page on validation; without any, nothing is validated."""
    tolerance: Positive
    """Largest relative error that passes."""
    eos_points: Annotated[int, Field(ge=5, le=21)]
    """Volumes of the equation of state (lattice constant, bulk modulus)."""
    eos_volume_range: Annotated[float, Field(gt=0, lt=0.3)]
    """Largest relative volume change of the equation of state, both ways."""
    elastic_strain: Annotated[float, Field(gt=0, le=0.05)]
    """Strain of the elastic constants, applied both ways."""
    vacancy_supercell: Repeats
    """Supercell of the primitive cell for the vacancy and the interstitial atom."""
    eos_curve_points: Annotated[int, Field(ge=5, le=41)]
    """Volumes of eos_curve."""
    eos_curve_range: Annotated[float, Field(gt=0, lt=0.5)]
    """Largest relative volume change of eos_curve, both ways."""
    phonon_supercell: Repeats
    """Supercell of the primitive cell for phonon_frequencies; its wave vectors are compared."""
    phonon_displacement: Annotated[float, Field(gt=0, le=0.1)]
    """Displacement of an atom in that supercell, Å."""
    surface_thickness: Positive
    """Least distance between the two surfaces of a slab, Å."""
    surface_vacuum: Positive
    """Empty height between slabs, Å."""
    dimer_points: Annotated[int, Field(ge=8, le=60)]
    """Distances of a dimer, from 0.6 to 2.2 sums of the covalent radii."""
    simulation_supercell: Repeats
    """Supercell of the primitive cell for simulations with the potential."""
    simulation_steps: Annotated[int, Field(ge=100)]
    """Steps of nve_stability, and at each temperature of max_stable_temperature."""
    simulation_timestep_fs: Positive
    """Time step of these simulations, fs."""
    nve_temperature_K: Positive
    """Temperature that nve_stability starts from, K."""
    nve_drift_meV_per_atom_ps: Positive
    """Largest drift of the total energy that passes."""
    stable_temperature_K: Positive
    """Temperature that max_stable_temperature must reach; 1.5 times as much is tried."""
    thermal_steps: Annotated[int, Field(ge=100)]
    """Steps of each simulation behind a property at a temperature, such as C11:300K."""
    thermal_strain: Annotated[float, Field(gt=0, le=0.05)]
    """Strain of elastic constants at a temperature, applied both ways."""
