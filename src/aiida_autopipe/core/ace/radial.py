"""Radial basis functions g_k(r) of ML-PACE potentials, with derivatives.

Everything here is evaluated once per potential, to fill the spline tables of the kernels, so
clarity comes first. Formulas: Drautz, PRB 99, 014104 (2019); Bochkarev et al., PRMaterials 6,
013804 (2022); the radial Bessel functions follow Kocer et al., J. Chem. Phys. 150, 154102 (2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.errors import PotentialFileError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RadialSpec:
    """Radial functions of one ordered pair of elements.

    name: ChebExpCos, ChebPow, ChebLinear or SBessel; lambda_: shape parameter (`radparameters[0]`);
    cutoff, outer_width: rcut and dcut in Å; inner_cutoff, inner_width: rcut_in and dcut_in in Å,
    zero for none; n_functions: number of g_k; core_repulsion: (prefactor, exponent).
    """

    cutoff: float
    n_functions: int
    name: str = "ChebExpCos"
    lambda_: float = 5.25
    outer_width: float = 0.01
    inner_cutoff: float = 0.0
    inner_width: float = 0.0
    inner_type: str = "distance"
    core_repulsion: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.name not in _BASES:
            raise PotentialFileError(
                f"Radial basis radbase/radbasename '{self.name}' is not supported; "
                f"known are {', '.join(_BASES)}."
            )
        if not (np.isfinite(self.cutoff) and self.cutoff > 0):
            raise PotentialFileError(f"The cutoff rcut = {self.cutoff} must be a positive length.")
        if self.n_functions < 1:
            raise PotentialFileError(
                f"nradbase = {self.n_functions}: at least one radial function is needed."
            )
        if self.core_repulsion[0] != 0:
            raise PotentialFileError(
                f"core-repulsion (prehc, lambdahc) = {list(self.core_repulsion)} is not supported; "
                "only [0, 0]."
            )
        if self.has_inner_cutoff and self.inner_type != "distance":
            raise PotentialFileError(
                f"inner_cutoff_type '{self.inner_type}' is not supported with a non-zero inner "
                "cutoff; only 'distance'."
            )

    @property
    def has_inner_cutoff(self) -> bool:
        return self.inner_cutoff != 0 or self.inner_width != 0


def radial_functions(spec: RadialSpec, r: Array) -> tuple[Array, Array]:
    """Return g and dg/dr, both (len(r), n_functions), at the distances `r` (Å).

    Beyond the cutoff both are zero.
    """
    r = np.asarray(r, dtype=np.float64)
    g, dg = _BASES[spec.name](spec, r)
    if spec.has_inner_cutoff:
        step, dstep = inner_step(r, spec.inner_cutoff, spec.inner_width)
        g, dg = g * (1 - step)[:, None], dg * (1 - step)[:, None] - g * dstep[:, None]
    outside = r > spec.cutoff
    g[outside] = 0.0
    dg[outside] = 0.0
    return g, dg


def inner_step(r: Array, r_in: float, width: float) -> tuple[Array, Array]:
    """Quintic step and derivative: 1 below r_in - width, 0 above r_in, two derivatives smooth."""
    if width <= 0:
        return np.where(r < r_in, 1.0, 0.0), np.zeros_like(r)
    x = np.clip(1 - 2 * (1 + (r - r_in) / width), -1, 1)
    value = 0.5 + 15 / 16 * (x - 2 / 3 * x**3 + x**5 / 5)
    slope = -15 / 8 / width * (1 - x**2) ** 2
    return value, slope


def _chebyshev(x: Array, n: int) -> tuple[Array, Array]:
    """T_0..T_n and their derivatives, (len(x), n + 1), by T'_k = k U_{k-1}."""
    t = np.ones((len(x), n + 1))
    u = np.ones((len(x), n + 1))
    if n > 0:
        t[:, 1], u[:, 1] = x, 2 * x
    for k in range(2, n + 1):
        t[:, k] = 2 * x * t[:, k - 1] - t[:, k - 2]
        u[:, k] = 2 * x * u[:, k - 1] - u[:, k - 2]
    dt = np.zeros_like(t)
    dt[:, 1:] = u[:, :-1] * np.arange(1, n + 1)
    return t, dt


def _half_complement(x: Array, dx: Array, n: int) -> tuple[Array, Array]:
    """(1 - T_k(x))/2 for k = 1..n, with the derivative in r."""
    t, dt = _chebyshev(x, n)
    return (1 - t[:, 1:]) / 2, -dt[:, 1:] * dx[:, None] / 2


def _cheb_exp_cos(spec: RadialSpec, r: Array) -> tuple[Array, Array]:
    lam, rc = spec.lambda_, spec.cutoff
    if lam == 0:
        raise PotentialFileError("radparameters [0] is not possible for ChebExpCos; use 5.25.")
    scale = 2 / (1 - np.exp(-lam))
    exponential = np.exp(-lam * r / rc)
    x = 1 - scale * (exponential - np.exp(-lam))
    dx = scale * lam / rc * exponential
    t, dt = _chebyshev(x, spec.n_functions - 1)
    g = (1 - t) / 2
    dg = -dt * dx[:, None] / 2
    g[:, 0] = 1.0
    cut = (1 + np.cos(np.pi * r / rc)) / 2
    dcut = -np.pi / rc * np.sin(np.pi * r / rc) / 2
    start = rc - spec.outer_width
    if spec.outer_width > 0:
        phase = np.pi * (r - start) / spec.outer_width
        late = r > start
        outer = np.where(late, (1 + np.cos(phase)) / 2, 1.0)
        douter = np.where(late, -np.pi / spec.outer_width * np.sin(phase) / 2, 0.0)
        cut, dcut = cut * outer, dcut * outer + cut * douter
    return g * cut[:, None], dg * cut[:, None] + g * dcut[:, None]


def _cheb_pow(spec: RadialSpec, r: Array) -> tuple[Array, Array]:
    rest = np.clip(1 - r / spec.cutoff, 0, None)
    x = 2 * (1 - rest**spec.lambda_) - 1
    dx = 2 * spec.lambda_ / spec.cutoff * rest ** (spec.lambda_ - 1)
    return _half_complement(x, dx, spec.n_functions)


def _cheb_linear(spec: RadialSpec, r: Array) -> tuple[Array, Array]:
    return _half_complement(
        1 - r / spec.cutoff, np.full_like(r, -1 / spec.cutoff), spec.n_functions
    )


def _sinc(x: Array) -> tuple[Array, Array]:
    """sin(x)/x and its derivative, by series near zero where the quotient loses digits."""
    small = np.abs(x) < 1e-3
    safe = np.where(small, 1.0, x)
    value = np.where(small, 1 - x**2 / 6 + x**4 / 120, np.sin(safe) / safe)
    slope = np.where(small, -x / 3 + x**3 / 30, (np.cos(safe) - np.sin(safe) / safe) / safe)
    return value, slope


def _simplified_bessel(spec: RadialSpec, r: Array) -> tuple[Array, Array]:
    rc = spec.cutoff
    g = np.zeros((len(r), spec.n_functions))
    dg = np.zeros_like(g)
    d = 1.0
    for n in range(spec.n_functions):
        a, b = n + 1, n + 2
        prefactor = (-1) ** n * np.sqrt(2) * np.pi / rc**1.5 * a * b / np.hypot(a, b)
        first, dfirst = _sinc(r * a * np.pi / rc)
        second, dsecond = _sinc(r * b * np.pi / rc)
        f = prefactor * (first + second)
        df = prefactor * np.pi / rc * (a * dfirst + b * dsecond)
        if n == 0:
            g[:, 0], dg[:, 0] = f, df
            continue
        e = n**2 * (n + 2) ** 2 / (4 * (n + 1) ** 4 + 1)
        mix = np.sqrt(e / d)
        d = 1 - e / d
        g[:, n] = (f + mix * g[:, n - 1]) / np.sqrt(d)
        dg[:, n] = (df + mix * dg[:, n - 1]) / np.sqrt(d)
    return g, dg


_BASES: dict[str, Callable[[RadialSpec, Array], tuple[Array, Array]]] = {
    "ChebExpCos": _cheb_exp_cos,
    "ChebPow": _cheb_pow,
    "ChebLinear": _cheb_linear,
    "SBessel": _simplified_bessel,
}
