"""Energies of other crystal structures of the same composition, each at its own equilibrium."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from scipy.optimize import brentq

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.generate.strain import mark, scale_volume
from aiida_autopipe.core.prototypes import NONMETALS, PROTOTYPES, reduced
from aiida_autopipe.core.validate.eos import fit_eos
from aiida_autopipe.core.validate.family import Family, Planned
from aiida_autopipe.core.validate.labelled import Labelled, energy_of, rows_of, volume_of
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.values import Comparison, PropertyValue, compare_values

STRAINS = tuple(np.linspace(-0.2, 0.2, 9).round(12).tolist())
"""Relative volume changes around the guessed volume, which may be wrong by a tenth."""
FIT_POINTS = 5
"""Volumes nearest to the lowest energy that the equation of state is fitted to."""
LEAST = 0.05
"""Errors of smaller energies are relative to this one, in eV/atom: phases that differ by a few meV
are hardly told apart by a functional, and not by relative errors."""
_BOND_VALENCE_A = 0.37
_PREFIX = "phase:"


def _beta_tin(symbol: str) -> Atoms:
    a, c = 1.0, 0.55
    cell = [[-a / 2, a / 2, c / 2], [a / 2, -a / 2, c / 2], [a / 2, a / 2, -c / 2]]
    return Atoms([symbol] * 2, positions=[(0, 0, 0), (0, a / 2, c / 4)], cell=cell, pbc=True)


ELEMENTAL: dict[str, Callable[[str], Atoms]] = {
    "fcc": lambda symbol: bulk(symbol, "fcc", a=1.0),
    "bcc": lambda symbol: bulk(symbol, "bcc", a=1.0),
    "hcp": lambda symbol: bulk(symbol, "hcp", a=1.0, c=math.sqrt(8 / 3)),
    "sc": lambda symbol: bulk(symbol, "sc", a=1.0),
    "diamond": lambda symbol: bulk(symbol, "diamond", a=1.0),
    "beta-tin": _beta_tin,
}
"""Structures of elements, of any size; axis ratios are ideal, of beta-tin 0.55."""

_LATTICES = {
    "wurtzite": (1.0, math.sqrt(8 / 3)),
    "rutile": (1.0, 0.644),
    "L10": (1.0, 1.0),
    "corundum": (1.0, 2.73),
    "quartz": (1.0, 1.1),
}
"""Axis ratios of compounds: ideal ones, those of the usual rutile, Al2O3 and SiO2."""


class PhaseFamily(Family):
    """Energy per atom of another structure less that of the material's own, each at its minimum.

    Volumes are guessed from the bond valence sum (I. D. Brown and D. Altermatt, Acta Cryst. B 41,
    244 (1985)), which all structures of a composition share.
    """

    key = "phases"
    names = f"phase:NAME with {', '.join((*ELEMENTAL, *PROTOTYPES))}"
    examples = tuple(_PREFIX + name for name in (*ELEMENTAL, *PROTOTYPES))

    def label(self, name: str) -> str:
        """What readers call the property."""
        return f"Energy of {name.removeprefix(_PREFIX)} over the crystal"

    def unit(self, name: str) -> str:
        """Unit of the value."""
        return "eV/atom"

    def undefined(self, name: str, primitive: Atoms) -> str | None:
        """Structures of another composition."""
        if _build(name.removeprefix(_PREFIX), primitive) is not None:
            return None
        ratio = _ratio(primitive)
        fitting = [n for n in self.examples if _build(n.removeprefix(_PREFIX), primitive)]
        composition = "".join(f"{s}{int(n) if n > 1 else ''}" for s, n in ratio.items())
        return (
            f"not a structure of the composition {composition}"
            f" (its own: {', '.join(fitting) or 'none is known'})"
        )

    def roles(self, name: str) -> tuple[str, ...]:
        """The scaled cells."""
        return (name,)

    def plan(
        self,
        names: Sequence[str],
        primitive: Atoms,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> list[Planned]:
        """Each structure at volumes around the guessed one; ions relaxed where they are free."""
        planned = []
        for name in names:
            shape = _build(name.removeprefix(_PREFIX), primitive)
            assert shape is not None, "undefined names are refused before anything is planned"
            guess = _with_bond_valence_of(equilibrium, shape)
            for strain in STRAINS:
                cell = scale_volume(guess, 1.0 + strain)
                planned.append(
                    Planned(mark(cell, "validate:phase", volume_strain=strain), name, guess)
                )
        return planned

    def measure(self, name: str, labelled: Labelled) -> PropertyValue:
        """Energy at the minimum of its equation of state, over that of the crystal."""
        cells = labelled.second_stage(name)
        rows = rows_of(cells, name)
        volumes = np.array([volume_of(cells, i) for i in rows])
        energies = np.array([energy_of(cells, i) for i in rows])
        lowest = int(np.argmin(energies))
        nearest = np.argsort(np.abs(volumes - volumes[lowest]), kind="stable")[:FIT_POINTS]
        try:
            minimum = fit_eos(volumes[nearest], energies[nearest]).e0
        except DataError as error:
            raise DataError(f"{name.removeprefix(_PREFIX)}: {error}") from error
        own = labelled.equation_of_state().e0 / len(labelled.primitive)
        return PropertyValue(minimum / int(cells.sizes[rows[0]]) - own, self.unit(name))

    def compare(
        self, name: str, potential: PropertyValue, reference: PropertyValue, tolerance: float
    ) -> Comparison:
        """Two numbers; small ones are not held to a small absolute error."""
        return compare_values(name, potential, reference, tolerance, least=LEAST)


def _ratio(primitive: Atoms) -> dict[str, float]:
    symbols = primitive.get_chemical_symbols()
    return reduced({symbol: float(symbols.count(symbol)) for symbol in sorted(set(symbols))})


def _build(structure: str, primitive: Atoms) -> Atoms | None:
    """The structure with the material's elements, of any size; None when it does not fit."""
    ratio = _ratio(primitive)
    if len(ratio) == 1:
        return ELEMENTAL[structure](next(iter(ratio))) if structure in ELEMENTAL else None
    prototype = PROTOTYPES.get(structure)
    if prototype is None or len(ratio) != 2:
        return None
    # Where the numbers leave it open, the metal takes the first sites.
    ordered = sorted(ratio, key=lambda symbol: symbol in NONMETALS)
    for first, second in (ordered, ordered[::-1]):
        if (ratio[first], ratio[second]) == prototype.counts:
            return prototype.build(first, second, _LATTICES.get(structure, (1.0,)))
    return None


def _with_bond_valence_of(crystal: Atoms, shape: Atoms) -> Atoms:
    """The shape, scaled so that its atoms have the mean bond valence sum of the crystal's."""
    per_atom = float(crystal.get_volume()) / len(crystal)
    start = scale_volume(shape, per_atom * len(shape) / float(shape.get_volume()))
    shortest = _shortest(crystal)
    wanted = math.log(_bond_valence(crystal, 1.0, shortest))

    def excess(scale: float) -> float:
        return math.log(_bond_valence(start, scale, shortest)) - wanted

    return scale_volume(start, float(brentq(excess, 0.6, 1.8, xtol=1e-5)) ** 3)


def _shortest(crystal: Atoms) -> float:
    width = 2.0 * (float(crystal.get_volume()) / len(crystal)) ** (1 / 3)
    return float(np.linalg.norm(full_neighbour_list(crystal, width).vectors, axis=1).min())


def _bond_valence(atoms: Atoms, scale: float, shortest: float) -> float:
    """Mean sum of exp((d0 - d) / b) over the neighbours, with d0 the crystal's shortest distance.

    In a compound with a non-metal only unlike atoms are bonded.
    """
    pairs = full_neighbour_list(atoms, 4.0 * shortest)
    lengths = np.linalg.norm(pairs.vectors, axis=1) * scale
    bonded = np.ones(len(lengths), dtype=bool)
    symbols = set(atoms.get_chemical_symbols())
    if len(symbols) > 1 and symbols & NONMETALS:
        bonded = atoms.numbers[pairs.centre] != atoms.numbers[pairs.neighbour]
    return float(np.exp((shortest - lengths[bonded]) / _BOND_VALENCE_A).sum()) / len(atoms)
