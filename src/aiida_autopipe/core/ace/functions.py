"""Basis functions, bonds and the rules that decide which functions a basis holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.ace.coupling import (
    MAX_RANK,
    Terms,
    column_key,
    half_terms,
    independent_couplings,
)
from aiida_autopipe.core.ace.radial import RadialSpec
from aiida_autopipe.core.errors import InputError

# Radial index n and momentum l never exceed this; a file that asks for more is broken or hostile.
LARGEST_INDEX = 64


@dataclass(frozen=True)
class BasisFunction:
    """One function of the basis.

    mu0: centre type; per factor mus: element type, ns: radial index (1-based: g_n for rank 1, R_nl
    above), ls: momentum; lint: intermediate momenta of the coupling tree; terms: its products
    (ms, weight), half of each complex-conjugate pair with doubled weight.
    """

    mu0: int
    mus: tuple[int, ...]
    ns: tuple[int, ...]
    ls: tuple[int, ...]
    lint: tuple[int, ...]
    terms: Terms = field(repr=False)

    @property
    def rank(self) -> int:
        return len(self.ns)

    @property
    def factors(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(zip(self.mus, self.ns, self.ls, strict=True))

    @property
    def index_key(self) -> tuple[object, ...]:
        """All indices but the intermediate momenta: what functions are sorted by first."""
        return (self.mu0, self.rank, self.mus, self.ns, self.ls)


def column_order(functions: Sequence[BasisFunction]) -> list[int]:
    """Positions of the functions in ML-PACE's order, hence that of the columns of an active set.

    Sorted by centre, rank, elements, n and l; functions that differ in the intermediate momenta
    alone by `column_key`. Functions without them (C-tilde) keep their order.
    """
    keys = [function.index_key for function in functions]
    shared = Counter(keys)

    def full_key(k: int) -> tuple[object, ...]:
        function = functions[k]
        if shared[keys[k]] == 1 or not function.lint:
            return (*keys[k], ())
        return (*keys[k], column_key(function.ls, function.lint))

    return sorted(range(len(functions)), key=full_key)


def coupled_function(
    mu0: int, factors: tuple[tuple[int, int, int], ...], lint: tuple[int, ...]
) -> BasisFunction:
    """B function from its indices; `factors` are (element type, n, l)."""
    mus, ns, ls = (tuple(column) for column in zip(*factors, strict=True))
    return BasisFunction(mu0, mus, ns, ls, lint, half_terms(ls, lint))


@dataclass(frozen=True, eq=False)
class Bond:
    """Radial functions of an ordered pair of elements.

    `coefficients` (nradmax, lmax + 1, nradbase): R_nl = sum_k coefficients[n, l, k] g_k.
    `absent`: a B-basis file has no block for this pair; the centre does not see the neighbour.
    """

    radial: RadialSpec
    coefficients: NDArray[np.float64]
    absent: bool = False

    @property
    def nradmax(self) -> int:
        return int(self.coefficients.shape[0])

    @property
    def lmax(self) -> int:
        return int(self.coefficients.shape[1]) - 1

    def equals(self, other: Bond) -> bool:
        """Whether both have the same radial functions, down to the last digit."""
        same = np.array_equal(self.coefficients, other.coefficients)
        return same and self.radial == other.radial


@dataclass(frozen=True)
class BasisSettings:
    """Which linear ACE basis to build.

    elements: chemical symbols; cutoff: Å; radial, lambda_: radial basis and its shape parameter;
    max_rank: largest number of factors (correlation order), 1 to 6; max_functions: per element;
    nradmax, lmax: largest n and l per rank (first entry: rank 1, where l = 0);
    l_weight, rank_cost: functions are taken in order of sum(n + l_weight l) + rank_cost (rank - 2),
    the last term from rank 3 on: a larger rank_cost spends them on resolution, a smaller one on
    correlations of many neighbours;
    inner_cutoff, inner_width: Å, radial functions go to zero within [inner_cutoff - inner_width,
    inner_cutoff], 0 for none.
    """

    elements: tuple[str, ...]
    cutoff: float = 5.0
    radial: str = "ChebExpCos"
    lambda_: float = 2.0
    max_rank: int = 4
    max_functions: int = 300
    nradmax: tuple[int, ...] = (20, 14, 12, 8, 6, 4)
    lmax: tuple[int, ...] = (0, 12, 10, 8, 6, 4)
    l_weight: float = 0.5
    rank_cost: float = 0.0
    outer_width: float = 0.01
    inner_cutoff: float = 0.0
    inner_width: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(sorted(self.elements)))
        object.__setattr__(self, "nradmax", tuple(int(n) for n in self.nradmax))
        object.__setattr__(self, "lmax", tuple(int(n) for n in self.lmax))
        self._check_elements()
        if not (np.isfinite(self.cutoff) and self.cutoff > 0):
            raise InputError(f"cutoff = {self.cutoff} Å: the cutoff must be a positive length.")
        if not 1 <= self.max_rank <= MAX_RANK:
            raise InputError(f"max_rank = {self.max_rank}: ranks 1 to {MAX_RANK} are possible.")
        if self.max_functions < 1:
            raise InputError(f"max_functions = {self.max_functions}: at least 1 is needed.")
        if not (np.isfinite(self.l_weight) and self.l_weight > 0):
            raise InputError(f"l_weight = {self.l_weight}: the weight must be positive.")
        if not (np.isfinite(self.rank_cost) and self.rank_cost >= 0):
            raise InputError(f"rank_cost = {self.rank_cost}: the cost must not be negative.")
        for name, values, least in (("nradmax", self.nradmax, 1), ("lmax", self.lmax, 0)):
            if len(values) < self.max_rank:
                raise InputError(
                    f"{name} has {len(values)} entries; max_rank = {self.max_rank} needs as many."
                )
            if min(values) < least or max(values) > LARGEST_INDEX:
                raise InputError(
                    f"{name} = {list(values)}: entries between {least} and {LARGEST_INDEX} only."
                )

    def _check_elements(self) -> None:
        if not self.elements or len(set(self.elements)) != len(self.elements):
            raise InputError(f"elements = {list(self.elements)}: one or more, each once.")
        for element in self.elements:
            if element not in atomic_numbers or element == "X":
                raise InputError(f"'{element}' is not a chemical element; check its spelling.")


def enumerate_functions(settings: BasisSettings) -> list[BasisFunction]:
    """Functions of all centre types in order of their degree, `max_functions` per element.

    Only non-zero, linearly independent functions with even sum of l appear.
    """
    limit, wanted = 0.0, settings.max_functions
    largest = max(
        rank * (settings.nradmax[rank - 1] + settings.l_weight * settings.lmax[rank - 1])
        + settings.rank_cost * max(rank - 2, 0)
        for rank in range(1, settings.max_rank + 1)
    )
    chosen: list[tuple[float, BasisFunction]] = []
    while len(chosen) < wanted and limit < largest:
        limit += 1.0
        chosen = [
            item
            for rank in range(1, settings.max_rank + 1)
            for item in _functions_of_rank(settings, rank, limit)
        ]
    chosen.sort(key=lambda item: (round(item[0], 9), *_tie_break(item[1])))
    functions = [function for _, function in chosen[:wanted]]
    return [
        replace(function, mu0=mu0)
        for mu0 in range(len(settings.elements))
        for function in functions
    ]


def _tie_break(function: BasisFunction) -> tuple[object, ...]:
    return function.rank, function.ns, function.ls, function.lint, function.mus


def _functions_of_rank(
    settings: BasisSettings, rank: int, limit: float
) -> Iterator[tuple[float, BasisFunction]]:
    """(degree, function with mu0 = 0) of one rank up to a degree."""
    extra = settings.rank_cost * max(rank - 2, 0)
    particles = [
        (mu, n, ell)
        for mu in range(len(settings.elements))
        for n in range(1, settings.nradmax[rank - 1] + 1)
        for ell in range((settings.lmax[rank - 1] if rank > 1 else 0) + 1)
    ]
    degrees = [n + settings.l_weight * ell for _, n, ell in particles]
    least = min(degrees)

    def extend(start: int, left: float, chosen: list[int]) -> Iterator[list[int]]:
        if len(chosen) == rank:
            yield chosen
            return
        reserve = least * (rank - len(chosen) - 1)
        for index in range(start, len(particles)):
            if degrees[index] <= left - reserve + 1e-9:
                yield from extend(index, left - degrees[index], [*chosen, index])

    for indices in extend(0, limit - extra, []):
        factors = tuple(particles[index] for index in indices)
        ls = tuple(ell for _, _, ell in factors)
        if sum(ls) % 2:
            continue
        labels = {key: k for k, key in enumerate(dict.fromkeys((mu, n) for mu, n, _ in factors))}
        equal = tuple(labels[mu, n] for mu, n, _ in factors)
        for lint in independent_couplings(ls, equal):
            degree = extra + sum(degrees[index] for index in indices)
            yield degree, coupled_function(0, factors, lint)
