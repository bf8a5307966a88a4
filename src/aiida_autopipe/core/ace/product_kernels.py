"""Numba kernels over the products of one atom's A, four atoms of one element at a time.

Arrays of values and of derivatives by them have the shape (values, 2, LANES): real parts of four
atoms, then imaginary parts. A derivative's imaginary part is that by the imaginary part.
"""

from __future__ import annotations

from typing import Any

from aiida_autopipe.core.ace.kernels import Derivatives, Floats, Graph, Ints, Sums, Terms
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


@inlined
def clear_leaves(graph: Graph, type_i: int, values: Floats) -> None:
    """Set the value 1 and all leaves to zero."""
    store(values, 0, spread(1.0))
    store(values, LANES, spread(0.0))
    for k in range(2 * LANES, 2 * LANES * (graph.leaves[type_i] + 1), LANES):
        store(values, k, spread(0.0))


@kernel
def fill_nodes(graph: Graph, type_i: int, values: Floats) -> None:
    """Values of the nodes from the leaves."""
    at = 2 * LANES * (graph.leaves[type_i] + 1)
    for k in range(graph.node_offset[type_i], graph.node_offset[type_i + 1]):
        u, v = 2 * LANES * item(graph.left, k), 2 * LANES * item(graph.right, k)
        sign = spread(item(graph.sign, k))
        ur, ui, vr, vi = (
            load(values, u),
            load(values, u + LANES),
            load(values, v),
            load(values, v + LANES),
        )
        vi = sign * vi
        store(values, at, ur * vr - ui * vi)
        store(values, at + LANES, ur * vi + ui * vr)
        at += 2 * LANES


@kernel
def couple(
    graph: Graph, type_i: int, re: Floats, im: Floats, first: int, values: Floats, adjoint: Floats
) -> Any:
    """Density of four atoms; fills its derivatives by the values. Weights begin at `first`."""
    row = graph.row_offset[type_i]
    n_values = 1 + graph.leaves[type_i] + graph.node_offset[type_i + 1] - graph.node_offset[type_i]
    total = spread(0.0)
    for u in range(n_values):
        a, b = spread(0.0), spread(0.0)
        begin, middle, end = (
            item(graph.begin, row),
            item(graph.middle, row),
            item(graph.begin, row + 1),
        )
        for k in range(begin, middle):
            v = 2 * LANES * item(graph.other, k)
            a = a + spread(item(re, first + k)) * load(values, v)
            b = b + spread(item(im, first + k)) * load(values, v + LANES)
        for k in range(middle, end):
            v = 2 * LANES * item(graph.other, k)
            a = a + spread(item(re, first + k)) * load(values, v)
        at = 2 * LANES * u
        store(adjoint, at, a)
        store(adjoint, at + LANES, b)
        total = total + a * load(values, at) + b * load(values, at + LANES)
        row += 1
    return spread(0.5) * total


@inlined
def pull_back(graph: Graph, k: int, first: int, values: Floats, adjoint: Floats) -> None:
    """Hand the derivative by node k on to its two factors; `first` is the index of its value."""
    u, v = 2 * LANES * item(graph.left, k), 2 * LANES * item(graph.right, k)
    at = 2 * LANES * first
    sign = spread(item(graph.sign, k))
    x, y = load(adjoint, at), load(adjoint, at + LANES)
    ur, ui, vr = load(values, u), load(values, u + LANES), load(values, v)
    vi = sign * load(values, v + LANES)
    store(adjoint, u, load(adjoint, u) + x * vr + y * vi)
    store(adjoint, u + LANES, load(adjoint, u + LANES) + y * vr - x * vi)
    store(adjoint, v, load(adjoint, v) + x * ur + y * ui)
    store(adjoint, v + LANES, load(adjoint, v + LANES) + sign * (y * ur - x * ui))


@kernel
def pull_back_all(graph: Graph, type_i: int, values: Floats, adjoint: Floats) -> None:
    """Complete the derivatives by the leaves with what reaches them through the nodes."""
    begin, end = graph.node_offset[type_i], graph.node_offset[type_i + 1]
    first = 1 + graph.leaves[type_i] - begin
    for k in range(end - 1, begin - 1, -1):
        pull_back(graph, k, first + k, values, adjoint)


@inlined
def _term(sums: Sums, k: int, values: Floats) -> Any:
    """One term of a function, for four atoms."""
    x, y = load(values, item(sums.left, k)), load(values, item(sums.right, k))
    return spread(item(sums.weight, k)) * x * y


@kernel
def fill_functions(sums: Sums, type_i: int, values: Floats, rows: Ints, functions: Floats) -> None:
    """At most LANES rows of the B values (n, places) of one type from the values."""
    width = functions.shape[1]
    for group in range(sums.group_offset[type_i], sums.group_offset[type_i + 1]):
        a, b, c, d = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
        first, end = sums.term_offset[group], sums.term_offset[group + 1]
        for k in range(LANES * first, LANES * end, LANES):
            a = a + _term(sums, k, values)
            b = b + _term(sums, k + 1, values)
            c = c + _term(sums, k + 2, values)
            d = d + _term(sums, k + 3, values)
        a, b, c, d = transpose(a, b, c, d)
        at = LANES * group
        store(functions, rows[0] * width + at, a)
        if len(rows) > 1:
            store(functions, rows[1] * width + at, b)
        if len(rows) > 2:
            store(functions, rows[2] * width + at, c)
        if len(rows) > 3:
            store(functions, rows[3] * width + at, d)


@inlined
def _add_to(array: Floats, at: int, value: Any) -> None:
    store(array, at, load(array, at) + value)


@inlined
def _fill_adjoint(
    graph: Graph,
    terms: Terms,
    derivatives: Derivatives,
    place: int,
    first: int,
    values: Floats,
    adjoint: Floats,
) -> Any:
    """Derivatives of the function at a place by the values it depends on, for four atoms; returns
    the function. `first` is the number of the value of node 0 of all types."""
    total, f = spread(0.0), item(derivatives.function, place)
    for k in range(
        item(derivatives.value_offset, place), item(derivatives.value_offset, place + 1)
    ):
        at = 2 * LANES * item(derivatives.value, k)
        store(adjoint, at, spread(0.0))
        store(adjoint, at + LANES, spread(0.0))
    begin, middle, end = terms.term_offset[f], terms.term_middle[f], terms.term_offset[f + 1]
    for k in range(begin, end):
        u, v = 2 * LANES * item(terms.u, k), 2 * LANES * item(terms.v, k)
        re, x, y = spread(item(terms.re, k)), load(values, u), load(values, v)
        total = total + re * x * y
        _add_to(adjoint, u, re * y)
        _add_to(adjoint, v, re * x)
        if k < middle:
            u, v = u + LANES, v + LANES
            im, x, y = spread(item(terms.im, k)), load(values, u), load(values, v)
            total = total + im * x * y
            _add_to(adjoint, u, im * y)
            _add_to(adjoint, v, im * x)
    for k in range(item(derivatives.node_offset, place), item(derivatives.node_offset, place + 1)):
        node = item(derivatives.node, k)
        pull_back(graph, node, first + node, values, adjoint)
    return total


@kernel
def fill_slots(
    graph: Graph,
    terms: Terms,
    derivatives: Derivatives,
    type_i: int,
    values: Floats,
    adjoint: Floats,
    atoms: Ints,
    scratch: Floats,
    gradients: Floats,
    functions: Floats,
) -> None:
    """Derivatives of all functions of a type by their slots, for each of up to LANES atoms: (LANES,
    slots, LANES), the last index the place in the group; and the functions themselves, rows `atoms`
    of (n, F). `scratch` is for LANES^2 numbers a slot of one group."""
    n_types = len(graph.leaves)
    first = 1 + graph.leaves[type_i] - graph.node_offset[type_i]
    size = LANES * gradients.shape[1]
    at = 0
    for group in range(derivatives.group_offset[type_i], derivatives.group_offset[type_i + 1]):
        s0 = derivatives.slot_offset[group * n_types]
        s1 = derivatives.slot_offset[(group + 1) * n_types]
        for k in range(LANES):
            place = LANES * group + k
            f = derivatives.function[place]
            if f < 0:
                continue
            total = _fill_adjoint(graph, terms, derivatives, place, first, values, adjoint)
            store(adjoint, 0, total)
            for lane in range(len(atoms)):
                functions[atoms[lane], f] = item(adjoint, lane)
            store(adjoint, 0, spread(0.0))
            for s in range(s1 - s0):
                slot = item(derivatives.slot, LANES * (s0 + s) + k)
                store(scratch, LANES * (LANES * s + k), load(adjoint, slot))
        for s in range(0, LANES * LANES * (s1 - s0), LANES * LANES):
            a0, a1 = load(scratch, s), load(scratch, s + LANES)
            a2, a3 = load(scratch, s + 2 * LANES), load(scratch, s + 3 * LANES)
            a0, a1, a2, a3 = transpose(a0, a1, a2, a3)
            store(gradients, at, a0)
            store(gradients, at + size, a1)
            store(gradients, at + 2 * size, a2)
            store(gradients, at + 3 * size, a3)
            at += LANES
