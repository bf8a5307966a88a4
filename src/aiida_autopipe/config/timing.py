"""How long a DFT label takes: a model of few numbers, fitted to labels of the past.

The logarithm of the seconds is linear in the logarithms of the electrons, the k-points and the
plane waves, and in whether spins are polarised: with exponents of one, that is the cost of applying
the Hamiltonian to all bands, and it is where the fit starts (a Gaussian prior). Past labels move
the numbers as far as they say something; a factor that is the same for all of them, such as a
slower machine, is learned from a handful. The smallest labels are all start-up, which is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.kpoints import mesh_from_spacing

START_SECONDS = 0.4
"""What starting pw.x and reading its files takes, s."""
VACUUM = 10.0
"""Room around a molecule that is labelled in a box, Å."""
_SMALLEST_SECONDS = 0.05

# Log of the seconds for one electron, one k-point and one plane wave; then the exponents of those
# three, and the logarithm of the factor of spin. From silicon and aluminium on one core.
_PRIOR = np.array([math.log(1.2e-5), 1.0, 1.0, 1.0, math.log(2.0)])
# The machine may be several times faster or slower, the exponents are known rather well.
_PRIOR_DEVIATION = np.array([1.4, 0.3, 0.2, 0.3, 0.3])
_NOISE = 0.5
"""Deviation of the logarithm of one label: iterations of the density differ by such a factor."""


@dataclass(frozen=True)
class Work:
    """What a label consists of.

    :param electrons: valence electrons in the cell.
    :param kpoints: k-points that are computed, without those that time reversal makes equal.
    :param plane_waves: plane waves of one state.
    :param spin: whether spins are polarised.
    """

    electrons: float
    kpoints: float
    plane_waves: float
    spin: bool

    def features(self) -> NDArray[np.float64]:
        """The five terms of the model."""
        logs = [math.log(max(x, 1.0)) for x in (self.electrons, self.kpoints, self.plane_waves)]
        return np.array([1.0, *logs, float(self.spin)])


@dataclass(frozen=True)
class PastLabel:
    """A label of a past run and the CPU seconds it took."""

    work: Work
    seconds: float


@dataclass(frozen=True)
class TimingModel:
    """Posterior of the linear model.

    :param mean: (5,) coefficients of `Work.features`.
    :param covariance: (5, 5) their covariance.
    :param n_labels: labels of the past it was fitted to.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n_labels: int

    def seconds(self, work: Work) -> float:
        """Expected seconds of one label."""
        log = float(work.features() @ self.mean)
        return START_SECONDS + math.exp(log)

    def total(self, works: Sequence[tuple[Work, float]]) -> tuple[float, float]:
        """Seconds of many labels, each so many times, and the factor of uncertainty.

        The factor is one standard deviation, either way, of what the labels have in common: their
        own scatter averages out.
        """
        if not works:
            return 0.0, 1.0
        seconds = np.array([count * self.seconds(work) for work, count in works])
        total = float(seconds.sum())
        mean_features = sum(
            s / total * work.features() for s, (work, _) in zip(seconds, works, strict=True)
        )
        variance = float(mean_features @ self.covariance @ mean_features)
        return total, math.exp(math.sqrt(variance))


def fit_timing(labels: Sequence[PastLabel]) -> TimingModel:
    """The model given past labels; without any, the prior."""
    precision = np.diag(1.0 / _PRIOR_DEVIATION**2)
    right = precision @ _PRIOR
    if labels:
        rows = np.array([label.work.features() for label in labels])
        logs = np.log([max(label.seconds - START_SECONDS, _SMALLEST_SECONDS) for label in labels])
        precision = precision + rows.T @ rows / _NOISE**2
        right = right + rows.T @ logs / _NOISE**2
    covariance = np.linalg.inv(precision)
    return TimingModel(np.asarray(covariance @ right), np.asarray(covariance), len(labels))


def work_of(
    atoms: Atoms, electrons: float, cutoff_wfc_Ry: float, kspacing_per_A: float, spin: bool
) -> Work:
    """What a structure costs with given settings."""
    if np.any(atoms.pbc):
        volume = abs(float(atoms.get_volume()))
        mesh = mesh_from_spacing(atoms.cell.array, atoms.pbc, kspacing_per_A)
        kpoints = math.ceil(float(np.prod(mesh)) / 2)
    else:
        volume = float(np.prod(np.ptp(atoms.positions, axis=0) + VACUUM))
        kpoints = 1
    return Work(electrons, kpoints, plane_waves(volume, cutoff_wfc_Ry), spin)


def plane_waves(volume: float, cutoff_wfc_Ry: float) -> float:
    """Plane waves below a cutoff: V k^3 / (6 pi^2), with k^2 the cutoff in Ry and V in bohr^3."""
    return float(volume / units.Bohr**3 * cutoff_wfc_Ry**1.5 / (6 * math.pi**2))


def usual_valence(symbol: str) -> int:
    """Valence electrons of an element, without its pseudopotential: a guess by its group."""
    z = atomic_numbers[symbol]
    core = max(n for n in (0, 2, 10, 18, 36, 54, 86) if n < z)
    electrons = z - core
    if electrons > 16 and core >= 54:
        electrons -= 14  # the f shell is filled and in the core
    if electrons > 12:
        electrons -= 10  # and so is the d shell
    return electrons
