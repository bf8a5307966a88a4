"""Voids of a crystal: where an interstitial atom has room, from its Voronoi diagram.

Corners of Voronoi cells have the largest distance from all atoms nearby; the centres of their faces
are passes between two corners. Both are looked at: in bcc the tetrahedral void is a corner, the
octahedral one the centre of a face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial import Voronoi

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.generate.cells import widths
from aiida_autopipe.core.symmetry import Symmetry, find_symmetry


@dataclass(frozen=True, eq=False)
class Void:
    """One of the symmetry-distinct voids of a cell.

    Attributes:
        position: (3,) in Å.
        radius: distance of the nearest atom, Å.
        coordination: atoms within 5 % of that distance.
        multiplicity: voids of the kind in the cell.
    """

    position: NDArray[np.float64]
    radius: float
    coordination: int
    multiplicity: int


def find_voids(crystal: Atoms, min_distance: float, merge: float = 0.4) -> list[Void]:
    """Symmetry-distinct voids, the largest first.

    Args:
        crystal: n atoms, periodic in three directions.
        min_distance: least distance of the nearest atom, Å.
        merge: voids closer than this, in Å, are one, at the place of the largest.

    Raises:
        InputError: not a crystal.
    """
    symmetry = find_symmetry(crystal)
    cell = np.asarray(crystal.cell.array)
    surroundings = _surroundings(crystal)
    candidates = np.mod(_corners_and_faces(crystal, surroundings) @ np.linalg.inv(cell), 1.0)
    candidates = np.unique(np.round(candidates, 6), axis=0)
    candidates = np.array([_symmetrised(c, symmetry, cell, merge) for c in candidates])
    radii = np.array([_nearest(c @ cell, surroundings)[0] for c in candidates])
    # Rounded, so that the order of equals does not hang on the last digit.
    order = np.lexsort((*candidates.T[::-1].round(4), -radii.round(3)))
    taken = np.zeros((0, 3))
    voids = []
    for k in order:
        if radii[k] < min_distance:
            break
        orbit = _orbit(candidates[k], symmetry, cell)
        if len(taken) and np.min(_distances(candidates[k], taken, cell)) < merge:
            continue
        taken = np.vstack([taken, orbit])
        radius, coordination = _nearest(candidates[k] @ cell, surroundings)
        voids.append(Void(candidates[k] @ cell, radius, coordination, len(orbit)))
    return voids


def _surroundings(crystal: Atoms) -> NDArray[np.float64]:
    """Positions of the atoms and their images for at least 8 Å around the cell."""
    n = np.ceil(8.0 / widths(crystal)).astype(int)
    shifts = np.stack(np.meshgrid(*(np.arange(-k, k + 1) for k in n), indexing="ij"), axis=-1)
    images = shifts.reshape(-1, 3) @ crystal.cell.array
    return np.asarray((images[:, None, :] + crystal.positions[None]).reshape(-1, 3))


def _corners_and_faces(crystal: Atoms, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners and centres of faces of the Voronoi cells near the crystal's cell, (M, 3) in Å."""
    diagram = Voronoi(points)
    # Faces between atoms of the cell itself and any other atom.
    inside = np.arange(len(points)) // len(crystal) == len(points) // len(crystal) // 2
    found = []
    for pair, corners in zip(diagram.ridge_points, diagram.ridge_vertices, strict=True):
        if -1 in corners or not inside[pair].any():
            continue
        at = np.asarray(diagram.vertices[corners])
        # Qhull splits one corner of many faces into several at the same place.
        separate = np.unique(np.round(at, 4), axis=0)
        found += [at, separate.mean(axis=0)[None]]
    return np.vstack(found)


def _symmetrised(
    fractional: NDArray[np.float64], symmetry: Symmetry, cell: NDArray[np.float64], within: float
) -> NDArray[np.float64]:
    """The mean of the images that symmetry leaves nearby: exactly on the special position."""
    images = _images(fractional, symmetry) - fractional
    images -= np.round(images)
    near = np.linalg.norm(images @ cell, axis=1) < within / 2
    special = np.mod(np.round(fractional + images[near].mean(axis=0), 9), 1.0)
    return np.asarray(special + 0.0)  # no -0.0


def _images(fractional: NDArray[np.float64], symmetry: Symmetry) -> NDArray[np.float64]:
    turned = symmetry.fractional_rotations @ fractional
    return np.asarray(turned + symmetry.fractional_translations, dtype=np.float64)


def _orbit(
    fractional: NDArray[np.float64], symmetry: Symmetry, cell: NDArray[np.float64]
) -> NDArray[np.float64]:
    """All equivalent positions in the cell, each once."""
    kept = np.zeros((0, 3))
    for image in _images(fractional, symmetry):
        if not len(kept) or np.min(_distances(image, kept, cell)) > 0.05:
            kept = np.vstack([kept, image])
    return kept


def _distances(
    one: NDArray[np.float64], others: NDArray[np.float64], cell: NDArray[np.float64]
) -> NDArray[np.float64]:
    difference = others - one
    difference -= np.round(difference)
    # Of a skewed cell the nearest image may be one further.
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = np.linalg.norm((difference[:, None] + steps[None]) @ cell, axis=2)
    return np.asarray(lengths.min(axis=1), dtype=np.float64)


def _nearest(position: NDArray[np.float64], points: NDArray[np.float64]) -> tuple[float, int]:
    distances = np.linalg.norm(points - position, axis=1)
    radius = float(distances.min())
    return radius, int(np.sum(distances < 1.05 * radius))


def nearest_neighbour(crystal: Atoms) -> float:
    """The shortest distance between two atoms of a crystal, images included, Å."""
    bound = float(np.min(np.linalg.norm(crystal.cell.array, axis=1))) + 1e-6
    neighbours = full_neighbour_list(crystal, bound)
    return float(np.min(np.linalg.norm(neighbours.vectors, axis=1)))
