"""Lattice constant, volume and bulk modulus: what the equation of state alone gives."""

from __future__ import annotations

from ase import Atoms, units

from aiida_autopipe.core.symmetry import find_symmetry
from aiida_autopipe.core.validate.eos import Eos
from aiida_autopipe.core.validate.family import Family
from aiida_autopipe.core.validate.labelled import Labelled
from aiida_autopipe.core.validate.values import PropertyValue

EOS_PROPERTIES = ("lattice_constant", "volume_per_atom", "bulk_modulus")

_UNITS = {"lattice_constant": "Å", "volume_per_atom": "Å^3", "bulk_modulus": "GPa"}


class LatticeFamily(Family):
    """Properties of the first stage, which always runs."""

    key = "equation_of_state"
    names = ", ".join(EOS_PROPERTIES)
    examples = EOS_PROPERTIES

    def unit(self, name: str) -> str:
        """Unit of the value."""
        return _UNITS[name]

    def resolved(self, name: str, primitive: Atoms) -> str:
        """The volume per atom where there is no single lattice constant."""
        if name == "lattice_constant" and not find_symmetry(primitive).cubic:
            return "volume_per_atom"
        return name

    def measure(self, name: str, labelled: Labelled) -> PropertyValue:
        """From the minimum of the equation of state and its curvature there."""
        fitted = labelled.equation_of_state()
        return PropertyValue(of_equation_of_state(name, fitted, labelled.primitive), _UNITS[name])


def of_equation_of_state(name: str, fitted: Eos, primitive: Atoms) -> float:
    """One of `EOS_PROPERTIES` of the equation of state of a primitive cell, in its unit."""
    if name == "bulk_modulus":
        return float(fitted.b0 / units.GPa)
    per_atom = fitted.v0 / len(primitive)
    if name == "volume_per_atom":
        return per_atom
    n_cell = find_symmetry(primitive).atoms_per_conventional_cell
    return float((per_atom * n_cell) ** (1.0 / 3.0))
