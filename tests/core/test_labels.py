"""Labels as they are found on structures: names, shapes, signs."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.labels import LabelKeys, read_labels

VOIGT = np.array([0.01, 0.02, 0.03, 0.004, 0.005, 0.006])
TENSOR = np.array([[0.01, 0.006, 0.005], [0.006, 0.02, 0.004], [0.005, 0.004, 0.03]])


def silicon(**info: object) -> Atoms:
    atoms = bulk("Si")
    atoms.info |= info
    return atoms


def stress_of(atoms: Atoms, key: str | None = None) -> np.ndarray:
    stress = read_labels(0, atoms, LabelKeys(stress=key)).stress
    assert stress is not None
    return stress


def test_usual_and_custom_names() -> None:
    atoms = silicon(REF_energy=-1.0, dft=-2.0)
    atoms.arrays["REF_forces"] = np.ones((2, 3))
    atoms.arrays["f"] = np.zeros((2, 3))
    usual = read_labels(0, atoms, LabelKeys())
    assert usual.energy == -1.0
    assert np.all(usual.forces == 1.0)
    custom = read_labels(0, atoms, LabelKeys(energy="dft", forces="f"))
    assert custom.energy == -2.0
    assert np.all(custom.forces == 0.0)


def test_a_name_nothing_has_is_an_error() -> None:
    with pytest.raises(InputError, match="has no energy under the key 'dft'"):
        Dataset.from_atoms([silicon(energy=-1.0)], keys=LabelKeys(energy="dft"))
    mixed = Dataset.from_atoms([silicon(), silicon(dft=-1.0)], keys=LabelKeys(energy="dft"))
    assert np.isnan(mixed.energy[0]) and mixed.energy[1] == -1.0


def test_calculator_results_are_labels() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    assert read_labels(0, atoms, LabelKeys()).energy is None
    energy, stress = atoms.get_potential_energy(), atoms.get_stress()
    # The name ASE moves into the calculator may be given explicitly.
    labels = read_labels(0, atoms, LabelKeys(energy="energy"))
    assert labels.energy == pytest.approx(energy)
    np.testing.assert_allclose(labels.forces, atoms.get_forces())
    np.testing.assert_allclose(labels.stress, stress)


def test_stress_and_virial_forms() -> None:
    volume = bulk("Si").get_volume()
    for value in (VOIGT, TENSOR, TENSOR.ravel()):
        np.testing.assert_allclose(stress_of(silicon(stress=value)), VOIGT)
        np.testing.assert_allclose(stress_of(silicon(virial=-value * volume)), VOIGT)
        found = stress_of(silicon(dft_virial=-value * volume), "dft_virial")
        np.testing.assert_allclose(found, VOIGT)
    left_handed = silicon(virial=-VOIGT * volume)
    left_handed.set_cell(left_handed.cell.array[[1, 0, 2]])
    np.testing.assert_allclose(stress_of(left_handed), VOIGT)


def test_virial_of_a_squeezed_crystal_is_positive() -> None:
    """In extxyz files a virial has the sign of a pressure: the strain derivative of -E."""
    atoms = bulk("Cu", a=3.4)
    atoms.calc = EMT()
    stress = atoms.get_stress()
    assert stress[0] < 0
    atoms.calc = None
    atoms.info["virial"] = -stress * atoms.get_volume()
    np.testing.assert_allclose(stress_of(atoms), stress)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"energy": [1.0, 2.0]}, r"Structure 7: energy of shape \(2,\); expected one number"),
        ({"energy": "low"}, "Structure 7: energy 'low' is not numeric"),
        ({"energy": np.nan}, "Structure 7 has a NaN or infinite energy"),
        ({"stress": np.zeros(5)}, r"stress of shape \(5,\); expected shape \(6,\)"),
        ({"stress": np.full(6, np.inf)}, "Structure 7 has a NaN or infinite stress"),
        ({"stress": [[0, 1, 0], [0, 0, 0], [0, 0, 0]]}, "is not symmetric"),
        ({"weight": "heavy"}, "weight 'heavy' is not numeric"),
    ],
)
def test_unusable_info(info: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(7, silicon(**info), LabelKeys())


def test_virial_without_a_volume() -> None:
    atoms = Atoms("H2", positions=[[0, 0, 0], [0.7, 0, 0]])
    atoms.info["virial"] = VOIGT
    with pytest.raises(DataError, match="Structure 0: virial needs a periodic cell"):
        read_labels(0, atoms, LabelKeys())


def test_unusable_forces() -> None:
    atoms = silicon()
    atoms.arrays["forces"] = np.zeros((2, 2))
    with pytest.raises(DataError, match=r"forces of shape \(2, 2\); expected shape \(2, 3\)"):
        read_labels(0, atoms, LabelKeys())
    atoms.arrays["forces"] = np.array([[0, 0, 0], [np.nan, 0, 0]])
    with pytest.raises(DataError, match="Structure 3 has NaN or infinite forces"):
        read_labels(3, atoms, LabelKeys())
    # Where the mask is 0, nobody looks at the force.
    atoms.arrays["force_mask"] = np.array([1.0, 0.0])
    assert read_labels(3, atoms, LabelKeys()).forces is not None


def test_no_atoms() -> None:
    with pytest.raises(DataError, match="Structure 2 has no atoms"):
        read_labels(2, Atoms(), LabelKeys())
