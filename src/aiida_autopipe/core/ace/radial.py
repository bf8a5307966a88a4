"""Radial basis functions g_k(r) and core repulsion of ML-PACE potentials, with derivatives.

Everything here is evaluated once per potential, to fill the spline tables of the kernels, so
clarity comes first. Formulas: Drautz, PRB 99, 014104 (2019); Lysogorskiy et al., npj Comput. Mater.
7, 97 (2021); Bochkarev et al., PRMaterials 6, 013804 (2022); the radial Bessel functions follow
Kocer et al., J. Chem. Phys. 150, 154102 (2019); the screened nuclear repulsion is that of Ziegler,
Biersack and Littmark, The Stopping and Range of Ions in Matter (1985).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.errors import PotentialFileError

Array = NDArray[np.float64]

INNER_TYPES = ("distance", "density", "zbl")
# Å; a file that asks for more is broken, and its neighbour lists would not fit into memory.
LARGEST_CUTOFF = 100.0

# Ziegler-Biersack-Littmark: e^2/(4 pi eps0) in eV Å, screening length and function.
_COULOMB = 14.399645351950543
_SCREENING_LENGTH, _SCREENING_POWER = 0.46850, 0.23
_SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
# Exponents of the Gaussian core repulsion above this count as zero.
_LARGEST_EXPONENT = 50.0


@dataclass(frozen=True)
class RadialSpec:
    """Radial functions of one ordered pair of elements.

    name: ChebExpCos, ChebPow, ChebLinear or SBessel; lambda_: shape parameter (`radparameters[0]`);
    cutoff, outer_width: rcut and dcut in Å; n_functions: number of g_k;
    inner_cutoff, inner_width: rcut_in and dcut_in (r_in and delta_in) in Å, zero for none;
    inner_type: "distance" (the g_k go to zero inside, core repulsion takes over), "density" (a core
    repulsion switches the energy off, see `Embedding`) or "zbl" (the nearest neighbour switches
    between the energy and the ZBL repulsion); core_repulsion: (prehc, lambdahc), the prefactor in
    eV Å (zbl: dimensionless) and the exponent in 1/Å^2.

    Names starting with TEST_ are ML-PACE's placeholders: all g_k are zero (but TEST_SBessel).
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
        if self.name not in _BASES and not self.name.startswith("TEST_"):
            raise PotentialFileError(
                f"radial basis radbase/radbasename '{self.name}' is not supported; "
                f"known are {', '.join(n for n in _BASES if not n.startswith('TEST_'))}."
            )
        if not (np.isfinite(self.cutoff) and 0 < self.cutoff <= LARGEST_CUTOFF):
            raise PotentialFileError(
                f"cutoff rcut = {self.cutoff} must be a positive length, {LARGEST_CUTOFF:g} Å at "
                "most."
            )
        if self.n_functions < 1:
            raise PotentialFileError(
                f"nradbase = {self.n_functions}: at least one radial function is needed."
            )
        if self.inner_type not in INNER_TYPES:
            raise PotentialFileError(
                f"inner_cutoff_type '{self.inner_type}' is not supported; known are "
                f"{', '.join(INNER_TYPES)}."
            )
        for name, value in (
            ("dcut", self.outer_width),
            ("inner cutoff (r_in, rcut_in)", self.inner_cutoff),
            ("inner cutoff width (delta_in, dcut_in)", self.inner_width),
        ):
            if not (np.isfinite(value) and value >= 0):
                raise PotentialFileError(f"{name} = {value} must not be negative.")
        if self.name == "ChebExpCos" and self.lambda_ == 0:
            raise PotentialFileError("radparameters [0] is not possible for ChebExpCos; use 5.25.")

    @property
    def has_core_repulsion(self) -> bool:
        return self.core_repulsion[0] != 0


def radial_functions(spec: RadialSpec, r: Array) -> tuple[Array, Array]:
    """Return g and dg/dr, both (len(r), n_functions), at the distances `r` (Å).

    Both are zero from the cutoff on and inside the inner cutoff.
    """
    r = np.asarray(r, dtype=np.float64)
    inner, width = spec.inner_cutoff, spec.inner_width
    if spec.inner_type == "zbl":
        # The nearest neighbour switches here, not the distance. That a width of zero cuts at 1 Å
        # all the same is how ML-PACE behaves, and potentials are fitted with it.
        inner = 1.0 if width == 0 else 0.0
    inside = (r < spec.cutoff) & ((r > inner - width) | (inner <= width))
    used = r[inside]
    value, slope = _BASES.get(spec.name, _no_functions)(spec, used)
    if spec.inner_type != "density":
        step, dstep = inner_step(used, inner, width)
        keep = 1 - step[:, None]
        value, slope = value * keep, slope * keep - value * dstep[:, None]
    g, dg = np.zeros((len(r), spec.n_functions)), np.zeros((len(r), spec.n_functions))
    g[inside], dg[inside] = value, slope
    return g, dg


def core_repulsion(spec: RadialSpec, r: Array, numbers: tuple[int, int]) -> tuple[Array, Array]:
    """Core repulsion (eV) of one pair and its derivative, both (len(r),), at `r` > 0 (Å).

    Added to the energy of the centre, so a pair counts it twice. `numbers`: atomic numbers.
    """
    value, slope = np.zeros_like(r), np.zeros_like(r)
    inside = r < spec.cutoff
    if spec.inner_type == "zbl":
        value[inside], slope[inside] = _screened_nuclei(spec, r[inside], numbers)
        return value, slope
    value[inside], slope[inside] = _gaussian_core(spec, r[inside])
    if spec.inner_type == "distance":
        step, dstep = inner_step(r, spec.inner_cutoff, spec.inner_width)
        value, slope = value * step, slope * step + value * dstep
    return value, slope


def _gaussian_core(spec: RadialSpec, r: Array) -> tuple[Array, Array]:
    """|p| exp(-|lambda| r^2)/r times a cosine that ends at the cutoff."""
    prefactor, exponent = (abs(x) for x in spec.core_repulsion)
    phase = np.pi * r / spec.cutoff
    envelope, denvelope = (1 + np.cos(phase)) / 2, -np.pi / spec.cutoff * np.sin(phase) / 2
    power = exponent * r**2
    bare = np.where(power < _LARGEST_EXPONENT, prefactor * np.exp(-power) / r, 0.0)
    return bare * envelope, bare * denvelope - bare * (2 * power + 1) / r * envelope


def _screened_nuclei(spec: RadialSpec, r: Array, numbers: tuple[int, int]) -> tuple[Array, Array]:
    """Half the ZBL repulsion, shifted and switched to zero within dcut of the cutoff."""
    z_i, z_j = numbers
    length = _SCREENING_LENGTH / (z_i**_SCREENING_POWER + z_j**_SCREENING_POWER)
    value, slope, _ = _screened_coulomb(r, length)
    end, width = spec.cutoff, spec.outer_width
    e, de, d2e = (float(x) for x in _screened_coulomb(np.array(end), length))
    value = value - e + width * de / 2 - width**2 * d2e / 12
    if width > 0:
        x = np.clip(r - (end - width), 0, None)
        third, fourth = (-3 * de + width * d2e) / width**2, (2 * de - width * d2e) / width**3
        value = value + third / 3 * x**3 + fourth / 4 * x**4
        slope = slope + third * x**2 + fourth * x**3
    step, dstep = inner_step(r, end, width)
    scale = spec.core_repulsion[0] * _COULOMB / 2 * z_i * z_j
    return scale * value * step, scale * (slope * step + value * dstep)


def _screened_coulomb(r: Array, length: float) -> tuple[Array, Array, Array]:
    """phi(r/a)/r and its first two derivatives."""
    phi, dphi, d2phi = np.zeros_like(r), np.zeros_like(r), np.zeros_like(r)
    for weight, decay in _SCREENING:
        term = weight * np.exp(-decay * r / length)
        phi, dphi = phi + term, dphi - decay / length * term
        d2phi = d2phi + (decay / length) ** 2 * term
    return phi / r, dphi / r - phi / r**2, d2phi / r - 2 * dphi / r**2 + 2 * phi / r**3


def inner_step(r: Array, r_in: float, width: float) -> tuple[Array, Array]:
    """Quintic step and derivative: 1 below r_in - width, 0 above r_in, two derivatives smooth."""
    if width <= 0:
        return np.where(r <= r_in, 1.0, 0.0), np.zeros_like(r)
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
    rest = 1 - r / spec.cutoff
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


def _no_functions(spec: RadialSpec, r: Array) -> tuple[Array, Array]:
    return np.zeros((len(r), spec.n_functions)), np.zeros((len(r), spec.n_functions))


_BASES: dict[str, Callable[[RadialSpec, Array], tuple[Array, Array]]] = {
    "ChebExpCos": _cheb_exp_cos,
    "ChebPow": _cheb_pow,
    "ChebLinear": _cheb_linear,
    "SBessel": _simplified_bessel,
    "TEST_SBessel": _simplified_bessel,
}
