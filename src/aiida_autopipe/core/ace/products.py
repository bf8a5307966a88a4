"""From the functions of one centre type to values and their products, see `kernels`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import combinations

from aiida_autopipe.core.ace.functions import BasisFunction
from aiida_autopipe.core.ace.lanes import LANES

# A product of A or of their conjugates: codes 2 leaf + (1 if conjugated), ascending.
Codes = tuple[int, ...]
# (neighbour type, l): the radial columns of these leaves.
Channel = tuple[int, int]
ONE = 0


@dataclass(frozen=True)
class Tile:
    """Leaves `leaf` + width m + column of up to `width` radial columns with one l."""

    species: int
    ell: int
    width: int
    columns: tuple[int, ...]
    leaf: int


@dataclass
class Function:
    """Weights (Re Re, Im Im) of a function by pairs of values."""

    weights: dict[tuple[int, int], list[float]] = field(default_factory=dict)


class Centre:
    """Tiles, values, products and functions of one centre type.

    functions: of this centre; columns: radial column of each of their factors.
    """

    def __init__(
        self, functions: Sequence[BasisFunction], columns: Sequence[Sequence[int]]
    ) -> None:
        channels: dict[Channel, set[int]] = {}
        for function, mine in zip(functions, columns, strict=True):
            for mu, ell, column in zip(function.mus, function.ls, mine, strict=True):
                channels.setdefault((mu, ell), set()).add(column)
        self.tiles = list(_tiles(channels))
        self.n_leaves = sum(tile.width * (tile.ell + 1) for tile in self.tiles)
        # First leaf and step by m of every (element type, l, column).
        self._leaf = {
            (tile.species, tile.ell, column): (tile.leaf + k, tile.width)
            for tile in self.tiles
            for k, column in enumerate(tile.columns)
        }
        self._is_real = [True] * (self.n_leaves + 1)
        self._species = [-1] * (self.n_leaves + 1)
        for tile in self.tiles:
            for k in range(tile.width * (tile.ell + 1)):
                self._is_real[tile.leaf + k] = k < tile.width
                self._species[tile.leaf + k] = tile.species
        self.nodes: list[tuple[int, int, int]] = []
        self._node_of: dict[Codes, tuple[int, bool]] = {}
        self._known: dict[Codes, tuple[Codes, bool]] = {}
        sums = [self._folded(f, mine) for f, mine in zip(functions, columns, strict=True)]
        products = dict.fromkeys(codes for one in sums for codes in one)
        self._popularity = self._count_pairs(products)
        pairs = {codes: self._split(codes) for codes in sorted(products, key=len)}
        self.functions = [_function(one, pairs) for one in sums]
        self._known.clear()

    def _folded(self, function: BasisFunction, columns: Sequence[int]) -> dict[Codes, float]:
        """The terms of `function` as weights of distinct products."""
        starts = [
            self._leaf[mu, ell, column]
            for mu, ell, column in zip(function.mus, function.ls, columns, strict=True)
        ]
        products: dict[Codes, float] = {}
        for ms, weight in function.terms:
            codes = tuple(
                [
                    2 * (leaf + step * abs(m)) + (m < 0)
                    for (leaf, step), m in zip(starts, ms, strict=True)
                ]
            )
            # A_{l,-m} = (-1)^m conj(A_lm)
            if sum(m for m in ms if m < 0) % 2:
                weight = -weight
            key = self._canonical(codes)[0]
            products[key] = products.get(key, 0.0) + weight
        largest = max((abs(weight) for weight in products.values()), default=0.0)
        return {key: w for key, w in products.items() if abs(w) > 1e-13 * largest}

    def _canonical(self, codes: Codes) -> tuple[Codes, bool]:
        """A product or its complex conjugate, whichever comes first, and whether it is the latter:
        both have the same real part."""
        known = self._known.get(codes)
        if known is None:
            real = self._is_real
            plain = tuple(sorted(codes))
            other = tuple(sorted([code if real[code >> 1] else code ^ 1 for code in plain]))
            known = self._known[codes] = (plain, False) if plain <= other else (other, True)
        return known

    def _count_pairs(self, products: Iterable[Codes]) -> Counter[Codes]:
        """In how many products of three or more factors each pair of factors occurs."""
        return Counter(
            pair
            for codes in products
            if len(codes) > 2
            for pair in {self._canonical(pair)[0] for pair in combinations(codes, 2)}
        )

    def _split(self, codes: Codes) -> tuple[int, int, int, bool]:
        """The two values u <= v of a product, the sign of -Im u Im v, and whether that is void.

        Among all ways to halve the product it takes the one that needs the fewest new nodes and,
        among these, pairs that many other products have too.
        """
        if len(codes) == 1:
            (u, cu), (v, cv) = (ONE, False), self._value(codes)
        elif len(codes) == 2:
            (u, cu), (v, cv) = self._value(codes[:1]), self._value(codes[1:])
        else:
            halves = [
                (tuple([codes[k] for k in some]), tuple([codes[k] for k in rest]))
                for some, rest in _halves(len(codes))
            ]
            left, right = min(halves, key=self._cost)
            (u, cu), (v, cv) = self._value(left), self._value(right)
        void = self._is_real[u] or self._is_real[v]
        return min(u, v), max(u, v), 1 if cu == cv else -1, void

    def _cost(self, halves: tuple[Codes, Codes]) -> tuple[int, int]:
        """New nodes that two halves need, and minus the popularity of their pairs."""
        needed: dict[Codes, None] = {}
        popularity = 0
        for half in halves:
            while len(half) > 1:
                key = self._canonical(half)[0]
                if key in self._node_of or key in needed:
                    break
                needed[key] = None
                popularity += self._popularity[key]
                half = self._pair(half) if len(half) > 2 else ()
        return len(needed), -popularity

    def _pair(self, codes: Codes) -> Codes:
        """The pair of factors that makes the first node of a product of three."""
        pairs = combinations(codes, 2)
        return min(pairs, key=lambda pair: self._cost((pair, ())))

    def _value(self, codes: Codes) -> tuple[int, bool]:
        """Index of the value of a product of up to three factors, or of its conjugate (True)."""
        if len(codes) == 1:
            return codes[0] >> 1, bool(codes[0] & 1)
        key, flipped = self._canonical(codes)
        if key not in self._node_of:
            first = key[:1] if len(key) == 2 else self._pair(key)
            rest = list(key)
            for code in first:
                rest.remove(code)
            (u, cu), (v, cv) = self._value(first), self._value(tuple(rest))
            if cu and not cv:
                u, v = v, u
            self._node_of[key] = self.n_leaves + 1 + len(self.nodes), cu and cv
            self.nodes.append((u, v, 1 if cu == cv else -1))
            self._is_real.append(self._is_real[u] and self._is_real[v])
        index, conjugated = self._node_of[key]
        return index, conjugated != flipped

    @property
    def n_values(self) -> int:
        """1, the leaves and the nodes."""
        return 1 + self.n_leaves + len(self.nodes)

    @cached_property
    def products(self) -> dict[tuple[int, int], int]:
        """Number of every pair of values that some function weighs."""
        pairs = (pair for function in self.functions for pair in function.weights)
        return {pair: k for k, pair in enumerate(dict.fromkeys(pairs))}

    def is_real(self, value: int) -> bool:
        """Whether the imaginary part of a value is zero."""
        return self._is_real[value]

    def needs(self, function: Function) -> tuple[list[int], list[int]]:
        """Nodes (numbers, descending) and leaves (ascending) that a function depends on."""
        pending = {value for pair in function.weights for value in pair}
        nodes: set[int] = set()
        leaves: set[int] = set()
        while pending:
            value = pending.pop()
            if value > self.n_leaves:
                node = value - self.n_leaves - 1
                nodes.add(node)
                pending.update(self.nodes[node][:2])
            elif value != ONE:
                leaves.add(value)
        return sorted(nodes, reverse=True), sorted(leaves)

    def slots(self, leaves: Iterable[int], n_types: int) -> list[list[int]]:
        """Places of the real numbers of leaves in an array of values, by neighbour type."""
        result: list[list[int]] = [[] for _ in range(n_types)]
        for leaf in leaves:
            places = [2 * LANES * leaf, (2 * leaf + 1) * LANES]
            result[self._species[leaf]] += places[:1] if self._is_real[leaf] else places
        return result


@cache
def _halves(rank: int) -> list[tuple[Codes, Codes]]:
    """All ways to part factors into halves of equal size or of sizes that differ by one."""
    halves = []
    for some in combinations(range(rank), rank // 2):
        if rank % 2 or 0 in some:
            halves.append((some, tuple(k for k in range(rank) if k not in some)))
    return halves


def _tiles(channels: Mapping[Channel, set[int]]) -> Iterable[Tile]:
    """Tiles of LANES columns; what is left fills another one or, if few, goes column by column."""
    leaf = ONE + 1
    for (species, ell), used in sorted(channels.items()):
        columns = sorted(used)
        while columns:
            width = LANES if len(columns) > LANES // 2 else 1
            tile = Tile(species, ell, width, tuple(columns[:width]), leaf)
            yield tile
            leaf += width * (ell + 1)
            columns = columns[width:]


def _function(
    products: Mapping[Codes, float], pairs: Mapping[Codes, tuple[int, int, int, bool]]
) -> Function:
    """Weights of the real part u v* or u v: Re u Re v +- Im u Im v."""
    function = Function()
    for codes, weight in products.items():
        u, v, sign, void = pairs[codes]
        sums = function.weights.setdefault((u, v), [0.0, 0.0])
        sums[0] += weight
        sums[1] -= 0.0 if void else sign * weight
    return function
