"""Vacancy formation energy against direct arithmetic with a real potential."""

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.validate.vacancy import vacancy_formation_energy, vacancy_structures


def test_structures() -> None:
    perfect, vacancy = vacancy_structures(bulk("Si"), [2, 2, 2])
    assert (len(perfect), len(vacancy)) == (16, 15)
    assert perfect.get_volume() == pytest.approx(vacancy.get_volume())


def test_unrelaxed_energy_of_aluminium() -> None:
    perfect, vacancy = vacancy_structures(bulk("Al", a=3.99), [4, 4, 4])
    for atoms in (perfect, vacancy):
        atoms.calc = EMT()
    bulk_energy = perfect.get_potential_energy()
    found = vacancy_formation_energy(vacancy.get_potential_energy(), bulk_energy / 64, 63)
    assert found == pytest.approx(vacancy.get_potential_energy() - 63 / 64 * bulk_energy)
    assert 0.3 < found < 1.5


def test_compounds_are_refused() -> None:
    with pytest.raises(InputError, match="not for Cl-Na"):
        vacancy_structures(bulk("NaCl", "rocksalt", a=5.64), [2, 2, 2])
