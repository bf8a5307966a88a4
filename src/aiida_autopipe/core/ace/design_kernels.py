"""Numba kernel of the design matrix: derivatives of every function by every position."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from aiida_autopipe.core.ace.evaluate_kernels import most_neighbours
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
def _add_factor(
    leaf: int,
    leaf0: int,
    graph: Graph,
    weight: float,
    pr: float,
    pi: float,
    slot_re: int,
    slot_im: int,
    g: Floats,
) -> None:
    """d(weight Re(leaf * P)) for the product P = pr + i pi of the other factors."""
    g[slot_re] += weight * graph.sign_re[leaf0 + leaf] * pr
    g[slot_im] -= weight * graph.sign_im[leaf0 + leaf] * pi


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _add_pair(
    node: int,
    n_leaves: int,
    leaf0: int,
    node0: int,
    graph: Graph,
    weight: float,
    pr: float,
    pi: float,
    slots_re: Ints,
    slots_im: Ints,
    re: Floats,
    im: Floats,
    g: Floats,
) -> None:
    """Same for a node of two leaves that stands in a product with P."""
    u, v = graph.left[node0 + node - n_leaves], graph.right[node0 + node - n_leaves]
    _add_factor(
        u,
        leaf0,
        graph,
        weight,
        re[v] * pr - im[v] * pi,
        re[v] * pi + im[v] * pr,
        slots_re[0],
        slots_im[0],
        g,
    )
    _add_factor(
        v,
        leaf0,
        graph,
        weight,
        re[u] * pr - im[u] * pi,
        re[u] * pi + im[u] * pr,
        slots_re[1],
        slots_im[1],
        g,
    )


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _function_gradient(
    f: int, type_i: int, graph: Graph, terms: Terms, re: Floats, im: Floats, g: Floats
) -> float:
    """Value of function f; g (slots + 1) becomes its derivatives by the A components it touches."""
    leaf0, node0 = graph.leaf_offset[type_i], graph.node_offset[type_i]
    n_leaves = graph.leaf_offset[type_i + 1] - leaf0
    for s in range(terms.slot_offset[f + 1] - terms.slot_offset[f] + 1):
        g[s] = 0.0
    rank, value = terms.rank[f], 0.0
    for k in range(terms.term_offset[f], terms.term_offset[f + 1]):
        at, w = terms.value[k], terms.weight[k]
        value += w * re[at]
        sr, si = terms.slot_re[k], terms.slot_im[k]
        if rank == 1:
            _add_factor(at, leaf0, graph, w, 1.0, 0.0, sr[0], si[0], g)
            continue
        if rank == 2:
            _add_pair(at, n_leaves, leaf0, node0, graph, w, 1.0, 0.0, sr, si, re, im, g)
            continue
        u, v = graph.left[node0 + at - n_leaves], graph.right[node0 + at - n_leaves]
        if rank == 4:
            _add_pair(u, n_leaves, leaf0, node0, graph, w, re[v], im[v], sr, si, re, im, g)
            _add_pair(v, n_leaves, leaf0, node0, graph, w, re[u], im[u], sr[2:], si[2:], re, im, g)
            continue
        _add_factor(v, leaf0, graph, w, re[u], im[u], sr[rank - 1], si[rank - 1], g)
        if rank == 3:
            _add_pair(u, n_leaves, leaf0, node0, graph, w, re[v], im[v], sr, si, re, im, g)
        else:
            x, y = graph.left[node0 + u - n_leaves], graph.right[node0 + u - n_leaves]
            pr, pi = re[y] * re[v] - im[y] * im[v], re[y] * im[v] + im[y] * re[v]
            _add_pair(x, n_leaves, leaf0, node0, graph, w, pr, pi, sr, si, re, im, g)
            pr, pi = re[x] * re[v] - im[x] * im[v], re[x] * im[v] + im[x] * re[v]
            _add_pair(y, n_leaves, leaf0, node0, graph, w, pr, pi, sr[2:], si[2:], re, im, g)
    return value


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _contract_slots(
    start: int, stop: int, width: int, component: Ints, g: Floats, table: Floats, out: Floats
) -> None:
    """out[:width] = sum_s g[s] table[component[s]], four rows at a time to spare stores."""
    for k in range(width):
        out[k] = 0.0
    s = start
    while s + 4 <= stop:
        t0, t1 = table[component[s]], table[component[s + 1]]
        t2, t3 = table[component[s + 2]], table[component[s + 3]]
        g0, g1, g2, g3 = g[s], g[s + 1], g[s + 2], g[s + 3]
        for k in range(width):
            out[k] += g0 * t0[k] + g1 * t1[k] + g2 * t2[k] + g3 * t3[k]
        s += 4
    while s < stop:
        t0, g0 = table[component[s]], g[s]
        for k in range(width):
            out[k] += g0 * t0[k]
        s += 1


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _scatter(
    i: int, n: int, neighbour: Ints, vectors: Floats, out: Floats, forces: Floats, virial: Floats
) -> None:
    """Add dB/dr_ij of n neighbours (out: x, y, z blocks) to rows of -dE/dr and of the virial."""
    sx, sy, sz = 0.0, 0.0, 0.0
    xx, yy, zz, yz, xz, xy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(n):
        gx, gy, gz = out[j], out[n + j], out[2 * n + j]
        x, y, z = vectors[0, j], vectors[1, j], vectors[2, j]
        sx += gx
        sy += gy
        sz += gz
        xx += x * gx
        yy += y * gy
        zz += z * gz
        yz += y * gz
        xz += x * gz
        xy += x * gy
    virial[0] += xx
    virial[1] += yy
    virial[2] += zz
    virial[3] += yz
    virial[4] += xz
    virial[5] += xy
    forces[3 * i] += sx
    forces[3 * i + 1] += sy
    forces[3 * i + 2] += sz
    for j in range(n):
        k = 3 * neighbour[j]
        forces[k] -= out[j]
        forces[k + 1] -= out[n + j]
        forces[k + 2] -= out[2 * n + j]


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
    n_v, n_slots = 0, 0
    for t in range(n_types):
        leaves = graph.leaf_offset[t + 1] - graph.leaf_offset[t]
        n_v = max(n_v, leaves + graph.node_offset[t + 1] - graph.node_offset[t])
    for f in range(n_functions):
        n_slots = max(n_slots, terms.slot_offset[f + 1] - terms.slot_offset[f])
    n_a = runs.n_components.max()
    a, re, im, g = np.zeros(n_a), np.zeros(n_v), np.zeros(n_v), np.zeros(n_slots + 1)
    table, out = np.zeros((n_a, 3 * n_max)), np.zeros(3 * n_max)
    values, forces = np.zeros((n_atoms, n_functions)), np.zeros((n_functions, 3 * n_atoms))
    virial = np.zeros((n_functions, 6))
    for i in range(n_atoms):
        type_i = types[i]
        fill_environment(i, type_i, n_types, first, vectors, tables, lmax, norm, ws)
        fill_density(i, type_i, n_types, first, runs, ws, a)
        fill_products(type_i, graph, a, re, im)
        _fill_component_gradients(i, type_i, n_types, first, runs, ws, table)
        for f in range(terms.function_offset[type_i], terms.function_offset[type_i + 1]):
            values[i, f] = _function_gradient(f, type_i, graph, terms, re, im, g)
            slot0, n_f = terms.slot_offset[f], terms.slot_offset[f + 1] - terms.slot_offset[f]
            component = terms.slot_component[slot0 : slot0 + n_f]
            s = 0
            while s < n_f:
                t = terms.slot_species[slot0 + s]
                end = s
                while end < n_f and terms.slot_species[slot0 + end] == t:
                    end += 1
                b, e = first[i * n_types + t], first[i * n_types + t + 1]
                if e > b:
                    _contract_slots(s, end, 3 * (e - b), component, g, table, out)
                    _scatter(i, e - b, neighbour[b:e], vectors[:, b:e], out, forces[f], virial[f])
                s = end
    return values, forces, virial
