"""From a list of basis functions to the flat arrays the kernels work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from math import factorial, prod, sqrt
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.ace.functions import BasisFunction, Bond
from aiida_autopipe.core.ace.kernels import (
    Derivatives,
    Graph,
    Harmonics,
    RadialTables,
    Sums,
    Tables,
    Terms,
    Tiles,
)
from aiida_autopipe.core.ace.lanes import LANES
from aiida_autopipe.core.ace.products import Centre, Function
from aiida_autopipe.core.ace.radial import core_repulsion, radial_functions
from aiida_autopipe.core.errors import PotentialFileError

Pair = tuple[int, int]
# Doubles in all radial tables together (1 GB); a file that asks for more is broken or hostile.
_LARGEST_TABLE = 2**27


class Expansion(NamedTuple):
    """Radial columns of every bond and products of every centre type."""

    columns: dict[Pair, _Columns]
    centres: list[Centre]


def expand(
    n_types: int, bonds: Mapping[Pair, Bond], functions: Sequence[BasisFunction]
) -> Expansion:
    """Find the columns and products that functions, sorted by centre type, are made of."""
    columns = {pair: _Columns(bond) for pair, bond in bonds.items()}
    centres = []
    for mu0 in range(n_types):
        mine = [function for function in functions if function.mu0 == mu0]
        centres.append(Centre(mine, [_factor_columns(function, columns) for function in mine]))
    return Expansion(columns, centres)


def compile_tables(
    elements: Sequence[str], bonds: Mapping[Pair, Bond], expansion: Expansion, spline_bins: float
) -> Tables:
    """Arrays for values of functions and energies, with Hermite tables of spacing `spline_bins` Å.

    Raises PotentialFileError when the tables would be huge or not finite.
    """
    centres = expansion.centres
    return Tables(
        n_types=len(elements),
        n_products=sum(len(centre.products) for centre in centres),
        n_values=max(centre.n_values for centre in centres),
        radial=_radial_tables(elements, bonds, expansion.columns, spline_bins),
        harmonics=harmonics(max((t.ell for c in centres for t in c.tiles), default=0)),
        tiles=_tiles(centres),
        graph=_graph(centres),
        terms=_terms(centres),
        sums=_sums(centres),
    )


class _Columns:
    """Distinct radial functions of a bond, as vectors over g_k; filled on demand."""

    def __init__(self, bond: Bond) -> None:
        self.bond = bond
        self.index: dict[tuple[float, ...], int] = {}

    def column(self, rank: int, n: int, ell: int) -> int:
        if rank == 1:
            vector = np.eye(self.bond.radial.n_functions)[n - 1]
        else:
            vector = self.bond.coefficients[n - 1, ell]
        return self.index.setdefault(tuple(vector.tolist()), len(self.index))


def _factor_columns(function: BasisFunction, columns: Mapping[Pair, _Columns]) -> list[int]:
    return [
        columns[function.mu0, mu].column(function.rank, n, ell) for mu, n, ell in function.factors
    ]


def harmonics(lmax: int) -> Harmonics:
    """Recursion of N_lm times the m-th derivative of the Legendre polynomial, with the norm of
    sqrt(4 pi) Y_lm, N_lm = (-1)^m sqrt((2l + 1)(l - m)!/(l + m)!)."""

    def norm(ell: int, m: int) -> float:
        size = sqrt((2 * ell + 1) * factorial(ell - m) / factorial(ell + m))
        return -size if m % 2 else size

    pairs = [(ell, m) for m in range(lmax + 1) for ell in range(m, lmax + 1)]
    up, down, ratio = np.zeros(len(pairs)), np.zeros(len(pairs)), np.zeros(len(pairs))
    for k, (ell, m) in enumerate(pairs):
        if ell > m:
            up[k] = norm(ell, m) / norm(ell - 1, m) * (2 * ell - 1) / (ell - m)
            ratio[k] = norm(ell, m) / norm(ell, m + 1)
        if ell > m + 1:
            down[k] = norm(ell, m) / norm(ell - 2, m) * (ell + m - 1) / (ell - m)
    diagonal = [norm(m, m) * prod(range(1, 2 * m, 2)) for m in range(lmax + 1)]
    return Harmonics(lmax, np.array(diagonal), up, down, ratio)


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def _int(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64).reshape(-1)


def _index(values: Sequence[int]) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32).reshape(-1)


def _tiles(centres: Sequence[Centre]) -> Tiles:
    pairs = [(centre, t) for centre in centres for t in range(len(centres))]
    counts = [sum(tile.species == t for tile in centre.tiles) for centre, t in pairs]
    tiles = [tile for centre in centres for tile in centre.tiles]
    columns = [(tile.columns + tile.columns[:1] * LANES)[:LANES] for tile in tiles]
    return Tiles(
        offset=_offsets(counts),
        ell=_int([tile.ell for tile in tiles]),
        width=_int([tile.width for tile in tiles]),
        columns=np.array(columns, dtype=np.int64).reshape(-1, LANES),
        leaf=_int([tile.leaf for tile in tiles]),
    )


def _graph(centres: Sequence[Centre]) -> Graph:
    nodes = np.array([node for c in centres for node in c.nodes], dtype=np.int64).reshape(-1, 3)
    begin, middle, other, product = [0], [], [], []
    n_products = 0
    for centre in centres:
        pairs = np.array(list(centre.products), dtype=np.int64).reshape(-1, 2)
        real = np.array([centre.is_real(u) or centre.is_real(v) for u, v in pairs], dtype=np.int64)
        rows, others = pairs.T.reshape(-1), pairs.T[::-1].reshape(-1)
        reals, numbers = np.tile(real, 2), np.tile(np.arange(len(pairs)), 2)
        order = np.lexsort((others, reals, rows))
        counts = np.bincount(rows, minlength=centre.n_values)
        complex_counts = np.bincount(rows[reals == 0], minlength=centre.n_values)
        ends = begin[-1] + np.cumsum(counts)
        middle += (ends - counts + complex_counts).tolist()
        begin += ends.tolist()
        other.append(others[order])
        product.append(numbers[order] + n_products)
        n_products += len(pairs)
    return Graph(
        leaves=_int([centre.n_leaves for centre in centres]),
        node_offset=_offsets([len(centre.nodes) for centre in centres]),
        left=nodes[:, 0].astype(np.int32),
        right=nodes[:, 1].astype(np.int32),
        sign=nodes[:, 2].astype(np.float64),
        row_offset=_offsets([centre.n_values for centre in centres]),
        begin=_int(begin),
        middle=_int(middle),
        other=np.concatenate(other).astype(np.int32),
        product=np.concatenate(product).astype(np.int32),
    )


def _terms(centres: Sequence[Centre]) -> Terms:
    rows, counts, real_counts = [], [], []
    first_product = 0
    for centre in centres:
        for function in centre.functions:
            mine = [
                (centre.is_real(u) or centre.is_real(v), u, v, re, im, centre.products[u, v])
                for (u, v), (re, im) in function.weights.items()
            ]
            rows += [(*row[1:5], row[5] + first_product) for row in sorted(mine)]
            counts.append(len(mine))
            real_counts.append(sum(row[0] for row in mine))
        first_product += len(centre.products)
    table = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    offset = _offsets(counts)
    return Terms(
        function_offset=_offsets([len(centre.functions) for centre in centres]),
        term_offset=offset,
        term_middle=offset[1:] - _int(real_counts),
        u=table[0].astype(np.int32),
        v=table[1].astype(np.int32),
        re=table[2].copy(),
        im=table[3].copy(),
        product=table[4].astype(np.int32),
    )


def _sums(centres: Sequence[Centre]) -> Sums:
    place: list[int] = []
    rows: list[tuple[int, int, float]] = []
    group_counts, counts = [], []
    first_function = 0
    for centre in centres:
        parts = [_products_of_numbers(function) for function in centre.functions]
        order = sorted(range(len(parts)), key=lambda f: len(parts[f]))
        group_counts.append(-(-len(order) // LANES))
        for start in range(0, len(order), LANES):
            group = order[start : start + LANES]
            fill = LANES - len(group)
            place += [first_function + f for f in group] + [-1] * fill
            mine = [parts[f] for f in group] + [[]] * fill
            counts.append(max(len(part) for part in mine))
            for several in zip_longest(*mine, fillvalue=(0, 0, 0.0)):
                rows += several
        first_function += len(parts)
    table = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return Sums(
        group_offset=_offsets(group_counts),
        function=_int(place),
        term_offset=_offsets(counts),
        left=table[0].astype(np.int32),
        right=table[1].astype(np.int32),
        weight=table[2].copy(),
    )


def _products_of_numbers(function: Function) -> list[tuple[int, int, float]]:
    """Places of two real or two imaginary parts in the array of values, and their weight."""
    return [
        (2 * LANES * u + part * LANES, 2 * LANES * v + part * LANES, weights[part])
        for part in (0, 1)
        for (u, v), weights in function.weights.items()
        if weights[part]
    ]


def compile_derivatives(expansion: Expansion) -> Derivatives:
    """Arrays for derivatives of single functions."""
    centres, n_types = expansion.centres, len(expansion.centres)
    place: list[int] = []
    values: list[list[int]] = []
    nodes: list[list[int]] = []
    group_counts, slot_offset, slots = [], [0], []
    first_node = 0
    for centre in centres:
        needs = [centre.needs(function) for function in centre.functions]
        parts = [centre.slots(leaves, n_types) for _, leaves in needs]
        order = sorted(range(len(needs)), key=lambda f: [len(part) for part in parts[f]])
        group_counts.append(-(-len(order) // LANES))
        first_function = len(place) - place.count(-1)
        for start in range(0, len(order), LANES):
            group = order[start : start + LANES]
            fill = LANES - len(group)
            place += [first_function + f for f in group] + [-1] * fill
            for f in group:
                mine, leaves = needs[f]
                values.append([*leaves, *(centre.n_leaves + 1 + node for node in mine)])
                nodes.append([node + first_node for node in mine])
            values += [[]] * fill
            nodes += [[]] * fill
            for t in range(n_types):
                ranges = [parts[f][t] for f in group] + [[]] * fill
                slots += list(zip_longest(*ranges, fillvalue=0))
                slot_offset.append(len(slots))
        first_node += len(centre.nodes)
    group_offset = _offsets(group_counts)
    return Derivatives(
        n_slots=int(np.diff(np.array(slot_offset)[group_offset * n_types]).max()),
        group_offset=group_offset,
        function=_int(place),
        value_offset=_offsets([len(mine) for mine in values]),
        value=_index([value for mine in values for value in mine]),
        node_offset=_offsets([len(mine) for mine in nodes]),
        node=_index([node for mine in nodes for node in mine]),
        slot_offset=_int(slot_offset),
        slot=np.array(slots, dtype=np.int32).reshape(-1, LANES),
    )


def _radial_tables(
    elements: Sequence[str],
    bonds: Mapping[Pair, Bond],
    columns: Mapping[Pair, _Columns],
    spline_bins: float,
) -> RadialTables:
    """Cubic Hermite tables with int(rc / spline_bins) intervals, the grid ML-PACE uses.

    The grid is computed as ML-PACE does, down to rounding: where a function jumps, as ChebLinear
    does at the cutoff, it decides on which side of the jump a node lies.
    """
    pairs = [(i, j) for i in range(len(elements)) for j in range(len(elements))]
    n_columns = max(1, *(len(column.index) for column in columns.values()))
    core = n_columns if any(bonds[pair].radial.has_core_repulsion for pair in pairs) else -1
    width = -(-(n_columns + (core >= 0)) // LANES) * LANES
    bins = [max(1, int(bonds[pair].radial.cutoff / spline_bins)) for pair in pairs]
    if 2 * width * sum(n + 1 for n in bins) > _LARGEST_TABLE:
        raise PotentialFileError(
            f"The radial tables need {sum(bins)} rows of {2 * width} numbers, which is too much; "
            "use a larger deltaSplineBins."
        )
    nodes = []
    for pair, n in zip(pairs, bins, strict=True):
        spec = bonds[pair].radial
        step = 1.0 / (n / spec.cutoff)
        r: NDArray[np.float64] = step * np.arange(n + 1.0)
        block = np.zeros((n + 1, 2, width))
        with np.errstate(all="ignore"):
            g, dg = radial_functions(spec, r)
        mix = np.array(list(columns[pair].index), dtype=np.float64)
        mix = mix.reshape(-1, spec.n_functions)
        block[:, 0, : len(mix)] = g @ mix.T
        block[:, 1, : len(mix)] = dg @ mix.T * step
        if core >= 0 and spec.has_core_repulsion:
            numbers = atomic_numbers[elements[pair[0]]], atomic_numbers[elements[pair[1]]]
            value, slope = core_repulsion(spec, r[1:], numbers)
            # Infinite at zero: the first interval goes on as a straight line.
            block[1:, 0, core], block[1:, 1, core] = value, slope * step
            block[0, :, core] = value[0] - slope[0] * step, slope[0] * step
        if not np.isfinite(block).all():
            raise PotentialFileError(
                f"The radial functions of {elements[pair[0]]} and {elements[pair[1]]} are not "
                f"finite; radparameters [{spec.lambda_}] may be out of range."
            )
        nodes.append(block)
    # For the places in blocks of neighbours that none takes.
    nodes.append(np.zeros((2, 2, width)))
    return RadialTables(
        first=_offsets([len(block) for block in nodes])[:-2],
        bins=_int(bins),
        inverse_width=np.array(
            [n / bonds[pair].radial.cutoff for pair, n in zip(pairs, bins, strict=True)]
        ),
        cutoff=np.array([bonds[pair].radial.cutoff for pair in pairs]),
        nodes=np.concatenate(nodes),
        empty=sum(bins) + len(bins),
        core=core,
    )
