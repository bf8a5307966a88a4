"""Surface energies of elements, from slabs with vacuum."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from ase import Atoms, units

from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.generate.strain import mark
from aiida_autopipe.core.generate.surfaces import Miller, slab_and_bulk
from aiida_autopipe.core.validate.family import Family, Planned, one_element_only
from aiida_autopipe.core.validate.labelled import Labelled, energy_of, parameters_of, rows_of
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.values import PropertyValue

_J_PER_M2 = units.kJ / 1000 / units.m**2
"""1 J/m2 in eV/Å^2."""


class SurfaceFamily(Family):
    """Energy of a slab over that of as much crystal, for each of its two surfaces.

    The crystal is computed in the orientation of the slab, so that both have the same k-points in
    the plane. Ions are relaxed at fixed cell; the symmetry of the cut is kept, so no surface
    reconstructs.
    """

    key = "surfaces"
    names = "surface_energy:HKL with Miller indices such as 111 or 1-10"
    examples = tuple(f"surface_energy:{hkl}" for hkl in ("100", "110", "111"))

    def owns(self, name: str) -> bool:
        """True for three indices that are not all zero."""
        return _miller(name) is not None

    def label(self, name: str) -> str:
        """What readers call the property."""
        return f"Surface energy ({name.split(':')[1]})"

    def unit(self, name: str) -> str:
        """Unit of the value."""
        return "J/m²"

    def undefined(self, name: str, primitive: Atoms) -> str | None:
        """Compounds: the energy depends on the termination and chemical potentials."""
        return one_element_only(primitive)

    def roles(self, name: str) -> tuple[str, ...]:
        """The slab, and the crystal in its orientation."""
        return (name, f"{name}:bulk")

    def plan(
        self,
        names: Sequence[str],
        primitive: Atoms,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> list[Planned]:
        """Two cells for each surface."""
        planned = []
        for name in names:
            miller = _miller(name)
            assert miller is not None, "the family owns only names with indices"
            slab, crystal = slab_and_bulk(
                equilibrium, miller, settings.surface_thickness, settings.surface_vacuum
            )
            area = float(np.linalg.norm(np.cross(*slab.cell.array[:2])))
            flat = slab.copy()
            flat.pbc = (True, True, False)  # one k-point across the vacuum
            facts = {"miller": list(miller), "area_A2": area}
            planned.append(Planned(mark(slab, "validate:surface", **facts), name, flat))
            planned.append(
                Planned(mark(crystal, "validate:surface_bulk", **facts), f"{name}:bulk", crystal)
            )
        return planned

    def measure(self, name: str, labelled: Labelled) -> PropertyValue:
        """(E(slab) - n e(crystal)) / 2A."""
        cells = labelled.second_stage(name)
        slab, crystal = rows_of(cells, name)[0], rows_of(cells, f"{name}:bulk")[0]
        per_atom = energy_of(cells, crystal) / int(cells.sizes[crystal])
        excess = energy_of(cells, slab) - int(cells.sizes[slab]) * per_atom
        area = float(parameters_of(cells, slab)["area_A2"])
        if not area > 0:
            raise DataError(f"The slab of '{name}' has no area.")
        return PropertyValue(excess / (2 * area) / _J_PER_M2, self.unit(name))


def _miller(name: str) -> Miller | None:
    found = re.fullmatch(r"surface_energy:(-?\d)(-?\d)(-?\d)", name)
    if found is None:
        return None
    h, k, m = (int(index) for index in found.groups())
    return (h, k, m) if any((h, k, m)) else None
