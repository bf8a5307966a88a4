"""From a list of basis functions to the flat arrays the kernels work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import factorial, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.functions import BasisFunction, Bond
from aiida_autopipe.core.ace.kernels import Graph, RadialTables, Runs, Terms
from aiida_autopipe.core.ace.radial import radial_functions

Pair = tuple[int, int]
# (element type, radial column, l, m): one atomic base function; m may be negative.
_Leaf = tuple[int, int, int, int]


class Tables(NamedTuple):
    """All arrays of one basis; `value_offset` counts leaves and nodes per centre type."""

    radial: RadialTables
    runs: Runs
    graph: Graph
    terms: Terms
    norm: NDArray[np.float64]
    lmax: int
    value_offset: NDArray[np.int64]


def compile_tables(
    n_types: int,
    bonds: Mapping[Pair, Bond],
    functions: Sequence[BasisFunction],
    spline_bins: float,
) -> Tables:
    """Compile functions sorted by centre type, with Hermite tables of spacing `spline_bins` Å."""
    columns = {pair: _Columns(bond) for pair, bond in bonds.items()}
    centres = [_Centre(mu0) for mu0 in range(n_types)]
    for function in functions:
        centres[function.mu0].add(function, columns)
    for centre in centres:
        centre.close()
    lmax = max((ell for f in functions for ell in f.ls), default=0)
    graph, value_offset = _graph(centres)
    return Tables(
        radial=_radial_tables(n_types, bonds, columns, spline_bins),
        runs=_runs(centres),
        graph=graph,
        terms=_terms(centres),
        norm=harmonic_norm(lmax),
        lmax=lmax,
        value_offset=value_offset,
    )


def harmonic_norm(lmax: int) -> NDArray[np.float64]:
    """(-1)^m sqrt((2l + 1)(l - m)!/(l + m)!) at l(l + 1)/2 + m: the norm of sqrt(4 pi) Y_lm."""
    return np.array(
        [
            (-1) ** m * sqrt((2 * ell + 1) * factorial(ell - m) / factorial(ell + m))
            for ell in range(lmax + 1)
            for m in range(ell + 1)
        ]
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


# Stands for the graph index of the number 1 until the graph is complete.
_UNIT = -1


def _ordered(first: int, second: int) -> Pair:
    return (first, second) if first >= second else (second, first)


@dataclass
class _Function:
    """Terms of one function as graph indices, before flattening.

    entries: weights by (leaf, two graph indices with the product of the other factors).
    """

    values: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    entries: dict[tuple[int, int, int], float] = field(default_factory=dict)


class _Centre:
    """Leaves, nodes and functions of one centre type."""

    def __init__(self, mu0: int) -> None:
        self.mu0 = mu0
        self.leaves: dict[_Leaf, int] = {}
        self.nodes: dict[Pair, int] = {}
        self.functions: list[_Function] = []
        self._pending: list[dict[tuple[_Leaf, ...], float]] = []

    def add(self, function: BasisFunction, columns: Mapping[Pair, _Columns]) -> None:
        """Fold the terms of `function` into weights of distinct products."""
        labels = [
            (mu, columns[self.mu0, mu].column(function.rank, n, ell), ell)
            for mu, n, ell in function.factors
        ]
        products: dict[tuple[_Leaf, ...], float] = {}
        for ms, weight in function.terms:
            # A product and its complex conjugate (all m reversed) have the same real part.
            plus = tuple(sorted((*label, m) for label, m in zip(labels, ms, strict=True)))
            minus = tuple(sorted((*label, -m) for label, m in zip(labels, ms, strict=True)))
            key = max(plus, minus)
            products[key] = products.get(key, 0.0) + weight
        largest = max((abs(weight) for weight in products.values()), default=0.0)
        kept = {key: w for key, w in products.items() if abs(w) > 1e-13 * largest}
        for key in kept:
            for leaf in key:
                self.leaves.setdefault(leaf, len(self.leaves))
        self._pending.append(kept)

    def close(self) -> None:
        """Number leaves (all before the nodes) and build nodes and functions."""
        for products in self._pending:
            function = _Function()
            for key, weight in products.items():
                leaves = tuple(self.leaves[leaf] for leaf in key)
                function.values.append(self._value(leaves))
                function.weights.append(weight)
                for k, leaf in enumerate(leaves):
                    entry = (leaf, *self._rest(leaves, k))
                    function.entries[entry] = function.entries.get(entry, 0.0) + weight
            self.functions.append(function)

    def _value(self, leaves: tuple[int, ...]) -> int:
        """Graph index of a product: ((1 2)(3 4)) 5, shared wherever a part occurs again."""
        if len(leaves) == 1:
            return leaves[0]
        if len(leaves) == 4:
            return self._node(self._value(leaves[:2]), self._value(leaves[2:]))
        return self._node(self._value(leaves[:-1]), leaves[-1])

    def _rest(self, leaves: tuple[int, ...], k: int) -> Pair:
        """Two graph indices whose product is that of all leaves but the k-th; _UNIT stands for 1.

        All parts exist already but, for rank 5, pair times leaf.
        """
        if len(leaves) == 1:
            return _UNIT, _UNIT
        if len(leaves) == 2:
            return _ordered(leaves[1 - k], _UNIT)
        if k == len(leaves) - 1 and len(leaves) != 4:
            return _ordered(self._value(leaves[:-1]), _UNIT)
        pair = 2 * (k // 2)
        partner = leaves[pair + 1 - k % 2]
        others = leaves[:pair] + leaves[pair + 2 :]
        return _ordered(partner, self._value(others))

    def _node(self, left: int, right: int) -> int:
        return self.nodes.setdefault((left, right), len(self.leaves) + len(self.nodes))

    @property
    def n_values(self) -> int:
        """Number of leaves and nodes; the graph index of the number 1."""
        return len(self.leaves) + len(self.nodes)

    @property
    def run_sizes(self) -> dict[Pair, int]:
        """Real components of each (element type, column): (largest l + 1)^2."""
        sizes: dict[Pair, int] = {}
        for mu, column, ell, _ in self.leaves:
            sizes[mu, column] = max(sizes.get((mu, column), 0), (ell + 1) ** 2)
        return dict(sorted(sizes.items()))

    def components(self) -> list[tuple[int, int]]:
        """Per leaf the real components (Re, Im or -1) of its A with |m|."""
        first, at = {}, 0
        for run, size in self.run_sizes.items():
            first[run], at = at, at + size
        result = []
        for mu, column, ell, m in self.leaves:
            base = first[mu, column] + ell * ell
            result.append((base + 2 * abs(m) - 1, base + 2 * abs(m)) if m else (base, -1))
        return result


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def _int(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64).reshape(-1)


def _runs(centres: Sequence[_Centre]) -> Runs:
    species, column, size, first, totals = [], [], [], [], []
    for centre in centres:
        at = 0
        for (mu, col), n in centre.run_sizes.items():
            species.append(mu)
            column.append(col)
            size.append(n)
            first.append(at)
            at += n
        totals.append(at)
    offset = _offsets([len(centre.run_sizes) for centre in centres])
    return Runs(offset, _int(species), _int(column), _int(size), _int(first), _int(totals))


def _graph(centres: Sequence[_Centre]) -> tuple[Graph, NDArray[np.int64]]:
    components = [pair for centre in centres for pair in centre.components()]
    ms = [leaf[3] for centre in centres for leaf in centre.leaves]
    signs = [_signs(m) for m in ms]
    nodes = [node for centre in centres for node in centre.nodes]
    graph = Graph(
        leaf_offset=_offsets([len(centre.leaves) for centre in centres]),
        leaf_re=_int([pair[0] for pair in components]),
        leaf_im=_int([pair[1] for pair in components]),
        sign_re=np.array([sign for sign, _ in signs]),
        sign_im=np.array([sign for _, sign in signs]),
        node_offset=_offsets([len(centre.nodes) for centre in centres]),
        left=_int([node[0] for node in nodes]),
        right=_int([node[1] for node in nodes]),
    )
    return graph, _offsets([len(centre.leaves) + len(centre.nodes) for centre in centres])


def _signs(m: int) -> tuple[float, float]:
    """Factors of real and imaginary part in A_{l,-m} = (-1)^m conj(A_lm); 1, 1 for m >= 0."""
    if m >= 0:
        return 1.0, 1.0
    return (-1.0) ** m, -((-1.0) ** m)


def _terms(centres: Sequence[_Centre]) -> Terms:
    value, weight, counts = [], [], []
    slot_counts, slot_component, slot_species = [], [], []
    entry_counts, rows, weights = [], [], []
    for centre in centres:
        components = centre.components()
        leaves = list(centre.leaves)
        for function in centre.functions:
            touched = sorted(
                {
                    (leaves[leaf][0], component)
                    for leaf, _, _ in function.entries
                    for component in components[leaf]
                    if component >= 0
                }
            )
            slots = {component: k for k, (_, component) in enumerate(touched)}
            slots[-1] = len(touched)
            for (leaf, left, right), w in function.entries.items():
                sign_re, sign_im = _signs(leaves[leaf][3])
                re, im = components[leaf]
                parts = [centre.n_values if k == _UNIT else k for k in (left, right)]
                rows.append([*parts, slots[re], slots[im]])
                weights.append([w * sign_re, -w * sign_im])
            counts.append(len(function.values))
            value += function.values
            weight += function.weights
            entry_counts.append(len(function.entries))
            slot_counts.append(len(touched))
            slot_component += [component for _, component in touched]
            slot_species += [mu for mu, _ in touched]
    entries = np.array(rows, dtype=np.int64).reshape(-1, 4).T.copy()
    entry_weights = np.array(weights, dtype=np.float64).reshape(-1, 2).T.copy()
    return Terms(
        function_offset=_offsets([len(centre.functions) for centre in centres]),
        term_offset=_offsets(counts),
        value=_int(value),
        weight=np.array(weight, dtype=np.float64),
        slot_offset=_offsets(slot_counts),
        slot_component=_int(slot_component),
        slot_species=_int(slot_species),
        entry_offset=_offsets(entry_counts),
        left=entries[0],
        right=entries[1],
        slot_re=entries[2],
        slot_im=entries[3],
        weight_re=entry_weights[0],
        weight_im=entry_weights[1],
    )


def _radial_tables(
    n_types: int,
    bonds: Mapping[Pair, Bond],
    columns: Mapping[Pair, _Columns],
    spline_bins: float,
) -> RadialTables:
    """Cubic Hermite tables with int(rc / spline_bins) intervals, the grid ML-PACE uses."""
    n_columns = max(1, *(len(column.index) for column in columns.values()))
    bins, widths, cutoffs, nodes = [], [], [], []
    for pair in ((i, j) for i in range(n_types) for j in range(n_types)):
        spec = bonds[pair].radial
        n = max(1, int(spec.cutoff / spline_bins))
        width = spec.cutoff / n
        g, dg = radial_functions(spec, np.linspace(0.0, spec.cutoff, n + 1))
        mix = np.array(list(columns[pair].index), dtype=np.float64)
        mix = mix.reshape(-1, spec.n_functions)
        block = np.zeros((n + 1, 2, n_columns))
        block[:, 0, : len(mix)] = g @ mix.T
        block[:, 1, : len(mix)] = dg @ mix.T * width
        bins.append(n)
        widths.append(1.0 / width)
        cutoffs.append(spec.cutoff)
        nodes.append(block)
    return RadialTables(
        first=_offsets([len(block) for block in nodes])[:-1],
        bins=_int(bins),
        inverse_width=np.array(widths),
        cutoff=np.array(cutoffs),
        nodes=np.concatenate(nodes),
    )
