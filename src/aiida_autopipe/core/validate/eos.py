"""Equation of state: structures to compute, and the Birch-Murnaghan fit of their energies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.generate.strain import mark, scale_volume


@dataclass(frozen=True)
class Eos:
    """Third-order Birch-Murnaghan equation of state.

    Attributes:
        v0: equilibrium volume in Å^3, of the cell whose energies were fitted.
        e0: energy at v0 in eV.
        b0: bulk modulus at v0 in eV/Å^3.
        b0_prime: pressure derivative of the bulk modulus at v0.
        rmse: root mean square of the residuals: energies in eV, or pressures in eV/Å^3.
    """

    v0: float
    e0: float
    b0: float
    b0_prime: float
    rmse: float

    def energy(self, volume: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Energy in eV at a volume in Å^3."""
        x = (self.v0 / np.asarray(volume, dtype=np.float64)) ** (2.0 / 3.0)
        bracket = (x - 1) ** 3 * self.b0_prime + (x - 1) ** 2 * (6 - 4 * x)
        return np.asarray(self.e0 + 9 * self.v0 * self.b0 / 16 * bracket)

    def pressure(self, volume: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Pressure -dE/dV in eV/Å^3 at a volume in Å^3."""
        x = (self.v0 / np.asarray(volume, dtype=np.float64)) ** (1.0 / 3.0)
        bracket = 1 + 0.75 * (self.b0_prime - 4) * (x**2 - 1)
        return np.asarray(1.5 * self.b0 * (x**7 - x**5) * bracket)


def eos_structures(atoms: Atoms, n_points: int = 7, max_volume_strain: float = 0.06) -> list[Atoms]:
    """Isotropically scaled cells at evenly spaced volumes around the volume of `atoms`.

    Args:
        atoms: a crystal cell.
        n_points: number of volumes, at least 5.
        max_volume_strain: largest relative volume change, both ways.

    Raises:
        InputError: too few points or a strain outside (0, 1).
    """
    if n_points < 5:
        raise InputError(
            f"An equation of state needs at least 5 volumes for its 4 parameters, not {n_points}."
        )
    if not 0 < max_volume_strain < 1:
        raise InputError(
            f"The volume range of an equation of state is a fraction between 0 and 1, not "
            f"{max_volume_strain}."
        )
    strains = np.linspace(-max_volume_strain, max_volume_strain, n_points).round(12)
    return [
        mark(scale_volume(atoms, 1.0 + s), "validate:eos", volume_strain=float(s)) for s in strains
    ]


def fit_eos(
    volumes: Sequence[float] | NDArray[np.float64], energies: Sequence[float] | NDArray[np.float64]
) -> Eos:
    """Least-squares fit of the third-order Birch-Murnaghan equation of state.

    The equation (F. Birch, Phys. Rev. 71, 809 (1947)) is exactly a cubic polynomial in
    x = V^(-2/3), so the fit is linear. With E', E'', E''' derivatives by x at the minimum,
    B0 = 4/9 x^(7/2) E'' and B0' = 4 + 2/3 x E'''/E''.

    Args:
        volumes: (m,) in Å^3, m >= 5.
        energies: (m,) in eV of the same cell.

    Raises:
        DataError: too few or non-finite points, no minimum, or a minimum outside the given volumes.
    """
    v = np.asarray(volumes, dtype=np.float64)
    e = np.asarray(energies, dtype=np.float64)
    if v.shape != e.shape or v.ndim != 1 or len(np.unique(np.round(v, 10))) < 5:
        raise DataError(
            f"An equation of state needs at least 5 different volumes with one energy each; got "
            f"{v.size} volumes and {e.size} energies."
        )
    if not (np.all(np.isfinite(v)) and np.all(np.isfinite(e)) and np.all(v > 0)):
        raise DataError("The equation of state has a volume or an energy that is not finite.")
    raw, domain = _expansion_variable(v)
    poly = np.polynomial.Polynomial.fit(raw, e - e.min(), 3, domain=domain)
    residuals = poly(raw) - (e - e.min())
    return _eos_of(poly, v, float(e.min()), float(np.sqrt(np.mean(residuals**2))))


def fit_eos_pressures(
    volumes: Sequence[float] | NDArray[np.float64],
    pressures: Sequence[float] | NDArray[np.float64],
) -> Eos:
    """The same equation of state from pressures, where there are no (free) energies.

    With F a cubic polynomial in x = V^(-2/3), P = -dF/dV = 2/3 V^(-5/3) dF/dx: a linear fit of a
    parabola. The energies of the result are measured from its minimum.

    Args:
        volumes: (m,) in Å^3, m >= 4.
        pressures: (m,) in eV/Å^3, positive under compression.

    Raises:
        DataError: too few or non-finite points, no minimum, or a minimum outside the given volumes.
    """
    v = np.asarray(volumes, dtype=np.float64)
    p = np.asarray(pressures, dtype=np.float64)
    if v.shape != p.shape or v.ndim != 1 or len(np.unique(np.round(v, 10))) < 4:
        raise DataError(
            f"An equation of state needs at least 4 different volumes with one pressure each; got "
            f"{v.size} volumes and {p.size} pressures."
        )
    if not (np.all(np.isfinite(v)) and np.all(np.isfinite(p)) and np.all(v > 0)):
        raise DataError("The equation of state has a volume or a pressure that is not finite.")
    raw, domain = _expansion_variable(v)
    # Weighted by V^(-5/3), so that all pressures count alike.
    weights = v ** (-5.0 / 3.0)
    slope = np.polynomial.Polynomial.fit(raw, 1.5 * p / weights, 2, domain=domain, w=weights)
    residuals = slope(raw) * weights / 1.5 - p
    poly = slope.integ()
    fitted = _eos_of(poly, v, 0.0, float(np.sqrt(np.mean(residuals**2))))
    return replace(fitted, e0=0.0)


def _expansion_variable(
    volumes: NDArray[np.float64],
) -> tuple[NDArray[np.float64], list[float]]:
    """V^(-2/3), and its domain: centred and scaled, the normal matrix is well conditioned."""
    raw = volumes ** (-2.0 / 3.0)
    centre, scale = float(np.mean(raw)), float(np.ptp(raw)) / 2
    return raw, [centre - scale, centre + scale]


def _eos_of(
    poly: np.polynomial.Polynomial, volumes: NDArray[np.float64], zero: float, rmse: float
) -> Eos:
    x0 = _minimum(poly, volumes)
    second, third = float(poly.deriv(2)(x0)), float(poly.deriv(3)(x0))
    return Eos(
        v0=x0**-1.5,
        e0=float(poly(x0)) + zero,
        b0=4.0 / 9.0 * x0**3.5 * second,
        b0_prime=4.0 + 2.0 / 3.0 * x0 * third / second,
        rmse=rmse,
    )


def _minimum(poly: np.polynomial.Polynomial, volumes: NDArray[np.float64]) -> float:
    roots = poly.deriv().roots()
    real = roots[np.abs(roots.imag) < 1e-9 * np.max(np.abs(roots), initial=1e-300)].real
    minima = [float(x) for x in real if x > 0 and poly.deriv(2)(x) > 0]
    inside = [x for x in minima if volumes.min() <= x**-1.5 <= volumes.max()]
    if not inside:
        where = f"at {minima[0] ** -1.5:.3f} Å^3" if minima else "nowhere"
        raise DataError(
            f"The equation of state has its minimum {where}, outside the computed volumes "
            f"{volumes.min():.3f} to {volumes.max():.3f} Å^3: compute volumes around the minimum."
        )
    return inside[0]
