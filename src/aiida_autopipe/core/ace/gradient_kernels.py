"""Numba kernels over the neighbours of one atom: from dE/dA to dE/dr, forces and virial.

With g = dE/dA a neighbour has the weights sum_n g_nlm R_n and sum_n g_nlm R'_n of each harmonic and
of its radial derivative. These are summed over l before they meet the angle, whose powers and their
gradients depend on m alone.
"""

from __future__ import annotations

from typing import Any

from aiida_autopipe.core.ace.kernels import Floats, Harmonics, Ints, Tables
from aiida_autopipe.core.ace.lanes import (
    LANES,
    inlined,
    item,
    kernel,
    load,
    spread,
    store,
    transpose,
)
from aiida_autopipe.core.ace.neighbour_kernels import Layout


@inlined
def _add_weights(weights: Floats, k: int, fresh: bool, value: Any, slope: Any) -> None:
    """Add to, or start, the weight of a harmonic and that of its radial derivative."""
    if fresh:
        store(weights, k, value)
        store(weights, k + 2 * LANES, slope)
    else:
        store(weights, k, load(weights, k) + value)
        store(weights, k + 2 * LANES, load(weights, k + 2 * LANES) + slope)


@inlined
def _weigh_wide(
    ell: int,
    columns: Any,
    shift: int,
    j: int,
    lmax: int,
    rows: Floats,
    adjoint: Floats,
    at: int,
    fresh: bool,
    weights: Floats,
) -> None:
    """Weights of harmonics for four neighbours from a tile of four columns."""
    c0, c1, c2, c3 = columns
    r0, r1, r2, r3 = load(rows, j + c0), load(rows, j + c1), load(rows, j + c2), load(rows, j + c3)
    j += shift
    d0, d1, d2, d3 = load(rows, j + c0), load(rows, j + c1), load(rows, j + c2), load(rows, j + c3)
    k = 4 * LANES * ell
    for m in range(ell + 1):
        g0, g1 = spread(item(adjoint, at)), spread(item(adjoint, at + 2 * LANES))
        g2, g3 = spread(item(adjoint, at + 4 * LANES)), spread(item(adjoint, at + 6 * LANES))
        value, slope = g0 * r0 + g1 * r1 + g2 * r2 + g3 * r3, g0 * d0 + g1 * d1 + g2 * d2 + g3 * d3
        _add_weights(weights, k, fresh, value, slope)
        if m > 0:
            i = at + LANES
            g0, g1 = spread(item(adjoint, i)), spread(item(adjoint, i + 2 * LANES))
            g2, g3 = spread(item(adjoint, i + 4 * LANES)), spread(item(adjoint, i + 6 * LANES))
            value = g0 * r0 + g1 * r1 + g2 * r2 + g3 * r3
            slope = g0 * d0 + g1 * d1 + g2 * d2 + g3 * d3
            _add_weights(weights, k + LANES, fresh, value, slope)
        k += 4 * LANES * (lmax - m)
        at += 8 * LANES


@inlined
def _weigh_narrow(
    ell: int,
    column: int,
    shift: int,
    j: int,
    lmax: int,
    rows: Floats,
    adjoint: Floats,
    at: int,
    fresh: bool,
    weights: Floats,
) -> None:
    """The same for a tile of one column."""
    r, d = load(rows, j + column), load(rows, j + column + shift)
    k = 4 * LANES * ell
    for m in range(ell + 1):
        g, h = spread(item(adjoint, at)), spread(item(adjoint, at + LANES))
        _add_weights(weights, k, fresh, g * r, g * d)
        if m > 0:
            _add_weights(weights, k + LANES, fresh, h * r, h * d)
        k += 4 * LANES * (lmax - m)
        at += 2 * LANES


@inlined
def _sum_harmonics(
    harmonics: Harmonics, layout: Layout, j: int, rows: Floats, weights: Floats
) -> Any:
    """For four neighbours the derivative of the energy by the distance, and its gradient by the
    direction as if the three numbers of that were independent."""
    w, lmax = layout.width, harmonics.lmax
    along, gx, gy, gz = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
    k = 0
    for m in range(lmax + 1):
        zero = spread(0.0)
        xr, xi, zr, zi, dr, di = zero, zero, zero, zero, zero, zero
        above = lmax - m
        for ell in range(m, lmax + 1):
            p = load(rows, j + layout.legendre + k * w)
            at = 4 * LANES * k
            re, im = load(weights, at), load(weights, at + LANES)
            xr, xi = xr + p * re, xi + p * im
            dr, di = dr + p * load(weights, at + 2 * LANES), di + p * load(weights, at + 3 * LANES)
            if ell > m:
                q = load(rows, j + layout.legendre + (k + above) * w)
                q = q * spread(item(harmonics.ratio, k))
                zr, zi = zr + q * re, zi + q * im
            k += 1
        at = j + m * w
        cosine, sine = load(rows, at + layout.cosine), load(rows, at + layout.sine)
        along = along + dr * cosine + di * sine
        gz = gz + zr * cosine + zi * sine
        if m > 0:
            factor = spread(float(m))
            x = factor * load(rows, at - w + layout.cosine)
            y = factor * load(rows, at - w + layout.sine)
            gx, gy = gx + (xr * x + xi * y), gy + (xi * x - xr * y)
    return along, gx, gy, gz


@kernel
def fill_gradients(
    tables: Tables,
    pair: int,
    count: int,
    layout: Layout,
    base: int,
    rows: Floats,
    lane: int,
    adjoint: Floats,
    by_core: float,
    weights: Floats,
) -> None:
    """dE/dr of the neighbours in a block from dE/dA, one lane of `adjoint` (values, 2, LANES), and
    from the derivative by the core repulsion. `weights` is scratch for 4 LANES numbers a P_lm."""
    tiles, w, lmax = tables.tiles, layout.width, tables.harmonics.lmax
    value, shift = layout.value, layout.slope - layout.value
    core = tables.radial.core
    for k in range(0, len(weights), LANES):
        store(weights, k, spread(0.0))
    for j in range(base, base + count, LANES):
        before = -1
        for tile in range(tiles.offset[pair], tiles.offset[pair + 1]):
            ell, at = tiles.ell[tile], 2 * LANES * tiles.leaf[tile] + lane
            fresh, before = ell != before, ell
            c0 = value + tiles.columns[tile, 0] * w
            if tiles.width[tile] == 1:
                _weigh_narrow(ell, c0, shift, j, lmax, rows, adjoint, at, fresh, weights)
            else:
                c1 = value + tiles.columns[tile, 1] * w
                c2 = value + tiles.columns[tile, 2] * w
                c3 = value + tiles.columns[tile, 3] * w
                columns = c0, c1, c2, c3
                _weigh_wide(ell, columns, shift, j, lmax, rows, adjoint, at, fresh, weights)
        along, gx, gy, gz = _sum_harmonics(tables.harmonics, layout, j, rows, weights)
        if core >= 0:
            along = along + spread(by_core) * load(rows, j + layout.slope + core * w)
        x, y, z = load(rows, j), load(rows, j + w), load(rows, j + 2 * w)
        inverse = load(rows, j + layout.inverse)
        along = along - inverse * (gx * x + gy * y + gz * z)
        store(rows, j + layout.gradient, inverse * gx + along * x)
        store(rows, j + layout.gradient + w, inverse * gy + along * y)
        store(rows, j + layout.gradient + 2 * w, inverse * gz + along * z)


@kernel
def add_forces(
    i: int,
    start: int,
    count: int,
    neighbour: Ints,
    layout: Layout,
    base: int,
    rows: Floats,
    forces: Floats,
    virial: Floats,
) -> None:
    """Add the gradients of a block to `forces` (n_all, LANES) of both atoms and to the virial
    (6, LANES), whose lanes are still to be summed."""
    w, zero = layout.width, spread(0.0)
    own = zero
    xx, yy, zz = load(virial, 0), load(virial, LANES), load(virial, 2 * LANES)
    yz, xz, xy = load(virial, 3 * LANES), load(virial, 4 * LANES), load(virial, 5 * LANES)
    for j in range(0, count, LANES):
        at = base + j
        r = load(rows, at + layout.distance)
        x, y, z = r * load(rows, at), r * load(rows, at + w), r * load(rows, at + 2 * w)
        at += layout.gradient
        gx, gy, gz = load(rows, at), load(rows, at + w), load(rows, at + 2 * w)
        xx, yy, zz = xx + x * gx, yy + y * gy, zz + z * gz
        yz, xz, xy = yz + y * gz, xz + x * gz, xy + x * gy
        g0, g1, g2, g3 = transpose(gx, gy, gz, zero)
        own = own + (g0 + g1) + (g2 + g3)
        k = LANES * neighbour[start + j]
        store(forces, k, load(forces, k) - g0)
        if j + 1 < count:
            k = LANES * neighbour[start + j + 1]
            store(forces, k, load(forces, k) - g1)
        if j + 2 < count:
            k = LANES * neighbour[start + j + 2]
            store(forces, k, load(forces, k) - g2)
        if j + 3 < count:
            k = LANES * neighbour[start + j + 3]
            store(forces, k, load(forces, k) - g3)
    store(virial, 0, xx)
    store(virial, LANES, yy)
    store(virial, 2 * LANES, zz)
    store(virial, 3 * LANES, yz)
    store(virial, 4 * LANES, xz)
    store(virial, 5 * LANES, xy)
    store(forces, LANES * i, load(forces, LANES * i) + own)
