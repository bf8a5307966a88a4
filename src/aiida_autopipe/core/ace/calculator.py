"""ASE calculator of an ACE potential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.errors import DataError


class ACECalculator(Calculator):
    """Energy, forces, stress (three-dimensional periodicity only), energies per atom, and
    `results['gamma']` (n,), the extrapolation grade, when the potential has an active set.

    gamma=False leaves the grade out, which saves about a fifth of the time.
    """

    implemented_properties = [  # noqa: RUF012  (as ASE declares it)
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
    ]

    def __init__(self, potential: ACEPotential, gamma: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self.potential = potential
        self._with_gamma = gamma and potential.has_active_set

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute everything at once; DataError for unknown elements or unusable geometry."""
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        if self.atoms is None:
            raise DataError("The calculator was given no atoms.")
        result = self.potential.evaluate(self.atoms, gamma=self._with_gamma)
        self.results = {
            "energy": result.energy,
            "free_energy": result.energy,
            "energies": result.energies,
            "forces": result.forces,
        }
        if result.stress is not None:
            self.results["stress"] = result.stress
        if result.gamma is not None:
            self.results["gamma"] = result.gamma
