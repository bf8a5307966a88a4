"""A small ACE potential of copper, fitted to ASE's EMT: real enough to run MD with."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from aiida_autopipe.core.ace.fit import FitResult, FitSettings, fit_ace
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.dataset import Dataset


def copper(amplitude: float, rng: np.random.Generator, strain: float = 0.0) -> Atoms:
    """8 atoms of fcc copper, rattled; primitive cell vectors, so the cell is triclinic."""
    atoms = bulk("Cu", "fcc", a=3.61) * (2, 2, 2)
    atoms.set_cell(atoms.cell.array * (1 + strain), scale_atoms=True)
    atoms.positions += rng.normal(scale=amplitude, size=(len(atoms), 3))
    return atoms


def labelled(atoms: Atoms) -> Atoms:
    """The structure with the labels of EMT."""
    known, found = atoms.copy(), atoms.copy()
    known.calc = EMT()
    found.info["energy"] = float(known.get_potential_energy())
    found.arrays["forces"] = known.get_forces()
    return found


def labelled_copper(n_structures: int, rng: np.random.Generator, more: float = 0.0) -> Dataset:
    """Rattled by 0.05 to 0.13 Å and so much more, strained by up to 2 %, labelled by EMT."""
    structures = []
    for index in range(n_structures):
        atoms = copper(0.05 + 0.02 * (index % 5) + more, rng, strain=0.02 * (index % 3 - 1))
        atoms.calc = EMT()
        results = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **results)
        structures.append(atoms)
    return Dataset.from_atoms(structures)


def copper_fit(n_structures: int = 12, test: Dataset | None = None) -> FitResult:
    settings = FitSettings(
        cutoff=4.0,
        max_rank=3,
        max_functions=30,
        environments_per_function=0.0,
        energy_weight=30.0,
        regularisation=1e-8,
        smoothness=0.0,
        n_folds=2,
    )
    return fit_ace(
        labelled_copper(n_structures, np.random.default_rng(11)),
        settings,
        test,
        reference_energies={"Cu": 0.0},
        rng=np.random.default_rng(12),
    )


def copper_potential(n_structures: int = 12) -> ACEPotential:
    return copper_fit(n_structures).potential
