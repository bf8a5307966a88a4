"""Molecules along a reaction: its ends, a path between them, and scans of the bonds that change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.mep import NEB
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.cells import check_count
from aiida_autopipe.core.generate.molecules import (
    ATTEMPTS,
    bonds,
    charged,
    check_molecule,
    fragments,
    keeps_apart,
)
from aiida_autopipe.core.generate.radii import bond_length, check_elements, spaced
from aiida_autopipe.core.generate.strain import mark

CONTACT = 1.6
"""Distance of an entering or leaving atom, in sums of covalent radii: an ion beside a molecule."""


def reaction_path(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    path: Sequence[Atoms] | None = None,
    entering: str | None = None,
    leaving: str | None = None,
    images: int = 9,
    copies: int = 2,
    amplitude: float = 0.04,
    scan: int = 6,
    scan_range: tuple[float, float] = (0.75, 2.5),
    charge: int = 0,
) -> list[Atoms]:
    """Structures along a reaction: ends, path, rattled path, and scans of its bonds.

    Images lie on the path that image dependent pair potentials give (Smidstrup et al., J. Chem.
    Phys. 140, 214106 (2014)). A bond that forms or breaks is scanned at both ends.

    Args:
        crystal: the reactant, not periodic.
        rng: source of randomness.
        path: the product, or images from reactant to product, with the same atoms in the same
            order; null makes a substitution of `entering` and `leaving`.
        entering, leaving: elements of a substitution, such as F and Cl in CH3Cl + F- -> CH3F + Cl-:
            the entering atom comes from behind the leaving one.
        images: between the ends.
        copies: rattled structures for each image and end.
        amplitude: standard deviation of displacements in Å.
        scan: lengths of each bond that is scanned.
        scan_range: smallest and largest, in sums of covalent radii.
        charge: of the whole, recorded in info['charge'].

    Raises:
        InputError: neither path nor substitution, other atoms at the ends, or settings out of
            range.
    """
    for name, value in (("images", images), ("copies", copies), ("scan", scan)):
        check_count(name, value)
    if amplitude < 0:
        raise InputError(f"amplitude is a standard deviation: {amplitude} must not be negative.")
    ends = _frames(crystal, path, entering, leaving)
    frames = _interpolated(ends, images) if len(ends) == 2 else ends
    last = len(frames) - 1
    structures = []
    for k, frame in enumerate(frames):
        place = round(k / last, 6)
        name = {0: "reaction:reactant", last: "reaction:product"}.get(k, "reaction:path")
        structures.append(mark(frame, name, coordinate=place, charge=charge))
        for copy in range(copies):
            moved = _rattled(frame, amplitude, rng)
            structures.append(
                mark(moved, name, coordinate=place, charge=charge, amplitude_A=amplitude, copy=copy)
            )
    structures += _scans([frames[0], frames[-1]], scan, scan_range, charge)
    return [charged(atoms, charge) for atoms in structures]


def _frames(
    reactant: Atoms, path: Sequence[Atoms] | None, entering: str | None, leaving: str | None
) -> list[Atoms]:
    """At least the two ends, on top of each other as far as they go."""
    check_molecule(reactant)
    if path is None and (entering is None or leaving is None):
        raise InputError(
            "A reaction needs its path, or the elements entering and leaving of a substitution."
        )
    if path is None:
        return substitution(reactant, str(entering), str(leaving))
    given = list(path)
    if not given:
        raise InputError("The path of the reaction is empty: give the product at least.")
    first = given[0]
    same = len(first) == len(reactant) and np.allclose(first.positions, reactant.positions)
    frames = given if same and len(given) > 1 else [reactant, *given]
    for frame in frames[1:]:
        if frame.get_chemical_symbols() != reactant.get_chemical_symbols():
            raise InputError(
                f"The path has {frame.get_chemical_formula()} where the reactant is "
                f"{reactant.get_chemical_formula()}: the atoms and their order must be the same."
            )
    aligned = [frames[0].copy()]
    for frame in frames[1:]:
        moved = frame.copy()
        minimize_rotation_and_translation(aligned[-1], moved)
        aligned.append(moved)
    return aligned


def substitution(reactant: Atoms, entering: str, leaving: str) -> list[Atoms]:
    """Both ends of a substitution from behind (SN2), the same atoms in the same order.

    The entering atom stands opposite the leaving one on the line through the atom it is bonded to;
    the other neighbours of that atom turn over like an umbrella.

    Raises:
        InputError: unknown elements, or not one leaving atom with one bond.
    """
    check_elements([entering, leaving])
    symbols = reactant.get_chemical_symbols()
    if symbols.count(leaving) != 1:
        raise InputError(
            f"{reactant.get_chemical_formula()} has {symbols.count(leaving)} atoms {leaving}; a "
            "substitution needs one: give the path instead."
        )
    out = symbols.index(leaving)
    partners = [int(i) if j == out else int(j) for i, j in bonds(reactant) if out in (i, j)]
    if len(partners) != 1:
        raise InputError(
            f"The leaving {leaving} has {len(partners)} bonds; a substitution needs one: give the "
            "path instead."
        )
    centre = partners[0]
    axis = reactant.positions[out] - reactant.positions[centre]
    axis = axis / np.linalg.norm(axis)
    origin = reactant.positions[centre].copy()
    near = bond_length(symbols[centre], entering)
    first: Atoms = reactant.copy()
    first.append(entering)
    first.positions[-1] = origin - CONTACT * near * axis
    last = first.copy()
    labels = fragments(len(reactant), np.array([b for b in bonds(reactant) if out not in b]))
    umbrella = np.flatnonzero(labels == labels[centre])
    heights = (last.positions[umbrella] - origin) @ axis
    last.positions[umbrella] -= 2.0 * heights[:, None] * axis
    last.positions[-1] = origin - near * axis
    last.positions[out] = origin + CONTACT * bond_length(symbols[centre], leaving) * axis
    return [first, last]


def _interpolated(ends: Sequence[Atoms], images: int) -> list[Atoms]:
    frames = [ends[0].copy() for _ in range(images + 1)] + [ends[1].copy()]
    if images:
        NEB(frames, method="improvedtangent").interpolate(method="idpp")
    return frames


def _rattled(frame: Atoms, amplitude: float, rng: np.random.Generator) -> Atoms:
    for _ in range(ATTEMPTS):
        moved: Atoms = frame.copy()
        moved.positions += rng.normal(scale=amplitude, size=(len(frame), 3))
        if keeps_apart(moved, 0.6):
            return moved
    raise InputError(f"An amplitude of {amplitude} Å lets atoms of the reaction meet: lower it.")


def _scans(ends: Sequence[Atoms], n: int, limits: tuple[float, float], charge: int) -> list[Atoms]:
    """Each bond that one end has and the other has not, at n lengths, from either end."""
    if not n:
        return []
    low, high = limits
    if not 0 < low < high:
        raise InputError(f"scan_range {[low, high]} must be a smallest and a largest length.")
    sets = [{(int(i), int(j)) for i, j in bonds(end)} for end in ends]
    structures = []
    for i, j in sorted(sets[0] ^ sets[1]):
        for end, present in zip(ends, sets, strict=True):
            parts = fragments(len(end), np.array(sorted(present - {(i, j)})).reshape(-1, 2))
            if parts[i] == parts[j]:
                continue
            moving: NDArray[np.int64] = np.flatnonzero(parts == parts[j])
            symbols = end.get_chemical_symbols()
            vector = end.positions[j] - end.positions[i]
            length = float(np.linalg.norm(vector))
            bond = bond_length(symbols[i], symbols[j])
            for wanted in spaced(low * bond, high * bond, n):
                scanned: Atoms = end.copy()
                scanned.positions[moving] += (wanted - length) / length * vector
                if not keeps_apart(scanned, 0.6):
                    continue
                facts = {"bond": [i, j], "elements": [symbols[i], symbols[j]]}
                side = "reactant" if end is ends[0] else "product"
                structures.append(
                    mark(
                        scanned, "reaction:scan", **facts, length_A=wanted, end=side, charge=charge
                    )
                )
    return structures
