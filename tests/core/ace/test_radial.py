from itertools import pairwise

import numpy as np
import pytest

from aiida_autopipe.core.ace.radial import (
    RadialSpec,
    core_repulsion,
    inner_step,
    radial_functions,
)
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


@pytest.mark.parametrize("inner_type", ["distance", "density", "zbl"])
@pytest.mark.parametrize("name", NAMES)
def test_what_each_inner_cutoff_does_to_the_functions(name, inner_type):
    """distance: a smooth step; density: a hard one at its lower end; zbl: nothing."""
    r = np.linspace(0.5, 2.0, 7)
    plain = radial_functions(RadialSpec(5.0, 4, name=name), r)[0]
    spec = RadialSpec(5.0, 4, name=name, inner_cutoff=1.6, inner_width=0.6, inner_type=inner_type)
    factor = {
        "distance": 1 - np.array([ace_naive.step(x, 1.6, 0.6) for x in r]),
        "density": (r > 1.0).astype(float),
        "zbl": np.ones_like(r),
    }[inner_type]
    np.testing.assert_allclose(radial_functions(spec, r)[0], plain * factor[:, None], atol=1e-12)


def test_zbl_without_width_cuts_at_one_angstrom():
    spec = RadialSpec(5.0, 3, inner_type="zbl", inner_cutoff=2.0)
    g, dg = radial_functions(spec, np.array([0.9, 1.0, 1.1]))
    assert not g[:2].any()
    assert not dg[:2].any()
    np.testing.assert_allclose(g[2], radial_functions(RadialSpec(5.0, 3), np.array([1.1]))[0][0])


def test_names_of_placeholders():
    """TEST_... are zero functions in ML-PACE, but TEST_SBessel."""
    r = np.linspace(0.5, 4.5, 9)
    assert not radial_functions(RadialSpec(5.0, 3, name="TEST_BesselFirst"), r)[0].any()
    one, other = (
        radial_functions(RadialSpec(5.0, 3, name=n), r) for n in ("SBessel", "TEST_SBessel")
    )
    np.testing.assert_array_equal(one, other)


CORES = {
    "density": RadialSpec(4.5, 1, core_repulsion=(80.0, 1.3), inner_type="density"),
    "distance": RadialSpec(4.5, 1, core_repulsion=(-80.0, -1.3), inner_cutoff=1.5, inner_width=0.6),
    "zbl": RadialSpec(4.5, 1, core_repulsion=(0.8, 1.0), outer_width=0.7, inner_type="zbl"),
    "zbl hard end": RadialSpec(4.5, 1, core_repulsion=(1.0, 1.0), outer_width=0, inner_type="zbl"),
}


@pytest.mark.parametrize("name", CORES)
def test_core_repulsion(name):
    spec, r, h = CORES[name], np.array([0.3, 0.7, 1.0, 1.3, 1.7, 2.9, 3.7, 3.9, 4.3, 4.49]), 1e-6
    value, slope = core_repulsion(spec, r, (8, 14))
    numeric = (
        core_repulsion(spec, r + h, (8, 14))[0] - core_repulsion(spec, r - h, (8, 14))[0]
    ) / (2 * h)
    np.testing.assert_allclose(slope, numeric, rtol=1e-7, atol=1e-8)
    if name == "zbl hard end":
        shift = core_repulsion(CORES[name], np.array([4.4999999]), (8, 14))[0]
        assert abs(shift[0]) < 1e-7
        return
    gaussian = [ace_naive.core_repulsion(x, 80.0, 1.3, 4.5) for x in r]
    expected = {
        "density": gaussian,
        "distance": [g * ace_naive.step(x, 1.5, 0.6) for x, g in zip(r, gaussian, strict=True)],
        "zbl": [0.8 * ace_naive.zbl(x, 8, 14, 4.5, 0.7) for x in r],
    }[name]
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-9)


def test_zbl_close_to_the_bare_nuclei():
    """At a hundredth of the screening length the screening is known to first order."""
    r = np.array([1e-3])
    value = core_repulsion(
        RadialSpec(4.5, 1, core_repulsion=(1.0, 0.0), inner_type="zbl"), r, (1, 1)
    )
    assert value[0][0] == pytest.approx(14.399645 / 2 / 1e-3, rel=0.01)


def test_core_repulsion_decays_and_ends():
    r = np.linspace(0.2, 4.5, 50)
    for spec in CORES.values():
        value, _ = core_repulsion(spec, r, (29, 29))
        assert all(a >= b - 1e-12 for a, b in pairwise(value))
        assert value[-1] == 0
    # Gaussians are cut where they are 2e-22 of their height.
    spec = RadialSpec(8.0, 1, core_repulsion=(1.0, 1.0), inner_type="density")
    assert core_repulsion(spec, np.array([7.08]), (1, 1))[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name": "Gaussian"},
            "radbase.*Gaussian.*known are ChebExpCos, ChebPow, ChebLinear, SBessel",
        ),
        ({"cutoff": 0.0}, "cutoff rcut = 0.0"),
        ({"cutoff": np.nan}, "rcut"),
        ({"cutoff": 1e9}, "100 Å at most"),
        ({"n_functions": 0}, "nradbase = 0"),
        ({"inner_type": "energy"}, "inner_cutoff_type 'energy'.*distance, density, zbl"),
        ({"outer_width": -0.1}, "dcut = -0.1"),
        ({"inner_cutoff": -1.0}, "rcut_in.* = -1.0"),
        ({"inner_width": np.inf}, "dcut_in.* = inf"),
        ({"lambda_": 0.0}, "radparameters"),
    ],
)
def test_unsupported_is_refused(change, message):
    with pytest.raises(PotentialFileError, match=message):
        RadialSpec(**{"cutoff": 5.0, "n_functions": 3, **change})
