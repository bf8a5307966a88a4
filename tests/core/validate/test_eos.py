"""Birch-Murnaghan fit against exact data, ASE's fit, and unusable data."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.eos import EquationOfState

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.validate.eos import Eos, eos_structures, fit_eos

EXACT = Eos(v0=40.0, e0=-215.0, b0=0.6, b0_prime=4.3, rmse=0.0)
VOLUMES = np.linspace(37.0, 43.0, 7)


def test_recovers_the_parameters_of_exact_data() -> None:
    fitted = fit_eos(VOLUMES, EXACT.energy(VOLUMES))
    assert fitted.v0 == pytest.approx(EXACT.v0, rel=1e-9)
    assert fitted.e0 == pytest.approx(EXACT.e0, rel=1e-12)
    assert fitted.b0 == pytest.approx(EXACT.b0, rel=1e-7)
    assert fitted.b0_prime == pytest.approx(EXACT.b0_prime, rel=1e-5)
    assert fitted.rmse < 1e-10


def test_bulk_modulus_is_the_curvature() -> None:
    h = 0.01
    energies = EXACT.energy(np.array([40 - h, 40.0, 40 + h]))
    assert 40 * (energies @ [1, -2, 1]) / h**2 == pytest.approx(EXACT.b0, rel=1e-4)


def test_agrees_with_ase_on_a_real_metal() -> None:
    energies = []
    structures = eos_structures(bulk("Cu", a=3.6), 7, 0.06)
    for atoms in structures:
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    volumes = [atoms.get_volume() for atoms in structures]
    fitted = fit_eos(volumes, energies)
    v0, e0, b0 = EquationOfState(volumes, energies, eos="birchmurnaghan").fit(warn=False)
    assert fitted.v0 == pytest.approx(v0, rel=1e-5)
    assert fitted.e0 == pytest.approx(e0, abs=1e-6)
    assert fitted.b0 == pytest.approx(b0, rel=1e-3)


def test_structures_span_the_range() -> None:
    atoms = bulk("Si")
    volumes = np.array([s.get_volume() for s in eos_structures(atoms, 5, 0.1)])
    np.testing.assert_allclose(volumes / atoms.get_volume(), [0.9, 0.95, 1.0, 1.05, 1.1])


@pytest.mark.parametrize(
    ("volumes", "energies", "message"),
    [
        (VOLUMES[:4], EXACT.energy(VOLUMES[:4]), "at least 5"),
        ([40.0] * 7, EXACT.energy(VOLUMES), "at least 5"),
        (VOLUMES + 5, EXACT.energy(VOLUMES + 5), r"minimum at 40\.0.*outside"),
        (VOLUMES, -EXACT.energy(VOLUMES), "minimum"),
        (VOLUMES, np.full(7, np.nan), "not finite"),
    ],
)
def test_unusable_data(volumes: np.ndarray, energies: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_eos(volumes, energies)


def test_unusable_settings() -> None:
    with pytest.raises(InputError, match="at least 5 volumes"):
        eos_structures(bulk("Si"), 4, 0.1)
    with pytest.raises(InputError, match=r"between 0 and 1, not 1\.5"):
        eos_structures(bulk("Si"), 7, 1.5)
