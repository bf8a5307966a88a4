"""Energies of isolated atoms that the data do not hold."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc100, fcc111

from aiida_autopipe.core.ace.fit import FitSettings, fit_ace
from aiida_autopipe.core.ace.references import resolve_reference_energies
from aiida_autopipe.core.cohesive_energies import COHESIVE_ENERGIES
from aiida_autopipe.core.dataset import Dataset
from tests.reference.copper import labelled


@pytest.fixture(scope="module")
def copper() -> Dataset:
    """Strained and displaced crystals, and two surfaces."""
    rng = np.random.default_rng(3)
    structures = [fcc100("Cu", (1, 1, 6), vacuum=5.0), fcc111("Cu", (1, 1, 6), vacuum=5.0)]
    for _ in range(20):
        atoms = bulk("Cu", cubic=True).repeat((2, 2, 1))
        atoms.set_cell(atoms.cell.array * (1 + rng.uniform(-0.04, 0.06)), scale_atoms=True)
        atoms.rattle(rng.uniform(0.02, 0.15), rng=rng)
        structures.append(atoms)
    return Dataset.from_atoms([labelled(atoms) for atoms in structures])


def test_an_estimate_is_close_to_the_atom(copper: Dataset) -> None:
    energies, source = resolve_reference_energies(copper, None)
    atom = labelled(Atoms("Cu")).info["energy"]
    assert energies["Cu"] == pytest.approx(atom, abs=0.5)
    assert source == "average of the data set and cohesive energies"


def test_an_element_without_a_cohesive_energy_keeps_its_average() -> None:
    assert "Pm" not in COHESIVE_ENERGIES
    atoms = Atoms("Pm2", [[0, 0, 0], [0, 0, 3]], cell=[4, 4, 6], pbc=True)
    atoms.info["energy"] = -8.0
    assert resolve_reference_energies(Dataset.from_atoms([atoms]), None)[0] == {"Pm": -4.0}


def test_a_compound_of_one_composition() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.info["energy"] = -6.0
    energies, _ = resolve_reference_energies(Dataset.from_atoms([atoms]), None)
    bound = COHESIVE_ENERGIES["Na"] + COHESIVE_ENERGIES["Cl"]
    assert sum(energies.values()) == pytest.approx(-6.0 + bound)


def test_separated_atoms_have_the_reference_energy(copper: Dataset) -> None:
    settings = FitSettings(cutoff=4.5, max_rank=2, max_functions=30)
    potential = fit_ace(copper, settings, rng=np.random.default_rng(0)).potential
    pair = Atoms("Cu2", [[0, 0, 0], [0, 0, 5]])
    expected = 2 * labelled(Atoms("Cu")).info["energy"]
    assert potential.evaluate(pair).energy == pytest.approx(expected, abs=1.0)
