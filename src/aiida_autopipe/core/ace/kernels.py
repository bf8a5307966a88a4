"""Arrays and pair lists of the numba kernels of the atomic cluster expansion, and how they work.

Per atom the work has two halves of different shape; each does four things at a time (`lanes`).

Neighbours (`neighbour_kernels`, `gradient_kernels`), four at a time. The neighbours of an atom,
sorted by element, stand in blocks that fit the first-level cache, each with its direction, radial
functions R from cubic Hermite tables, Legendre functions P and powers of e^(i phi). With them

    A_nlm = sum_j R_n(r_j) P_lm(z_j) e^(i m phi_j),   m >= 0,

as A_{l,-m} = (-1)^m conj(A_lm) need not be stored. Radial functions with the same l form tiles of
four: a Legendre function and an angle, once loaded, serve eight sums. The way back, from dE/dA to
dE/dr, goes through the weights of harmonics of each neighbour; gradients of harmonics are never
stored.

Products (`product_kernels`), four atoms of one element at a time, so that a weight and an index,
once loaded, serve all four. The values of an atom are 1, the leaves A and the nodes, which are
products of two earlier values. Every function of the basis is a weighted sum of products of two
values, so a density is a quadratic form in the values,

    rho = 1/2 sum_u v_u . g_u,   g_u = sum_w c_uw v_w = d rho/d v_u with the other values fixed,

and g, which gives it, is the start of the way back through the nodes. Most products occur in this
form only and are never stored; which pairs become nodes is chosen so that few are needed
(`products`). A product of complex values u, w or of their conjugates has the real part
Re u Re w -+ Im u Im w: two weights stand for both cases and for the signs of negative m.

Values of the functions, B, which only grades need: the sums of four functions at a time, with about
as many terms each, turned round in registers so that those of one atom are contiguous (`Sums`).

Design matrix (`design_kernels`): g for each function by itself, contracted with the table of dA/dr
of all neighbours.

The kernels release the GIL and use one thread; callers run structures or ranges of atoms in
parallel. Reassociation and contraction of sums are the only fast-math liberties: they keep NaN,
infinity and signed zero as they are.

For whoever edits these files: numba's cache is per file, so callers elsewhere keep their compiled
copy of a kernel; delete `__pycache__` after a change.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.lanes import kernel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Indices = NDArray[np.int32]

# Pairs closer than this (Å) have no direction worth the name and are reported to the caller.
SHORTEST_DISTANCE = 1e-6


class RadialTables(NamedTuple):
    """Hermite tables; pair = centre type * n_types + neighbour type; nodes (rows, 2, columns).

    The number of columns is a multiple of LANES; the two rows from `empty` on are zero; `core` is
    the column of the core repulsion, -1 for none.
    """

    first: Ints
    bins: Ints
    inverse_width: Floats
    cutoff: Floats
    nodes: Floats
    empty: int
    core: int


class Harmonics(NamedTuple):
    """Recursion of P_lm, at m (2 lmax + 1 - m)/2 + l: P_mm = diagonal[m], P_lm = up z P_{l-1,m} -
    down P_{l-2,m}, and dP_lm/dz = ratio P_{l,m+1}."""

    lmax: int
    diagonal: Floats
    up: Floats
    down: Floats
    ratio: Floats


class Tiles(NamedTuple):
    """Radial columns with one l: those of a pair of types are tiles offset[pair]:offset[pair + 1].

    A tile has `width` (1 or LANES) `columns` (tiles, LANES), of which some may be there to fill it.
    Its leaves are `leaf` + width m + column.
    """

    offset: Ints
    ell: Ints
    width: Ints
    columns: Ints
    leaf: Ints


class Graph(NamedTuple):
    """Values and their products, per centre type.

    Value 0 is 1, values 1 to leaves[type] are the leaves; node k is left * right, right conjugated
    where sign = -1. Row u of the couplings of a type, u its value, stands at row_offset[type] + u:
    complex couplings from `begin` to `middle`, couplings of real parts from there to the next
    `begin`, each to the value `other` by the weights of `product`.
    """

    leaves: Ints
    node_offset: Ints
    left: Indices
    right: Indices
    sign: Floats
    row_offset: Ints
    begin: Ints
    middle: Ints
    other: Indices
    product: Indices


class Terms(NamedTuple):
    """Functions as sums of re Re u Re v + im Im u Im v over pairs of values u, v of their type.

    The terms of function f begin at term_offset[f]; those without imaginary part at term_middle[f].
    """

    function_offset: Ints
    term_offset: Ints
    term_middle: Ints
    u: Indices
    v: Indices
    re: Floats
    im: Floats
    product: Indices


class Sums(NamedTuple):
    """The same for the values of functions alone, in groups of LANES with about as many terms.

    Groups of centre type t are group_offset[t]:group_offset[t + 1]; place 4 group + k is taken by
    `function`, -1 for none. Terms of group g are term_offset[g]:term_offset[g + 1], (terms, LANES):
    `weight` times two numbers, given by their places `left`, `right` in the array of values.
    """

    group_offset: Ints
    function: Ints
    term_offset: Ints
    left: Indices
    right: Indices
    weight: Floats


class Derivatives(NamedTuple):
    """How single functions are differentiated, in groups of LANES that depend on about as much.

    Groups of centre type t are group_offset[t]:group_offset[t + 1]; place 4 group + k is taken by
    `function`, -1 for none. A function depends on the values `value` from value_offset[place] on,
    the nodes among which are `node`, the later ones first. `slot` (slots, LANES): the real numbers
    of its leaves, as places in the array of values, 0 where a function has fewer than others of its
    group; those by neighbour type t are from slot_offset[group * n_types + t] on. n_slots: of the
    centre type with the most.
    """

    n_slots: int
    group_offset: Ints
    function: Ints
    value_offset: Ints
    value: Indices
    node_offset: Ints
    node: Indices
    slot_offset: Ints
    slot: Indices


class Tables(NamedTuple):
    """All arrays of one basis but those for derivatives of single functions.

    n_products: over all centre types; n_values: of the centre type with the most.
    """

    n_types: int
    n_products: int
    n_values: int
    radial: RadialTables
    harmonics: Harmonics
    tiles: Tiles
    graph: Graph
    terms: Terms
    sums: Sums


class SortedPairs(NamedTuple):
    """Pairs within the cutoffs; those of atom i and type t are first[i * n_types + t] onwards."""

    first: Ints
    neighbour: Ints
    vectors: Floats
    too_close: int


@kernel
def sort_pairs(
    types: Ints, centre: Ints, neighbour: Ints, vectors: Floats, n_local: int, cutoff: Floats
) -> Any:
    """Counting sort of a full pair list by centre and neighbour type; `vectors` become (3, P)."""
    n_types = int(np.sqrt(len(cutoff)) + 0.5)
    count = np.zeros(n_local * n_types + 1, dtype=np.int64)
    key = np.empty(len(centre), dtype=np.int64)
    too_close = -1
    for p in range(len(centre)):
        i, t = centre[p], types[neighbour[p]]
        x, y, z = vectors[p, 0], vectors[p, 1], vectors[p, 2]
        r2 = x * x + y * y + z * z
        rc = cutoff[types[i] * n_types + t]
        # Written so that NaN, which compares false, is caught.
        if not r2 >= SHORTEST_DISTANCE * SHORTEST_DISTANCE:
            too_close = p
        if r2 < rc * rc:
            key[p] = i * n_types + t
            count[key[p] + 1] += 1
        else:
            key[p] = -1
    first = np.cumsum(count)
    place = first[:-1].copy()
    sorted_neighbour = np.empty(first[-1], dtype=np.int64)
    sorted_vectors = np.empty((3, first[-1]))
    for p in range(len(centre)):
        if key[p] >= 0:
            q = place[key[p]]
            place[key[p]] += 1
            sorted_neighbour[q] = neighbour[p]
            for c in range(3):
                sorted_vectors[c, q] = vectors[p, c]
    return first, sorted_neighbour, sorted_vectors, too_close
