"""Which structures a validation has to compute, and how; the same for the oracle and the potential.

Two stages, because the second needs the equilibrium volume the first one finds:

1. `eos_plan`: the primitive cell at several volumes;
2. `equilibrium_plan`: at that volume, strained cells for the elastic constants, the perfect
   supercell and the supercell with a vacancy.

Cells are scaled isotropically: a crystal with a free axis ratio keeps the ratio it came with, for
the oracle and the potential alike.

Each structure carries in `info`: `role` ('eos', 'elastic', 'bulk' or 'vacancy'), `relax` (True
when the ions have to be relaxed at fixed cell), `origin`, `parameters` (JSON text) and, when a
k-point spacing is given, `kpoints_mesh` ('k1 k2 k3') of the cell before straining: a mesh that
changed between strained cells would add a jump to energies and stresses that are compared to the
last digit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ase import Atoms

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.strain import scale_volume
from aiida_autopipe.core.kpoints import mesh_from_spacing
from aiida_autopipe.core.symmetry import (
    align_to_conventional_axes,
    find_symmetry,
    has_internal_freedom,
)
from aiida_autopipe.core.validate.elastic import elastic_structures
from aiida_autopipe.core.validate.eos import eos_structures
from aiida_autopipe.core.validate.vacancy import vacancy_structures

EOS_PROPERTIES = ("lattice_constant", "volume_per_atom", "bulk_modulus")
VACANCY_PROPERTIES = ("vacancy_formation_energy",)


@dataclass(frozen=True)
class ValidationSettings:
    """How properties are computed; shared by oracle and potential.

    Attributes:
        eos_points: volumes of the equation of state.
        eos_volume_range: largest relative volume change, both ways.
        elastic_strain: engineering strain of the elastic constants.
        vacancy_supercell: repeats of the primitive cell.
        relax_fmax: forces at which a relaxation with the potential stops, eV/Å.
        relax_steps: most steps of such a relaxation.
    """

    eos_points: int = 7
    eos_volume_range: float = 0.06
    elastic_strain: float = 0.01
    vacancy_supercell: Sequence[int] = (2, 2, 2)
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


def is_elastic(name: str) -> bool:
    """True for C11 to C66."""
    return re.fullmatch(r"C[1-6][1-6]", name) is not None


def resolve_properties(names: Sequence[str], primitive: Atoms) -> list[str]:
    """The properties that will be reported, without repetitions.

    A crystal that is not cubic has no single lattice constant: there the volume per atom stands in.

    Raises:
        InputError: an unknown property, or one that is not defined for this crystal.
    """
    cubic = find_symmetry(primitive).cubic
    resolved: list[str] = []
    for name in names:
        if name not in (*EOS_PROPERTIES, *VACANCY_PROPERTIES) and not is_elastic(name):
            known = ", ".join((*EOS_PROPERTIES, "C11 to C66", *VACANCY_PROPERTIES))
            raise InputError(f"'{name}' is not a property that can be validated: use {known}.")
        if name in VACANCY_PROPERTIES and len(set(primitive.numbers)) > 1:
            raise InputError(
                f"'{name}' is defined here for one element, not for "
                f"{primitive.get_chemical_formula()}: leave it out of validate.properties."
            )
        actual = "volume_per_atom" if name == "lattice_constant" and not cubic else name
        if actual not in resolved:
            resolved.append(actual)
    return resolved


def eos_plan(
    primitive: Atoms, settings: ValidationSettings, kspacing: float | None = None
) -> list[Atoms]:
    """Stage one: the primitive cell at several volumes (role 'eos').

    Args:
        primitive: the crystal's primitive cell.
        settings: number and range of the volumes.
        kspacing: of the k-point mesh in 1/Å (2 pi included), when the oracle needs one.
    """
    aligned = align_to_conventional_axes(primitive)
    structures = eos_structures(aligned, settings.eos_points, settings.eos_volume_range)
    return [_planned(s, "eos", primitive, kspacing) for s in structures]


def equilibrium_plan(
    primitive: Atoms,
    volume: float,
    properties: Sequence[str],
    settings: ValidationSettings,
    kspacing: float | None = None,
) -> list[Atoms]:
    """Stage two: cells at the equilibrium volume that the properties need; may be empty.

    Args:
        primitive: the same cell as given to `eos_plan`.
        volume: equilibrium volume of that cell in Å^3 (`Eos.v0`).
        properties: what will be reported.
        settings: strain and supercell.
        kspacing: as in `eos_plan`.
    """
    aligned = align_to_conventional_axes(primitive)
    equilibrium = scale_volume(aligned, volume / aligned.get_volume())
    names = resolve_properties(properties, primitive)
    planned = []
    if any(is_elastic(name) for name in names):
        for strained in elastic_structures(equilibrium, settings.elastic_strain):
            planned.append(_planned(strained, "elastic", primitive, kspacing))
    if any(name in VACANCY_PROPERTIES for name in names):
        supercell = primitive.repeat(tuple(settings.vacancy_supercell))
        perfect, vacancy = vacancy_structures(equilibrium, settings.vacancy_supercell)
        planned.append(_planned(perfect, "bulk", supercell, kspacing))
        planned.append(_planned(vacancy, "vacancy", supercell, kspacing))
    return planned


def count_calculations(
    primitive: Atoms, properties: Sequence[str], settings: ValidationSettings
) -> int:
    """How many oracle calculations both stages take together."""
    second = equilibrium_plan(primitive, float(primitive.get_volume()), properties, settings)
    return settings.eos_points + len(second)


def _planned(atoms: Atoms, role: str, mesh_cell: Atoms, kspacing: float | None) -> Atoms:
    atoms.info["role"] = role
    atoms.info["relax"] = has_internal_freedom(atoms)
    if kspacing is not None:
        mesh = mesh_from_spacing(mesh_cell.cell.array, mesh_cell.pbc, kspacing)
        atoms.info["kpoints_mesh"] = " ".join(str(k) for k in mesh)
    return atoms
