"""Radial functions of SOAP: Gaussian densities expanded in a radial basis, as tables.

A neighbour at distance R is a Gaussian of width sigma, whose coefficients are f_nl(R) Y_lm:

    f_nl(R) = 4 pi int r^2 g_nl(r) exp(-eta (r^2 + R^2)) i_l(2 eta r R) dr,   eta = 1 / (2 sigma^2),

with i_l the modified spherical Bessel function (Bartók, Kondor, Csányi, Phys. Rev. B 87, 184115
(2013), equation 28). The power spectrum has the factor pi sqrt(8 / (2l + 1)) (equation 31 and its
erratum), whose root is part of f here. Two bases g are known; both, and their numerical choices,
are those of dscribe 2.1 (Himanen et al., Comput. Phys. Commun. 247, 106949 (2020)).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import exp, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, inv, sqrtm
from scipy.special import gamma

from aiida_autopipe.core.ace.lanes import LANES
from aiida_autopipe.core.descriptors.kernels.soap import RadialTable
from aiida_autopipe.core.errors import InputError

Array = NDArray[np.float64]
Radial = Callable[[Array], Array]
"""(k,) distances in Å to (k, l, n) values of f."""

_DECAY = 1e-3
_QUADRATURE_POINTS = 100
# Å; the polynomial basis takes no Gaussian into account farther from its centre than this.
_FARTHEST = 5.0
# What is left of a Gaussian there and does not count.
_NEGLIGIBLE = 1e-13
# Å; an atom nearer than this is the centre itself.
_CENTRE = 1e-6

_DEGREE = 6
# Largest error of a table in units of the largest |f|, the same where rounding allows no better,
# and most bins it may take.
_TOLERANCE = 2e-12
_WORST = 1e-7
_MOST_BINS = 4096


def padding(sigma: float) -> float:
    """How far beyond the cutoff neighbours count, in Å: where their Gaussian is at a thousandth."""
    return sigma * sqrt(-2.0 * log(_DECAY))


def gto(r_cut: float, n_max: int, l_max: int, sigma: float) -> Radial:
    """Gaussian type orbitals g_nl = sum over k of beta_nkl r^l exp(-alpha_kl r^2), orthonormal.

    The k-th falls to a thousandth at a distance between 1 Å and r_cut, evenly spaced. The integral
    over all space is analytical.

    Raises InputError where the functions are too alike to be made orthonormal.
    """
    eta, decay = 0.5 / sigma**2, np.linspace(1.0, r_cut, n_max)
    degrees = np.arange(l_max + 1)
    alphas = np.array([-np.log(_DECAY / decay**ell) / decay**2 for ell in degrees])
    factors = []
    for ell, alpha in zip(degrees, alphas, strict=True):
        power = ell + 1.5
        overlap = 0.5 * gamma(power) * (alpha[:, None] + alpha[None, :]) ** -power
        beta = _orthonormal(overlap, inv, n_max, r_cut)
        # Columns: the integral of r^l exp(-alpha r^2) with the density, without R.
        factors.append(beta * (eta / (alpha + eta)) ** ell * (np.pi / (alpha + eta)) ** 1.5)
    widths = alphas * eta / (alphas + eta)

    def evaluate(r: Array) -> Array:
        values = [
            _root_factor(ell) * (r[:, None] ** ell * np.exp(-width * r[:, None] ** 2)) @ factor.T
            for ell, width, factor in zip(degrees, widths, factors, strict=True)
        ]
        return np.stack(values, axis=1)

    return evaluate


def polynomial(r_cut: float, n_max: int, l_max: int, sigma: float) -> Radial:
    """Polynomials g_n = sum over k of beta_nk (r_cut - r)^(k + 2), k from 1, orthonormal.

    The integral is a Gauss-Legendre sum over 100 points between 0 and r_cut.

    Raises InputError where the functions are too alike to be made orthonormal.
    """
    k = np.arange(1, n_max + 1)
    overlap = np.array([[_overlap(r_cut, int(i + j)) for j in k] for i in k])
    beta = _orthonormal(overlap, np.linalg.inv, n_max, r_cut)
    abscissas, weights = np.polynomial.legendre.leggauss(_QUADRATURE_POINTS)
    points = 0.5 * r_cut * (abscissas + 1.0)
    basis = beta @ (r_cut - points) ** (k[:, None] + 2.0)
    summed = (2.0 * np.pi * r_cut * weights * points**2 * basis).T
    eta = 0.5 / sigma**2

    def evaluate(r: Array) -> Array:
        bessel = _scaled_bessel(points, r, eta, l_max)
        values = [_root_factor(ell) * bessel[ell] @ summed for ell in range(l_max + 1)]
        return np.stack(values, axis=1)

    return evaluate


def _overlap(r_cut: float, k: int) -> float:
    """Integral of r^2 (r_cut - r)^(k + 4) from 0 to r_cut."""
    return 2 * r_cut ** (7 + k) / ((5 + k) * (6 + k) * (7 + k))


def breaks(r_cut: float, l_max: int, sigma: float, reach: float) -> Array:
    """Distances up to `reach` at which `polynomial` has a jump or a kink, see `_scaled_bessel`.

    It has, for every quadrature point p: a jump at |5 - p|, and a kink where a term of the upward
    recursion, which starts with 1, 1 - 1/x, becomes negative. At the centre it is another function.
    """
    eta = 0.5 / sigma**2
    if exp(-eta * _FARTHEST**2) < _NEGLIGIBLE:
        return np.zeros(0)
    abscissas, _ = np.polynomial.legendre.leggauss(_QUADRATURE_POINTS)
    points = 0.5 * r_cut * (abscissas + 1.0)
    below, term = np.poly1d([1.0]), np.poly1d([-1.0, 1.0])
    kinks = [np.zeros(0)]
    for ell in range(2, l_max + 1):
        below, term = term, below - np.poly1d([2.0 * ell - 1.0, 0.0]) * term
        if ell % 2:  # One real root in 1/x; the others have none.
            root = term.roots[np.argmin(np.abs(term.roots.imag))].real
            at = 0.5 / (root * eta * points)
            kinks.append(at[at + points > _FARTHEST])
    edges = np.unique(np.concatenate([[_CENTRE], np.abs(_FARTHEST - points), *kinks]))
    return edges[(edges >= _CENTRE) & (edges < reach - _CENTRE)]


def _root_factor(ell: int | np.integer[Any]) -> float:
    """Root of the factor of the power spectrum; the harmonics come with sqrt(4 pi)."""
    return sqrt(np.pi * sqrt(8.0 / (2 * ell + 1)) / (4.0 * np.pi))


def _orthonormal(
    overlap: Array, inverse: Callable[[Array], Any], n_max: int, r_cut: float
) -> Array:
    """Inverse root of an overlap matrix.

    Of matrices near the limit of what can be inverted, the result depends on the routines: they
    are those of dscribe.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            root = sqrtm(inverse(overlap))
        except (LinAlgError, ValueError):
            root = np.full((1, 1), np.nan)
    if np.iscomplexobj(root) or not np.isfinite(root).all():
        raise InputError(
            f"n_max = {n_max}: so many radial functions within {r_cut:g} Å are too alike to be "
            "told apart; lower n_max or raise r_cut."
        )
    return np.asarray(root, dtype=np.float64)


def _scaled_bessel(points: Array, r: Array, eta: float, l_max: int) -> Array:
    """exp(-eta (p^2 + r^2)) i_l(2 eta p r) by (l, r, p).

    The l = 0, 1 are combinations of exp(-eta (p - r)^2) and exp(-eta (p + r)^2), taken as 0 where
    p - r or p + r is beyond 5 Å. There the higher l follow from these in the upward recursion, with
    negative values taken as 0; elsewhere, and for r = 0, they are exact.
    """
    p, r = points[None, :], r[:, None]
    apart = r > _CENTRE
    near = np.where(apart & (p - r > _FARTHEST), 0.0, np.exp(-eta * (p - r) ** 2))
    x = np.maximum(2.0 * eta * p * r, 1e-30)
    result = near * _bessel_ratios(x, l_max)
    cut = np.nonzero(apart & (p + r > _FARTHEST) & (exp(-eta * _FARTHEST**2) > _NEGLIGIBLE))
    x, near = x[cut], near[cut]
    below = near / (2.0 * x)
    value = (near - 2.0 * below) / (2.0 * x)
    for ell in range(l_max + 1):
        result[ell][cut] = below
        below, value = value, np.maximum(below - (2 * ell + 3) / x * value, 0.0)
    return result


def _bessel_ratios(x: Array, l_max: int) -> Array:
    """exp(-x) i_l(x), (l, ...): upward where that is stable, else downward from far up."""
    first = -np.expm1(-2.0 * x) / (2.0 * x)
    values = [first]
    ratio = np.zeros_like(x)
    ratios = []
    small = np.minimum(x, _UPWARD)
    for ell in range(l_max + 60, 0, -1):
        ratio = 1.0 / ((2 * ell + 1) / small + ratio)
        if ell <= l_max:
            ratios.append(ratio)
    for ell, down in enumerate(reversed(ratios), start=1):
        if ell == 1:
            up = 0.5 * (1.0 + np.exp(-2.0 * x)) / x - first / x
        else:
            up = values[-2] - (2 * ell - 1) / x * values[-1]
        values.append(np.where(x > _UPWARD, up, down * values[-1]))
    return np.stack(values)


# Argument from which the upward recursion of Bessel functions loses nothing.
_UPWARD = 40.0


def tabulate(radial: Radial, reach: float, edges: Array) -> RadialTable:
    """Piecewise polynomials for f on 0 to `reach`; a bin ends at each of the `edges`.

    Bins are split until their errors are below `_TOLERANCE`, or not above those of rounding, which
    many radial functions leave in f.

    Raises InputError when f is too sharp for a table of reasonable size.
    """
    sample = radial(np.linspace(0.0, reach, 401))
    scale, n_max = float(np.abs(sample).max()), sample.shape[2]
    bounds = np.unique(np.concatenate([np.linspace(0.0, reach, 17), edges]))
    tolerance = min(max(_TOLERANCE * scale, 2.0 * _rounding(radial, bounds)), _WORST * scale)
    left, right = bounds[:-1], bounds[1:]
    done: list[tuple[Array, Array, Array]] = []
    n_bins = 0
    while len(left):
        coefficients, errors = _fit(radial, left, right)
        good = errors <= tolerance
        done.append((left[good], right[good], coefficients[good]))
        parts = np.ceil(1.05 * (errors[~good] / tolerance) ** (1.0 / (_DEGREE + 1)))
        left, right = _split(left[~good], right[~good], np.clip(parts, 2, 8).astype(int))
        n_bins += int(good.sum())
        if n_bins + len(left) > _MOST_BINS:
            raise InputError(
                f"The radial functions are too sharp for {_MOST_BINS} bins up to {reach:g} Å; "
                "take a larger sigma or a smaller n_max."
            )
    left, right, coefficients = (np.concatenate(part) for part in zip(*done, strict=True))
    order = np.argsort(left)
    left, right, coefficients = left[order], right[order], coefficients[order]
    padded = _aligned((*coefficients.shape[:3], -(-n_max // LANES) * LANES))
    padded[..., :n_max] = coefficients
    starts, n_lookup = np.append(left, np.inf), 2 * len(left)
    lookup = np.searchsorted(starts, np.arange(n_lookup + 2) * reach / n_lookup, side="right") - 1
    return RadialTable(
        cutoff=reach,
        # A little less than what the lookup was made for: the bin is never behind r.
        inverse_width=n_lookup / reach * (1.0 - 1e-12),
        lookup=np.clip(lookup, 0, len(left) - 1).astype(np.int64),
        start=starts,
        middle=0.5 * (right + left),
        scale=2.0 / (right - left),
        coefficients=padded,
    )


def _aligned(shape: tuple[int, ...]) -> Array:
    """Zeros that begin at a cache line, so that no lanes are spread over two."""
    size, line = int(np.prod(shape)), 64
    space = np.zeros(size + line // 8)
    begin = -space.ctypes.data % line // 8
    return space[begin : begin + size].reshape(shape)


def _rounding(radial: Radial, bounds: Array) -> float:
    """Largest error of polynomials over lengths on which f is nothing but a polynomial."""
    middle, width = 0.5 * (bounds[1:] + bounds[:-1]), 1e-3 * np.diff(bounds)
    _, errors = _fit(radial, middle, middle + width)
    return float(errors.max())


def _split(left: Array, right: Array, parts: NDArray[np.int64]) -> tuple[Array, Array]:
    """Bins in as many equal parts each."""
    which = np.repeat(np.arange(len(left)), parts)
    part = np.arange(len(which)) - np.repeat(np.cumsum(parts) - parts, parts)
    width = (right - left)[which] / parts[which]
    begin = left[which] + part * width
    return begin, np.where(part == parts[which] - 1, right[which], begin + width)


def _fit(radial: Radial, left: Array, right: Array) -> tuple[Array, Array]:
    """Polynomials (bins, powers, l, n) through Chebyshev points, and their largest errors."""
    angles = np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1)
    nodes, tests = np.cos(angles), 0.999 * np.cos(np.pi * np.arange(_DEGREE + 2) / (_DEGREE + 1))
    middle, half = 0.5 * (right + left), 0.5 * (right - left)

    def sample(t: Array) -> Array:
        values = radial((middle[:, None] + half[:, None] * t).ravel())
        return values.reshape(len(middle), len(t), *values.shape[1:])

    solve = np.linalg.inv(np.vander(nodes))
    coefficients = np.einsum("kt,btln->bkln", solve, sample(nodes))
    found = np.einsum("tk,bkln->btln", np.vander(tests, _DEGREE + 1), coefficients)
    return coefficients, np.abs(found - sample(tests)).max(axis=(1, 2, 3))
