from itertools import product

import numpy as np
import pytest

from aiida_autopipe.core.ace import coupling
from tests.reference import ace_naive


@pytest.mark.parametrize(("l1", "l2"), list(product(range(5), repeat=2)))
def test_clebsch_gordan_against_ladder_operators(l1, l2):
    for big_l in range(abs(l1 - l2), l1 + l2 + 1):
        for (m1, m2, big_m), value in ace_naive.clebsch_gordan(l1, l2, big_l).items():
            assert coupling.clebsch_gordan(l1, m1, l2, m2, big_l, big_m) == pytest.approx(
                value, abs=1e-12
            )


def test_clebsch_gordan_outside_its_domain_is_zero():
    assert coupling.clebsch_gordan(1, 0, 1, 0, 3, 0) == 0
    assert coupling.clebsch_gordan(1, 2, 1, -2, 0, 0) == 0
    assert coupling.clebsch_gordan(1, 1, 1, 1, 2, 0) == 0


@pytest.mark.parametrize(
    ("ls", "lint"),
    [
        ((0,), ()),
        ((2, 2), ()),
        ((1, 2, 3), (3,)),
        ((1, 1, 2, 2), (2, 2)),
        ((1, 1, 1, 2, 1), (1, 2, 1)),
        ((1, 1, 1, 1, 1, 1), (1, 2, 1, 1)),
        ((1, 2, 1, 0, 2, 2), (2, 1, 1, 1)),
    ],
)
def test_half_of_the_terms_stand_for_all(ls, lint):
    terms = dict(coupling.half_terms(ls, lint))
    for ms in product(*(range(-ell, ell + 1) for ell in ls)):
        g = ace_naive.coupling(ls, lint, ms) if sum(ms) == 0 else 0.0
        opposite = tuple(-m for m in ms)
        if not any(ms):
            assert terms.get(ms, 0.0) == pytest.approx(g)
        else:
            assert terms.get(ms, 0.0) + terms.get(opposite, 0.0) == pytest.approx(2 * g)


def number_of_invariants(ls, equal):
    """Dimension of the symmetric rotation-invariant functions, by characters.

    Averages over SO(3) the trace of the product of Wigner matrices, symmetrised over permutations
    of equal factors; class angle integrals are exact with enough quadrature points.
    """
    angles = (np.arange(200) + 0.5) * np.pi / 200
    weights = 2 / 200 * np.sin(angles / 2) ** 2
    labels = list(zip(equal, ls, strict=True))
    total = np.ones_like(angles)
    for label in set(labels):
        total = total * symmetric_character(label[1], labels.count(label), angles)
    return round(float(np.sum(total * weights)))


def symmetric_character(ell, n, angles):
    """Character of the n-th symmetric power of momentum ell, by Newton's recursion."""
    powers = [sum(np.cos(m * k * angles) for m in range(-ell, ell + 1)) for k in range(n + 1)]
    h = [np.ones_like(angles)]
    for k in range(1, n + 1):
        h.append(sum(powers[i] * h[k - i] for i in range(1, k + 1)) / k)
    return h[n]


@pytest.mark.parametrize(
    ("ls", "equal"),
    [
        ((1, 1), (0, 0)),
        ((1, 1, 2), (0, 0, 0)),
        ((2, 2, 2), (0, 0, 0)),
        ((1, 1, 1, 1), (0, 0, 0, 0)),
        ((1, 1, 1, 1), (0, 0, 1, 1)),
        ((1, 1, 1, 1), (0, 1, 2, 3)),
        ((2, 2, 2, 2), (0, 0, 0, 0)),
        ((2, 2, 2, 2), (0, 0, 0, 1)),
        ((3, 3, 3, 3), (0, 0, 0, 0)),
        ((1, 1, 2, 2), (0, 0, 0, 0)),
        ((4, 4, 4, 4), (0, 0, 0, 0)),
        ((1, 1, 1, 1, 2), (0, 0, 0, 0, 0)),
        ((2, 2, 2, 2, 2), (0, 0, 0, 0, 0)),
        ((1, 1, 2, 2, 2), (0, 0, 0, 0, 0)),
        ((1, 1, 1, 2, 3), (0, 0, 1, 1, 2)),
        ((1, 1, 1, 1, 1, 1), (0, 1, 2, 3, 4, 5)),
        ((1, 1, 1, 1, 1, 1), (0, 0, 0, 0, 0, 0)),
        ((1, 1, 1, 1, 2, 2), (0, 0, 1, 1, 2, 2)),
    ],
)
def test_number_of_independent_couplings(ls, equal):
    assert len(coupling.independent_couplings(ls, equal)) == number_of_invariants(ls, equal)


def test_intermediate_momenta_of_unknown_rank():
    with pytest.raises(ValueError, match="not 7"):
        list(coupling.intermediate_momenta((1,) * 7))


def test_merging_equal_factors():
    terms = coupling.half_terms((1, 1, 1, 1), (0, 0))
    merged = coupling.merged_terms("aaaa", terms)
    assert [ms for ms, _ in merged] == [(-1, -1, 1, 1), (-1, 0, 0, 1), (0, 0, 0, 0)]
    assert coupling.merged_terms("abcd", terms) is terms


@pytest.mark.parametrize(("l1", "l2"), list(product(range(7), repeat=2)))
def test_zeros_of_the_recursion_are_zeros_of_the_algebra(l1, l2):
    for m1, m2 in product(range(-l1, l1 + 1), range(-l2, l2 + 1)):
        for big_l in coupling.rounding_zeros(l1, m1, l2, m2):
            assert coupling.clebsch_gordan(l1, m1, l2, m2, big_l, m1 + m2) == pytest.approx(
                0, abs=1e-15
            )


def test_zeros_that_rounding_hides():
    """<l1 m1 l2 m2 | L M> that vanish, but are 1e-17 in ML-PACE and count there (recorded)."""
    for l1, m1, l2, m2, big_l in (
        (2, -1, 4, -2, 5),
        (3, -2, 3, 2, 2),
        (3, -2, 3, 1, 3),
        (3, -2, 4, 1, 4),
        (3, -2, 5, 1, 5),
    ):
        assert coupling.clebsch_gordan(l1, m1, l2, m2, big_l, m1 + m2) == pytest.approx(
            0, abs=1e-15
        )
        assert big_l not in coupling.rounding_zeros(l1, m1, l2, m2)
    assert 1 in coupling.rounding_zeros(1, 0, 1, 0)
    assert coupling.rounding_zeros(1, 1, 1, 1) == frozenset()


@pytest.mark.parametrize(
    ("ls", "order"),
    [
        ((1, 1, 1, 1), [0, 1, 2]),
        ((3, 3, 1, 3), [2, 3, 4]),
        ((2, 4, 1, 5), [4, 5, 6]),
    ],
)
def test_order_of_couplings_that_share_their_indices(ls, order):
    """The order of the columns in ML-PACE (recorded); true zeros would exchange some of them."""
    keys = {a: coupling.column_key(ls, (a, a)) for a in order}
    assert sorted(keys, key=lambda a: keys[a]) == order


def test_column_key_lists_the_first_m_fastest():
    assert coupling.column_key((1, 1), ()) == (2, (1, -1, 0, 0))
    number, ms = coupling.column_key((1, 1, 1, 1), (2, 2))
    assert number == len(coupling.half_terms((1, 1, 1, 1), (2, 2))) == len(ms) // 4
