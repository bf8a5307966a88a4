"""Numba kernel of the design matrix: derivatives of every function by every position.

For each atom a table of dA/dr is made, four neighbours at a time, and contracted with the
derivatives of each function by the A it is made of. Sums over the neighbours, which give the force
on the atom itself and the virial, are made of the table, once for all functions. Results of four
functions are turned round in registers, to be added to the rows of neighbours, in which functions
are contiguous.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from aiida_autopipe.core.ace.evaluate_kernels import batch_end, fill_values, make_space
from aiida_autopipe.core.ace.kernels import Derivatives, Floats, Harmonics, Indices, Ints, Tables
from aiida_autopipe.core.ace.lanes import (
    LANES,
    inlined,
    item,
    kernel,
    load,
    spread,
    store,
    sums,
    transpose,
)
from aiida_autopipe.core.ace.neighbour_kernels import Layout, block_layout
from aiida_autopipe.core.ace.product_kernels import fill_slots

# Numbers of one component of A in the tables: x, y, z of four neighbours, or their sums.
_ENTRY = 3 * LANES


class _Table(NamedTuple):
    """dA/dr of a block, (width / LANES, components, 3, LANES), and sums over all neighbours
    (components, 3, LANES): x y z 0, then the virial xx yy zz yz, xz xy 0 0. `harmonic` holds rows
    of one harmonic: value and gradient of its real part, then of the imaginary part."""

    gradients: Floats
    sums: Floats
    harmonic: Floats
    stride: int


@inlined
def _fill_harmonic(
    harmonics: Harmonics,
    ell: int,
    m: int,
    count: int,
    layout: Layout,
    base: int,
    rows: Floats,
    out: Floats,
) -> None:
    """Values and gradients of the harmonic l, m for a block, in rows of the width of the layout."""
    w, lmax = layout.width, harmonics.lmax
    k = m * (2 * lmax + 1 - m) // 2 + ell
    ratio = spread(item(harmonics.ratio, k)) if ell > m else spread(0.0)
    above = k + lmax - m if ell > m else k
    factor = spread(float(m))
    before = max(m - 1, 0)
    for j in range(0, count, LANES):
        at = base + j
        x, y, z = load(rows, at), load(rows, at + w), load(rows, at + 2 * w)
        inverse = load(rows, at + layout.inverse)
        p = load(rows, at + layout.legendre + k * w)
        q = ratio * load(rows, at + layout.legendre + above * w) * inverse
        c, s = load(rows, at + layout.cosine + m * w), load(rows, at + layout.sine + m * w)
        d = factor * p * inverse
        c1 = d * load(rows, at + layout.cosine + before * w)
        s1 = d * load(rows, at + layout.sine + before * w)
        zero = spread(0.0)
        gz = q * c
        along = c1 * x - s1 * y + gz * z
        store(out, j, p * c)
        store(out, j + w, c1 - along * x)
        store(out, j + 2 * w, zero - s1 - along * y)
        store(out, j + 3 * w, gz - along * z)
        gz = q * s
        along = s1 * x + c1 * y + gz * z
        store(out, j + 4 * w, p * s)
        store(out, j + 5 * w, s1 - along * x)
        store(out, j + 6 * w, c1 - along * y)
        store(out, j + 7 * w, gz - along * z)


@inlined
def _fill_component(
    count: int,
    column: int,
    layout: Layout,
    base: int,
    rows: Floats,
    table: _Table,
    part: int,
    entry: int,
) -> None:
    """The derivatives of one real number of A, and their sums."""
    w, harmonic = layout.width, table.harmonic
    zero = spread(0.0)
    sx, sy, sz, xx, yy, zz, yz, xz, xy = zero, zero, zero, zero, zero, zero, zero, zero, zero
    at = entry
    for j in range(0, count, LANES):
        i, h = base + j, part + j
        value = load(rows, i + layout.value + column * w)
        slope = load(rows, i + layout.slope + column * w) * load(harmonic, h)
        x, y, z = load(rows, i), load(rows, i + w), load(rows, i + 2 * w)
        gx = slope * x + value * load(harmonic, h + w)
        gy = slope * y + value * load(harmonic, h + 2 * w)
        gz = slope * z + value * load(harmonic, h + 3 * w)
        store(table.gradients, at, gx)
        store(table.gradients, at + LANES, gy)
        store(table.gradients, at + 2 * LANES, gz)
        at += table.stride
        sx, sy, sz = sx + gx, sy + gy, sz + gz
        r = load(rows, i + layout.distance)
        x, y, z = r * x, r * y, r * z
        xx, yy, zz = xx + x * gx, yy + y * gy, zz + z * gz
        yz, xz, xy = yz + y * gz, xz + x * gz, xy + x * gy
    total = table.sums
    store(total, entry, load(total, entry) + sums(sx, sy, sz, zero))
    entry += LANES
    store(total, entry, load(total, entry) + sums(xx, yy, zz, yz))
    entry += LANES
    store(total, entry, load(total, entry) + sums(xz, xy, zero, zero))


@kernel
def _fill_table(
    tables: Tables, pair: int, count: int, layout: Layout, base: int, rows: Floats, table: _Table
) -> None:
    """dA/dr of the neighbours in a block."""
    tiles, w = tables.tiles, layout.width
    for tile in range(tiles.offset[pair], tiles.offset[pair + 1]):
        for m in range(tiles.ell[tile] + 1):
            _fill_harmonic(
                tables.harmonics, tiles.ell[tile], m, count, layout, base, rows, table.harmonic
            )
            for k in range(tiles.width[tile]):
                entry = 2 * _ENTRY * (tiles.leaf[tile] + tiles.width[tile] * m + k)
                column = tiles.columns[tile, k]
                _fill_component(count, column, layout, base, rows, table, 0, entry)
                if m > 0:
                    _fill_component(count, column, layout, base, rows, table, 4 * w, entry + _ENTRY)


@inlined
def _contract(
    slot: Indices, begin: int, end: int, gradients: Floats, shift: int, table: Floats, first: int
) -> Any:
    """Sums of table entries weighted by the derivatives of four functions by their slots: lanes x,
    y and z of each function, turned round to four lanes of functions for each."""
    zero = spread(0.0)
    x0, x1, x2, x3, y0, y1, y2, y3 = zero, zero, zero, zero, zero, zero, zero, zero
    z0, z1, z2, z3 = zero, zero, zero, zero
    for s in range(LANES * begin, LANES * end, LANES):
        g, at = spread(item(gradients, s + shift)), first + 3 * item(slot, s)
        x0 = x0 + g * load(table, at)
        y0 = y0 + g * load(table, at + LANES)
        z0 = z0 + g * load(table, at + 2 * LANES)
        g, at = spread(item(gradients, s + shift + 1)), first + 3 * item(slot, s + 1)
        x1 = x1 + g * load(table, at)
        y1 = y1 + g * load(table, at + LANES)
        z1 = z1 + g * load(table, at + 2 * LANES)
        g, at = spread(item(gradients, s + shift + 2)), first + 3 * item(slot, s + 2)
        x2 = x2 + g * load(table, at)
        y2 = y2 + g * load(table, at + LANES)
        z2 = z2 + g * load(table, at + 2 * LANES)
        g, at = spread(item(gradients, s + shift + 3)), first + 3 * item(slot, s + 3)
        x3 = x3 + g * load(table, at)
        y3 = y3 + g * load(table, at + LANES)
        z3 = z3 + g * load(table, at + 2 * LANES)
    return (
        transpose(x0, x1, x2, x3),
        transpose(y0, y1, y2, y3),
        transpose(z0, z1, z2, z3),
    )


@inlined
def _add(out: Floats, at: int, value: Any) -> None:
    store(out, at, load(out, at) + value)


@inlined
def _subtract(out: Floats, at: int, width: int, k: int, x: Any, y: Any, z: Any) -> None:
    """Subtract from three rows of `width` numbers."""
    store(out, at, load(out, at) - x[k])
    at += width
    store(out, at, load(out, at) - y[k])
    at += width
    store(out, at, load(out, at) - z[k])


@kernel
def _add_block(
    derivatives: Derivatives,
    type_i: int,
    t: int,
    n_types: int,
    start: int,
    count: int,
    neighbour: Ints,
    gradients: Floats,
    shift: int,
    table: _Table,
    forces: Floats,
) -> None:
    """Subtract dB/dr of all functions from the rows of the neighbours in a block."""
    width, offset = forces.shape[1], derivatives.slot_offset
    for j in range(0, count, LANES):
        first = j // LANES * table.stride
        k0 = 3 * width * neighbour[start + j]
        k1 = 3 * width * neighbour[start + min(j + 1, count - 1)]
        k2 = 3 * width * neighbour[start + min(j + 2, count - 1)]
        k3 = 3 * width * neighbour[start + min(j + 3, count - 1)]
        for group in range(derivatives.group_offset[type_i], derivatives.group_offset[type_i + 1]):
            begin, end = offset[group * n_types + t], offset[group * n_types + t + 1]
            if begin == end:
                continue
            x, y, z = _contract(
                derivatives.slot, begin, end, gradients, shift, table.gradients, first
            )
            f = LANES * group
            _subtract(forces, k0 + f, width, 0, x, y, z)
            if j + 1 < count:
                _subtract(forces, k1 + f, width, 1, x, y, z)
            if j + 2 < count:
                _subtract(forces, k2 + f, width, 2, x, y, z)
            if j + 3 < count:
                _subtract(forces, k3 + f, width, 3, x, y, z)


@kernel
def _add_sums(
    derivatives: Derivatives,
    type_i: int,
    i: int,
    n_types: int,
    gradients: Floats,
    shift: int,
    table: _Table,
    forces: Floats,
    virial: Floats,
) -> None:
    """Add what the sums over neighbours give to the rows of atom i and of the virial."""
    width, offset = forces.shape[1], derivatives.slot_offset
    for group in range(derivatives.group_offset[type_i], derivatives.group_offset[type_i + 1]):
        begin, end = offset[group * n_types], offset[(group + 1) * n_types]
        own, first, last = _contract(derivatives.slot, begin, end, gradients, shift, table.sums, 0)
        f = LANES * group
        at = 3 * i * width + f
        _add(forces, at, own[0])
        _add(forces, at + width, own[1])
        _add(forces, at + 2 * width, own[2])
        _add(virial, f, first[0])
        _add(virial, f + width, first[1])
        _add(virial, f + 2 * width, first[2])
        _add(virial, f + 3 * width, first[3])
        _add(virial, f + 4 * width, last[0])
        _add(virial, f + 5 * width, last[1])


@kernel
def design(
    types: Ints,
    atoms: Ints,
    first: Ints,
    neighbour: Ints,
    vectors: Floats,
    tables: Tables,
    derivatives: Derivatives,
    values: Floats,
    forces: Floats,
    virial: Floats,
) -> None:
    """Fill `values` (n, F) of some atoms, given sorted by type, and add -dE_f/dr to `forces` (3 n,
    places) and the virial to `virial` (6, places), E_f the sum of B_f over them."""
    n_types = tables.n_types
    layout = block_layout(first, tables.radial.nodes.shape[2], tables.harmonics.lmax)
    space = make_space(tables, first, layout, 1)
    n_components = 2 * (tables.graph.leaves.max() + 1)
    table = _Table(
        np.zeros(n_components * _ENTRY * layout.width // LANES),
        np.zeros(n_components * _ENTRY),
        np.zeros(8 * layout.width),
        n_components * _ENTRY,
    )
    gradients = np.zeros((LANES, derivatives.n_slots, LANES))
    scratch = np.zeros(LANES * gradients.shape[1] * LANES)
    done = 0
    while done < len(atoms):
        end = batch_end(types, atoms, done, space.batch)
        mine, type_i = atoms[done:end], types[atoms[done]]
        done = end
        fill_values(tables, type_i, mine, first, vectors, layout, space)
        fill_slots(
            tables.graph,
            tables.terms,
            derivatives,
            type_i,
            space.values,
            space.adjoints[0],
            mine,
            scratch,
            gradients,
            values,
        )
        slot0 = derivatives.slot_offset[derivatives.group_offset[type_i] * n_types]
        for lane in range(len(mine)):
            i, base = mine[lane], lane * space.stride
            shift = LANES * (lane * derivatives.n_slots - slot0)
            table.sums[:] = 0.0
            for t in range(n_types):
                pair, stop = type_i * n_types + t, first[i * n_types + t + 1]
                for start in range(first[i * n_types + t], stop, layout.width):
                    count = min(layout.width, stop - start)
                    _fill_table(tables, pair, count, layout, base, space.rows, table)
                    _add_block(
                        derivatives,
                        type_i,
                        t,
                        n_types,
                        start,
                        count,
                        neighbour,
                        gradients,
                        shift,
                        table,
                        forces,
                    )
                    base += layout.size
            _add_sums(derivatives, type_i, i, n_types, gradients, shift, table, forces, virial)


@kernel
def in_order(rows: Floats, place: Ints) -> None:
    """Bring the columns of `rows` (k, places) into the order of functions: the flat array begins
    with what is then (k, F), F = len(place)."""
    flat = rows.reshape(-1)
    row = np.empty(rows.shape[1])
    at = 0
    for k in range(len(rows)):
        row[:] = rows[k]
        for f in range(len(place)):
            flat[at] = row[place[f]]
            at += 1
