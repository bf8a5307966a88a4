"""Stresses that harm: labels that miss a constant, and labels of another quality than the rest."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_autopipe.core.ace.fit import FitResult, FitSettings, fit_ace
from aiida_autopipe.core.ace.tuning import STRESS_TO_ENERGY_WEIGHTS
from aiida_autopipe.core.dataset import Dataset

SETTINGS = FitSettings(cutoff=5.0, max_rank=3, max_functions=60, search=1)
# eV per atom that a basis set too small takes off the pressure times the volume.
MISSING = {"Au": 0.30, "Cu": 0.15}


def alloys(rng: np.random.Generator, count: int) -> Dataset:
    """Strained and rattled Cu-Au with labels of EMT."""
    structures = []
    for k in range(count):
        atoms = bulk("Cu", "fcc", a=3.85, cubic=True)
        atoms.symbols[rng.choice(4, size=k % 5, replace=False)] = "Au"
        strain = np.eye(3) * rng.uniform(0.94, 1.06) + 0.02 * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
        atoms.positions += 0.08 * rng.normal(size=(4, 3))
        atoms.calc = EMT()
        atoms.info |= {"energy": atoms.get_potential_energy(), "stress": atoms.get_stress()}
        atoms.arrays["forces"] = atoms.get_forces()
        structures.append(atoms)
    return Dataset.from_atoms(structures)


def with_pulay_stress(data: Dataset) -> Dataset:
    stress = np.array(data.stress)
    for k in range(len(data)):
        atoms = data.atoms(k)
        missing = sum(MISSING[symbol] for symbol in atoms.symbols)
        stress[k, :3] += missing / atoms.cell.volume
    return replace(data, stress=stress)


def fit(data: Dataset, test: Dataset, **settings: object) -> FitResult:
    return fit_ace(data, replace(SETTINGS, **settings), test, rng=np.random.default_rng(5))


@pytest.fixture(scope="module")
def data() -> tuple[Dataset, Dataset]:
    rng = np.random.default_rng(29)
    return alloys(rng, 120), alloys(rng, 20)


# The second takes decisions on a part of the structures and judges the rest by them; the third
# chooses functions as well.
@pytest.mark.parametrize(("search_atoms", "factor"), [(15000, 1), (320, 1), (320, 2)])
def test_pulay_stress_is_told_and_taken_off(
    data: tuple[Dataset, Dataset], search_atoms: int, factor: int
) -> None:
    train, test = data
    options = {"search_atoms": search_atoms, "candidates_per_function": factor}
    good = fit(train, test, **options)
    found = fit(with_pulay_stress(train), test, **options)
    assert not any("Pulay" in note for note in good.notes)
    (note,) = (note for note in found.notes if "Pulay" in note)
    volume = np.mean([atoms.cell.volume / 4 for atoms in train.iter_atoms()])
    pressure = 0.5 * sum(MISSING.values()) / volume * 160.2177
    said = float(note.split(" GPa lower")[0].split()[-1])
    assert said == pytest.approx(pressure, rel=0.05)
    for key, least in (("energy_mae_per_atom", 0.0), ("forces_mae", 0.0), ("stress_mae", 2e-4)):
        assert found.metrics["test"][key] < 1.2 * good.metrics["test"][key] + least


def test_stresses_get_less_weight_where_they_harm(data: tuple[Dataset, Dataset]) -> None:
    train, test = data
    rng = np.random.default_rng(31)
    noise = 0.02 * rng.normal(size=(len(train), 6))
    noisy = replace(train, stress=np.array(train.stress) + noise)
    chosen = [fit(part, test).chosen for part in (train, noisy)]
    ratios = [one["stress_weight"] / one["energy_weight"] for one in chosen]
    assert ratios[0] == pytest.approx(STRESS_TO_ENERGY_WEIGHTS[0])
    assert ratios[1] < ratios[0]
    assert fit(noisy, test, stress_weight=2.0).chosen["stress_weight"] == 2.0
