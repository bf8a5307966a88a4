"""Numba kernels for energies, forces, virial and B values."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from aiida_autopipe.core.ace.embedding import (
    CORE_REPULSION,
    LINEAR,
    NOTHING,
    Embeddings,
    embedded,
    step_down,
)
from aiida_autopipe.core.ace.gradient_kernels import add_forces, fill_gradients
from aiida_autopipe.core.ace.kernels import Floats, Graph, Ints, Tables
from aiida_autopipe.core.ace.lanes import LANES, inlined, kernel, load, store
from aiida_autopipe.core.ace.neighbour_kernels import (
    Layout,
    add_leaves,
    block_layout,
    fill_block,
    most_blocks,
)
from aiida_autopipe.core.ace.product_kernels import (
    clear_leaves,
    couple,
    fill_functions,
    fill_nodes,
    pull_back_all,
)

# Doubles of all blocks of the atoms worked on together: about what the second-level cache holds.
_BLOCKS_IN_CACHE = 2**15


class Weights(NamedTuple):
    """Weights of the couplings of a basis for each density, real and imaginary, (P, couplings)."""

    re: Floats
    im: Floats


class Space(NamedTuple):
    """Scratch for `batch` atoms of one element.

    rows: their blocks, `stride` doubles an atom; bins: of one block; values, adjoints: of products,
    derivatives for each density; densities, slopes (P, LANES): with the derivatives of the energy;
    by_core, nearest, by_distance (LANES,): its derivative by the core repulsion, the column of the
    neighbour that switches it (-1: none) and the derivative by its distance; weights: of harmonics.
    """

    batch: int
    stride: int
    rows: Floats
    bins: Ints
    values: Floats
    adjoints: Floats
    densities: Floats
    slopes: Floats
    by_core: Floats
    nearest: Ints
    by_distance: Floats
    weights: Floats


@kernel
def make_space(tables: Tables, first: Ints, layout: Layout, n_densities: int) -> Any:
    stride = layout.size * most_blocks(first, tables.n_types, layout.width)
    batch = max(1, min(LANES, _BLOCKS_IN_CACHE // stride))
    lmax, n = tables.harmonics.lmax, 2 * LANES * tables.n_values
    return Space(
        batch,
        stride,
        np.empty(batch * stride),
        np.zeros(layout.width, dtype=np.int64),
        np.zeros(n),
        np.zeros((n_densities, n)),
        np.zeros((n_densities, LANES)),
        np.zeros((n_densities, LANES)),
        np.zeros(LANES),
        np.zeros(LANES, dtype=np.int64),
        np.zeros(LANES),
        np.zeros(2 * (lmax + 1) * (lmax + 2) * LANES),
    )


@inlined
def batch_end(types: Ints, atoms: Ints, begin: int, most: int) -> int:
    """End of the next atoms of one type, at most so many."""
    end, limit = begin + 1, min(begin + most, len(atoms))
    while end < limit and types[atoms[end]] == types[atoms[begin]]:
        end += 1
    return end


@kernel
def fill_values(
    tables: Tables,
    type_i: int,
    atoms: Ints,
    first: Ints,
    vectors: Floats,
    layout: Layout,
    space: Any,
) -> None:
    """Blocks and values of up to LANES atoms of one type."""
    n_types, width = tables.n_types, layout.width
    clear_leaves(tables.graph, type_i, space.values)
    for lane in range(len(atoms)):
        i, base = atoms[lane], lane * space.stride
        for t in range(n_types):
            pair, end = type_i * n_types + t, first[i * n_types + t + 1]
            for start in range(first[i * n_types + t], end, width):
                count = min(width, end - start)
                fill_block(
                    tables, pair, start, count, vectors, layout, base, space.rows, space.bins
                )
                add_leaves(tables, pair, count, layout, base, space.rows, lane, space.values)
                base += layout.size
    fill_nodes(tables.graph, type_i, space.values)


@inlined
def _core_energy(
    tables: Tables, i: int, first: Ints, layout: Layout, base: int, rows: Floats
) -> float:
    """Sum of the core repulsion over the neighbours of atom i."""
    total, n_types, core = 0.0, tables.n_types, tables.radial.core
    if core < 0:
        return total
    for k in range(i * n_types, (i + 1) * n_types):
        for start in range(first[k], first[k + 1], layout.width):
            row = base + layout.value + core * layout.width
            for j in range(min(layout.width, first[k + 1] - start)):
                total += rows[row + j]
            base += layout.size
    return total


@inlined
def _nearest(
    type_i: int,
    i: int,
    n_types: int,
    first: Ints,
    embeddings: Embeddings,
    layout: Layout,
    base: int,
    rows: Floats,
) -> Any:
    """Column of the neighbour deepest inside its inner cutoff (-1: none), as an index into `rows`,
    its step and d(step)/dr."""
    least, nearest, pair = embeddings.reach, -1, 0
    for t in range(n_types):
        q, end = type_i * n_types + t, first[i * n_types + t + 1]
        begin = embeddings.inner_cutoff[q] - embeddings.inner_width[q]
        for start in range(first[i * n_types + t], end, layout.width):
            for j in range(base, base + min(layout.width, end - start)):
                depth = rows[j + layout.distance] - begin
                if depth < least:
                    least, nearest, pair = depth, j, q
            base += layout.size
    if nearest < 0:
        return -1, 1.0, 0.0
    width = embeddings.inner_width[pair]
    step, slope = step_down(width - least, width, width)
    return nearest, step, -slope


@inlined
def _energy_of_densities(
    type_i: int, lane: int, embeddings: Embeddings, densities: Floats, slopes: Floats
) -> float:
    """Energy of one atom; its derivatives by the densities (P, LANES) go to `slopes`."""
    if embeddings.style[type_i] == LINEAR:
        slopes[0, lane] = 1.0
        energy: float = densities[0, lane]
        return energy
    energy = 0.0
    for p in range(embeddings.n_densities[type_i]):
        w, m = embeddings.weight[type_i, p], embeddings.exponent[type_i, p]
        value, slope = embedded(embeddings.style[type_i], densities[p, lane], m)
        energy += w * value
        slopes[p, lane] = w * slope
    return energy


@inlined
def _embed(
    tables: Tables,
    type_i: int,
    i: int,
    lane: int,
    first: Ints,
    embeddings: Embeddings,
    layout: Layout,
    space: Any,
) -> float:
    """Energy of one atom; its derivatives by the densities, by the core repulsion and by the
    distance of the neighbour that switches it go to `space`."""
    energy: float = _energy_of_densities(type_i, lane, embeddings, space.densities, space.slopes)
    space.by_core[lane], space.nearest[lane] = 0.0, -1
    if embeddings.switch == NOTHING:
        return energy
    base = lane * space.stride
    core = _core_energy(tables, i, first, layout, base, space.rows)
    if embeddings.switch == CORE_REPULSION:
        end = embeddings.core_cutoff[type_i]
        keep, slope = 0.0, 0.0
        if core < end:
            keep, slope = step_down(core, end, embeddings.core_width[type_i])
        space.by_core[lane] = 1.0 + energy * slope
        total = energy * keep + core
    else:
        nearest, keep, slope = _nearest(
            type_i, i, tables.n_types, first, embeddings, layout, base, space.rows
        )
        space.by_core[lane] = 1.0 - keep
        space.nearest[lane], space.by_distance[lane] = nearest, (energy - core) * slope
        total = energy * keep + core * (1.0 - keep)
    for p in range(len(space.slopes)):
        space.slopes[p, lane] *= keep
    return total


@inlined
def _combine(graph: Graph, type_i: int, n_densities: int, space: Any) -> None:
    """Derivatives of the energy by the values, from those of the densities, into the first."""
    n = 1 + graph.leaves[type_i] + graph.node_offset[type_i + 1] - graph.node_offset[type_i]
    size = space.adjoints.shape[1]
    for k in range(0, 2 * LANES * n, LANES):
        total = load(space.slopes, 0) * load(space.adjoints, k)
        for p in range(1, n_densities):
            total = total + load(space.slopes, LANES * p) * load(space.adjoints, size * p + k)
        store(space.adjoints, k, total)


@kernel
def _fill_adjoint(
    tables: Tables,
    type_i: int,
    atoms: Ints,
    first: Ints,
    embeddings: Embeddings,
    coupling: Weights,
    layout: Layout,
    space: Any,
    energies: Floats,
) -> None:
    """Energies of up to LANES atoms of one type and, in the first of `space.adjoints`, their
    derivatives by the leaves."""
    linear = embeddings.style[type_i] == LINEAR
    n_densities = 1 if linear else embeddings.n_densities[type_i]
    for p in range(n_densities):
        density = couple(
            tables.graph,
            type_i,
            coupling.re,
            coupling.im,
            p * coupling.re.shape[1],
            space.values,
            space.adjoints[p],
        )
        store(space.densities, LANES * p, density)
    for lane in range(len(atoms)):
        i = atoms[lane]
        energies[i] = _embed(tables, type_i, i, lane, first, embeddings, layout, space)
    if not linear or embeddings.switch != NOTHING:
        _combine(tables.graph, type_i, n_densities, space)
    pull_back_all(tables.graph, type_i, space.values, space.adjoints[0])


@kernel
def _add_atom(
    tables: Tables,
    type_i: int,
    i: int,
    lane: int,
    first: Ints,
    neighbour: Ints,
    layout: Layout,
    space: Any,
    forces: Floats,
    virial: Floats,
) -> None:
    """Add what the energy of atom i gives to forces and virial."""
    base, n_types, width = lane * space.stride, tables.n_types, layout.width
    nearest = space.nearest[lane]
    for t in range(n_types):
        pair, end = type_i * n_types + t, first[i * n_types + t + 1]
        for start in range(first[i * n_types + t], end, width):
            count = min(width, end - start)
            fill_gradients(
                tables,
                pair,
                count,
                layout,
                base,
                space.rows,
                lane,
                space.adjoints[0],
                space.by_core[lane],
                space.weights,
            )
            if base <= nearest < base + width:
                for c in range(3):
                    row = nearest + c * width
                    push = space.by_distance[lane] * space.rows[row]
                    space.rows[row + layout.gradient] += push
            add_forces(i, start, count, neighbour, layout, base, space.rows, forces, virial)
            base += layout.size


@kernel
def evaluate(
    types: Ints,
    atoms: Ints,
    first: Ints,
    neighbour: Ints,
    vectors: Floats,
    tables: Tables,
    embeddings: Embeddings,
    coupling: Weights,
    energies: Floats,
    functions: Floats,
    forces: Floats,
    virial: Floats,
) -> None:
    """Fill the `energies` (n_local,) of some atoms, given sorted by type, and add what they give to
    `forces` (n_all, LANES), the last column void, and `virial` (6, LANES), lanes to be summed.

    Fills `functions` (atoms or more, places) with their B values in the order of `Sums` unless it
    has no rows; places of other types keep what is there. The virial is sum r_a dE/dr_b in ASE's
    Voigt order.
    """
    layout = block_layout(first, tables.radial.nodes.shape[2], tables.harmonics.lmax)
    space = make_space(tables, first, layout, len(coupling.re))
    numbers = np.arange(len(atoms))
    begin = 0
    while begin < len(atoms):
        end = batch_end(types, atoms, begin, space.batch)
        mine, rows, type_i = atoms[begin:end], numbers[begin:end], types[atoms[begin]]
        begin = end
        fill_values(tables, type_i, mine, first, vectors, layout, space)
        if len(functions):
            fill_functions(tables.sums, type_i, space.values, rows, functions)
        _fill_adjoint(tables, type_i, mine, first, embeddings, coupling, layout, space, energies)
        for lane in range(len(mine)):
            _add_atom(
                tables, type_i, mine[lane], lane, first, neighbour, layout, space, forces, virial
            )


@kernel
def function_values(
    types: Ints, atoms: Ints, first: Ints, vectors: Floats, tables: Tables
) -> Floats:
    """B values (n_local, F) of all local atoms, given sorted by type; columns of functions of other
    centre types are zero."""
    layout = block_layout(first, tables.radial.nodes.shape[2], tables.harmonics.lmax)
    space = make_space(tables, first, layout, 1)
    sums, numbers = tables.sums, np.arange(LANES)
    functions = np.zeros((len(atoms), tables.terms.function_offset[tables.n_types]))
    in_places = np.empty((LANES, len(sums.function)))
    begin = 0
    while begin < len(atoms):
        end = batch_end(types, atoms, begin, space.batch)
        mine, type_i = atoms[begin:end], types[atoms[begin]]
        begin = end
        fill_values(tables, type_i, mine, first, vectors, layout, space)
        fill_functions(sums, type_i, space.values, numbers[: len(mine)], in_places)
        for lane in range(len(mine)):
            row, found = functions[mine[lane]], in_places[lane]
            for p in range(
                LANES * sums.group_offset[type_i], LANES * sums.group_offset[type_i + 1]
            ):
                if sums.function[p] >= 0:
                    row[sums.function[p]] = found[p]
    return functions
