"""Properties of a crystal from labelled structures, from the oracle and from a potential alike.

Both go through the same plan (`aiida_autopipe.core.validate.plan`) and the same analysis here, so a
difference between them is a difference of the energies, not of the procedure. Relaxations keep the
symmetry of the starting structure, as a plane-wave code does with its symmetric forces.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.constraints import FixSymmetry
from ase.optimize import BFGS
from numpy.typing import NDArray

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.generate.strain import scale_volume
from aiida_autopipe.core.symmetry import align_to_conventional_axes, find_symmetry
from aiida_autopipe.core.validate.elastic import elastic_constants, named_constant
from aiida_autopipe.core.validate.eos import Eos, fit_eos
from aiida_autopipe.core.validate.plan import (
    EOS_PROPERTIES,
    ValidationSettings,
    eos_plan,
    equilibrium_plan,
    is_elastic,
    resolve_properties,
)
from aiida_autopipe.core.validate.vacancy import vacancy_formation_energy

RECENTRINGS = 8

_UNITS = {
    "lattice_constant": "Å",
    "volume_per_atom": "Å^3",
    "bulk_modulus": "GPa",
    "vacancy_formation_energy": "eV",
}


@dataclass(frozen=True)
class PropertyValue:
    """One property; the value is NaN, and `note` says why, when it could not be determined."""

    value: float
    unit: str
    note: str = ""


def equation_of_state(labelled: Dataset) -> Eos:
    """Equation of state of the structures with role 'eos', per cell as computed.

    Raises:
        DataError: too few labelled volumes, or no minimum among them.
    """
    rows = _rows(labelled, "eos")
    volumes = [abs(float(np.linalg.det(labelled.cell[i]))) for i in rows]
    return fit_eos(volumes, [_energy(labelled, i) for i in rows])


def reference_properties(
    primitive: Atoms, eos: Dataset, equilibrium: Dataset | None, properties: Sequence[str]
) -> dict[str, PropertyValue]:
    """Properties from labelled structures of `eos_plan` and `equilibrium_plan`.

    Structures whose calculation failed may be missing: the properties that need them become NaN
    with a note, the others are still reported.

    Args:
        primitive: the cell the plans were made from.
        eos: labelled structures with role 'eos'.
        equilibrium: labelled structures of the second stage (relaxed where planned), or None when
            no property needs it.
        properties: names as in the configuration.

    Returns:
        name -> value, in the order of `resolve_properties`.
    """
    values = {}
    for name in resolve_properties(properties, primitive):
        unit = _UNITS.get(name, "GPa")
        try:
            values[name] = PropertyValue(_measure(name, primitive, eos, equilibrium), unit)
        except DataError as error:
            values[name] = PropertyValue(float("nan"), unit, str(error))
    return values


def potential_properties(
    calculator: Calculator,
    primitive: Atoms,
    properties: Sequence[str],
    settings: ValidationSettings | None = None,
) -> dict[str, PropertyValue]:
    """Properties of a potential at its own equilibrium volume.

    Args:
        calculator: any ASE calculator with energy, forces and stress.
        primitive: primitive cell near equilibrium; the potential's own minimum is searched from
        there. properties: names as in the configuration.
        settings: how to compute them.
    """
    settings = settings or ValidationSettings()
    names = resolve_properties(properties, primitive)
    try:
        eos = _eos_labels(calculator, primitive, settings)
    except DataError as error:
        return {n: PropertyValue(float("nan"), _UNITS.get(n, "GPa"), str(error)) for n in names}
    volume = equation_of_state(eos).v0
    labelled, failures = [], {}
    for atoms in equilibrium_plan(primitive, volume, names, settings):
        try:
            labelled.append(label_with(calculator, atoms, settings))
        except DataError as error:
            failures[str(atoms.info["role"])] = str(error)
    values = reference_properties(primitive, eos, Dataset.from_atoms(labelled), names)
    for name, found in values.items():
        role = "elastic" if is_elastic(name) else "vacancy"
        if not np.isfinite(found.value) and role in failures:
            values[name] = PropertyValue(found.value, found.unit, failures[role])
    return values


def label_with(calculator: Calculator, atoms: Atoms, settings: ValidationSettings) -> Atoms:
    """Energy, forces and stress of a planned structure, relaxed at fixed cell where the plan says
    so.

    Raises:
        DataError: a non-finite energy, or a relaxation that does not converge.
    """
    labelled: Atoms = atoms.copy()
    labelled.calc = calculator
    if labelled.info["relax"]:
        labelled.set_constraint(FixSymmetry(labelled, symprec=1e-5))
        try:
            with BFGS(labelled, logfile=None) as optimizer:
                converged = optimizer.run(fmax=settings.relax_fmax, steps=settings.relax_steps)
        except np.linalg.LinAlgError:
            converged = False
        if not converged:
            raise DataError(
                f"The {labelled.info['role']} cell {labelled.get_chemical_formula()} does not "
                f"relax to {settings.relax_fmax} eV/Å within {settings.relax_steps} steps."
            )
        labelled.set_constraint()
    energy = float(labelled.get_potential_energy())
    if not np.isfinite(energy):
        raise DataError(
            f"The energy of the {labelled.info['role']} cell {labelled.get_chemical_formula()} is "
            f"{energy}."
        )
    forces, stress = labelled.get_forces(), labelled.get_stress()
    labelled.calc = None
    labelled.info |= {"energy": energy, "stress": stress}
    labelled.arrays["forces"] = forces
    return labelled


def _eos_labels(calculator: Calculator, primitive: Atoms, settings: ValidationSettings) -> Dataset:
    """Labelled volumes around the potential's own minimum, which may be far from the given cell."""
    centre = primitive
    for _ in range(RECENTRINGS):
        labels = Dataset.from_atoms(
            [label_with(calculator, atoms, settings) for atoms in eos_plan(centre, settings)]
        )
        energies = [_energy(labels, i) for i in range(len(labels))]
        lowest = int(np.argmin(energies))
        if 0 < lowest < len(labels) - 1:
            equation_of_state(labels)  # a rough minimum may still not fit: say so now
            return labels
        volume = abs(float(np.linalg.det(labels.cell[lowest])))
        centre = scale_volume(centre, volume / float(centre.get_volume()))
    raise DataError(
        f"The potential has no equilibrium volume near {primitive.get_chemical_formula()}: the "
        f"energy still falls at {volume / len(primitive):.2f} Å^3 per atom."
    )


def _measure(name: str, primitive: Atoms, eos: Dataset, equilibrium: Dataset | None) -> float:
    if name in EOS_PROPERTIES:
        fitted = equation_of_state(eos)
        if name == "bulk_modulus":
            return fitted.b0 / units.GPa
        per_atom = fitted.v0 / len(primitive)
        if name == "volume_per_atom":
            return per_atom
        n_cell = find_symmetry(primitive).atoms_per_conventional_cell
        return float((per_atom * n_cell) ** (1.0 / 3.0))
    if equilibrium is None:
        raise DataError(f"'{name}' needs calculations at the equilibrium volume; there are none.")
    if is_elastic(name):
        return named_constant(_stiffness(primitive, equilibrium), name)
    bulk = _rows(equilibrium, "bulk")[0]
    vacancy = _rows(equilibrium, "vacancy")[0]
    per_atom = _energy(equilibrium, bulk) / int(equilibrium.sizes[bulk])
    n_atoms = int(equilibrium.sizes[vacancy])
    return vacancy_formation_energy(_energy(equilibrium, vacancy), per_atom, n_atoms)


def _stiffness(primitive: Atoms, equilibrium: Dataset) -> NDArray[np.float64]:
    rows = _rows(equilibrium, "elastic")
    strains = np.array([_parameters(equilibrium, i)["strain"] for i in rows])
    symmetry = find_symmetry(align_to_conventional_axes(primitive))
    stresses = []
    for i in rows:
        stress = equilibrium.labels(i).stress
        if stress is None:
            raise DataError(f"Strained cell {i} of the elastic constants has no stress.")
        stresses.append(stress)
    return elastic_constants(
        strains, np.array(stresses), rotations=symmetry.rotations, require_pairs=True
    )


def _rows(labelled: Dataset, role: str) -> list[int]:
    roles = labelled.columns.get("role", np.zeros(0, dtype=str))
    rows = [i for i in range(len(labelled)) if str(roles[i]) == role]
    if not rows:
        raise DataError(f"There is no labelled structure with the role '{role}'.")
    return rows


def _energy(labelled: Dataset, index: int) -> float:
    energy = labelled.labels(index).energy
    if energy is None:
        raise DataError(f"Structure {index} of the validation has no energy.")
    return energy


def _parameters(labelled: Dataset, index: int) -> dict[str, Any]:
    return dict(json.loads(str(labelled.columns["parameters"][index])))
