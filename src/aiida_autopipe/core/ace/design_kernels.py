"""Numba kernel of the design matrix: derivatives of every function by every position."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from aiida_autopipe.core.ace.evaluate_kernels import fill_values, most_neighbours, most_values
from aiida_autopipe.core.ace.kernels import (
    Floats,
    Graph,
    Ints,
    RadialTables,
    Runs,
    Terms,
    Workspace,
    fill_density,
    fill_environment,
    fill_products,
    make_workspace,
)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _fill_component_gradients(
    i: int, type_i: int, n_types: int, first: Ints, runs: Runs, ws: Workspace, table: Floats
) -> None:
    """dA/dr_ij for the real components of A: rows (component), columns x then y then z per type."""
    begin = first[i * n_types]
    for run in range(runs.offset[type_i], runs.offset[type_i + 1]):
        t = runs.species[run]
        start, stop = first[i * n_types + t] - begin, first[i * n_types + t + 1] - begin
        n = stop - start
        column, at = runs.column[run], runs.first[run]
        for p in range(runs.size[run]):
            for c in range(3):
                for j in range(n):
                    s = start + j
                    table[at + p, c * n + j] = (
                        ws.slope[column, s] * ws.unit[c, s] * ws.y[p, s]
                        + ws.value[column, s] * ws.dy[c, p, s]
                    )


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _fill_gradient(f: int, terms: Terms, re: Floats, im: Floats, g: Floats) -> None:
    """g (slots + 1): derivatives of function f by the components of A it touches."""
    for s in range(terms.slot_offset[f + 1] - terms.slot_offset[f] + 1):
        g[s] = 0.0
    for e in range(terms.entry_offset[f], terms.entry_offset[f + 1]):
        u, v = terms.left[e], terms.right[e]
        g[terms.slot_re[e]] += terms.weight_re[e] * (re[u] * re[v] - im[u] * im[v])
        g[terms.slot_im[e]] += terms.weight_im[e] * (re[u] * im[v] + im[u] * re[v])


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _contract_slots(
    start: int,
    stop: int,
    slot0: int,
    width: int,
    component: Ints,
    g: Floats,
    table: Floats,
    out: Floats,
) -> None:
    """out[:width] = sum_s g[s] table[component[slot0 + s]], four rows at a time to spare stores."""
    for k in range(width):
        out[k] = 0.0
    s = start
    while s + 4 <= stop:
        c0, c1 = component[slot0 + s], component[slot0 + s + 1]
        c2, c3 = component[slot0 + s + 2], component[slot0 + s + 3]
        g0, g1, g2, g3 = g[s], g[s + 1], g[s + 2], g[s + 3]
        for k in range(width):
            out[k] += g0 * table[c0, k] + g1 * table[c1, k] + g2 * table[c2, k] + g3 * table[c3, k]
        s += 4
    while s < stop:
        c0, g0 = component[slot0 + s], g[s]
        for k in range(width):
            out[k] += g0 * table[c0, k]
        s += 1


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _scatter(
    f: int,
    i: int,
    begin: int,
    n: int,
    neighbour: Ints,
    vectors: Floats,
    out: Floats,
    forces: Floats,
    virial: Floats,
) -> None:
    """Add dB/dr_ij of n neighbours (out: x, y, z blocks) to rows of -dE/dr and of the virial."""
    sx, sy, sz = 0.0, 0.0, 0.0
    xx, yy, zz, yz, xz, xy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(n):
        gx, gy, gz = out[j], out[n + j], out[2 * n + j]
        x, y, z = vectors[0, begin + j], vectors[1, begin + j], vectors[2, begin + j]
        sx += gx
        sy += gy
        sz += gz
        xx += x * gx
        yy += y * gy
        zz += z * gz
        yz += y * gz
        xz += x * gz
        xy += x * gy
    virial[f, 0] += xx
    virial[f, 1] += yy
    virial[f, 2] += zz
    virial[f, 3] += yz
    virial[f, 4] += xz
    virial[f, 5] += xy
    forces[f, 3 * i] += sx
    forces[f, 3 * i + 1] += sy
    forces[f, 3 * i + 2] += sz
    for j in range(n):
        k = 3 * neighbour[begin + j]
        forces[f, k] -= out[j]
        forces[f, k + 1] -= out[n + j]
        forces[f, k + 2] -= out[2 * n + j]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def design(
    types: Ints,
    n_types: int,
    first: Ints,
    neighbour: Ints,
    vectors: Floats,
    tables: RadialTables,
    lmax: int,
    norm: Floats,
    runs: Runs,
    graph: Graph,
    terms: Terms,
) -> Any:
    """values (n, F), -dE_f/dr as (F, 3 n) and virial (F, 6), E_f the sum of B_f over atoms."""
    n_atoms, n_functions = len(types), terms.function_offset[n_types]
    n_max = most_neighbours(first, n_types)
    ws = make_workspace(n_max, tables.nodes.shape[2], lmax)
    n_a, n_v = runs.n_components.max(), most_values(graph, n_types)
    n_slots = (terms.slot_offset[1:] - terms.slot_offset[:-1]).max()
    a, re, im, g = np.zeros(n_a), np.zeros(n_v + 1), np.zeros(n_v + 1), np.zeros(n_slots + 1)
    table, out = np.zeros((n_a, 3 * n_max)), np.zeros(3 * n_max)
    values, forces = np.zeros((n_atoms, n_functions)), np.zeros((n_functions, 3 * n_atoms))
    virial = np.zeros((n_functions, 6))
    for i in range(n_atoms):
        type_i = types[i]
        fill_environment(i, type_i, n_types, first, vectors, tables, lmax, norm, ws)
        fill_density(i, type_i, n_types, first, runs, ws, a)
        fill_products(type_i, graph, a, re, im)
        fill_values(i, type_i, terms, re, values)
        _fill_component_gradients(i, type_i, n_types, first, runs, ws, table)
        for f in range(terms.function_offset[type_i], terms.function_offset[type_i + 1]):
            _fill_gradient(f, terms, re, im, g)
            slot0, n_f = terms.slot_offset[f], terms.slot_offset[f + 1] - terms.slot_offset[f]
            s = 0
            while s < n_f:
                t = terms.slot_species[slot0 + s]
                end = s
                while end < n_f and terms.slot_species[slot0 + end] == t:
                    end += 1
                b, n = first[i * n_types + t], first[i * n_types + t + 1] - first[i * n_types + t]
                if n > 0:
                    _contract_slots(s, end, slot0, 3 * n, terms.slot_component, g, table, out)
                    _scatter(f, i, b, n, neighbour, vectors, out, forces, virial)
                s = end
    return values, forces, virial
