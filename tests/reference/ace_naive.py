"""Slow, obvious ACE: B functions by their definition, one sum over all m at a time, and the energy
of their densities with core repulsion and inner cutoff.

Nothing is shared with the package: neighbours by looping over images, harmonics from scipy,
Clebsch-Gordan coefficients from ladder operators.
"""

from functools import cache
from itertools import product
from math import cos, exp, isqrt, pi, sqrt

import numpy as np
from scipy.special import sph_harm_y


def neighbours(atoms, cutoff):
    """List per atom of (neighbour index, vector)."""
    reach = [0, 0, 0]
    if atoms.pbc.any():
        heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.complete()), axis=0)
        reach = [int(cutoff / h) + 2 if p else 0 for h, p in zip(heights, atoms.pbc, strict=True)]
    result = [[] for _ in atoms]
    for i, j in product(range(len(atoms)), repeat=2):
        for image in product(*(range(-n, n + 1) for n in reach)):
            vector = atoms.positions[j] + np.dot(image, atoms.cell[:]) - atoms.positions[i]
            if (i != j or any(image)) and np.linalg.norm(vector) < cutoff:
                result[i].append((j, vector))
    return result


def cheb_exp_cos(n, r, cutoff, lambda_, outer_width):
    """g_n(r), n from 1."""
    x = 1 - 2 * (exp(-lambda_ * r / cutoff) - exp(-lambda_)) / (1 - exp(-lambda_))
    g = 1.0 if n == 1 else (1 - cos((n - 1) * np.arccos(x))) / 2
    g *= (1 + cos(pi * r / cutoff)) / 2
    if r > cutoff - outer_width:
        g *= (1 + cos(pi * (r - cutoff + outer_width) / outer_width)) / 2
    return g


def harmonic(ell, m, vector):
    """sqrt(4 pi) Y_lm with the Condon-Shortley phase."""
    x, y, z = vector / np.linalg.norm(vector)
    return sqrt(4 * pi) * sph_harm_y(ell, m, np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x))


@cache
def clebsch_gordan(l1, l2, big_l):
    """{(m1, m2, M): coefficient}: the top state is annihilated by J+, the others follow by J-."""
    m1s = [m for m in range(-l1, l1 + 1) if abs(big_l - m) <= l2]
    raising = np.zeros((len(m1s) + 1, len(m1s)))
    for column, m1 in enumerate(m1s):
        m2 = big_l - m1
        raising[column + 1, column] += sqrt(l1 * (l1 + 1) - m1 * (m1 + 1))
        raising[column, column] += sqrt(l2 * (l2 + 1) - m2 * (m2 + 1))
    state = np.linalg.svd(raising)[2][-1]
    state *= np.sign(state[-1])
    level = {(m1, big_l - m1): c for m1, c in zip(m1s, state, strict=True)}
    table = {}
    for big_m in range(big_l, -big_l - 1, -1):
        table |= {(m1, m2, big_m): c for (m1, m2), c in level.items()}
        lower = {}
        for (m1, m2), c in level.items():
            if m1 > -l1:
                step = sqrt(l1 * (l1 + 1) - m1 * (m1 - 1))
                lower[m1 - 1, m2] = lower.get((m1 - 1, m2), 0) + c * step
            if m2 > -l2:
                step = sqrt(l2 * (l2 + 1) - m2 * (m2 - 1))
                lower[m1, m2 - 1] = lower.get((m1, m2 - 1), 0) + c * step
        scale = sqrt(big_l * (big_l + 1) - big_m * (big_m - 1)) if big_m > -big_l else 1
        level = {key: c / scale for key, c in lower.items()}
    return table


def coupling(ls, lint, ms):
    """Coefficient of one combination of m along the coupling tree."""

    def cg(l1, m1, l2, m2, big_l):
        if not abs(l1 - l2) <= big_l <= l1 + l2:
            return 0.0
        return clebsch_gordan(l1, l2, big_l).get((m1, m2, m1 + m2), 0.0)

    if len(ls) == 1:
        return 1.0
    if len(ls) == 2:
        return cg(ls[0], ms[0], ls[1], ms[1], 0)
    m12 = ms[0] + ms[1]
    value = cg(ls[0], ms[0], ls[1], ms[1], lint[0])
    if len(ls) == 3:
        return value * cg(lint[0], m12, ls[2], ms[2], 0)
    m34 = ms[2] + ms[3]
    value *= cg(ls[2], ms[2], ls[3], ms[3], lint[1])
    if len(ls) == 4:
        return value * cg(lint[0], m12, lint[1], m34, 0)
    if len(ls) == 5:
        value *= cg(lint[0], m12, lint[1], m34, lint[2])
        return value * cg(lint[2], m12 + m34, ls[4], ms[4], 0)
    m56 = ms[4] + ms[5]
    value *= cg(ls[4], ms[4], ls[5], ms[5], lint[2]) * cg(lint[0], m12, lint[1], m34, lint[3])
    return value * cg(lint[2], m56, lint[3], m12 + m34, 0)


def b_values(atoms, types, functions, cutoff, lambda_, outer_width, keep=lambda r: 1.0):
    """B (n, F) for functions with the attributes mu0, mus, ns, ls, lint; g_n for every rank.

    `keep`: factor of the radial functions at a distance, for an inner cutoff.
    """
    result = np.zeros((len(atoms), len(functions)))
    for i, around in enumerate(neighbours(atoms, cutoff)):
        base = {}

        def density(mu, n, ell, m, around=around, base=base):
            if (mu, n, ell, m) not in base:
                base[mu, n, ell, m] = sum(
                    cheb_exp_cos(n, np.linalg.norm(v), cutoff, lambda_, outer_width)
                    * keep(np.linalg.norm(v))
                    * harmonic(ell, m, v)
                    for j, v in around
                    if types[j] == mu
                )
            return base[mu, n, ell, m]

        for k, f in enumerate(functions):
            if f.mu0 != types[i]:
                continue
            total = 0j
            for ms in product(*(range(-ell, ell + 1) for ell in f.ls)):
                if sum(ms) == 0:
                    g = coupling(f.ls, f.lint, ms)
                    if g:
                        factors = zip(f.mus, f.ns, f.ls, ms, strict=True)
                        total += g * np.prod([density(*factor) for factor in factors])
            assert abs(total.imag) < 1e-9 * (1 + abs(total))
            result[i, k] = total.real
    return result


def step(x, end, width):
    """Smooth step: 1 up to end - width, 0 from end on, the integral of a bell (1 - t^2)^2."""
    t = min(max(1 - 2 * (x - end + width) / width, -1.0), 1.0)
    return (t - 2 * t**3 / 3 + t**5 / 5 + 8 / 15) / (16 / 15)


def embedding(rho, m, npoti):
    """F(rho, m), odd in rho."""
    a = abs(rho)
    if m == 1:
        return rho
    if npoti == "FinnisSinclairShiftedScaled":
        n = 1 / m
        x, y = n ** (n / (1 - n)) * exp(-a), n ** (1 / (1 - n)) * exp(-a)
        return np.sign(rho) * ((x + a) ** m - y)
    g = exp(-min((1e6 * a) ** 3, 700.0))
    return np.sign(rho) * ((1 - g) * a**m + g * 1e6 ** (1 - m) * a)


def core_repulsion(r, prefactor, exponent, cutoff):
    """Gaussian over r with a cosine cutoff."""
    return prefactor * exp(-exponent * r * r) / r * (1 + cos(pi * r / cutoff)) / 2


def zbl(r, z_i, z_j, cutoff, width):
    """Half the universal screened nuclear repulsion, brought to zero at the cutoff: a cubic and a
    quartic make value, slope and curvature vanish there, then a smooth step of the same width."""
    length = 0.46850 / (z_i**0.23 + z_j**0.23)

    def bare(x):
        terms = [(0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162)]
        return 14.399645 / 2 * z_i * z_j / x * sum(c * exp(-d * x / length) for c, d in terms)

    h = 1e-4
    first = (bare(cutoff + h) - bare(cutoff - h)) / (2 * h)
    second = (bare(cutoff + h) - 2 * bare(cutoff) + bare(cutoff - h)) / h**2
    # a x^3 + b x^4 + c with x = r - (cutoff - width), zero below x = 0.
    x = max(r - cutoff + width, 0.0)
    matrix = [[3 * width**2, 4 * width**3], [6 * width, 12 * width**2]]
    a, b = np.linalg.solve(matrix, [-first, -second])
    c = -bare(cutoff) - a * width**3 - b * width**4
    return (bare(r) + a * x**3 + b * x**4 + c) * step(r, cutoff, width)


def atom_energy(densities, weights, exponents, npoti):
    """Energy of one atom without core repulsion."""
    return sum(
        w * embedding(rho, m, npoti)
        for rho, w, m in zip(densities, weights, exponents, strict=True)
    )


def gamma(values, active_rows):
    """Extrapolation grade: largest coefficient of each row as a combination of the active rows."""
    assert isqrt(active_rows.size) ** 2 == active_rows.size
    return np.abs(np.linalg.solve(active_rows.T, values.T)).max(axis=0)
