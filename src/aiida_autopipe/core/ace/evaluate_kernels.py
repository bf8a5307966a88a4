"""Numba kernels for energies, forces, virial and B values, from the parts in `kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

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
def most_neighbours(first: Ints, n_types: int) -> int:
    """Largest number of neighbours of one atom."""
    largest = 1
    for i in range((len(first) - 1) // n_types):
        largest = max(largest, first[(i + 1) * n_types] - first[i * n_types])
    return largest


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def most_values(graph: Graph, n_types: int) -> int:
    """Largest number of leaves and nodes of one centre type."""
    largest = 0
    for t in range(n_types):
        leaves = graph.leaf_offset[t + 1] - graph.leaf_offset[t]
        largest = max(largest, leaves + graph.node_offset[t + 1] - graph.node_offset[t])
    return largest


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _backward(
    type_i: int,
    graph: Graph,
    coefficient: Floats,
    coefficient_offset: Ints,
    re: Floats,
    im: Floats,
    adj_re: Floats,
    adj_im: Floats,
    gradient: Floats,
) -> float:
    """Energy of one atom and its derivative with respect to the real components of A."""
    leaf0, node0 = graph.leaf_offset[type_i], graph.node_offset[type_i]
    n_leaves = graph.leaf_offset[type_i + 1] - leaf0
    n_nodes = graph.node_offset[type_i + 1] - node0
    c0 = coefficient_offset[type_i]
    energy = 0.0
    for k in range(n_leaves + n_nodes):
        adj_re[k] = coefficient[c0 + k]
        adj_im[k] = 0.0
        energy += coefficient[c0 + k] * re[k]
    for k in range(n_nodes - 1, -1, -1):
        u, v = graph.left[node0 + k], graph.right[node0 + k]
        x, y = adj_re[n_leaves + k], adj_im[n_leaves + k]
        ur, ui, vr, vi = re[u], im[u], re[v], im[v]
        adj_re[u] += x * vr - y * vi
        adj_im[u] += x * vi + y * vr
        adj_re[v] += x * ur - y * ui
        adj_im[v] += x * ui + y * ur
    for q in range(n_leaves):
        gradient[graph.leaf_re[leaf0 + q]] += graph.sign_re[leaf0 + q] * adj_re[q]
        k = graph.leaf_im[leaf0 + q]
        if k >= 0:
            gradient[k] -= graph.sign_im[leaf0 + q] * adj_im[q]
    return energy


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _contract(
    i: int,
    type_i: int,
    n_types: int,
    first: Ints,
    runs: Runs,
    ws: Workspace,
    gradient: Floats,
    weight: Floats,
    scratch: Floats,
    pair_gradient: Floats,
) -> None:
    """dE/dr_ij (3, neighbours) from dE/dA."""
    begin = first[i * n_types]
    n = first[(i + 1) * n_types] - begin
    n_y = weight.shape[0]
    along, angular = scratch[0], scratch[1]
    for p in range(n_y):
        for j in range(n):
            weight[p, j] = 0.0
    for j in range(n):
        along[j] = 0.0
    for run in range(runs.offset[type_i], runs.offset[type_i + 1]):
        t = runs.species[run]
        start, stop = first[i * n_types + t] - begin, first[i * n_types + t + 1] - begin
        column, at = runs.column[run], runs.first[run]
        for j in range(start, stop):
            angular[j] = 0.0
        for p in range(runs.size[run]):
            g = gradient[at + p]
            for j in range(start, stop):
                weight[p, j] += g * ws.value[column, j]
                angular[j] += g * ws.y[p, j]
        for j in range(start, stop):
            along[j] += ws.slope[column, j] * angular[j]
    for c in range(3):
        for j in range(n):
            pair_gradient[c, j] = along[j] * ws.unit[c, j]
        for p in range(1, n_y):
            for j in range(n):
                pair_gradient[c, j] += weight[p, j] * ws.dy[c, p, j]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def fill_values(i: int, type_i: int, terms: Terms, re: Floats, values: Floats) -> None:
    """Row i of the B values (atoms, F) from the values of the product graph."""
    for f in range(terms.function_offset[type_i], terms.function_offset[type_i + 1]):
        total = 0.0
        for k in range(terms.term_offset[f], terms.term_offset[f + 1]):
            total += terms.weight[k] * re[terms.value[k]]
        values[i, f] = total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def evaluate(
    types: Ints,
    n_local: int,
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
    coefficient: Floats,
    coefficient_offset: Ints,
    want_values: bool,
) -> Any:
    """Energies (n_local,), forces (n_all, 3), virial (6,) = sum r_a dE/dr_b in ASE's Voigt order,
    and the B values (n_local, F), without rows unless wanted."""
    n_max = most_neighbours(first, n_types)
    ws = make_workspace(n_max, tables.nodes.shape[2], lmax)
    n_a = runs.n_components.max()
    n_v = most_values(graph, n_types) + 1
    a, gradient = np.zeros(n_a), np.zeros(n_a)
    re, im, adj_re, adj_im = np.zeros(n_v), np.zeros(n_v), np.zeros(n_v), np.zeros(n_v)
    weight, scratch = np.zeros(((lmax + 1) ** 2, n_max)), np.zeros((2, n_max))
    pair_gradient = np.zeros((3, n_max))
    energies, forces, virial = np.zeros(n_local), np.zeros((len(types), 3)), np.zeros(6)
    values = np.zeros((n_local if want_values else 0, terms.function_offset[n_types]))
    for i in range(n_local):
        type_i = types[i]
        n = fill_environment(i, type_i, n_types, first, vectors, tables, lmax, norm, ws)
        fill_density(i, type_i, n_types, first, runs, ws, a)
        fill_products(type_i, graph, a, re, im)
        if want_values:
            fill_values(i, type_i, terms, re, values)
        gradient[:] = 0.0
        energies[i] = _backward(
            type_i, graph, coefficient, coefficient_offset, re, im, adj_re, adj_im, gradient
        )
        _contract(i, type_i, n_types, first, runs, ws, gradient, weight, scratch, pair_gradient)
        begin = first[i * n_types]
        for j in range(n):
            gx, gy, gz = pair_gradient[0, j], pair_gradient[1, j], pair_gradient[2, j]
            x, y, z = vectors[0, begin + j], vectors[1, begin + j], vectors[2, begin + j]
            k = neighbour[begin + j]
            forces[k, 0] -= gx
            forces[k, 1] -= gy
            forces[k, 2] -= gz
            forces[i, 0] += gx
            forces[i, 1] += gy
            forces[i, 2] += gz
            virial[0] += x * gx
            virial[1] += y * gy
            virial[2] += z * gz
            virial[3] += y * gz
            virial[4] += x * gz
            virial[5] += x * gy
    return energies, forces, virial, values


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def function_values(
    types: Ints,
    n_local: int,
    n_types: int,
    first: Ints,
    vectors: Floats,
    tables: RadialTables,
    lmax: int,
    norm: Floats,
    runs: Runs,
    graph: Graph,
    terms: Terms,
) -> Floats:
    """B values (n_local, F); columns of functions of other centre types are zero."""
    n_max = most_neighbours(first, n_types)
    ws = make_workspace(n_max, tables.nodes.shape[2], lmax)
    a = np.zeros(runs.n_components.max())
    n_v = most_values(graph, n_types) + 1
    re, im = np.zeros(n_v), np.zeros(n_v)
    values = np.zeros((n_local, terms.function_offset[n_types]))
    for i in range(n_local):
        type_i = types[i]
        fill_environment(i, type_i, n_types, first, vectors, tables, lmax, norm, ws)
        fill_density(i, type_i, n_types, first, runs, ws, a)
        fill_products(type_i, graph, a, re, im)
        fill_values(i, type_i, terms, re, values)
    return values
