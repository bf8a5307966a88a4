import numpy as np
import pytest

from aiida_autopipe.core.ace.basis import Basis, build_basis
from aiida_autopipe.core.ace.functions import BasisSettings, coupled_function
from aiida_autopipe.core.ace.products import ONE, Centre


@pytest.fixture
def silicon():
    return build_basis(BasisSettings(("Si",), max_rank=4, max_functions=200))


def centre_of(basis):
    return basis._expansion.centres[0]


def evaluated(centre, leaves):
    """All values from those of the leaves."""
    values = [1.0 + 0j, *leaves]
    for u, v, sign in centre.nodes:
        values.append(values[u] * (values[v] if sign > 0 else np.conj(values[v])))
    return np.array(values)


def test_functions_are_their_products(silicon, rng):
    """Weighted products of two values against the sums over m that define the functions."""
    centre = centre_of(silicon)
    leaves = rng.normal(size=centre.n_leaves) + 1j * rng.normal(size=centre.n_leaves)
    real = [centre.is_real(leaf + 1) for leaf in range(centre.n_leaves)]
    leaves[real] = leaves[real].real
    values = evaluated(centre, leaves)
    columns = silicon._expansion.columns[0, 0]
    for function, compiled in zip(silicon.functions, centre.functions, strict=True):
        expected = 0.0
        for ms, weight in function.terms:
            product = 1.0 + 0j
            for (_, n, ell), m in zip(function.factors, ms, strict=True):
                leaf, step = centre._leaf[0, ell, columns.column(function.rank, n, ell)]
                a = values[leaf + step * abs(m)]
                product *= a if m >= 0 else (-1) ** m * np.conj(a)
            expected += weight * product.real
        found = sum(
            re * values[u].real * values[v].real + im * values[u].imag * values[v].imag
            for (u, v), (re, im) in compiled.weights.items()
        )
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_most_products_are_not_stored(silicon):
    centre = centre_of(silicon)
    assert len(centre.nodes) < len(centre.products) / 3
    assert all(u < centre.n_values and v < centre.n_values for u, v in centre.products)


def test_nodes_follow_what_they_are_made_of(silicon):
    centre = centre_of(silicon)
    for k, (u, v, sign) in enumerate(centre.nodes):
        assert max(u, v) <= centre.n_leaves + k
        assert sign in (1, -1)
        assert ONE not in (u, v)


def test_what_a_function_needs(silicon):
    centre = centre_of(silicon)
    for function, basis_function in zip(centre.functions, silicon.functions, strict=True):
        nodes, leaves = centre.needs(function)
        assert nodes == sorted(nodes, reverse=True)
        momenta = set(zip(basis_function.ns, basis_function.ls, strict=True))
        assert len(leaves) <= sum(ell + 1 for _, ell in momenta)
        slots = centre.slots(leaves, 1)[0]
        assert len(slots) <= sum(2 * ell + 1 for _, ell in momenta)


def test_a_rank_one_function_is_a_leaf():
    function = coupled_function(0, ((0, 1, 0),), ())
    centre = Centre([function], [[0]])
    assert centre.nodes == []
    assert list(centre.functions[0].weights) == [(ONE, 1)]


def test_element_without_functions(silicon):
    """A centre that no function describes has no products, whatever its neighbours."""
    bonds = {(i, j): silicon.bonds[0, 0] for i in (0, 1) for j in (0, 1)}
    basis = Basis(("Ge", "Si"), bonds, silicon.functions)
    assert basis._expansion.centres[1].n_values == 1
    assert basis.tables.graph.leaves.tolist() == [centre_of(silicon).n_leaves, 0]
