"""Numba kernels of the atomic cluster expansion: neighbour lists in, B, energy and forces out.

How the work is organised, per atom:

1. its neighbours, sorted by element, as arrays with the neighbour as the last, contiguous index, so
   that all inner loops run over neighbours and vectorise;
2. radial functions R from cubic Hermite tables and spherical harmonics as *real* components
   y_p: p = l^2 for m = 0, l^2 + 2m - 1 and l^2 + 2m for the real and imaginary part of m > 0. Only
   m >= 0 is stored because A_{l,-m} = (-1)^m conj(A_lm);
3. A_a = sum_j R(r_j) y_p(j), real components in runs (element, radial column) of (lmax + 1)^2;
4. products: complex leaves (an A or its conjugate) and nodes (product of two earlier values),
   shared between all functions; a rank-4 product is pair times pair;
5. energy and forces: one backward pass through the products gives dE/dA, contracted with the
   neighbours once. Design matrix: dB_f/dA for each function over the few A it touches, contracted
   with the table of dA/dr of all neighbours.

The kernels release the GIL and use one thread; run structures in parallel. Reassociation and
contraction of sums are the only fast-math liberties: they vectorise reductions and keep NaN,
infinity and signed zero as they are.

For whoever edits this file: numba's cache is per file, so callers elsewhere keep their compiled
copy of a kernel; delete `__pycache__` after a change.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Pairs closer than this (Å) have no direction worth the name and are reported to the caller.
SHORTEST_DISTANCE = 1e-6


class RadialTables(NamedTuple):
    """Hermite tables; pair = centre type * n_types + neighbour type; nodes (rows, 2, columns)."""

    first: Ints
    bins: Ints
    inverse_width: Floats
    cutoff: Floats
    nodes: Floats


class Runs(NamedTuple):
    """Consecutive real A components; those of centre type t are runs offset[t]:offset[t + 1]."""

    offset: Ints
    species: Ints
    column: Ints
    size: Ints
    first: Ints
    n_components: Ints


class Graph(NamedTuple):
    """Product graph per centre type. `leaf_im` is -1 for m = 0; signs give A_{l,-m} from A_lm."""

    leaf_offset: Ints
    leaf_re: Ints
    leaf_im: Ints
    sign_re: Floats
    sign_im: Floats
    node_offset: Ints
    left: Ints
    right: Ints


class Terms(NamedTuple):
    """Functions as weighted real parts of graph values, with their derivatives by the components.

    Term: `value` (index in the graph of its centre type) and `weight`. The derivatives of a
    function by the components of A it touches (`slot_*`, sorted by element type) are sums of
    entries: product of the graph values `left` and `right` (the index after the last one stands
    for 1); its real part times `weight_re` goes to slot `slot_re`, its imaginary part times
    `weight_im` to `slot_im`; the slot after the last collects the void imaginary parts of m = 0.
    """

    function_offset: Ints
    term_offset: Ints
    value: Ints
    weight: Floats
    slot_offset: Ints
    slot_component: Ints
    slot_species: Ints
    entry_offset: Ints
    left: Ints
    right: Ints
    slot_re: Ints
    slot_im: Ints
    weight_re: Floats
    weight_im: Floats


class SortedPairs(NamedTuple):
    """Pairs within the cutoffs; those of atom i and type t are first[i * n_types + t] onwards."""

    first: Ints
    neighbour: Ints
    vectors: Floats
    too_close: int


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
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


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def fill_radial(
    tables: RadialTables, pair: int, start: int, stop: int, r: Floats, value: Floats, slope: Floats
) -> None:
    """value, slope (columns, neighbours) for neighbours start:stop at distances r."""
    first, last = tables.first[pair], tables.bins[pair] - 1
    scale, nodes = tables.inverse_width[pair], tables.nodes
    for j in range(start, stop):
        position = r[j] * scale
        k = min(int(position), last)
        s = position - k
        k += first
        u = 1.0 - s
        h00, h01 = (1.0 + 2.0 * s) * u * u, s * s * (3.0 - 2.0 * s)
        h10, h11 = s * u * u, -s * s * u
        d00 = -6.0 * s * u
        d10, d11 = u * (1.0 - 3.0 * s), s * (3.0 * s - 2.0)
        for c in range(nodes.shape[2]):
            v0, g0, v1, g1 = nodes[k, 0, c], nodes[k, 1, c], nodes[k + 1, 0, c], nodes[k + 1, 1, c]
            value[c, j] = h00 * v0 + h10 * g0 + h01 * v1 + h11 * g1
            slope[c, j] = scale * (d00 * (v0 - v1) + d10 * g0 + d11 * g1)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def fill_harmonics(
    n: int,
    lmax: int,
    norm: Floats,
    unit: Floats,
    inverse_r: Floats,
    work: Floats,
    y: Floats,
    dy: Floats,
) -> None:
    """Real components y (p, n) of sqrt(4 pi) Y_lm and Cartesian gradients dy (3, p, n).

    Y_lm = N_lm P_l^(m)(z) (x + iy)^m with P^(m) the m-th derivative of the Legendre polynomial:
    polynomials in the unit vector, without trigonometry and regular at the poles. `work` holds
    P_l^(m) at row l(l+1)/2 + m, then the powers (real, imaginary) of x + iy.
    """
    base = (lmax + 1) * (lmax + 2) // 2
    x, yy, z = unit[0], unit[1], unit[2]
    for j in range(n):
        work[0, j] = 1.0
        work[base, j] = 1.0
        work[base + 1, j] = 0.0
    for m in range(1, lmax + 1):
        c0, s0, c1, s1 = base + 2 * m - 2, base + 2 * m - 1, base + 2 * m, base + 2 * m + 1
        for j in range(n):
            work[c1, j] = work[c0, j] * x[j] - work[s0, j] * yy[j]
            work[s1, j] = work[c0, j] * yy[j] + work[s0, j] * x[j]
    for ell in range(1, lmax + 1):
        row, below, second = ell * (ell + 1) // 2, ell * (ell - 1) // 2, (ell - 1) * (ell - 2) // 2
        for m in range(ell - 1):
            a = (2.0 * ell - 1.0) / (ell - m)
            b = (ell + m - 1.0) / (ell - m)
            for j in range(n):
                work[row + m, j] = a * z[j] * work[below + m, j] - b * work[second + m, j]
        diagonal = 2.0 * ell - 1.0
        for j in range(n):
            work[row + ell - 1, j] = diagonal * z[j] * work[below + ell - 1, j]
            work[row + ell, j] = diagonal * work[below + ell - 1, j]
    for ell in range(lmax + 1):
        row = ell * (ell + 1) // 2
        _fill_zonal(n, ell, norm[row], unit, inverse_r, work, y, dy)
        for m in range(1, ell + 1):
            _fill_pair(n, ell, m, base, norm[row + m], unit, inverse_r, work, y, dy)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _fill_zonal(
    n: int,
    ell: int,
    norm: float,
    unit: Floats,
    inverse_r: Floats,
    work: Floats,
    y: Floats,
    dy: Floats,
) -> None:
    """The m = 0 component of momentum `ell`."""
    row, p = ell * (ell + 1) // 2, ell * ell
    for j in range(n):
        y[p, j] = norm * work[row, j]
    if ell == 0:
        for j in range(n):
            dy[0, p, j] = 0.0
            dy[1, p, j] = 0.0
            dy[2, p, j] = 0.0
        return
    for j in range(n):
        gz = norm * work[row + 1, j] * inverse_r[j]
        radial = gz * unit[2, j]
        dy[0, p, j] = -radial * unit[0, j]
        dy[1, p, j] = -radial * unit[1, j]
        dy[2, p, j] = gz - radial * unit[2, j]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _fill_pair(
    n: int,
    ell: int,
    m: int,
    base: int,
    norm: float,
    unit: Floats,
    inverse_r: Floats,
    work: Floats,
    y: Floats,
    dy: Floats,
) -> None:
    """Real and imaginary component of m > 0."""
    row, p = ell * (ell + 1) // 2 + m, ell * ell + 2 * m - 1
    c1, s1, c0, s0 = base + 2 * m, base + 2 * m + 1, base + 2 * m - 2, base + 2 * m - 1
    top = m == ell
    for j in range(n):
        q = norm * work[row, j]
        y[p, j] = q * work[c1, j]
        y[p + 1, j] = q * work[s1, j]
        dq = 0.0 if top else norm * work[row + 1, j] * inverse_r[j]
        qm = q * m * inverse_r[j]
        ux, uy, uz = unit[0, j], unit[1, j], unit[2, j]
        gx, gy, gz = qm * work[c0, j], -qm * work[s0, j], dq * work[c1, j]
        radial = gx * ux + gy * uy + gz * uz
        dy[0, p, j] = gx - radial * ux
        dy[1, p, j] = gy - radial * uy
        dy[2, p, j] = gz - radial * uz
        gx, gy, gz = qm * work[s0, j], qm * work[c0, j], dq * work[s1, j]
        radial = gx * ux + gy * uy + gz * uz
        dy[0, p + 1, j] = gx - radial * ux
        dy[1, p + 1, j] = gy - radial * uy
        dy[2, p + 1, j] = gz - radial * uz


class Workspace(NamedTuple):
    """Per-atom scratch arrays, the last index is the neighbour."""

    r: Floats
    inverse_r: Floats
    unit: Floats
    value: Floats
    slope: Floats
    harmonic_work: Floats
    y: Floats
    dy: Floats


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def make_workspace(n_max: int, n_columns: int, lmax: int) -> Any:
    """Scratch for atoms with at most `n_max` neighbours."""
    n_y = (lmax + 1) * (lmax + 1)
    return Workspace(
        np.empty(n_max),
        np.empty(n_max),
        np.empty((3, n_max)),
        np.empty((n_columns, n_max)),
        np.empty((n_columns, n_max)),
        np.empty(((lmax + 1) * (lmax + 2) // 2 + 2 * lmax + 2, n_max)),
        np.empty((n_y, n_max)),
        np.empty((3, n_y, n_max)),
    )


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def fill_environment(
    i: int,
    type_i: int,
    n_types: int,
    first: Ints,
    vectors: Floats,
    tables: RadialTables,
    lmax: int,
    norm: Floats,
    ws: Workspace,
) -> int:
    """Distances, radial functions and harmonics of the neighbours of atom i; their number."""
    begin = first[i * n_types]
    n = int(first[(i + 1) * n_types] - begin)
    for j in range(n):
        x, y, z = vectors[0, begin + j], vectors[1, begin + j], vectors[2, begin + j]
        r = np.sqrt(x * x + y * y + z * z)
        inverse = 1.0 / r
        ws.r[j] = r
        ws.inverse_r[j] = inverse
        ws.unit[0, j] = x * inverse
        ws.unit[1, j] = y * inverse
        ws.unit[2, j] = z * inverse
    for t in range(n_types):
        start, stop = first[i * n_types + t] - begin, first[i * n_types + t + 1] - begin
        fill_radial(tables, type_i * n_types + t, start, stop, ws.r, ws.value, ws.slope)
    fill_harmonics(n, lmax, norm, ws.unit, ws.inverse_r, ws.harmonic_work, ws.y, ws.dy)
    return n


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def fill_density(
    i: int, type_i: int, n_types: int, first: Ints, runs: Runs, ws: Workspace, a: Floats
) -> None:
    """Real components of the atomic base A of atom i."""
    begin = first[i * n_types]
    for run in range(runs.offset[type_i], runs.offset[type_i + 1]):
        t = runs.species[run]
        start, stop = first[i * n_types + t] - begin, first[i * n_types + t + 1] - begin
        column, at = runs.column[run], runs.first[run]
        for p in range(runs.size[run]):
            total = 0.0
            for j in range(start, stop):
                total += ws.value[column, j] * ws.y[p, j]
            a[at + p] = total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def fill_products(type_i: int, graph: Graph, a: Floats, re: Floats, im: Floats) -> None:
    """Values of leaves and nodes of the product graph, then the number 1."""
    leaf0 = graph.leaf_offset[type_i]
    n_leaves = graph.leaf_offset[type_i + 1] - leaf0
    for q in range(n_leaves):
        re[q] = graph.sign_re[leaf0 + q] * a[graph.leaf_re[leaf0 + q]]
        k = graph.leaf_im[leaf0 + q]
        im[q] = graph.sign_im[leaf0 + q] * a[k] if k >= 0 else 0.0
    node0 = graph.node_offset[type_i]
    n_nodes = graph.node_offset[type_i + 1] - node0
    re[n_leaves + n_nodes], im[n_leaves + n_nodes] = 1.0, 0.0
    for k in range(n_nodes):
        u, v = graph.left[node0 + k], graph.right[node0 + k]
        re[n_leaves + k] = re[u] * re[v] - im[u] * im[v]
        im[n_leaves + k] = re[u] * im[v] + im[u] * re[v]
