"""Coupling of angular momenta to zero: which products of A_lm a rotation-invariant function sums.

A function of rank r with momenta ls and intermediate momenta `lint` along the coupling tree
(2: l1 l2; 3: (12)L 3; 4: (12)L (34)L; 5: ((12)a (34)b)c 5; 6: (56)c ((12)a (34)b)c) is

    B = sum_{m1 + ... + mr = 0} g(m1 .. mr) A_{l1 m1} ... A_{lr mr}

with g a product of Clebsch-Gordan coefficients. It is real because sum(ls) is even, so the terms m
and -m are complex conjugates and half of them suffice. Drautz, PRB 99, 014104 (2019); Bochkarev et
al., PRMaterials 6, 013804 (2022).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from itertools import product
from math import copysign, factorial, inf, sqrt

import numpy as np

Ms = tuple[int, ...]
Terms = tuple[tuple[Ms, float], ...]

MAX_RANK = 6
# Clebsch-Gordan products below this are zeros of the algebra, not small numbers.
_ZERO = 1e-12
# Per rank the pairs that couple: factors are 0 .. r - 1, the results r, r + 1, ... in turn, with
# the momenta `lint` and 0 for the last.
_TREES: dict[int, tuple[tuple[int, int], ...]] = {
    1: (),
    2: ((0, 1),),
    3: ((0, 1), (3, 2)),
    4: ((0, 1), (2, 3), (4, 5)),
    5: ((0, 1), (2, 3), (5, 6), (7, 4)),
    6: ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9)),
}


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
    if len(ls) == 1:
        return 1.0 if ls[0] == 0 else 0.0
    momenta, sums, value = (*ls, *lint, 0), list(ms), 1.0
    for node, (i, j) in enumerate(_TREES[len(ls)], start=len(ls)):
        sums.append(sums[i] + sums[j])
        value *= clebsch_gordan(momenta[i], sums[i], momenta[j], sums[j], momenta[node], sums[node])
        if value == 0.0:
            return 0.0
    return value


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
    """All `lint` that couple `ls` (even sum, rank 1 to 6) to zero, in ascending order."""
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
    elif rank in (4, 5, 6):
        for a in range(abs(ls[0] - ls[1]), ls[0] + ls[1] + 1):
            for b in range(abs(ls[2] - ls[3]), ls[2] + ls[3] + 1):
                if rank == 4 and a == b:
                    yield (a, b)
                elif rank == 5 and abs(a - b) <= ls[4] <= a + b:
                    yield (a, b, ls[4])
                elif rank == 6:
                    first = max(abs(a - b), abs(ls[4] - ls[5]))
                    for c in range(first, min(a + b, ls[4] + ls[5]) + 1):
                        yield (a, b, c, c)
    else:
        raise ValueError(f"couplings are implemented for ranks 1 to {MAX_RANK}, not {rank}")


@cache
def rounding_zeros(l1: int, m1: int, l2: int, m2: int) -> frozenset[int]:
    """Momenta L at which <l1 m1 l2 m2 | L m1 + m2> is exactly zero in floating-point recursion.

    ML-PACE gets its coefficients for all L at once by the recursion of Luscombe and Luban (Phys.
    Rev. E 57, 7274 (1998)) in doubles, and keeps every product whose coefficient is not exactly
    zero. A zero of the algebra that comes out as 1e-17 stays there: worthless, but it counts in the
    order of the functions (`column_key`). This follows the recursion up to the zeros.
    """
    low, high, m = max(abs(l1 - l2), abs(m1 + m2)), l1 + l2, m1 + m2
    if low == high:
        return frozenset()

    def root(j: int) -> float:
        if low == 0:
            return sqrt((high + 1 + j) * (high + 1 - j))
        return sqrt((j**2 - (l1 - l2) ** 2) * ((high + 1) ** 2 - j**2) * (j**2 - m**2))

    # x f(j + 1) + y f(j) + z f(j - 1) = 0; for low = 0 a factor j (j + 1) has cancelled.
    js = range(low, high + 1)
    if low == 0:
        x, z = [(j + 1) * root(j + 1) for j in js[:-1]], [j * root(j) for j in js]
        y = [float((2 * j + 1) * (m2 - m1)) for j in js]
    else:
        x, z = [j * root(j + 1) for j in js[:-1]], [(j + 1) * root(j) for j in js]
        shift = -m * (l1 * (l1 + 1) - l2 * (l2 + 1))
        y = [float((2 * j + 1) * (j * (j + 1) * (m2 - m1) - shift)) for j in js]
    top = len(js) - 1
    bottom, below = 0, 0.0
    if y[top] != 0:
        ratio = -z[top] / y[top]
        top -= 1
        while top > 0:
            ratio = _quotient(-z[top], y[top] + x[top] * ratio)
            if abs(ratio) > 1:
                break
            top -= 1
    if top > 0 and y[0] != 0:
        below = -x[0] / y[0]
        bottom = 1
        while bottom < top:
            ratio = _quotient(-x[bottom], y[bottom] + z[bottom] * below)
            if abs(ratio) > 1:
                break
            below = ratio
            bottom += 1
    # Between the two regions where ratios shrink, the three-term recursion can cancel to zero.
    zeros, here = set(), 1.0
    for k in range(bottom, top):
        numerator = -y[k] * here - (z[k] * below if k > 0 else 0.0)
        below, here = here, numerator / x[k]
        if here == 0.0:
            zeros.add(low + k + 1)
    return frozenset(zeros)


def _quotient(a: float, b: float) -> float:
    return a / b if b else copysign(inf, a)


@cache
def column_key(ls: tuple[int, ...], lint: tuple[int, ...]) -> tuple[int, Ms]:
    """Number and list of the m that ML-PACE keeps for a coupling, the first m running fastest.

    Functions with equal elements, n and l stand in this order in ML-PACE and therefore in the
    columns of an active set.
    """
    momenta, kept = (*ls, *lint, 0), []
    for tail in product(*(range(-ell, ell + 1) for ell in ls[:0:-1])):
        ms = (-sum(tail), *tail[::-1])
        if abs(ms[0]) > ls[0] or next((m for m in ms if m), 0) < 0:
            continue
        sums = list(ms)
        for node, (i, j) in enumerate(_TREES[len(ls)], start=len(ls)):
            sums.append(sums[i] + sums[j])
            if abs(sums[node]) > momenta[node] or momenta[node] in rounding_zeros(
                momenta[i], sums[i], momenta[j], sums[j]
            ):
                break
        else:
            kept.append(ms)
    return len(kept), tuple(m for ms in kept for m in ms)


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
        weights[canonical_ms(factors, ms)] += g
    return {key: value for key, value in weights.items() if abs(value) > _ZERO}


def canonical_ms(factors: Sequence[tuple[int, ...]], ms: Ms) -> Ms:
    """The m of all products with the same real part, for the factors in ascending order."""
    return max(
        tuple(m for _, m in sorted(zip(factors, (sign * m for m in ms), strict=True)))
        for sign in (1, -1)
    )
