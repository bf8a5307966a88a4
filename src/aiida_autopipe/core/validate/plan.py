"""Which structures a validation has to compute, and how; the same for the oracle and the potential.

Two stages, because the second needs the equilibrium volume the first one finds:

1. `eos_plan`: the primitive cell at several volumes;
2. `equilibrium_plan`: at that volume, what each family of properties asks for
   (`aiida_autopipe.core.validate.families`), such as strained cells or a supercell with a vacancy.

Cells are scaled isotropically: a crystal with a free axis ratio keeps the ratio it came with, for
the oracle and the potential alike.

Each structure carries in `info`: `role` ('eos', 'elastic', 'vacancy', ...), `relax` (True
when the ions have to be relaxed at fixed cell), `origin`, `parameters` (JSON text) and, when a
k-point spacing is given, `kpoints_mesh` ('k1 k2 k3') of the cell before straining: a mesh that
changed between strained cells would add a jump to energies and stresses that are compared to the
last digit.
"""

from __future__ import annotations

from collections.abc import Sequence

from ase import Atoms

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.kpoints import mesh_from_spacing
from aiida_autopipe.core.symmetry import align_to_conventional_axes, has_internal_freedom
from aiida_autopipe.core.validate.elastic import is_elastic as is_elastic
from aiida_autopipe.core.validate.eos import eos_structures
from aiida_autopipe.core.validate.families import FAMILIES, family_of
from aiida_autopipe.core.validate.family import Family, Planned
from aiida_autopipe.core.validate.labelled import at_volume
from aiida_autopipe.core.validate.lattice import EOS_PROPERTIES as EOS_PROPERTIES
from aiida_autopipe.core.validate.settings import ValidationSettings as ValidationSettings


def resolve_properties(names: Sequence[str], primitive: Atoms) -> list[str]:
    """The properties that will be reported, without repetitions.

    A crystal that is not cubic has no single lattice constant: there the volume per atom stands in.

    Raises:
        InputError: an unknown property, or one that is not defined for this crystal.
    """
    resolved: list[str] = []
    for name in names:
        family = family_of(name)
        if why := family.undefined(name, primitive):
            raise InputError(f"'{name}' is {why}: leave it out of validate.properties.")
        actual = family.resolved(name, primitive)
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
    return [_annotated(Planned(s, "eos", primitive), kspacing) for s in structures]


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
    equilibrium = at_volume(primitive, volume)
    return [
        _annotated(planned, kspacing)
        for _, planned in _second_stage(primitive, equilibrium, properties, settings)
    ]


def count_calculations(
    primitive: Atoms, properties: Sequence[str], settings: ValidationSettings
) -> int:
    """How many oracle calculations both stages take together."""
    return sum(counts_by_family(primitive, properties, settings).values())


def counts_by_family(
    primitive: Atoms, properties: Sequence[str], settings: ValidationSettings
) -> dict[str, int]:
    """How many oracle calculations each family takes, by its key; only those that take any."""
    counts = {"equation_of_state": settings.eos_points}
    for family, _ in _second_stage(primitive, primitive, properties, settings):
        counts[family.key] = counts.get(family.key, 0) + 1
    return counts


def _second_stage(
    primitive: Atoms, equilibrium: Atoms, properties: Sequence[str], settings: ValidationSettings
) -> list[tuple[Family, Planned]]:
    names = resolve_properties(properties, primitive)
    planned = []
    for family in FAMILIES:
        if own := [name for name in names if family.owns(name)]:
            found = family.plan(own, primitive, equilibrium, settings)
            planned += [(family, structure) for structure in found]
    return planned


def _annotated(planned: Planned, kspacing: float | None) -> Atoms:
    atoms, relax = planned.atoms, planned.relax
    atoms.info["role"] = planned.role
    atoms.info["relax"] = has_internal_freedom(atoms) if relax is None else relax
    if kspacing is not None:
        cell = planned.mesh_cell
        mesh = mesh_from_spacing(cell.cell.array, cell.pbc, kspacing)
        atoms.info["kpoints_mesh"] = " ".join(str(k) for k in mesh)
    return atoms
