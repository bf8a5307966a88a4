"""Formation energies of a vacancy and an interstitial atom in an elemental crystal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.defects import vacancies
from aiida_autopipe.core.generate.interstitials import interstitials
from aiida_autopipe.core.generate.strain import mark
from aiida_autopipe.core.validate.family import Family, Planned, one_element_only
from aiida_autopipe.core.validate.labelled import Labelled, energy_of, rows_of
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.values import PropertyValue

VACANCY_PROPERTIES = ("vacancy_formation_energy",)
INTERSTITIAL_PROPERTIES = ("interstitial_formation_energy",)


def vacancy_structures(atoms: Atoms, repeat: Sequence[int]) -> list[Atoms]:
    """The perfect supercell, and the same cell with one atom removed (unrelaxed).

    With several inequivalent sites the first one is emptied.

    Args:
        atoms: an elemental crystal at its equilibrium volume.
        repeat: (3,) repetitions of the cell.

    Raises:
        InputError: a compound (the energy then depends on chemical potentials), or a supercell of
            one atom.
    """
    elements = sorted(set(atoms.get_chemical_symbols()))
    if len(elements) > 1:
        raise InputError(
            f"The vacancy formation energy is defined here for one element, not for "
            f"{'-'.join(elements)}: leave it out of the properties."
        )
    supercell = atoms.repeat(tuple(int(r) for r in repeat))
    perfect = mark(supercell, "validate:bulk", repeat=[int(r) for r in repeat])
    vacancy = vacancies(supercell)[0]
    vacancy.info["origin"] = "validate:vacancy"
    return [perfect, vacancy]


def vacancy_formation_energy(e_vacancy: float, e_bulk_per_atom: float, n_atoms: int) -> float:
    """E_vacancy - n e_bulk in eV, for a vacancy cell that holds n atoms at fixed bulk volume.

    That of an interstitial is the same expression.
    """
    return float(np.float64(e_vacancy) - n_atoms * np.float64(e_bulk_per_atom))


class PointDefectFamily(Family):
    """A supercell without one atom, and one with an atom more in its largest void."""

    key = "vacancy"
    names = ", ".join((*VACANCY_PROPERTIES, *INTERSTITIAL_PROPERTIES))
    examples = (*VACANCY_PROPERTIES, *INTERSTITIAL_PROPERTIES)

    def unit(self, name: str) -> str:
        """Unit of the value."""
        return "eV"

    def undefined(self, name: str, primitive: Atoms) -> str | None:
        """Compounds: the energy depends on chemical potentials."""
        return one_element_only(primitive)

    def roles(self, name: str) -> tuple[str, ...]:
        """The perfect supercell and the one with the defect."""
        return ("vacancy" if name in VACANCY_PROPERTIES else "interstitial", "bulk")

    def plan(
        self,
        names: Sequence[str],
        primitive: Atoms,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> list[Planned]:
        """Supercells at the volume of the crystal; the perfect one serves both defects."""
        mesh_cell = primitive.repeat(tuple(settings.vacancy_supercell))
        perfect, vacancy = vacancy_structures(equilibrium, settings.vacancy_supercell)
        planned = [Planned(perfect, "bulk", mesh_cell)]
        if any(name in VACANCY_PROPERTIES for name in names):
            planned.append(Planned(vacancy, "vacancy", mesh_cell))
        if any(name in INTERSTITIAL_PROPERTIES for name in names):
            a, b, c = (int(r) for r in settings.vacancy_supercell)
            rng = np.random.default_rng(0)  # asked for by all generators; no copy is rattled
            (filled,) = interstitials(equilibrium, rng, repeat=(a, b, c), max_sites=1, copies=0)
            filled.info["origin"] = "validate:interstitial"
            planned.append(Planned(filled, "interstitial", mesh_cell))
        return planned

    def measure(self, name: str, labelled: Labelled) -> PropertyValue:
        """Energy of the cell with the defect less that of as many atoms of the perfect one."""
        cells = labelled.second_stage(name)
        bulk, defect = rows_of(cells, "bulk")[0], rows_of(cells, self.roles(name)[0])[0]
        per_atom = energy_of(cells, bulk) / int(cells.sizes[bulk])
        n_atoms = int(cells.sizes[defect])
        energy = vacancy_formation_energy(energy_of(cells, defect), per_atom, n_atoms)
        return PropertyValue(energy, self.unit(name))
