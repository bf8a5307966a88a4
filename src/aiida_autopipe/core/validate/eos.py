"""Equation of state: structures to compute, and the Birch-Murnaghan fit of their energies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        rmse: root mean square of the energy residuals in eV.
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
    # Centred and scaled variables keep the normal matrix well conditioned.
    raw = v ** (-2.0 / 3.0)
    centre, scale = float(np.mean(raw)), float(np.ptp(raw)) / 2
    poly = np.polynomial.Polynomial.fit(
        raw, e - e.min(), 3, domain=[centre - scale, centre + scale]
    )
    x0 = _minimum(poly, v)
    second, third = float(poly.deriv(2)(x0)), float(poly.deriv(3)(x0))
    return Eos(
        v0=x0**-1.5,
        e0=float(poly(x0)) + float(e.min()),
        b0=4.0 / 9.0 * x0**3.5 * second,
        b0_prime=4.0 + 2.0 / 3.0 * x0 * third / second,
        rmse=float(np.sqrt(np.mean((poly(raw) - (e - e.min())) ** 2))),
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
