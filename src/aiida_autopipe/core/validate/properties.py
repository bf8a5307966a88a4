"""Properties of a crystal from labelled structures, from the oracle and from a potential alike.

Both go through the same plan (`aiida_autopipe.core.validate.plan`) and the same analysis here, so a
difference between them is a difference of the energies, not of the procedure. Relaxations keep the
symmetry of the starting structure, as a plane-wave code does with its symmetric forces.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.constraints import FixSymmetry
from ase.optimize import BFGS

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.generate.strain import scale_volume
from aiida_autopipe.core.validate.families import FAMILIES, family_of
from aiida_autopipe.core.validate.labelled import (
    Labelled,
    at_volume,
    energy_of,
    volume_of,
)
from aiida_autopipe.core.validate.labelled import equation_of_state as equation_of_state
from aiida_autopipe.core.validate.plan import (
    ValidationSettings,
    eos_plan,
    equilibrium_plan,
    resolve_properties,
)
from aiida_autopipe.core.validate.values import PropertyValue as PropertyValue

RECENTRINGS = 8


def reference_properties(
    primitive: Atoms,
    eos: Dataset,
    equilibrium: Dataset | None,
    properties: Sequence[str],
    settings: ValidationSettings | None = None,
) -> dict[str, PropertyValue]:
    """Properties from labelled structures of `eos_plan` and `equilibrium_plan`.

    Structures whose calculation failed may be missing: the properties that need them become NaN
    with a note, the others are still reported. Of a property that has no reference the value is
    the limit that the potential is held against.

    Args:
        primitive: the cell the plans were made from.
        eos: labelled structures with role 'eos'.
        equilibrium: labelled structures of the second stage (relaxed where planned), or None when
            no property needs it.
        properties: names as in the configuration.
        settings: those of the plans.

    Returns:
        name -> value, in the order of `resolve_properties`.
    """
    settings = settings or ValidationSettings()
    labelled = Labelled(primitive, eos, equilibrium, settings)
    values = {}
    for name in resolve_properties(properties, primitive):
        family = family_of(name)
        if family.needs_reference:
            values[name] = _measured(name, labelled)
        else:
            values[name] = PropertyValue(family.limit(name, settings), family.unit(name))
    return values


def potential_properties(
    calculator: BaseCalculator,
    primitive: Atoms,
    properties: Sequence[str],
    settings: ValidationSettings | None = None,
    reference_volume: float | None = None,
) -> dict[str, PropertyValue]:
    """Properties of a potential at its own equilibrium volume.

    Args:
        calculator: any ASE calculator with energy, forces and stress.
        primitive: primitive cell near equilibrium; the potential's own minimum is searched from
            there.
        properties: names as in the configuration.
        settings: how to compute them.
        reference_volume: equilibrium volume of the reference, for properties that are compared at
            the same volumes; None takes the potential's own.
    """
    settings = settings or ValidationSettings()
    names = resolve_properties(properties, primitive)
    try:
        eos = _eos_labels(calculator, primitive, settings)
    except DataError as error:
        return {n: PropertyValue(np.nan, family_of(n).unit(n), str(error)) for n in names}
    own = equation_of_state(eos).v0
    planned = []
    for volume, at_reference in ((own, False), (reference_volume or own, True)):
        chosen = [n for n in names if family_of(n).at_reference == at_reference]
        planned += equilibrium_plan(primitive, volume, chosen, settings)
    cells, failures = _labels(calculator, planned, settings)
    labelled = Labelled(primitive, eos, cells, settings)
    alone = _simulated(calculator, at_volume(primitive, own), names, settings)
    values = {}
    for name in names:
        if name in alone:
            values[name] = alone[name]
            continue
        values[name] = found = _measured(name, labelled)
        roles = family_of(name).roles(name)
        why = next((failures[role] for role in roles if role in failures), "")
        if why and not np.isfinite(found.value):
            values[name] = PropertyValue(found.value, found.unit, why)
    return values


def _simulated(
    calculator: BaseCalculator,
    equilibrium: Atoms,
    names: Sequence[str],
    settings: ValidationSettings,
) -> dict[str, PropertyValue]:
    """Properties that have no reference."""
    values: dict[str, PropertyValue] = {}
    for family in FAMILIES:
        own = [name for name in names if family.owns(name)]
        if own and not family.needs_reference:
            values |= family.simulate(own, calculator, equilibrium, settings)
    return values


def calculated_reference(
    calculator: BaseCalculator,
    primitive: Atoms,
    properties: Sequence[str],
    settings: ValidationSettings | None = None,
) -> tuple[dict[str, PropertyValue], float]:
    """Reference properties from an ASE calculator in place of labelled structures.

    Args:
        calculator: the reference method.
        primitive: as in `potential_properties`.
        properties: names as in the configuration.
        settings: how to compute them.

    Returns:
        As `reference_properties`, and the equilibrium volume of the reference in Å^3.

    Raises:
        DataError: the reference has no equilibrium volume.
    """
    settings = settings or ValidationSettings()
    eos = _eos_labels(calculator, primitive, settings)
    volume = equation_of_state(eos).v0
    planned = equilibrium_plan(primitive, volume, properties, settings)
    cells, _ = _labels(calculator, planned, settings)
    return reference_properties(primitive, eos, cells, properties, settings), volume


def label_with(calculator: BaseCalculator, atoms: Atoms, settings: ValidationSettings) -> Atoms:
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
    forces = labelled.get_forces()
    labelled.info["energy"] = energy
    if np.all(labelled.pbc):  # two atoms in a box have no stress
        labelled.info["stress"] = labelled.get_stress()
    labelled.calc = None
    labelled.arrays["forces"] = forces
    return labelled


def _labels(
    calculator: BaseCalculator, planned: Sequence[Atoms], settings: ValidationSettings
) -> tuple[Dataset, dict[str, str]]:
    """Labelled structures, and why there are none of a role."""
    cells, failures = [], {}
    for atoms in planned:
        try:
            cells.append(label_with(calculator, atoms, settings))
        except DataError as error:
            failures[str(atoms.info["role"])] = str(error)
    return Dataset.from_atoms(cells), failures


def _eos_labels(
    calculator: BaseCalculator, primitive: Atoms, settings: ValidationSettings
) -> Dataset:
    """Labelled volumes around the potential's own minimum, which may be far from the given cell."""
    centre = primitive
    for _ in range(RECENTRINGS):
        labels = Dataset.from_atoms(
            [label_with(calculator, atoms, settings) for atoms in eos_plan(centre, settings)]
        )
        energies = [energy_of(labels, i) for i in range(len(labels))]
        lowest = int(np.argmin(energies))
        if 0 < lowest < len(labels) - 1:
            equation_of_state(labels)  # a rough minimum may still not fit: say so now
            return labels
        volume = volume_of(labels, lowest)
        centre = scale_volume(centre, volume / float(centre.get_volume()))
    raise DataError(
        f"The potential has no equilibrium volume near {primitive.get_chemical_formula()}: the "
        f"energy still falls at {volume / len(primitive):.2f} Å^3 per atom."
    )


def _measured(name: str, labelled: Labelled) -> PropertyValue:
    family = family_of(name)
    try:
        return family.measure(name, labelled)
    except DataError as error:
        return PropertyValue(float("nan"), family.unit(name), str(error))
