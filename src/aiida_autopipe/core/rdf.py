"""Radial distribution functions and coordination numbers of frames, counted as LAMMPS counts them.

The bins and the normalisation are those of LAMMPS' `compute rdf`, so that frames labelled by an
oracle can be laid over a simulation: g(r) is the number of pairs over that of unlinked atoms, where
an atom does not count as its own partner, N (N - 1) pairs of N atoms. Periodic images count, which
in a cell smaller than twice the cutoff includes those of the atom itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.errors import DataError

CUTOFF = 8.0
"""Largest distance of the distributions of this project, Å: three or four shells of most matter."""
BINS = 160

ANY = "*"
"""Stands for every element in a pair."""

Pair = tuple[str, str]

_SMOOTHING = 0.1
"""Width of the Gaussian that takes the noise from g(r) before its minimum is looked for, Å."""
_PEAK_WINDOW = 1.25
"""The first peak is the highest point up to this part of the distance where g(r) first reaches 1.
"""
_MINIMUM_WINDOW = 0.25
"""A minimum is lower than all that follows within this part of the distance of the first peak."""


@dataclass(frozen=True)
class Distribution:
    """Mean over frames.

    Attributes:
        r: (bins,) middles of the bins in Å.
        pairs: element of the atom in the middle, element of its partners.
        g: (pairs, bins) radial distribution functions.
        coordination: (pairs, bins) partners up to the end of each bin.
        frames: how many there were.
    """

    r: NDArray[np.float64]
    pairs: tuple[Pair, ...]
    g: NDArray[np.float64]
    coordination: NDArray[np.float64]
    frames: int


def element_pairs(elements: Iterable[str]) -> tuple[Pair, ...]:
    """The pairs worth a distribution: all atoms, then each ordered pair of several elements."""
    names = sorted(set(elements))
    ordered = [(a, b) for a in names for b in names] if len(names) > 1 else []
    return ((ANY, ANY), *ordered)


def bin_middles(cutoff: float = CUTOFF, bins: int = BINS) -> NDArray[np.float64]:
    """(bins,) middles of the bins in Å."""
    middles: NDArray[np.float64] = (np.arange(bins, dtype=np.float64) + 0.5) * (cutoff / bins)
    return middles


def distribution(
    frames: Sequence[Atoms],
    pairs: Sequence[Pair] | None = None,
    cutoff: float = CUTOFF,
    bins: int = BINS,
) -> Distribution:
    """Mean radial distribution functions of frames that are periodic in three directions.

    Args:
        frames: at least one; their cells may differ.
        pairs: see `element_pairs`, which is the default for the elements of all frames.
        cutoff: largest distance in Å.
        bins: number of bins up to there.

    Raises:
        DataError: no frame, or one without a volume.
    """
    if not frames:
        raise DataError("A radial distribution function needs at least one frame, not 0.")
    if pairs is None:
        pairs = element_pairs(symbol for atoms in frames for symbol in atoms.symbols)
    g = np.zeros((len(pairs), bins))
    coordination = np.zeros((len(pairs), bins))
    for atoms in frames:
        one_g, one_coordination = _of_frame(atoms, pairs, cutoff, bins)
        g += one_g / len(frames)
        coordination += one_coordination / len(frames)
    return Distribution(bin_middles(cutoff, bins), tuple(pairs), g, coordination, len(frames))


def _of_frame(
    atoms: Atoms, pairs: Sequence[Pair], cutoff: float, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not np.all(atoms.pbc):
        raise DataError(
            "A radial distribution function needs a density: the frame must be periodic in three "
            f"directions, not {atoms.pbc.tolist()}."
        )
    neighbours = full_neighbour_list(atoms, cutoff)
    lengths = np.linalg.norm(neighbours.vectors, axis=1)
    which = np.minimum((lengths * (bins / cutoff)).astype(np.int64), bins - 1)
    edges = np.linspace(0.0, cutoff, bins + 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3) / abs(atoms.cell.volume)
    symbols = np.array(atoms.get_chemical_symbols())
    g, coordination = np.zeros((2, len(pairs), bins))
    for row, (centre, partner) in enumerate(pairs):
        is_centre, is_partner = _are(symbols, centre), _are(symbols, partner)
        n_centres = int(is_centre.sum())
        if n_centres == 0:
            continue
        # An atom is not its own partner.
        others = is_partner.sum() - np.sum(is_centre & is_partner) / n_centres
        if others <= 0:
            continue
        chosen = is_centre[neighbours.centre] & is_partner[neighbours.neighbour]
        found = np.bincount(which[chosen], minlength=bins) / n_centres
        g[row] = found / (shells * others)
        coordination[row] = np.cumsum(found)
    return g, coordination


def _are(symbols: NDArray[np.str_], element: str) -> NDArray[np.bool_]:
    return np.ones(len(symbols), dtype=bool) if element == ANY else symbols == element


def first_minimum(r: NDArray[np.float64], g: NDArray[np.float64]) -> float:
    """Distance behind the first peak where g(r) is lowest, in Å; NaN where there is none.

    A gap between two shells, as in a crystal at rest, counts from where it begins.
    """
    smooth = _smoothed(g, float(r[1] - r[0]))
    above = np.flatnonzero(smooth >= 1.0)
    if len(above) == 0:
        return float("nan")
    window = r <= _PEAK_WINDOW * r[above[0]]
    peak = int(above[0] + np.argmax(smooth[above[0] : window.sum()]))
    width = max(2, round(_MINIMUM_WINDOW * r[peak] / (r[1] - r[0])))
    # The last points have too little behind them to be called a minimum.
    for index in range(peak + 1, len(r) - width):
        if smooth[index] <= smooth[index + 1 : index + 1 + width].min():
            return float(r[index])
    return float("nan")


def _smoothed(g: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    reach = int(np.ceil(3 * _SMOOTHING / step))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / _SMOOTHING) ** 2)
    weights /= weights.sum()
    padded = np.pad(g, reach, mode="edge")
    smooth: NDArray[np.float64] = np.convolve(padded, weights, mode="valid")
    return smooth


def coordination_within(
    r: NDArray[np.float64], coordination: NDArray[np.float64], distance: float
) -> float:
    """Partners within a distance (Å) from the running coordination number; NaN where unknown."""
    if not np.isfinite(distance):
        return float("nan")
    ends = r + 0.5 * (r[1] - r[0])
    return float(np.interp(distance, np.append(0.0, ends), np.append(0.0, coordination)))
