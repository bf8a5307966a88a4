"""ASE calculator of an ACE potential."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.outputs import Properties, all_outputs

from aiida_autopipe.core.ace.posterior import Posterior
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.errors import DataError


class ACECalculator(Calculator):
    """Energy, forces, stress (three-dimensional periodicity only), energies per atom, and
    `results['gamma']` (n,), the extrapolation grade, when the potential has an active set, and with
    a posterior `results['force_std']` (n,), the standard deviation of the force on each atom in
    eV/Å.

    The energy contains reference energies and the ZBL repulsion of the potential. All properties
    are computed together, once for a structure; asking for a stress that does not exist raises
    ASE's PropertyNotImplementedError. It works with `ase.md`, `ase.optimize` and the cell filters.
    """

    implemented_properties = [  # noqa: RUF012  (as ASE declares it)
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "gamma",
        "force_std",
    ]
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        potential: ACEPotential | str | Path,
        gamma: bool = True,
        posterior: Posterior | None = None,
        **kwargs: Any,
    ) -> None:
        """Take a potential, or read it from a .yace or B-basis .yaml file (see
        `ACEPotential.load`).

        gamma=False leaves the grade out, which saves about a fifth of the time; a posterior (see
        `load_posterior`) costs about two evaluations more; kwargs are those of ASE's Calculator.

        Raises PotentialFileError for a file that cannot be read.
        """
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        if not isinstance(potential, ACEPotential):
            potential = ACEPotential.load(potential)
        self.potential = potential
        self._posterior = posterior
        self._with_gamma = gamma and potential.has_active_set

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute everything at once; DataError for unknown elements or unusable geometry."""
        if self.results and not system_changes:
            # Everything is known of these atoms; what was asked for does not exist.
            return
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        self.results: dict[str, Any] = {}
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
        if self._posterior is not None:
            rows = self.potential.basis.design_block(self.atoms).force_rows
            self.results["force_std"] = self._posterior.force_std(rows)

    def export_properties(self) -> Properties:
        """The results ASE has names for, hence without uncertainties."""
        return Properties({k: v for k, v in self.results.items() if k in all_outputs})
