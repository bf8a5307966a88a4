"""What a family of properties is: what it plans, measures, compares and draws.

A family is one small module with one instance in `families.FAMILIES`. The oracle's structures and
the potential's go through the same `plan` and the same `measure`; nothing outside a family's module
knows its names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from aiida_autopipe.core.validate.labelled import Labelled
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.values import Comparison, Plot, PropertyValue, compare_values


class Planned(NamedTuple):
    """A structure to compute.

    `relax` is None where symmetry decides; `mesh_cell` is the cell whose k-point mesh it gets.
    """

    atoms: Atoms
    role: str
    mesh_cell: Atoms
    relax: bool | None = None


class Family:
    """A family of properties: names, structures, measurement, tolerance rule and plot."""

    key = ""
    """What its calculations are counted under."""
    names = ""
    """Its names, in words."""
    examples: tuple[str, ...] = ()
    """Names to suggest."""
    at_reference = False
    """True where the potential is measured at the volumes of the reference, not at its own."""
    needs_reference = True
    """False where the potential alone is held against a limit."""

    def owns(self, name: str) -> bool:
        """True for a name of this family."""
        return name in self.examples

    def label(self, name: str) -> str:
        """What readers call the property."""
        return name.replace("_", " ").capitalize()

    def unit(self, name: str) -> str:
        """Unit of the value."""
        raise NotImplementedError

    def undefined(self, name: str, primitive: Atoms) -> str | None:
        """Why the property is not defined for a crystal, as in 'only defined for ...'."""
        return None

    def resolved(self, name: str, primitive: Atoms) -> str:
        """The name under which the property of a crystal is reported."""
        return name

    def roles(self, name: str) -> tuple[str, ...]:
        """Roles of the structures of the second stage that the property needs."""
        return ()

    def plan(
        self,
        names: Sequence[str],
        primitive: Atoms,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> list[Planned]:
        """Structures of the second stage for these names of the family.

        Args:
            names: at least one.
            primitive: the crystal as it was given, whose k-point mesh its strained cells share.
            equilibrium: the primitive cell at equilibrium, turned to its conventional axes.
            settings: how to compute.
        """
        return []

    def measure(self, name: str, labelled: Labelled) -> PropertyValue:
        """The property of one side.

        Raises:
            DataError: structures it needs are missing, or what they give is no such property.
        """
        raise NotImplementedError

    def limit(self, name: str, settings: ValidationSettings) -> float:
        """What is demanded of the potential where there is no reference."""
        raise NotImplementedError

    def simulate(
        self,
        names: Sequence[str],
        calculator: BaseCalculator,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> dict[str, PropertyValue]:
        """Properties of the potential alone, where there is no reference."""
        raise NotImplementedError

    def compare(
        self, name: str, potential: PropertyValue, reference: PropertyValue, tolerance: float
    ) -> Comparison:
        """The row of the table; by default |potential - reference| <= tolerance |reference|."""
        return compare_values(name, potential, reference, tolerance)

    def plot(self, name: str, potential: PropertyValue, reference: PropertyValue) -> Plot | None:
        """What is drawn of both sides; None for a single number."""
        return None


def one_element_only(primitive: Atoms) -> str | None:
    """Why a property of elements is not defined for a compound; None for an element."""
    if len(set(primitive.numbers)) == 1:
        return None
    formula = primitive.get_chemical_formula()
    return f"only defined for materials of one element, not for {formula}"
