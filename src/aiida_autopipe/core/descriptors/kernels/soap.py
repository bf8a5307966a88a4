"""Numba kernels of SOAP: density of neighbours in radial functions and harmonics, power spectrum.

For each atom and type Z of neighbour

    c_nlm = sum over j of f_nl(r_j) Y_lm(r_j),   p_nn'l = sum over m of c_nlm c_n'lm,

with all factors of the definition in f, and real Y_lm. Neighbours stand in blocks of BLOCK. The f
of a block, (BLOCK, l, n), come from piecewise polynomials, four n at a time; its Y, (l m, BLOCK),
from the recursion of Legendre functions, four neighbours at a time; their product over the block
and the one over m are tiles in registers (`products`).

One thread a call, without the GIL. An atom's numbers do not depend on how atoms are shared out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.kernels import Floats, Harmonics, Ints
from aiida_autopipe.core.ace.lanes import (
    LANES,
    inlined,
    item,
    kernel,
    load,
    root,
    spread,
    store,
)
from aiida_autopipe.core.ace.pair_kernels import MOST_NEIGHBOURS
from aiida_autopipe.core.descriptors.kernels.products import add_product
from aiida_autopipe.core.descriptors.kernels.surroundings import (
    Grid,
    Near,
    gather_near,
    make_grid,
    measure,
    pick_close,
)

# Neighbours in a block: what belongs to it stays in the first-level cache.
BLOCK = 16

# What is made of the atoms of a structure.
EACH, OUTER, INNER = 0, 1, 2


class RadialTable(NamedTuple):
    """f_nl(r) as polynomials in bins.

    Bin b holds start[b] <= r < start[b + 1] and t = (r - middle[b]) scale[b] in -1..1; where to
    look: from bin lookup[int(r inverse_width)] on. coefficients (bins, degree + 1, l, n): highest
    power first, n filled up with zeros to a multiple of LANES.
    """

    cutoff: float
    inverse_width: float
    lookup: Ints
    start: Floats
    middle: Floats
    scale: Floats
    coefficients: Floats


class Soap(NamedTuple):
    """The tables of one descriptor; in the harmonics, m > 0 has the factor sqrt 2."""

    n_types: int
    n_max: int
    radial: RadialTable
    harmonics: Harmonics


class _Space(NamedTuple):
    """Scratch of a thread: radial (BLOCK, l, n), angular (l m, BLOCK), rows (4, BLOCK): direction
    and distance; coefficients (types, l m, n); square (n, n); features of an atom."""

    radial: Floats
    angular: Floats
    rows: Floats
    coefficients: Floats
    square: Floats
    features: Floats


@inlined
def _n_features(soap: Soap) -> int:
    k = soap.n_types * soap.n_max
    return k * (k + 1) // 2 * (soap.harmonics.lmax + 1)


@inlined
def _make_space(soap: Soap) -> _Space:
    n, lmax = soap.radial.coefficients.shape[3], soap.harmonics.lmax
    n_lm = (lmax + 1) ** 2
    return _Space(
        np.zeros(BLOCK * (lmax + 1) * n),
        np.zeros(n_lm * BLOCK),
        np.zeros(4 * BLOCK),
        np.zeros(soap.n_types * n_lm * n),
        np.zeros(n * n),
        np.zeros(_n_features(soap)),
    )


@inlined
def _fill_block(near: Near, chosen: Ints, k: int, count: int, x: float, y: float, z: float,
                space: _Space) -> None:  # fmt: skip
    """Directions and distances of the neighbours chosen[k : k + count]."""
    rows, near_rows = space.rows, near.rows
    for j in range(count):
        q = chosen[k + j]
        rows[j] = near_rows[0, q] - x
        rows[BLOCK + j] = near_rows[1, q] - y
        rows[2 * BLOCK + j] = near_rows[2, q] - z
    for at in range(0, count, LANES):
        dx, dy, dz = load(rows, at), load(rows, at + BLOCK), load(rows, at + 2 * BLOCK)
        # The centre itself has no direction: it gets zeros, and has f = 0 beyond l = 0.
        r = root(dx * dx + dy * dy + dz * dz + spread(1e-280))
        inverse = spread(1.0) / r
        store(rows, at, dx * inverse)
        store(rows, at + BLOCK, dy * inverse)
        store(rows, at + 2 * BLOCK, dz * inverse)
        store(rows, at + 3 * BLOCK, r)


@inlined
def _fill_radial(table: RadialTable, count: int, space: _Space) -> None:
    coefficients, radial = table.coefficients, space.radial
    n_powers = coefficients.shape[1]
    width = coefficients.shape[2] * coefficients.shape[3]
    for j in range(count):
        r = space.rows[3 * BLOCK + j]
        b = item(table.lookup, int(r * table.inverse_width))
        while r >= item(table.start, b + 1):
            b += 1
        t = spread((r - item(table.middle, b)) * item(table.scale, b))
        first = b * n_powers * width
        for c in range(0, width, LANES):
            at = first + c
            value = load(coefficients, at)
            for _ in range(1, n_powers):
                at += width
                value = value * t + load(coefficients, at)
            store(radial, j * width + c, value)


@inlined
def _fill_angular(harmonics: Harmonics, count: int, space: _Space) -> None:
    """sqrt(4 pi) Y_lm in the rows l (l + 1) - m, l (l + 1) + m: cosine and sine of m phi."""
    rows, angular, lmax = space.rows, space.angular, harmonics.lmax
    for at in range(0, count, LANES):
        x, y, z = load(rows, at), load(rows, at + BLOCK), load(rows, at + 2 * BLOCK)
        cosine, sine = spread(1.0), spread(0.0)
        k = 0
        for m in range(lmax + 1):
            below, p = spread(0.0), spread(item(harmonics.diagonal, m))
            for ell in range(m, lmax + 1):
                if ell > m:
                    up, down = spread(item(harmonics.up, k)), spread(item(harmonics.down, k))
                    below, p = p, up * z * p - down * below
                k += 1
                row = at + ell * (ell + 1) * BLOCK
                store(angular, row - m * BLOCK, p * cosine)
                if m > 0:
                    store(angular, row + m * BLOCK, p * sine)
            cosine, sine = cosine * x - sine * y, cosine * y + sine * x


@inlined
def _add_rows(space: _Space, count: int, n: int, n_l: int, ell: int, row: int, rows: int,
              at: int) -> None:  # fmt: skip
    """Add a block to `rows` harmonics from `row` on, for all n."""
    v = 0
    while v + 2 * LANES <= n:
        s, f, c = row * BLOCK, ell * n + v, at + row * n + v
        if rows == 5:
            add_product(space.angular, s, BLOCK, 1, space.radial, f, n_l * n, count,
                        space.coefficients, c, n, 5, 2, True)  # fmt: skip
        elif rows == 4:
            add_product(space.angular, s, BLOCK, 1, space.radial, f, n_l * n, count,
                        space.coefficients, c, n, 4, 2, True)  # fmt: skip
        elif rows == 3:
            add_product(space.angular, s, BLOCK, 1, space.radial, f, n_l * n, count,
                        space.coefficients, c, n, 3, 2, True)  # fmt: skip
        else:
            add_product(space.angular, s, BLOCK, 1, space.radial, f, n_l * n, count,
                        space.coefficients, c, n, 1, 2, True)  # fmt: skip
        v += 2 * LANES
    if v < n:
        s, f, c = row * BLOCK, ell * n + v, at + row * n + v
        for k in range(rows):
            add_product(space.angular, s + k * BLOCK, BLOCK, 1, space.radial, f, n_l * n, count,
                        space.coefficients, c + k * n, n, 1, 1, True)  # fmt: skip


@inlined
def _add_block(soap: Soap, near: Near, chosen: Ints, k: int, count: int, x: float, y: float,
               z: float, at: int, space: _Space) -> None:  # fmt: skip
    """Add up to BLOCK neighbours of one type to the coefficients from `at` on."""
    _fill_block(near, chosen, k, count, x, y, z, space)
    _fill_radial(soap.radial, count, space)
    _fill_angular(soap.harmonics, count, space)
    n, n_l = soap.radial.coefficients.shape[3], soap.harmonics.lmax + 1
    for ell in range(n_l):
        # An odd number of harmonics: tiles of 1, 3, 4 and 5.
        row, end = ell * ell, (ell + 1) * (ell + 1)
        while row < end:
            left = end - row
            rows = 1 if left == 1 else 3 if left in (3, 6) else 5 if left in (5, 9, 10) else 4
            _add_rows(space, count, n, n_l, ell, row, rows, at)
            row += rows


@kernel
def _fill_coefficients(soap: Soap, near: Near, chosen: Ints, x: float, y: float, z: float,
                       space: _Space) -> int:  # fmt: skip
    """Coefficients of the atom at x, y, z; returns how many neighbours there are, itself too."""
    n_lm = (soap.harmonics.lmax + 1) ** 2
    stride = n_lm * soap.radial.coefficients.shape[3]
    limit, total = soap.radial.cutoff**2, 0
    space.coefficients[:] = 0.0
    measure(near, x, y, z, near.begin[soap.n_types])
    for t in range(soap.n_types):
        found = pick_close(near.rows[3], near.begin[t], near.begin[t + 1], limit, chosen)
        for k in range(0, found, BLOCK):
            _add_block(
                soap, near, chosen, k, min(BLOCK, found - k), x, y, z, t * stride, space
            )  # fmt: skip
        total += found
    return total


@kernel
def fill_spectrum(soap: Soap, coefficients: Floats, square: Floats, features: Floats) -> None:
    """Power spectrum in the order type, type' >= type, l, n, n' (n' >= n for equal types).

    coefficients (types, l m, n); square: scratch (n, n); features (F,).
    """
    n, n_max = soap.radial.coefficients.shape[3], soap.n_max
    n_lm, at = (soap.harmonics.lmax + 1) ** 2, 0
    for t in range(soap.n_types):
        for u in range(t, soap.n_types):
            for ell in range(soap.harmonics.lmax + 1):
                left, right = (t * n_lm + ell * ell) * n, (u * n_lm + ell * ell) * n
                if t != u and n == n_max:
                    for i in range(0, n, LANES):
                        for v in range(0, n, LANES):
                            add_product(coefficients, left + i, 1, n, coefficients, right + v, n,
                                        2 * ell + 1, features, at + i * n + v, n, LANES, 1,
                                        False)  # fmt: skip
                    at += n * n
                    continue
                for i in range(0, n, LANES):
                    for v in range(i if t == u else 0, n, LANES):
                        add_product(coefficients, left + i, 1, n, coefficients, right + v, n,
                                    2 * ell + 1, square, i * n + v, n, LANES, 1,
                                    False)  # fmt: skip
                for i in range(n_max):
                    for j in range(i if t == u else 0, n_max):
                        features[at] = square[i * n + j]
                        at += 1


@kernel
def describe_cells(
    soap: Soap, grid: Grid, begin: int, end: int, average: int, row: int, out: Floats
) -> int:
    """Describe the atoms of some cells; returns the first atom in too crowded a place, or -1.

    EACH: atom i goes to out[row + i]; OUTER: features are added to out[row]; INNER: coefficients
    are added to out[row].
    """
    space = _make_space(soap)
    near = Near(np.empty((4, 512)), np.zeros(soap.n_types + 1, dtype=np.int64))
    chosen = np.empty(512, dtype=np.int64)
    coefficients, features = space.coefficients, space.features
    for cell in range(begin, end):
        first, last = grid.first[cell * soap.n_types], grid.first[(cell + 1) * soap.n_types]
        if first == last:
            continue
        near = gather_near(grid, cell, near)
        if len(chosen) < near.rows.shape[1]:
            chosen = np.empty(near.rows.shape[1], dtype=np.int64)
        for q in range(first, last):
            x, y, z = grid.points[0, q], grid.points[1, q], grid.points[2, q]
            found = _fill_coefficients(soap, near, chosen, x, y, z, space)
            if found > MOST_NEIGHBOURS:
                return int(grid.order[q])
            if average == INNER:
                for k in range(len(coefficients)):
                    out[row, k] += coefficients[k]
                continue
            fill_spectrum(soap, coefficients, space.square, features)
            if average == OUTER:
                for k in range(out.shape[1]):
                    out[row, k] += features[k]
            else:
                i = row + grid.order[q]
                for k in range(out.shape[1]):
                    out[i, k] = features[k]
    return -1


@kernel
def describe_structures(
    soap: Soap,
    first: Ints,
    types: Ints,
    points: Floats,
    boxes: Floats,
    inverses: Floats,
    periodic: NDArray[np.bool_],
    average: int,
    row: int,
    out: Floats,
) -> int:
    """Describe structures s with the atoms first[s] : first[s + 1], into out[row:].

    EACH: one row for each atom; OUTER, INNER: one for each structure, of sums. Returns as
    `describe_cells`, but counted from first[0].
    """
    for s in range(len(first) - 1):
        begin, end = first[s], first[s + 1]
        grid = make_grid(
            points[begin:end],
            types[begin:end],
            soap.n_types,
            boxes[s],
            inverses[s],
            periodic[s],
            soap.radial.cutoff,
        )
        cells = grid.counts[0] * grid.counts[1] * grid.counts[2]
        at = row + s if average != EACH else row + begin - first[0]
        crowded = describe_cells(soap, grid, 0, cells, average, at, out)
        if crowded >= 0:
            return int(begin - first[0] + crowded)
    return -1
