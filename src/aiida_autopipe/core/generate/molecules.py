"""Conformers of a molecule: bonds stretched, angles bent and torsions turned at random."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.cells import check_count
from aiida_autopipe.core.generate.strain import mark

BOND = 1.25
"""Atoms closer than this many sums of their covalent radii are bonded."""
CLOSEST = 0.7
"""No two atoms of a conformer are closer than this many sums of their covalent radii."""
ATTEMPTS = 200


def molecules(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    n: int = 10,
    stretch: float = 0.05,
    bend_deg: float = 6.0,
    torsion_deg: float = 30.0,
    amplitude: float = 0.03,
    charge: int = 0,
) -> list[Atoms]:
    """Conformers of one molecule.

    Each bond that is in no ring divides the molecule: the smaller part is moved along it, bent away
    and turned about it. Then every atom is displaced a little, which is all that happens to rings.

    Args:
        crystal: the molecule, not periodic.
        rng: source of randomness.
        n: structures.
        stretch: standard deviation of bond lengths, relative.
        bend_deg, torsion_deg: standard deviations of the rotations in degrees.
        amplitude: standard deviation of the displacements of atoms in Å.
        charge: of the molecule, recorded in info['charge'].

    Raises:
        InputError: a crystal, one atom, negative settings, or conformers whose atoms meet.
    """
    check_count("n", n)
    for name, value in (
        ("stretch", stretch),
        ("bend_deg", bend_deg),
        ("torsion_deg", torsion_deg),
        ("amplitude", amplitude),
    ):
        if value < 0:
            raise InputError(f"{name} is a standard deviation: {value} must not be negative.")
    check_molecule(crystal)
    parts = rotatable(crystal)
    structures = []
    for copy in range(n):
        drawn = _draw(crystal, parts, (stretch, bend_deg, torsion_deg, amplitude), rng)
        structures.append(
            charged(
                mark(
                    drawn,
                    "molecule",
                    copy=copy,
                    stretch=stretch,
                    bend_deg=bend_deg,
                    torsion_deg=torsion_deg,
                    amplitude_A=amplitude,
                    charge=charge,
                ),
                charge,
            )
        )
    return structures


def check_molecule(atoms: Atoms) -> None:
    """Raise InputError for a periodic structure or a single atom."""
    if np.any(atoms.pbc):
        raise InputError(
            f"{atoms.get_chemical_formula()} is periodic: this generator needs a molecule."
        )
    if len(atoms) < 2:
        raise InputError("One atom is no molecule: give one with bonds.")


def charged(atoms: Atoms, charge: int) -> Atoms:
    """The structure with its total charge in info."""
    atoms.info["charge"] = charge
    return atoms


def bonds(atoms: Atoms, factor: float = BOND) -> NDArray[np.int64]:
    """Bonded pairs (B, 2), each once, first < second, by covalent radii."""
    radii = covalent_radii[atoms.numbers]
    near = atoms.get_all_distances() < factor * (radii[:, None] + radii[None, :])
    i, j = np.nonzero(np.triu(near, 1))
    return np.asarray(np.stack([i, j], axis=1), dtype=np.int64)


def rotatable(atoms: Atoms) -> list[tuple[int, int, NDArray[np.int64]]]:
    """Bonds in no ring: (atom that stays, atom that moves, the part that moves with it)."""
    found = bonds(atoms)
    parts = []
    for k, (i, j) in enumerate(found):
        others = np.delete(found, k, axis=0)
        labels = fragments(len(atoms), others)
        if labels[i] == labels[j]:
            continue
        sides = [np.flatnonzero(labels == labels[end]) for end in (i, j)]
        if len(sides[0]) < len(sides[1]):
            parts.append((int(j), int(i), sides[0]))
        else:
            parts.append((int(i), int(j), sides[1]))
    return parts


def fragments(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Label (n,) of the connected part of each atom."""
    graph = csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def keeps_apart(atoms: Atoms, factor: float = CLOSEST) -> bool:
    """True when no two atoms are closer than `factor` sums of their covalent radii."""
    radii = covalent_radii[atoms.numbers]
    distances = atoms.get_all_distances()
    np.fill_diagonal(distances, np.inf)
    return bool(np.all(distances >= factor * (radii[:, None] + radii[None, :])))


def _draw(
    molecule: Atoms,
    parts: list[tuple[int, int, NDArray[np.int64]]],
    spread: tuple[float, float, float, float],
    rng: np.random.Generator,
) -> Atoms:
    stretch, bend, torsion, amplitude = spread
    for _ in range(ATTEMPTS):
        drawn: Atoms = molecule.copy()
        for fixed, moving, part in parts:
            pivot = drawn.positions[fixed]
            axis = drawn.positions[moving] - pivot
            length = float(np.linalg.norm(axis))
            axis = axis / length
            across = np.cross(axis, rng.normal(size=3))
            across /= np.linalg.norm(across)
            turn = Rotation.from_rotvec(np.radians(bend * rng.normal()) * across)
            turn = turn * Rotation.from_rotvec(np.radians(torsion * rng.normal()) * axis)
            longer = max(-0.3, stretch * rng.normal()) * length * axis
            drawn.positions[part] = turn.apply(drawn.positions[part] + longer - pivot) + pivot
        drawn.positions += rng.normal(scale=amplitude, size=(len(drawn), 3))
        if keeps_apart(drawn):
            return drawn
    raise InputError(
        f"No conformer of {molecule.get_chemical_formula()} keeps its atoms apart: lower stretch, "
        "bend_deg, torsion_deg or amplitude."
    )
