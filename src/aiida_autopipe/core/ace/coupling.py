"""Coupling of angular momenta to zero: which products of A_lm a rotation-invariant function sums.

A function of rank r with momenta ls and intermediate momenta `lint` along the coupling tree
(2: l1 l2; 3: (12)L 3; 4: (12)L (34)L; 5: ((12)a (34)b)c 5) is

    B = sum_{m1 + ... + mr = 0} g(m1 .. mr) A_{l1 m1} ... A_{lr mr}

with g a product of Clebsch-Gordan coefficients. It is real because sum(ls) is even, so the terms m
and -m are complex conjugates and half of them suffice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from itertools import product
from math import factorial, sqrt

import numpy as np

Ms = tuple[int, ...]
Terms = tuple[tuple[Ms, float], ...]

MAX_RANK = 5
# Clebsch-Gordan products below this are zeros of the algebra, not small numbers.
_ZERO = 1e-12


@cache
def clebsch_gordan(l1: int, m1: int, l2: int, m2: int, big_l: int, big_m: int) -> float:
    """<l1 m1 l2 m2 | L M> for integer momenta (Condon-Shortley; Racah's formula)."""
    allowed = abs(l1 - l2) <= big_l <= l1 + l2 and m1 + m2 == big_m
    if not allowed or abs(m1) > l1 or abs(m2) > l2 or abs(big_m) > big_l:
        return 0.0
    f = factorial
    triangle = ((2 * big_l + 1) * f(big_l + l1 - l2) * f(big_l - l1 + l2) * f(l1 + l2 - big_l)) / f(
        l1 + l2 + big_l + 1
    )
    states = f(big_l + big_m) * f(big_l - big_m) * f(l1 - m1) * f(l1 + m1) * f(l2 - m2) * f(l2 + m2)
    first = max(0, l2 - big_l - m1, l1 + m2 - big_l)
    last = min(l1 + l2 - big_l, l1 - m1, l2 + m2)
    total = 0.0
    for k in range(first, last + 1):
        denominator = (f(k) * f(l1 + l2 - big_l - k) * f(l1 - m1 - k) * f(l2 + m2 - k)) * (
            f(big_l - l2 + m1 + k) * f(big_l - l1 - m2 + k)
        )
        total += (-1) ** k / denominator
    return sqrt(triangle * states) * total


def _tree(ls: Sequence[int], lint: Sequence[int], ms: Sequence[int]) -> float:
    """The coupling coefficient of one combination of m along the tree."""
    cg = clebsch_gordan
    if len(ls) == 1:
        return 1.0 if ls[0] == 0 else 0.0
    l1, l2, m1, m2 = ls[0], ls[1], ms[0], ms[1]
    if len(ls) == 2:
        return cg(l1, m1, l2, m2, 0, 0)
    a, m12 = lint[0], m1 + m2
    left = cg(l1, m1, l2, m2, a, m12)
    if left == 0.0:
        return 0.0
    if len(ls) == 3:
        return left * cg(a, m12, ls[2], ms[2], 0, 0)
    b, m34 = lint[1], ms[2] + ms[3]
    left *= cg(ls[2], ms[2], ls[3], ms[3], b, m34)
    if left == 0.0 or len(ls) == 4:
        return left * cg(a, m12, b, m34, 0, 0)
    c, m1234 = lint[2], m12 + m34
    return left * cg(a, m12, b, m34, c, m1234) * cg(c, m1234, ls[4], ms[4], 0, 0)


@cache
def half_terms(ls: tuple[int, ...], lint: tuple[int, ...]) -> Terms:
    """Non-zero (ms, g) with the first non-zero m positive, in ascending order of ms.

    Terms with any non-zero m stand for themselves and their complex conjugate: g is doubled.
    """
    terms = []
    for head in product(*(range(-ell, ell + 1) for ell in ls[:-1])):
        last = -sum(head)
        ms = (*head, last)
        if abs(last) > ls[-1] or next((m for m in ms if m), 0) < 0:
            continue
        g = _tree(ls, lint, ms)
        if abs(g) > _ZERO:
            terms.append((ms, 2 * g if any(ms) else g))
    return tuple(terms)


def merged_terms(factors: Sequence[Hashable], terms: Terms) -> Terms:
    """Add up the terms that differ by exchanging equal factors; unchanged when none do.

    `factors` holds one hashable label (element, n, l) per position. Merged terms have ascending m
    within equal factors and come in ascending order, the convention of .yace files.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for position, factor in enumerate(factors):
        groups[factor].append(position)
    merged: dict[Ms, float] = defaultdict(float)
    for ms, g in terms:
        ordered = list(ms)
        for positions in groups.values():
            for position, m in zip(positions, sorted(ms[p] for p in positions), strict=True):
                ordered[position] = m
        merged[tuple(ordered)] += g
    if len(merged) == len(terms):
        return terms
    return tuple(sorted(merged.items()))


def intermediate_momenta(ls: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All `lint` that couple `ls` (even sum, rank 1 to 5) to zero, in ascending order."""
    rank = len(ls)
    if rank == 1:
        if ls[0] == 0:
            yield ()
    elif rank == 2:
        if ls[0] == ls[1]:
            yield ()
    elif rank == 3:
        if abs(ls[0] - ls[1]) <= ls[2] <= ls[0] + ls[1]:
            yield (ls[2],)
    elif rank in (4, 5):
        for a in range(abs(ls[0] - ls[1]), ls[0] + ls[1] + 1):
            for b in range(abs(ls[2] - ls[3]), ls[2] + ls[3] + 1):
                if rank == 4 and a == b:
                    yield (a, b)
                elif rank == 5 and abs(a - b) <= ls[4] <= a + b:
                    yield (a, b, ls[4])
    else:
        raise ValueError(f"couplings are implemented for ranks 1 to {MAX_RANK}, not {rank}")


@cache
def independent_couplings(
    ls: tuple[int, ...], equal: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """The first `lint` whose functions are non-zero and linearly independent.

    `equal` labels positions: two positions with the same label and the same l carry the same A, so
    products that differ by exchanging them are one and the same. Without this choice the functions
    of repeated indices are dependent and the active set is singular.
    """
    factors = list(zip(equal, ls, strict=True))
    chosen: list[tuple[int, ...]] = []
    basis: list[dict[Ms, float]] = []
    for lint in intermediate_momenta(ls):
        vector = canonical_monomials(factors, half_terms(ls, lint))
        norm = sqrt(sum(value**2 for value in vector.values()))
        if norm < 1e-8:
            continue
        columns = sorted({key for row in [*basis, vector] for key in row})
        matrix = np.array([[row.get(key, 0.0) for key in columns] for row in [*basis, vector]])
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        if np.linalg.svd(matrix, compute_uv=False)[-1] > 1e-6:
            chosen.append(lint)
            basis.append(vector)
    return tuple(chosen)


def canonical_monomials(factors: Sequence[tuple[int, ...]], terms: Terms) -> dict[Ms, float]:
    """Weights by monomial: equal factors exchanged and complex conjugates folded together."""
    weights: dict[Ms, float] = defaultdict(float)
    for ms, g in terms:
        keys = []
        for sign in (1, -1):
            ordered = sorted(zip(factors, (sign * m for m in ms), strict=True))
            keys.append(tuple(m for _, m in ordered))
        weights[max(keys)] += g
    return {key: value for key, value in weights.items() if abs(value) > _ZERO}
