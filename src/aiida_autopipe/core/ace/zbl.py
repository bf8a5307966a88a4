"""Screened nuclear repulsion at distances where an ACE has no data, so that atoms never fuse.

Formula and constants are those of LAMMPS' `pair_style zbl inner outer` in metal units, so that
`pair_style hybrid/overlay pace ... zbl inner outer` gives the same numbers:

    E(r) = e^2/(4 pi eps0) Z_i Z_j / r phi(r/a) + S(r),   a = 0.46850 Å / (Z_i^0.23 + Z_j^0.23),

phi the universal screening function of Ziegler, Biersack and Littmark, The Stopping and Range of
Ions in Matter (1985). S, from the LAMMPS documentation of `pair_style zbl` and `pair_style
lj/gromacs`, is a constant C up to `inner` and C + A/3 x^3 + B/4 x^4 with x = r - inner beyond it;
energy, force and curvature are zero at `outer`. The force is repulsive at every distance below
`outer`, because phi(r)/r and all its derivatives fall monotonically.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from numba import njit
from numpy.typing import NDArray

from aiida_autopipe.core.ace.kernels import SHORTEST_DISTANCE, SortedPairs, sort_pairs
from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.ace.potential_text import Section, mapping_text, number_text, read_yaml
from aiida_autopipe.core.errors import DataError, InputError, PotentialFileError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# e^2/(4 pi eps0) in eV Å, with the digits of LAMMPS' units metal.
_COULOMB = 14.399645
_SCREENING_LENGTH, _SCREENING_POWER = 0.46850, 0.23
_WEIGHTS = np.array([0.18175, 0.50986, 0.28022, 0.02817])
_DECAYS = np.array([3.19980, 0.94229, 0.40290, 0.20162])

# Outer cut-off in sums of covalent radii: without data, and at most with data. The shortest bonds
# known (N2, CO, H2, vanadyl) are longer than 0.7 sums, those of most solids longer than 0.9.
_WITHOUT_DATA, _AT_MOST = 0.7, 0.8
_INNER_FRACTION = 0.5

# Entries of the metadata of potential files, which other programs read over.
_METADATA = ("zbl_inner", "zbl_outer")


class ZBLEvaluation(NamedTuple):
    """Repulsion of one structure.

    energies (n,): half of each pair to either atom, in eV; forces (n, 3) in eV/Å; virial (6,) in
    eV, ASE's Voigt order xx yy zz yz xz xy, stress in ASE's sign = virial / volume.
    """

    energies: Floats
    forces: Floats
    virial: Floats


@dataclass(frozen=True)
class ZBL:
    """Core repulsion of all pairs of elements, switched off from `inner` to `outer` (Å).

    Raises InputError unless 0 < inner < outer.
    """

    inner: float
    outer: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", float(self.inner))
        object.__setattr__(self, "outer", float(self.outer))
        if not (np.isfinite(self.outer) and 0.0 < self.inner < self.outer):
            raise InputError(
                f"The cut-offs of the ZBL repulsion must be 0 < inner < outer, not inner = "
                f"{self.inner} and outer = {self.outer} Å."
            )

    def evaluate(self, atoms: Atoms) -> ZBLEvaluation:
        """Energies, forces and virial of a structure of any elements and periodicity.

        Raises DataError for unusable geometry or two atoms on one spot.
        """
        centre, neighbour, vectors = full_neighbour_list(atoms, self.outer)
        numbers, types = np.unique(np.asarray(atoms.numbers, dtype=np.int64), return_inverse=True)
        types = np.ascontiguousarray(types, dtype=np.int64)
        cutoff = np.full(len(numbers) ** 2, self.outer)
        pairs = SortedPairs(*sort_pairs(types, centre, neighbour, vectors, len(atoms), cutoff))
        if pairs.too_close >= 0:
            i, j = int(centre[pairs.too_close]), int(neighbour[pairs.too_close])
            raise DataError(
                f"Atoms {i} and {j} are less than {SHORTEST_DISTANCE} Å apart; remove one."
            )
        return self.evaluate_sorted(types, numbers.tolist(), pairs, len(atoms))

    def evaluate_sorted(
        self, types: Ints, numbers: Sequence[int], pairs: SortedPairs, n_local: int
    ) -> ZBLEvaluation:
        """The same for pairs as the ACE kernels have them: full, grouped by centre and type.

        types (n_all,): element index of local atoms, then ghosts; numbers: atomic number of each
        element; pairs must hold all closer than `outer`, longer ones are ignored; forces (n_all, 3)
        include ghosts.
        """
        energies, forces, virial = _evaluate(
            types,
            n_local,
            len(numbers),
            pairs.first,
            pairs.neighbour,
            pairs.vectors,
            self._table(numbers),
            self.inner,
            self.outer,
        )
        return ZBLEvaluation(energies, forces, virial)

    def _table(self, numbers: Sequence[int]) -> Floats:
        """Rows (e^2 Z_i Z_j, 1/a, A, B, C) of all ordered pairs of elements, centre outer."""
        z = np.asarray(numbers, dtype=np.float64)
        charge = _COULOMB * np.outer(z, z).ravel()
        power = z**_SCREENING_POWER
        inverse_length = np.add.outer(power, power).ravel() / _SCREENING_LENGTH
        decays = np.multiply.outer(inverse_length, _DECAYS)
        terms = _WEIGHTS * np.exp(-decays * self.outer)
        r, width = self.outer, self.outer - self.inner
        phi, dphi, d2phi = terms.sum(1), -(decays * terms).sum(1), (decays**2 * terms).sum(1)
        energy = charge * phi / r
        slope = charge * (dphi - phi / r) / r
        curvature = charge * (d2phi - 2.0 * dphi / r + 2.0 * phi / r**2) / r
        third = (-3.0 * slope + width * curvature) / width**2
        fourth = (2.0 * slope - width * curvature) / width**3
        constant = -energy + width * slope / 2.0 - width**2 * curvature / 12.0
        return np.stack([charge, inverse_length, third, fourth, constant], axis=1)


def default_zbl(
    elements: Sequence[str], shortest_distances: Mapping[tuple[str, str], float] | None = None
) -> ZBL:
    """Cut-offs for some elements, small enough to leave alone what real structures are made of.

    `outer` is the smallest value over all pairs of elements, as one number serves all of them: with
    data the shortest distance of the pair, 0.8 times the sum of its covalent radii at most and
    where the data have no such pair; without data 0.7 times that sum, which is shorter than bonds
    of main-group molecules. It is rounded down to 0.01 Å; `inner` is half of it.

    shortest_distances: {(symbol, symbol): Å} in either order; the distance that the data reach in
    numbers, not the one of their most extreme structure.

    Raises InputError for no or unknown elements or a distance that is not positive.
    """
    if unknown := [e for e in elements if e not in atomic_numbers or e == "X"]:
        raise InputError(f"'{unknown[0]}' is not a chemical element; check its spelling.")
    if not elements:
        raise InputError("Cut-offs of the ZBL repulsion need at least one element.")
    factor = _WITHOUT_DATA if shortest_distances is None else _AT_MOST
    limits = []
    for pair in combinations_with_replacement(sorted(set(elements)), 2):
        limits.append(factor * sum(float(covalent_radii[atomic_numbers[e]]) for e in pair))
        for key in {pair, pair[::-1]} & set(shortest_distances or {}):
            limits.append(float((shortest_distances or {})[key]))
            if not (np.isfinite(limits[-1]) and limits[-1] > 0.0):
                raise InputError(
                    f"The shortest distance of {key[0]} and {key[1]} is {limits[-1]} Å; it must "
                    "be positive."
                )
    outer = np.floor(min(limits) * 100.0) / 100.0
    return ZBL(inner=round(_INNER_FRACTION * outer, 3), outer=outer)


def metadata_lines(zbl: ZBL | None) -> list[str]:
    """The lines of a potential file that say there is a ZBL repulsion beside what it describes.

    ML-PACE reads metadata over: to it they are notes, hence the LAMMPS commands written beside the
    file.
    """
    if zbl is None:
        return []
    texts = (number_text(zbl.inner), number_text(zbl.outer))
    return [f"metadata: {mapping_text(dict(zip(_METADATA, texts, strict=True)))}"]


def read_zbl(path: Path) -> ZBL | None:
    """The ZBL repulsion of a .yace or B-basis .yaml file, whatever else it holds.

    Raises PotentialFileError for a file that cannot be read, and as `read_metadata`.
    """
    return read_metadata(read_yaml(path))


def read_metadata(top: Section) -> ZBL | None:
    """The ZBL repulsion of a potential file, None when its metadata, if any, name none.

    Raises PotentialFileError for only one of the cut-offs or values that are not lengths in order.
    """
    notes = top.data.get("metadata")
    if not isinstance(notes, Mapping) or not any(key in notes for key in _METADATA):
        return None
    section = Section(notes, f"{top.where}, metadata")
    try:
        # Programs that copy metadata may write all of them as text.
        return ZBL(*(float(str(section.get(key))) for key in _METADATA))
    except (ValueError, InputError) as error:
        raise PotentialFileError(f"{section.where}: {error}") from error


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _evaluate(
    types: Ints,
    n_local: int,
    n_types: int,
    first: Ints,
    neighbour: Ints,
    vectors: Floats,
    table: Floats,
    inner: float,
    outer: float,
) -> Any:
    """Energies (n_local,), forces (n_all, 3) and virial (6,); every pair is in the list twice."""
    energies, forces, virial = np.zeros(n_local), np.zeros((len(types), 3)), np.zeros(6)
    for i in range(n_local):
        for t in range(n_types):
            charge, inverse_length, third, fourth, constant = table[types[i] * n_types + t]
            for p in range(first[i * n_types + t], first[i * n_types + t + 1]):
                x, y, z = vectors[0, p], vectors[1, p], vectors[2, p]
                r2 = x * x + y * y + z * z
                if r2 >= outer * outer:
                    continue
                r = np.sqrt(r2)
                phi, dphi = 0.0, 0.0
                for k in range(len(_WEIGHTS)):
                    decay = _DECAYS[k] * inverse_length
                    term = _WEIGHTS[k] * np.exp(-decay * r)
                    phi += term
                    dphi -= decay * term
                energy = charge * phi / r + constant
                slope = charge * (dphi - phi / r) / r
                if r > inner:
                    d = r - inner
                    energy += d * d * d * (third / 3.0 + fourth / 4.0 * d)
                    slope += d * d * (third + fourth * d)
                energies[i] += 0.5 * energy
                scale = 0.5 * slope / r
                fx, fy, fz = scale * x, scale * y, scale * z
                j = neighbour[p]
                forces[i, 0] += fx
                forces[i, 1] += fy
                forces[i, 2] += fz
                forces[j, 0] -= fx
                forces[j, 1] -= fy
                forces[j, 2] -= fz
                virial[0] += fx * x
                virial[1] += fy * y
                virial[2] += fz * z
                virial[3] += fy * z
                virial[4] += fx * z
                virial[5] += fx * y
    return energies, forces, virial
