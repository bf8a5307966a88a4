"""Slow, obvious SOAP: the density of Gaussians projected on the basis by quadrature.

Nothing is shared with the package: neighbours by looping over images, harmonics and Bessel
functions from scipy, orthonormal functions from the eigenvectors of the overlap, integrals by
Gauss-Legendre sums.
"""

from math import log, pi, sqrt

import numpy as np
from ase.data import atomic_numbers
from scipy.special import gamma, ive, sph_harm_y

from tests.reference import ace_naive


def features(atoms, elements, r_cut, n_max, l_max, sigma, rbf):
    """(n, F) features of each atom."""
    elements = sorted(elements, key=atomic_numbers.get)
    return np.array(
        [spectrum(c) for c in coefficients(atoms, elements, r_cut, n_max, l_max, sigma, rbf)]
    )


def spectrum(c):
    """Features from c[element][l][n, m], complex."""
    result = []
    for first in range(len(c)):
        for second in range(first, len(c)):
            for ell in range(len(c[0])):
                factor = pi * sqrt(8 / (2 * ell + 1))
                a, b = c[first][ell], c[second][ell]
                for n in range(len(a)):
                    for k in range(n if first == second else 0, len(b)):
                        result.append(factor * sum(a[n] * b[k].conj()).real)
    return result


def coefficients(atoms, elements, r_cut, n_max, l_max, sigma, rbf):
    """For every atom c[element][l][n, m]."""
    points, weights, basis = (gto if rbf == "gto" else polynomial)(r_cut, n_max, l_max, sigma)
    reach = r_cut + sigma * sqrt(-2 * log(1e-3))
    result = []
    for i, pairs in enumerate(ace_naive.neighbours(atoms, reach)):
        c = [
            [np.zeros((n_max, 2 * ell + 1), complex) for ell in range(l_max + 1)] for _ in elements
        ]
        for j, vector in [*pairs, (i, np.zeros(3))]:
            distance = np.linalg.norm(vector)
            theta = np.arccos(np.clip(vector[2] / distance, -1, 1)) if distance > 0 else 0.0
            phi = np.arctan2(vector[1], vector[0])
            for ell in range(l_max + 1):
                density = shell(points, distance, ell, sigma)
                radial = basis[ell] @ (weights * points**2 * density)
                angular = [sph_harm_y(ell, m, theta, phi).conj() for m in range(-ell, ell + 1)]
                c[elements.index(atoms.symbols[j])][ell] += np.outer(radial, angular)
        result.append(c)
    return result


def shell(r, distance, ell, sigma):
    """Part l of a Gaussian at a distance, on the sphere of radius r, without Y_lm."""
    x = r * distance / sigma**2
    near = np.exp(-((r - distance) ** 2) / (2 * sigma**2))
    if distance == 0:
        return 4 * pi * near * (ell == 0)
    return 4 * pi * near * np.sqrt(pi / (2 * x)) * ive(ell + 0.5, x)


def orthonormal(overlap):
    values, vectors = np.linalg.eigh(overlap)
    return vectors @ np.diag(values**-0.5) @ vectors.T


def gauss_legendre(end, n):
    x, weights = np.polynomial.legendre.leggauss(n)
    return end * (x + 1) / 2, end * weights / 2


def gto(r_cut, n_max, l_max, sigma):
    """Points, weights and basis [l][n, point] of functions that reach beyond the cutoff."""
    points, weights = gauss_legendre(2 * r_cut + 10 * sigma, 400)
    decay = np.linspace(1, r_cut, n_max)
    basis = []
    for ell in range(l_max + 1):
        alpha = np.log(decay**ell / 1e-3) / decay**2
        overlap = gamma(ell + 1.5) / 2 * (alpha[:, None] + alpha) ** -(ell + 1.5)
        primitive = points**ell * np.exp(-alpha[:, None] * points**2)
        basis.append(orthonormal(overlap) @ primitive)
    return points, weights, basis


def polynomial(r_cut, n_max, l_max, sigma):
    """The same for polynomials, with the 100 points that dscribe takes."""
    points, weights = gauss_legendre(r_cut, 100)
    powers = np.arange(3, n_max + 3)
    a = powers[:, None] + powers
    overlap = 2 * r_cut ** (a + 3.0) / ((a + 1) * (a + 2) * (a + 3))
    basis = orthonormal(overlap) @ (r_cut - points) ** powers[:, None]
    return points, weights, [basis] * (l_max + 1)
