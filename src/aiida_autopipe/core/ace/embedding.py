"""From densities to the energy of an atom: embedding functions and the inner cutoff.

An atom has P densities rho_p = sum_f c_fp B_f. Its energy is

    E = f(core) sum_p w_p F(rho_p, m_p) + core        (inner cutoff "distance" or "density")
    E = f(r) sum_p w_p F(rho_p, m_p) + (1 - f(r)) core                       ("zbl")

with core the sum of the core repulsion over the neighbours and f a smooth step: from 1 to 0 while
the core repulsion rises from rho_core_cutoff - drho_core_cutoff to rho_core_cutoff (eV), or while
the nearest neighbour comes from the inner cutoff to one inner width below it.

F is odd in rho and equal to rho for m = 1. Both kinds behave like |rho|^m for large rho and have a
finite slope at zero, which |rho|^m alone has not for m < 1. Drautz, PRB 99, 014104 (2019);
Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021); Bochkarev et al., PRMaterials 6, 013804 (2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from aiida_autopipe.core.ace.functions import Bond
from aiida_autopipe.core.errors import PotentialFileError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHIFTED_SCALED = "FinnisSinclairShiftedScaled"
FINNIS_SINCLAIR = "FinnisSinclair"
# Far more than any potential has; a file that asks for more is broken or hostile.
MOST_DENSITIES = 32

# |rho|^m is replaced by a straight line below about 1/_SHARPNESS, and below _TINY altogether.
_SHARPNESS = 1e6
_TINY = 1e-10
# exp(-x) counts as zero from here on.
_LARGEST_EXPONENT = 30.0


@dataclass(frozen=True)
class Embedding:
    """How the densities of one element become its energy.

    parameters: (w1, m1, w2, m2, ...), weight (eV) and exponent of each density; npoti: kind of F,
    FinnisSinclairShiftedScaled or FinnisSinclair; rho_core_cutoff, drho_core_cutoff: core repulsion
    (eV) at which the rest of the energy is switched off, and the width of this step.

    The default is a linear potential, E = rho. Raises PotentialFileError for other kinds of F and
    parameters without meaning.
    """

    parameters: tuple[float, ...] = (1.0, 1.0)
    npoti: str = SHIFTED_SCALED
    rho_core_cutoff: float = 100000.0
    drho_core_cutoff: float = 250.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(float(x) for x in self.parameters))
        if self.npoti not in (SHIFTED_SCALED, FINNIS_SINCLAIR):
            raise PotentialFileError(
                f"embedding npoti '{self.npoti}' is not supported; known are {SHIFTED_SCALED}, "
                f"{FINNIS_SINCLAIR}."
            )
        given = list(self.parameters)
        if len(given) % 2 or not 2 <= len(given) <= 2 * MOST_DENSITIES:
            raise PotentialFileError(
                f"embedding parameters (parameters, FS_parameters) need a weight and an exponent "
                f"for each of 1 to {MOST_DENSITIES} densities, not {len(given)} numbers."
            )
        if not np.isfinite(given).all():
            raise PotentialFileError("embedding parameters must be finite.")
        if self.npoti == SHIFTED_SCALED and min(self.exponents) <= 0:
            raise PotentialFileError(
                f"embedding exponent {min(self.exponents)} is not possible for {SHIFTED_SCALED}; "
                "it must be positive."
            )
        step = (self.rho_core_cutoff, self.drho_core_cutoff)
        if not np.isfinite(step).all() or self.drho_core_cutoff < 0:
            raise PotentialFileError(
                f"rho_core_cutoff, drho_core_cutoff = {list(step)} must be finite, the second not "
                "negative."
            )

    @property
    def n_densities(self) -> int:
        return len(self.parameters) // 2

    @property
    def weights(self) -> Floats:
        """w (P,) in eV."""
        return np.array(self.parameters[::2])

    @property
    def exponents(self) -> Floats:
        """m (P,)."""
        return np.array(self.parameters[1::2])

    @property
    def is_linear(self) -> bool:
        """Whether the energy is sum_p w_p rho_p."""
        return bool((np.abs(self.exponents - 1) < _TINY).all())

    def energy(self, rho: Floats) -> Floats:
        """Energies (n,) in eV of densities (n, P)."""
        energies: Floats = self._parts(rho)[0] @ self.weights
        return energies

    def derivative(self, rho: Floats) -> Floats:
        """dE/drho_p (n, P) of densities (n, P)."""
        slopes: Floats = self._parts(rho)[1] * self.weights
        return slopes

    def second_derivative(self, rho: Floats) -> Floats:
        """d2E/drho_p^2 (n, P) of densities (n, P); mixed derivatives are zero. One-sided at zero,
        where it changes sign."""
        curvatures: Floats = self._parts(rho)[2] * self.weights
        return curvatures

    def _parts(self, rho: Floats) -> tuple[Floats, Floats, Floats]:
        """F and its two derivatives, each (n, P)."""
        function = _shifted_scaled if self.npoti == SHIFTED_SCALED else _finnis_sinclair
        columns = [function(rho[:, p], m) for p, m in enumerate(self.exponents)]
        return tuple(np.stack(part, axis=1) for part in zip(*columns, strict=True))  # type: ignore[return-value]


def _finnis_sinclair(rho: Floats, m: float) -> tuple[Floats, Floats, Floats]:
    """sign(rho) ((1 - g) a^m + g s^(1 - m) a), a = |rho|, g = exp(-(s a)^3); two derivatives."""
    s = _SHARPNESS
    line, tiny = s ** (1 - m), np.abs(rho) <= _TINY
    a = np.where(tiny, 1.0, np.abs(rho))
    power = (s * a) ** 3
    g = np.where(power > _LARGEST_EXPONENT, 0.0, np.exp(-np.minimum(power, 100.0)))
    dg, d2g = -3 * s**3 * a**2 * g, (9 * s**6 * a**4 - 6 * s**3 * a) * g
    value = (1 - g) * a**m + line * g * a
    slope = m * a ** (m - 1) * (1 - g) - a**m * dg + line * (dg * a + g)
    curvature = m * (m - 1) * a ** (m - 2) * (1 - g) - 2 * m * a ** (m - 1) * dg - a**m * d2g
    curvature += line * (2 * dg + a * d2g)
    sign = np.sign(rho)
    return (
        np.where(tiny, line * rho, sign * value),
        np.where(tiny, line, slope),
        np.where(tiny, 0.0, sign * curvature),
    )


def _shifted_scaled(rho: Floats, m: float) -> tuple[Floats, Floats, Floats]:
    """sign(rho) ((x + a)^m - y), a = |rho|, x = u e^-a, y = u^m e^-a; a^m has slope 1 at u."""
    if abs(m - 1) < _TINY:
        return rho.copy(), np.ones_like(rho), np.zeros_like(rho)
    n = 1 / m
    a, sign = np.abs(rho), np.where(rho < 0, -1.0, 1.0)
    x, y = n ** (n / (1 - n)) * np.exp(-a), n ** (1 / (1 - n)) * np.exp(-a)
    value = (x + a) ** m - y
    slope = m * (1 - x) * (x + a) ** (m - 1) + y
    curvature = m * (m - 1) * (1 - x) ** 2 * (x + a) ** (m - 2) + m * x * (x + a) ** (m - 1) - y
    return sign * value, slope, sign * curvature


class Embeddings(NamedTuple):
    """The embeddings and inner cutoffs of all centre types, for the kernels.

    style: see below; n_densities, weight, exponent: (types,), (types, P); core_cutoff, core_width:
    (types,); switch: see below; inner_cutoff, inner_width: (pairs,), pair = centre type * n_types +
    neighbour type; reach: largest cutoff.
    """

    style: Ints
    n_densities: Ints
    weight: Floats
    exponent: Floats
    core_cutoff: Floats
    core_width: Floats
    switch: int
    inner_cutoff: Floats
    inner_width: Floats
    reach: float


# Embeddings.style; LINEAR: the weights are folded into the coefficients, one density is left.
LINEAR, POWER, SHIFTED = 0, 1, 2
# Embeddings.switch: what switches the energy off inside.
NOTHING, CORE_REPULSION, NEAREST_NEIGHBOUR = 0, 1, 2


def compile_embeddings(
    elements: Sequence[str],
    embeddings: Mapping[str, Embedding],
    bonds: Mapping[tuple[int, int], Bond],
) -> Embeddings:
    """Arrays for the kernels; elements in the order of the centre types."""
    chosen = [embeddings[element] for element in elements]
    shape = len(chosen), max(embedding.n_densities for embedding in chosen)
    weight, exponent = np.zeros(shape), np.ones(shape)
    for k, embedding in enumerate(chosen):
        weight[k, : embedding.n_densities] = embedding.weights
        exponent[k, : embedding.n_densities] = embedding.exponents
    types = range(len(chosen))
    radial = [bonds[i, j].radial for i in types for j in types]
    switched = any(spec.has_core_repulsion for spec in radial) or any(
        e.rho_core_cutoff <= 0 or e.rho_core_cutoff < e.drho_core_cutoff for e in chosen
    )
    switch = CORE_REPULSION if switched else NOTHING
    if radial[0].inner_type == "zbl":
        switch = NEAREST_NEIGHBOUR
    return Embeddings(
        style=np.array([_style(embedding) for embedding in chosen], dtype=np.int64),
        n_densities=np.array([embedding.n_densities for embedding in chosen], dtype=np.int64),
        weight=weight,
        exponent=exponent,
        core_cutoff=np.array([embedding.rho_core_cutoff for embedding in chosen]),
        core_width=np.array([embedding.drho_core_cutoff for embedding in chosen]),
        switch=switch,
        inner_cutoff=np.array([spec.inner_cutoff for spec in radial]),
        inner_width=np.array([spec.inner_width for spec in radial]),
        reach=max(bond.radial.cutoff for bond in bonds.values() if not bond.absent),
    )


def _style(embedding: Embedding) -> int:
    if embedding.is_linear:
        return LINEAR
    return SHIFTED if embedding.npoti == SHIFTED_SCALED else POWER


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def embedded(style: int, rho: float, m: float) -> Any:
    """F(rho, m) and its derivative for one density."""
    a = abs(rho)
    sign = -1.0 if rho < 0.0 else 1.0
    if style == POWER:
        line = _SHARPNESS ** (1.0 - m)
        if a <= _TINY:
            return line * rho, line
        power = (_SHARPNESS * a) ** 3
        g = 0.0 if power > _LARGEST_EXPONENT else np.exp(-power)
        dg = -3.0 * _SHARPNESS**3 * a * a * g
        am = a**m
        value = (1.0 - g) * am + line * g * a
        return sign * value, m * a ** (m - 1.0) * (1.0 - g) - am * dg + line * (dg * a + g)
    if abs(m - 1.0) < _TINY:
        return rho, 1.0
    n = 1.0 / m
    decay = np.exp(-a)
    x, y = n ** (n / (1.0 - n)) * decay, n ** (1.0 / (1.0 - n)) * decay
    return sign * ((x + a) ** m - y), m * (1.0 - x) * (x + a) ** (m - 1.0) + y


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def step_down(x: float, end: float, width: float) -> Any:
    """Quintic step and derivative: 1 up to end - width, 0 from `end` on; see `inner_step`."""
    if x <= end - width:
        return 1.0, 0.0
    if x >= end:
        return 0.0, 0.0
    t = 1.0 - 2.0 * (1.0 + (x - end) / width)
    value = 0.5 + 0.9375 * (t - 2.0 / 3.0 * t**3 + 0.2 * t**5)
    return value, -1.875 / width * (1.0 - t * t) ** 2
