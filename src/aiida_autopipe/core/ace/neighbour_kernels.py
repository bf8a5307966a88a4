"""Numba kernels over the neighbours of one atom: radial functions, harmonics and their sums A.

A block holds up to `width` neighbours of one type in rows: one row for each quantity, one column
for each neighbour. Columns up to a multiple of LANES are filled with neighbours whose radial
functions are zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from aiida_autopipe.core.ace.kernels import Floats, Harmonics, Ints, RadialTables, Tables
from aiida_autopipe.core.ace.lanes import (
    LANES,
    inlined,
    item,
    kernel,
    load,
    pick,
    prefetch,
    root,
    spread,
    store,
    sums,
    transpose,
)

# Neighbours of a block: many, to spare sums of lanes, but no more doubles than the second-level
# cache has room for beside the tables.
_WIDEST_BLOCK, _NARROWEST_BLOCK, _LARGEST_BLOCK = 64, 8, 2**14


class Layout(NamedTuple):
    """Doubles from the start of a block to each kind of row; `size` is that of a block.

    unit: x, y, z; distance; inverse of it; fraction of the bin of the radial table; value, slope:
    radial columns; legendre: P_lm; cosine, sine: by m; gradient: dE/dr, x, y, z.
    """

    width: int
    size: int
    distance: int
    inverse: int
    fraction: int
    value: int
    slope: int
    legendre: int
    cosine: int
    sine: int
    gradient: int


@kernel
def block_layout(first: Ints, n_columns: int, lmax: int) -> Layout:
    """Layout for the neighbours counted by `first`."""
    most = 1
    for k in range(len(first) - 1):
        most = max(most, first[k + 1] - first[k])
    n_rows = 9 + 2 * n_columns + (lmax + 1) * (lmax + 2) // 2 + 2 * (lmax + 1)
    widest = max(_NARROWEST_BLOCK, min(_WIDEST_BLOCK, _LARGEST_BLOCK // n_rows // LANES * LANES))
    width = min(widest, (most + LANES - 1) // LANES * LANES)
    value = 6 * width
    slope = value + n_columns * width
    legendre = slope + n_columns * width
    cosine = legendre + (lmax + 1) * (lmax + 2) // 2 * width
    sine = cosine + (lmax + 1) * width
    gradient = sine + (lmax + 1) * width
    return Layout(
        width,
        gradient + 3 * width,
        3 * width,
        4 * width,
        5 * width,
        value,
        slope,
        legendre,
        cosine,
        sine,
        gradient,
    )


@kernel
def most_blocks(first: Ints, n_types: int, width: int) -> int:
    """Largest number of blocks of one atom."""
    most = 1
    for i in range((len(first) - 1) // n_types):
        blocks = 0
        for k in range(i * n_types, (i + 1) * n_types):
            blocks += (first[k + 1] - first[k] + width - 1) // width
        most = max(most, blocks)
    return most


@kernel
def fill_block(
    tables: Tables,
    pair: int,
    start: int,
    count: int,
    vectors: Floats,
    layout: Layout,
    base: int,
    rows: Floats,
    bins: Ints,
) -> None:
    """Fill the block at rows[base:] with the pairs start:start + count of the sorted list."""
    _fill_distances(tables.radial, pair, start, count, vectors, layout, base, rows, bins)
    _fill_harmonics(tables.harmonics, count, layout, base, rows)
    _fill_radial(tables.radial, pair, count, layout, base, rows, bins)


@inlined
def _fill_distances(
    tables: RadialTables,
    pair: int,
    start: int,
    count: int,
    vectors: Floats,
    layout: Layout,
    base: int,
    rows: Floats,
    bins: Ints,
) -> None:
    """Distances and directions; `bins` gets the rows of the radial tables."""
    w = layout.width
    for j in range(count):
        rows[base + j] = vectors[0, start + j]
        rows[base + w + j] = vectors[1, start + j]
        rows[base + 2 * w + j] = vectors[2, start + j]
    for j in range(count, (count + LANES - 1) // LANES * LANES):
        rows[base + j] = 1.0
        rows[base + w + j] = 0.0
        rows[base + 2 * w + j] = 0.0
    scale = spread(tables.inverse_width[pair])
    for at in range(base, base + count, LANES):
        x, y, z = load(rows, at), load(rows, at + w), load(rows, at + 2 * w)
        r = root(x * x + y * y + z * z)
        inverse = spread(1.0) / r
        store(rows, at, x * inverse)
        store(rows, at + w, y * inverse)
        store(rows, at + 2 * w, z * inverse)
        store(rows, at + layout.distance, r)
        store(rows, at + layout.inverse, inverse)
        store(rows, at + layout.fraction, r * scale)
    first, last, step = tables.first[pair], tables.bins[pair] - 1, tables.nodes[0].size
    for j in range(count):
        position = rows[base + layout.fraction + j]
        k = min(int(position), last)
        rows[base + layout.fraction + j] = position - k
        bins[j] = (first + k) * step
        # The tables are too large for the nearer caches; the harmonics come meanwhile.
        for c in range(0, 2 * step, 8):
            prefetch(tables.nodes, bins[j] + c)
    for j in range(count, (count + LANES - 1) // LANES * LANES):
        rows[base + layout.fraction + j] = 0.0
        bins[j] = tables.empty * step


@inlined
def _fill_harmonics(
    harmonics: Harmonics, count: int, layout: Layout, base: int, rows: Floats
) -> None:
    """P_lm and the powers of x + iy: polynomials in the direction, regular at the poles.

    sqrt(4 pi) Y_lm = P_lm (x + iy)^m, with the norm in P_lm.
    """
    w, lmax = layout.width, harmonics.lmax
    for at in range(base, base + count, LANES):
        x, y, z = load(rows, at), load(rows, at + w), load(rows, at + 2 * w)
        cosine, sine = spread(1.0), spread(0.0)
        k = 0
        for m in range(lmax + 1):
            store(rows, at + layout.cosine + m * w, cosine)
            store(rows, at + layout.sine + m * w, sine)
            cosine, sine = cosine * x - sine * y, cosine * y + sine * x
            below, p = spread(0.0), spread(item(harmonics.diagonal, m))
            store(rows, at + layout.legendre + k * w, p)
            k += 1
            for _ in range(m + 1, lmax + 1):
                up, down = spread(item(harmonics.up, k)), spread(item(harmonics.down, k))
                below, p = p, up * z * p - down * below
                store(rows, at + layout.legendre + k * w, p)
                k += 1


@inlined
def _hermite(nodes: Floats, at: int, n: int, s: float) -> Any:
    """Values of four columns between two nodes, at the fraction s, and derivatives by s."""
    t = spread(s)
    v0, g0 = load(nodes, at), load(nodes, at + n)
    rise = load(nodes, at + 2 * n) - v0
    cubic = g0 + load(nodes, at + 3 * n) - (rise + rise)
    quadratic = rise - g0 - cubic
    bend = quadratic + t * cubic
    return v0 + t * (g0 + t * bend), g0 + t * (bend + (bend + t * cubic))


@inlined
def _fill_radial(
    tables: RadialTables,
    pair: int,
    count: int,
    layout: Layout,
    base: int,
    rows: Floats,
    bins: Ints,
) -> None:
    """Radial functions and their derivatives by the distance, four columns of four neighbours."""
    w, n, nodes = layout.width, tables.nodes.shape[2], tables.nodes
    scale = spread(tables.inverse_width[pair])
    for j in range(0, count, LANES):
        s = base + layout.fraction + j
        for c in range(0, n, LANES):
            v0, d0 = _hermite(nodes, item(bins, j) + c, n, item(rows, s))
            v1, d1 = _hermite(nodes, item(bins, j + 1) + c, n, item(rows, s + 1))
            v2, d2 = _hermite(nodes, item(bins, j + 2) + c, n, item(rows, s + 2))
            v3, d3 = _hermite(nodes, item(bins, j + 3) + c, n, item(rows, s + 3))
            v0, v1, v2, v3 = transpose(v0, v1, v2, v3)
            d0, d1, d2, d3 = transpose(d0, d1, d2, d3)
            at = base + layout.value + c * w + j
            store(rows, at, v0)
            store(rows, at + w, v1)
            store(rows, at + 2 * w, v2)
            store(rows, at + 3 * w, v3)
            at = base + layout.slope + c * w + j
            store(rows, at, scale * d0)
            store(rows, at + w, scale * d1)
            store(rows, at + 2 * w, scale * d2)
            store(rows, at + 3 * w, scale * d3)


@inlined
def _add_four(values: Floats, at: int, total: Any) -> None:
    """Add the four elements of `total` to one lane of four successive values."""
    values[at] += pick(total, 0)
    values[at + 2 * LANES] += pick(total, 1)
    values[at + 4 * LANES] += pick(total, 2)
    values[at + 6 * LANES] += pick(total, 3)


@inlined
def _add_wide(
    ell: int,
    columns: Any,
    layout: Layout,
    base: int,
    count: int,
    lmax: int,
    rows: Floats,
    values: Floats,
    at: int,
) -> None:
    """Sums of a tile of four columns into one lane of the values from `at` on."""
    c0, c1, c2, c3 = columns
    w = layout.width
    k = ell
    for m in range(ell + 1):
        legendre = layout.legendre + k * w
        k += lmax - m
        zero = spread(0.0)
        a0, a1, a2, a3, b0, b1, b2, b3 = zero, zero, zero, zero, zero, zero, zero, zero
        if m == 0:
            for j in range(base, base + count, LANES):
                y = load(rows, j + legendre)
                a0 = a0 + y * load(rows, j + c0)
                a1 = a1 + y * load(rows, j + c1)
                a2 = a2 + y * load(rows, j + c2)
                a3 = a3 + y * load(rows, j + c3)
        else:
            cosine, sine = layout.cosine + m * w, layout.sine + m * w
            for j in range(base, base + count, LANES):
                p = load(rows, j + legendre)
                x, y = p * load(rows, j + cosine), p * load(rows, j + sine)
                r0, r1 = load(rows, j + c0), load(rows, j + c1)
                r2, r3 = load(rows, j + c2), load(rows, j + c3)
                a0, a1, a2, a3 = a0 + x * r0, a1 + x * r1, a2 + x * r2, a3 + x * r3
                b0, b1, b2, b3 = b0 + y * r0, b1 + y * r1, b2 + y * r2, b3 + y * r3
            _add_four(values, at + LANES, sums(b0, b1, b2, b3))
        _add_four(values, at, sums(a0, a1, a2, a3))
        at += 8 * LANES


@inlined
def _add_narrow(
    ell: int,
    column: int,
    layout: Layout,
    base: int,
    count: int,
    lmax: int,
    rows: Floats,
    values: Floats,
    at: int,
) -> None:
    """The same for a tile of one column."""
    w = layout.width
    k = ell
    for m in range(ell + 1):
        legendre = layout.legendre + k * w
        k += lmax - m
        cosine, sine = layout.cosine + m * w, layout.sine + m * w
        a, b = spread(0.0), spread(0.0)
        for j in range(base, base + count, LANES):
            y = load(rows, j + legendre) * load(rows, j + column)
            a = a + y * load(rows, j + cosine)
            b = b + y * load(rows, j + sine)
        total = sums(a, b, a, b)
        values[at] += pick(total, 0)
        values[at + LANES] += pick(total, 1)
        at += 2 * LANES


@kernel
def add_leaves(
    tables: Tables,
    pair: int,
    count: int,
    layout: Layout,
    base: int,
    rows: Floats,
    lane: int,
    values: Floats,
) -> None:
    """Add the sums over one block to one lane of the leaves in `values` (values, 2, LANES)."""
    tiles, w, value = tables.tiles, layout.width, layout.value
    for tile in range(tiles.offset[pair], tiles.offset[pair + 1]):
        at = 2 * LANES * tiles.leaf[tile] + lane
        ell, lmax = tiles.ell[tile], tables.harmonics.lmax
        c0 = value + tiles.columns[tile, 0] * w
        if tiles.width[tile] == 1:
            _add_narrow(ell, c0, layout, base, count, lmax, rows, values, at)
        else:
            c1 = value + tiles.columns[tile, 1] * w
            c2 = value + tiles.columns[tile, 2] * w
            c3 = value + tiles.columns[tile, 3] * w
            _add_wide(ell, (c0, c1, c2, c3), layout, base, count, lmax, rows, values, at)
