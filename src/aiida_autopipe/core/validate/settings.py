"""How the properties of a validation are computed; the same for the oracle and the potential."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from aiida_autopipe.core.errors import InputError


@dataclass(frozen=True)
class ValidationSettings:
    """How properties are computed; shared by oracle and potential.

    Attributes:
        eos_points: volumes of the equation of state.
        eos_volume_range: largest relative volume change, both ways.
        elastic_strain: engineering strain of the elastic constants.
        vacancy_supercell: repeats of the primitive cell, for point defects.
        eos_curve_points: volumes of `eos_curve`.
        eos_curve_range: largest relative volume change of `eos_curve`, both ways.
        phonon_supercell: repeats of the primitive cell for `phonon_frequencies`.
        phonon_displacement: of an atom in that supercell, Å.
        surface_thickness: of a slab, Å.
        surface_vacuum: empty height between slabs, Å.
        dimer_points: distances of a dimer.
        simulation_supercell: repeats of the primitive cell for simulations with the potential.
        simulation_steps: of one such simulation.
        simulation_timestep_fs: of them.
        nve_temperature_K: of the velocities that `nve_stability` starts from.
        nve_drift_meV_per_atom_ps: largest drift of the total energy that passes.
        stable_temperature_K: demanded of `max_stable_temperature`.
        thermal_steps: of each simulation behind a property at a temperature.
        thermal_strain: engineering strain of elastic constants at a temperature.
        seed: of the velocities and of the thermostat.
        relax_fmax: forces at which a relaxation with the potential stops, eV/Å.
        relax_steps: most steps of such a relaxation.
    """

    eos_points: int = 7
    eos_volume_range: float = 0.06
    elastic_strain: float = 0.01
    vacancy_supercell: Sequence[int] = (2, 2, 2)
    eos_curve_points: int = 11
    eos_curve_range: float = 0.15
    phonon_supercell: Sequence[int] = (2, 2, 2)
    phonon_displacement: float = 0.02
    surface_thickness: float = 9.0
    surface_vacuum: float = 10.0
    dimer_points: int = 16
    simulation_supercell: Sequence[int] = (3, 3, 3)
    simulation_steps: int = 1000
    simulation_timestep_fs: float = 1.0
    nve_temperature_K: float = 300.0
    nve_drift_meV_per_atom_ps: float = 1.0
    stable_temperature_K: float = 1000.0
    thermal_steps: int = 5000
    thermal_strain: float = 0.02
    seed: int = 0
    relax_fmax: float = 0.005
    relax_steps: int = 300

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> ValidationSettings:
        """The configuration's `validate` section without `properties` and `tolerance`.

        Raises:
            InputError: an unknown key.
        """
        given = {k: v for k, v in settings.items() if k not in ("properties", "tolerance")}
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise InputError(
                f"'{unknown[0]}' is not a setting of the validation: use {', '.join(known)}."
            )
        return cls(**given)
