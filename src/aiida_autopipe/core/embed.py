"""Periodic embedding: a small cell around an uncertain atom, with a mask of the forces to learn.

The atoms within the core radius R of the atom keep the surroundings they have in the frame, up to
the buffer B: their forces may be learned. The atoms beyond meet a boundary that the frame does not
have; their mask is 0.

The new cell is, in this order:

- the whole frame, moved so that the atom is in the middle, when the frame is no larger;
- a supercell of the crystal's lattice, when the frame is a strained supercell of it: then a
  crystal fits at the new boundary as it did before;
- the cube of side 2 (R + B) when all directions are longer than that, else a cell of the shape of
  the frame that is cut along its long directions only.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from aiida_autopipe.core.cutting import cut_out, heights
from aiida_autopipe.core.distances import closest_pair
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.kpoints import unstrained_cell

Array = NDArray[np.float64]
Shape = Literal["cube", "lattice", "frame", "whole"]

# Atoms this close (Å) to the surface of the core belong to it.
_ON_SURFACE = 1e-6
# A lattice is recognised when, of about so many atoms, this part has another one, at the lattice
# vectors, nearer than this part of the closest pair of the frame.
_SAMPLE, _MOST, _NEAR = 64, 0.7, 0.4


@dataclass(frozen=True, eq=False)
class Embedding:
    """A cut-out and what should be known of it before it is labelled.

    Attributes:
        atoms: the cell; the uncertain atom is the first. Arrays `force_mask` (1 in the core) and
            `source_index` (index in the frame); `info`: origin, parameters (JSON text).
        shape: what the new cell is: 'cube', 'lattice', 'frame' (shaped like it) or 'whole'.
        density_ratio: atoms per volume against the frame; NaN without a volume.
        excess: by element, how many atoms more (or less) than the frame's composition gives.
        odd_electrons: the neutral cell has an odd number of electrons: it needs spin or smearing.
        closest: distance of the closest pair in Å, inf when no pair is within 3 Å.
    """

    atoms: Atoms
    shape: Shape
    density_ratio: float
    excess: dict[str, float]
    odd_electrons: bool
    closest: float

    @property
    def n_core(self) -> int:
        """Atoms whose forces are learned."""
        return int(np.count_nonzero(self.atoms.arrays["force_mask"]))


def embed(
    frame: Atoms, index: int, radius: float, buffer: float, crystal: Atoms | None = None
) -> Embedding:
    """Cut a periodic cell out of a frame around one atom.

    Args:
        frame: structure with a cell in its periodic directions, Å.
        index: the atom in the middle, 0-based; negative ones count from the end.
        radius: core radius R in Å; atoms up to it (included) have the mask 1.
        buffer: thickness B in Å of what surrounds the core.
        crystal: primitive cell of the crystal that the frame may be a strained supercell of.

    Raises:
        InputError: an atom that does not exist, radii that are not positive.
        DataError: positions that are not finite, or periodic vectors without volume.
    """
    centre = _checked(frame, index, radius, buffer)
    half = radius + buffer
    shape, cell = _new_cell(frame, 2 * half, crystal)
    if shape == "whole":
        return _whole(frame, centre, radius, buffer)
    source, offsets = cut_out(frame, centre, cell, radius)
    if len(source) >= len(frame):
        return _whole(frame, centre, radius, buffer)
    return _embedding(frame, source, offsets, cell, shape, (radius, buffer))


def _checked(frame: Atoms, index: int, radius: float, buffer: float) -> int:
    if not len(frame):
        raise InputError("The frame has no atoms to cut out.")
    if not -len(frame) <= index < len(frame):
        raise InputError(
            f"There is no atom {index} in a frame of {len(frame)} atoms: count from 0 to "
            f"{len(frame) - 1}."
        )
    for name, value in (("radius", radius), ("buffer", buffer)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"The {name} is {value} Å; it must be a positive length.")
    if not np.isfinite(frame.positions).all():
        bad = int(np.flatnonzero(~np.isfinite(frame.positions).all(axis=1))[0])
        raise DataError(f"The position of atom {bad} of the frame is not finite.")
    if frame.pbc.any() and abs(np.linalg.det(frame.cell.complete().array)) < 1e-6:
        raise DataError("The frame is periodic, but its cell vectors have no volume.")
    return index % len(frame)


def _new_cell(frame: Atoms, side: float, crystal: Atoms | None) -> tuple[Shape, Array]:
    """The kind of cell and its vectors in rows; all faces at least `side` apart where it is cut."""
    cell = frame.cell.complete().array
    lengths = heights(cell)
    cut = frame.pbc & (lengths > side * (1 + 1e-9))
    if not cut.any():
        return "whole", cell
    repeats = None if crystal is None else _repeats(frame, crystal)
    if cut.all():
        if repeats is None:
            return "cube", np.eye(3) * side
        return "lattice", _commensurate(np.linalg.inv(repeats) @ cell, side)
    factors = np.where(cut, side / lengths, 1.0)
    if repeats is not None:
        # The frame's vector is this many times a vector of the lattice.
        times = np.gcd.reduce(repeats.astype(int), axis=1)
        factors = np.minimum(np.ceil(factors * times - 1e-9) / times, 1.0)
    return "frame", cell * factors[:, None]


def _repeats(frame: Atoms, crystal: Atoms) -> Array | None:
    """(3, 3) whole numbers of the crystal's vectors that make up those of the frame.

    None where no such numbers are found, or where shifting the frame by the vectors they give does
    not bring most atoms near others: it has molten, or another structure.
    """
    ideal = unstrained_cell(frame, crystal)
    pair = closest_pair(frame)
    if ideal is None or pair is None:
        return None
    repeats: Array = np.round(ideal @ np.linalg.inv(crystal.cell.array))
    cell = frame.cell.array
    fractional = frame.positions @ np.linalg.inv(cell)
    sample = fractional[:: max(1, len(frame) // _SAMPLE)]
    near = []
    # Half way through the frame, where a vector that is wrong by little is wrong by most.
    steps = np.maximum(1, np.round(0.5 * np.abs(repeats).max(axis=1)))
    for step in np.linalg.inv(repeats) * steps[:, None]:
        for one in sample:
            away = fractional - (one + step)
            away -= np.round(away)
            near.append(np.linalg.norm(away @ cell, axis=1).min() < _NEAR * pair.distance)
    return repeats if np.mean(near) > _MOST else None


def _commensurate(primitive: Array, side: float) -> Array:
    """The smallest supercell found of a lattice (vectors in rows) with all faces `side` apart."""
    reduced = minkowski_reduce(primitive)[0]
    candidates = [np.diag(np.ceil(side / heights(reduced) - 1e-9)) @ reduced]
    for length in np.arange(side, 1.5 * side, 0.02 * side):
        candidates.append(np.round(length * np.linalg.inv(primitive)) @ primitive)
    fitting = [
        np.asarray(c)
        for c in candidates
        if abs(np.linalg.det(c)) > 1e-6 and np.all(heights(c) >= side * (1 - 1e-6))
    ]
    return min(fitting, key=lambda c: abs(float(np.linalg.det(c))))


def _whole(frame: Atoms, centre: int, radius: float, buffer: float) -> Embedding:
    """The frame with the atom first and, along periodic directions, in the middle."""
    cell = frame.cell.complete().array
    fractional = (frame.positions - frame.positions[centre]) @ np.linalg.inv(cell)
    fractional -= np.where(frame.pbc, np.round(fractional), 0.0)
    order = np.concatenate([[centre], np.delete(np.arange(len(frame)), centre)])
    return _embedding(
        frame, order, (fractional @ cell)[order], frame.cell.array, "whole", (radius, buffer)
    )


def _embedding(
    frame: Atoms,
    source: NDArray[np.int64],
    offsets: Array,
    cell: Array,
    shape: Shape,
    radii: tuple[float, float],
) -> Embedding:
    middle = 0.5 * cell.sum(axis=0)
    atoms = Atoms(
        numbers=frame.numbers[source], positions=offsets + middle, cell=cell, pbc=frame.pbc
    )
    atoms.arrays["force_mask"] = (
        _image_distances(frame, source, offsets, shape) <= radii[0] + _ON_SURFACE
    ).astype(float)
    atoms.arrays["source_index"] = np.asarray(source)
    atoms.info["origin"] = "embed"
    atoms.info["parameters"] = json.dumps(
        {"atom": int(source[0]), "radius_A": radii[0], "buffer_A": radii[1], "cell": shape},
        sort_keys=True,
    )
    pair = closest_pair(atoms)
    return Embedding(
        atoms,
        shape,
        _density_ratio(frame, atoms),
        _excess(frame, atoms),
        bool(int(atoms.numbers.sum()) % 2),
        np.inf if pair is None else pair.distance,
    )


def _image_distances(
    frame: Atoms, source: NDArray[np.int64], offsets: Array, shape: Shape
) -> Array:
    """(n,) distances from the atom in the middle; in a whole frame to the nearest image."""
    if shape != "whole":
        return np.asarray(np.linalg.norm(offsets, axis=1))
    distances: Array = frame.get_distances(int(source[0]), source, mic=True)
    return distances


def _density_ratio(frame: Atoms, atoms: Atoms) -> float:
    volumes = [abs(float(np.linalg.det(a.cell.array))) for a in (frame, atoms)]
    if min(volumes) < 1e-6:
        return float("nan")
    return len(atoms) / volumes[1] * volumes[0] / len(frame)


def _excess(frame: Atoms, atoms: Atoms) -> dict[str, float]:
    whole, part = Counter(frame.get_chemical_symbols()), Counter(atoms.get_chemical_symbols())
    share = len(atoms) / len(frame)
    return {e: round(part[e] - whole[e] * share, 3) for e in sorted(whole)}
