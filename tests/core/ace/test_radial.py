import numpy as np
import pytest

from aiida_autopipe.core.ace.radial import RadialSpec, inner_step, radial_functions
from aiida_autopipe.core.errors import PotentialFileError
from tests.reference import ace_naive

NAMES = ("ChebExpCos", "ChebPow", "ChebLinear", "SBessel")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inner", [(0.0, 0.0), (1.5, 0.6)])
def test_derivatives(name, inner):
    spec = RadialSpec(
        5.0, 7, name=name, lambda_=3.0, outer_width=0.5, inner_cutoff=inner[0], inner_width=inner[1]
    )
    r, h = np.linspace(0.4, 4.97, 101), 1e-6
    value, slope = radial_functions(spec, r)
    numeric = (radial_functions(spec, r + h)[0] - radial_functions(spec, r - h)[0]) / (2 * h)
    assert value.shape == slope.shape == (101, 7)
    np.testing.assert_allclose(slope, numeric, atol=2e-7)


def test_cheb_exp_cos_against_its_formula():
    spec = RadialSpec(5.0, 8, outer_width=0.3)
    r = np.linspace(0.1, 4.99, 37)
    expected = [[ace_naive.cheb_exp_cos(n, x, 5.0, 5.25, 0.3) for n in range(1, 9)] for x in r]
    np.testing.assert_allclose(radial_functions(spec, r)[0], expected, atol=1e-12)


def test_radial_bessel_functions_are_orthonormal():
    r = np.linspace(0, 5, 20001)
    g, _ = radial_functions(RadialSpec(5.0, 6, name="SBessel"), r)
    overlap = np.trapezoid(g[:, :, None] * g[:, None, :] * (r**2)[:, None, None], r, axis=0)
    np.testing.assert_allclose(overlap, np.eye(6), atol=1e-6)


@pytest.mark.parametrize("name", ["ChebExpCos", "ChebPow", "SBessel"])
def test_smooth_at_the_cutoff(name):
    g, dg = radial_functions(RadialSpec(5.0, 6, name=name), np.array([5.0 - 1e-9, 5.0, 5.1]))
    assert np.abs(g).max() < 1e-7
    assert np.abs(dg[0]).max() < 1e-4


def test_inner_step_goes_from_one_to_zero():
    value, slope = inner_step(np.array([0.5, 1.0, 1.25, 1.5, 2.0]), 1.5, 0.5)
    np.testing.assert_allclose(value, [1, 1, 0.5, 0, 0], atol=1e-15)
    np.testing.assert_allclose(slope[[0, 1, 3, 4]], 0, atol=1e-15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Gaussian"}, "radbase.*Gaussian"),
        ({"cutoff": 0.0}, "cutoff rcut = 0.0"),
        ({"cutoff": np.nan}, "rcut"),
        ({"n_functions": 0}, "nradbase = 0"),
        ({"core_repulsion": (100.0, 2.0)}, r"core-repulsion.*\[100.0, 2.0\]"),
        ({"inner_cutoff": 1.0, "inner_type": "zbl"}, "inner_cutoff_type 'zbl'"),
    ],
)
def test_unsupported_is_refused(change, message):
    with pytest.raises(PotentialFileError, match=message):
        RadialSpec(**{"cutoff": 5.0, "n_functions": 3, **change})


def test_lambda_zero_is_refused():
    with pytest.raises(PotentialFileError, match="radparameters"):
        radial_functions(RadialSpec(5.0, 3, lambda_=0.0), np.array([1.0]))
