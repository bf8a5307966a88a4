"""Making a cut-out fit for DFT: no two atoms too close at its new boundary.

Atoms of the buffer are pushed apart until no pair is closer than pairs of these elements are in the
frame. Where that was needed and there is a potential, the buffer is then relaxed, but not further
than to forces that occur at high temperatures: a buffer without thermal motion would not be the
frame's. The core, whose forces are learned, keeps its positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.data import covalent_radii
from ase.optimize import FIRE
from numpy.typing import NDArray

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.distances import closest_pair
from aiida_autopipe.core.embed import Embedding
from aiida_autopipe.core.errors import InputError

Array = NDArray[np.float64]

# Pairs may be closer than the closest in the frame by this, since a frame is only a sample.
_SLACK = 0.97
_SWEEPS = 400


@dataclass(frozen=True)
class Sanity:
    """What was done to a cut-out.

    Attributes:
        embedding: the cut-out, with new positions in the buffer.
        pushed: atoms that were moved because they were too close to others.
        relaxed: steps of the relaxation with the potential, 0 without one.
        largest_move: largest displacement of an atom in Å.
        still_close: pairs that could not be brought apart, because both atoms are in the core.
    """

    embedding: Embedding
    pushed: int
    relaxed: int
    largest_move: float
    still_close: int


def make_sane(
    embedding: Embedding,
    frame: Atoms,
    calculator: Any = None,
    fmax: float = 2.0,
    steps: int = 50,
) -> Sanity:
    """Bring the atoms of the buffer to distances that occur in the frame.

    Args:
        embedding: a cut-out of the frame.
        frame: where it comes from.
        calculator: ASE calculator, the current potential; without one the atoms are only pushed.
        fmax: forces in eV/Å on the buffer at which the relaxation ends.
        steps: most steps of the relaxation, which need not converge: it removes what is absurd.

    Raises:
        InputError: a force limit that is not positive, or a negative number of steps.
    """
    if not fmax > 0 or steps < 0:
        raise InputError(f"fmax is {fmax} eV/Å and steps is {steps}; both must be positive.")
    before = embedding.atoms
    if embedding.shape == "whole":  # no new boundary
        return Sanity(embedding, 0, 0, 0.0, 0)
    atoms: Atoms = before.copy()
    limits = _shortest(frame)
    pushed = _push_apart(atoms, limits)
    done = 0
    if calculator is not None and pushed and steps:
        done = _relax(atoms, calculator, fmax, steps)
        pushed |= _push_apart(atoms, limits)
    moves = np.linalg.norm(atoms.positions - before.positions, axis=1)
    pair = closest_pair(atoms)
    sane = replace(embedding, atoms=atoms, closest=np.inf if pair is None else pair.distance)
    return Sanity(
        sane, len(pushed), done, float(moves.max(initial=0.0)), len(_too_close(atoms, limits)[0])
    )


def _shortest(frame: Atoms) -> dict[tuple[int, int], float]:
    """By pair of elements the shortest distance in the frame, at most that of a covalent bond.

    Elements that are not neighbours in the frame get three quarters of a covalent bond.
    """
    numbers = np.unique(frame.numbers)
    bonds = {
        (int(a), int(b)): float(covalent_radii[a] + covalent_radii[b])
        for a in numbers
        for b in numbers
    }
    neighbours = full_neighbour_list(frame, max(bonds.values()))
    lengths = np.linalg.norm(neighbours.vectors, axis=1)
    kinds = frame.numbers[neighbours.centre], frame.numbers[neighbours.neighbour]
    limits = {}
    for (a, b), bond in bonds.items():
        found = lengths[(kinds[0] == a) & (kinds[1] == b)]
        limits[a, b] = min(float(found.min()), bond) if len(found) else 0.75 * bond
    # In metals no pair is as close as a covalent bond; then nothing shorter than that occurs.
    if not len(lengths):
        closest = closest_pair(frame, 1.5 * max(bonds.values()))
        if closest is not None:
            limits = {kind: min(closest.distance, bonds[kind]) for kind in bonds}
    return limits


def _too_close(
    atoms: Atoms, limits: dict[tuple[int, int], float]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]:
    """Pairs closer than the limits allow: both atoms, vectors between them and the limits."""
    neighbours = full_neighbour_list(atoms, max(limits.values()))
    centre, neighbour = neighbours.centre, neighbours.neighbour
    wanted = np.array(
        [limits[int(a), int(b)] for a, b in zip(atoms.numbers[centre], atoms.numbers[neighbour],
                                                strict=True)]
    )  # fmt: skip
    wanted = _SLACK * wanted.reshape(-1)
    close = np.linalg.norm(neighbours.vectors, axis=1) < wanted * (1 - 1e-6)
    return centre[close], neighbour[close], neighbours.vectors[close], wanted[close]


def _push_apart(atoms: Atoms, limits: dict[tuple[int, int], float]) -> set[int]:
    """Move atoms of the buffer away from those too close, in place; which atoms were moved."""
    free = atoms.arrays["force_mask"] == 0
    moved: set[int] = set()
    for _ in range(_SWEEPS):
        centre, neighbour, vectors, wanted = _too_close(atoms, limits)
        mine = free[centre]
        if not mine.any():
            break
        centre, neighbour = centre[mine], neighbour[mine]
        vectors, wanted = vectors[mine], wanted[mine]
        lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-9)
        # Two free atoms share the way; a little more than needed, so that sweeps end.
        share = np.where(free[neighbour], 0.5, 1.0) * 1.02
        push = -(vectors / lengths[:, None]) * ((wanted - lengths) * share)[:, None]
        shifts = np.zeros((len(atoms), 3))
        np.add.at(shifts, centre, push)
        size = np.linalg.norm(shifts, axis=1)
        atoms.positions += shifts * np.minimum(1.0, 0.3 / np.maximum(size, 1e-9))[:, None]
        moved |= set(np.flatnonzero(size).tolist())
    return moved


def _relax(atoms: Atoms, calculator: Any, fmax: float, steps: int) -> int:
    """Relax the buffer with the core frozen, in place; the number of steps."""
    core = np.flatnonzero(atoms.arrays["force_mask"] > 0)
    moving: Atoms = atoms.copy()
    moving.set_constraint(FixAtoms(core))
    moving.calc = calculator
    optimiser = FIRE(moving, logfile=None, maxstep=0.1)
    optimiser.run(fmax=fmax, steps=steps)
    if np.isfinite(moving.positions).all():
        atoms.positions[:] = moving.positions
    return int(optimiser.nsteps)
