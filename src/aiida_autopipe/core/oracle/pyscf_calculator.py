"""PySCF for molecules as an ASE calculator whose keywords are plain values.

PySCF's own calculator for ASE wants a Python object. This file is copied into the job like the
other programs and imports nothing of this project; there it is called ``oracle_pyscf``.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.data import ground_state_magnetic_moments
from ase.units import Bohr, Hartree


class PySCF(Calculator):
    """Hartree-Fock or Kohn-Sham energies and forces of a molecule.

    Keywords: `xc` ('hf' or a functional), `basis`, `charge`, `spin` (unpaired electrons),
    `conv_tol` (Hartree), `max_cycle` and `grid_level`. Without `charge` it is that of the column
    `charge` of the structure, else 0. Without `spin` it is the sum of the initial magnetic moments;
    where there are none, that of the ground state of a single atom, or as few as there can be.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    default_parameters = {  # noqa: RUF012
        "xc": "pbe",
        "basis": "def2-svp",
        "charge": None,
        "spin": None,
        "conv_tol": 1e-9,
        "max_cycle": 100,
        "grid_level": 3,
    }

    def __init__(self, **keywords: Any) -> None:
        unknown = sorted(set(keywords) - set(self.default_parameters))
        if unknown:
            raise TypeError(
                f"unknown keyword '{unknown[0]}'; it takes {', '.join(self.default_parameters)}"
            )
        importlib.import_module("pyscf")
        super().__init__(**keywords)  # type: ignore[no-untyped-call]

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """One self-consistent field and its gradient."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        structure: Any = self.atoms
        if structure.pbc.any():
            raise ValueError("PySCF labels molecules; the structure is periodic")
        field = self._field(structure)
        energy = field.kernel()
        if not field.converged:
            raise RuntimeError(f"no convergence in {self.parameters['max_cycle']} cycles")
        gradient = field.nuc_grad_method()
        if hasattr(gradient, "grid_response"):
            # The grid moves with the atoms; without this forces are not those of the energy.
            gradient.grid_response = True
        forces = -np.asarray(gradient.kernel()) * Hartree / Bohr
        self.results = {"energy": float(energy) * Hartree, "forces": forces}

    def _field(self, atoms: Any) -> Any:
        gto, scf, dft = (importlib.import_module(f"pyscf.{name}") for name in ("gto", "scf", "dft"))
        symbols = atoms.get_chemical_symbols()
        charge = self.parameters["charge"]
        if charge is None:
            charge = int(atoms.info.get("charge", 0))
        spin = self._unpaired(atoms, charge)
        molecule = gto.M(
            atom=list(zip(symbols, atoms.positions.tolist(), strict=True)),
            unit="Angstrom",
            basis=self.parameters["basis"],
            charge=charge,
            spin=spin,
            verbose=0,
        )
        if self.parameters["xc"].lower() == "hf":
            field = scf.UHF(molecule) if spin else scf.RHF(molecule)
        else:
            field = dft.UKS(molecule) if spin else dft.RKS(molecule)
            field.xc = self.parameters["xc"]
            field.grids.level = self.parameters["grid_level"]
        field.conv_tol = self.parameters["conv_tol"]
        field.max_cycle = self.parameters["max_cycle"]
        return field

    def _unpaired(self, atoms: Any, charge: int) -> int:
        if self.parameters["spin"] is not None:
            return int(self.parameters["spin"])
        moment = float(np.sum(atoms.get_initial_magnetic_moments()))
        if moment:
            return round(abs(moment))
        if len(atoms) == 1 and charge == 0:
            return int(ground_state_magnetic_moments[atoms.numbers[0]])
        return int(np.sum(atoms.numbers) - charge) % 2
