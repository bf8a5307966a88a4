"""Energy of two atoms over their distance: the repulsive wall, depth and place of the minimum."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.generate.dimers import dimers
from aiida_autopipe.core.generate.radii import bond_length, spaced
from aiida_autopipe.core.validate.family import Family, Planned
from aiida_autopipe.core.validate.labelled import Labelled, energy_of, parameters_of, rows_of
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.values import (
    Comparison,
    Plot,
    PropertyValue,
    Series,
    compare_curves,
)

SHORTEST, LONGEST = 0.6, 2.2
"""Distances, in sums of the covalent radii."""
FEWEST = 6
"""Distances that make a curve."""


class DimerFamily(Family):
    """A curve for each pair of elements; the value is the depth of its minimum.

    The error is the larger relative one of depth and distance of the minimum. A potential whose
    energy falls again at short distance fails, however good its minimum is.
    """

    key = "dimers"
    names = "dimer:A-B with elements A and B"

    def owns(self, name: str) -> bool:
        """True for two chemical symbols."""
        return _pair(name) is not None

    def label(self, name: str) -> str:
        """What readers call the property."""
        return f"Well depth of the dimer {name.split(':')[1]}"

    def unit(self, name: str) -> str:
        """Unit of the value."""
        return "eV"

    def undefined(self, name: str, primitive: Atoms) -> str | None:
        """Elements the material does not have."""
        elements = sorted(set(primitive.get_chemical_symbols()))
        if set(_pair(name) or ()) <= set(elements):
            return None
        return f"only defined for elements of the material, {', '.join(elements)}"

    def roles(self, name: str) -> tuple[str, ...]:
        """The pairs."""
        return (name,)

    def plan(
        self,
        names: Sequence[str],
        primitive: Atoms,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> list[Planned]:
        """Pairs that are not periodic, in a box; the same for both sides."""
        planned = []
        for name in names:
            pair = sorted(_pair(name) or ())
            bond = bond_length(*pair)
            distances = spaced(SHORTEST * bond, LONGEST * bond, settings.dimer_points)
            rng = np.random.default_rng(0)  # asked for by all generators; nothing here is random
            for atoms in dimers(primitive, rng, elements=pair, distances=distances):
                if sorted(atoms.get_chemical_symbols()) == pair:
                    atoms.info["origin"] = "validate:dimer"
                    planned.append(Planned(atoms, name, atoms, relax=False))
        return planned

    def measure(self, name: str, labelled: Labelled) -> PropertyValue:
        """The curve and its minimum."""
        cells = labelled.second_stage(name)
        points = sorted(
            (float(parameters_of(cells, i)["distance_A"]), energy_of(cells, i))
            for i in rows_of(cells, name)
        )
        if len(points) < FEWEST:
            raise DataError(f"Only {len(points)} distances of '{name}' were computed.")
        x, y = np.array(points).T
        y = y - y[-1]
        lowest = _minimum(y)
        falling = np.flatnonzero(np.diff(y[: lowest + 1]) >= 0)
        wall = f"it falls below {x[falling[-1] + 1]:.2f} Å" if len(falling) else ""
        data = {"distance": x, "energy": y, "no_wall": wall}
        if lowest in (0, len(x) - 1):
            note = "the energy has no minimum between the shortest and the longest distance"
            return PropertyValue(float("nan"), self.unit(name), note, data)
        data["minimum"], depth = _well(x, y, lowest)
        return PropertyValue(depth, self.unit(name), data=data)

    def compare(
        self, name: str, potential: PropertyValue, reference: PropertyValue, tolerance: float
    ) -> Comparison:
        """Depth and distance of the minimum within the tolerance, and a repulsive wall."""
        error, notes = float("nan"), []
        if np.isfinite(potential.value) and np.isfinite(reference.value) and reference.value > 0:
            depth = abs(potential.value - reference.value) / reference.value
            ours, theirs = potential.data["minimum"], reference.data["minimum"]
            error = max(depth, abs(ours - theirs) / theirs)
            notes.append(f"minimum at {ours:.3f} Å, reference {theirs:.3f} Å")
        wall = potential.data.get("no_wall", "")
        if wall:
            notes.append(f"the energy of the potential has no repulsive wall: {wall}")
        # Without a wall the row must not pass; an error in the numbers alone would hide it.
        row = compare_curves(name, potential, reference, tolerance, error, notes)
        return row if not wall else Comparison(**{**vars(row), "passed": False})

    def plot(self, name: str, potential: PropertyValue, reference: PropertyValue) -> Plot | None:
        """Both curves, from the energy at the longest distance."""
        sides = (("reference", "markers", reference), ("potential", "lines", potential))
        series = [
            Series(side, mode, found.data["distance"].tolist(), found.data["energy"].tolist())
            for side, mode, found in sides
            if found.data
        ]
        if not series:
            return None
        depth = max(-float(min(y for y in one.y if y is not None)) for one in series)
        return Plot(
            name=name,
            title=f"Energy of the dimer {name.split(':')[1]}",
            x_label="distance (Å)",
            y_label="E − E(longest distance) (eV)",
            series=tuple(series),
            y_range=(-1.3 * max(depth, 0.5), 6.0 * max(depth, 0.5)),
            note="The wall goes on above the plot.",
        )


def _pair(name: str) -> tuple[str, str] | None:
    found = re.fullmatch(r"dimer:([A-Z][a-z]?)-([A-Z][a-z]?)", name)
    if found is None or not set(found.groups()) <= set(atomic_numbers) - {"X"}:
        return None
    return found[1], found[2]


def _minimum(energies: NDArray[np.float64]) -> int:
    """Index of the lowest point between two higher ones; of the lowest of all without such."""
    inner = np.flatnonzero((energies[1:-1] < energies[:-2]) & (energies[1:-1] <= energies[2:])) + 1
    return int(inner[np.argmin(energies[inner])] if len(inner) else np.argmin(energies))


def _well(x: NDArray[np.float64], y: NDArray[np.float64], lowest: int) -> tuple[float, float]:
    """Distance and depth of the minimum, by the quartic in 1/d through the five points around it.

    In 1/d wall and tail are nearly polynomials: at these spacings the minima of Morse and
    Lennard-Jones curves come out to 0.3 % in distance and 0.5 % in depth.
    """
    first = min(max(lowest - 2, 0), len(x) - 5)
    near = slice(first, first + 5)
    quartic = np.polynomial.Polynomial.fit(1 / x[near], y[near], 4)
    fine = np.linspace(x[lowest - 1], x[lowest + 1], 4001)
    energies = quartic(1 / fine)
    k = int(np.argmin(energies))
    return float(fine[k]), float(-energies[k])
