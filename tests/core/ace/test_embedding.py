import dataclasses

import numpy as np
import pytest

from aiida_autopipe.core.ace import embedding as module
from aiida_autopipe.core.ace.embedding import FINNIS_SINCLAIR, SHIFTED_SCALED, Embedding
from aiida_autopipe.core.ace.radial import inner_step
from aiida_autopipe.core.errors import PotentialFileError
from tests.reference import ace_naive

KINDS = (FINNIS_SINCLAIR, SHIFTED_SCALED)
EXPONENTS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0)
RHO = np.concatenate([np.geomspace(1e-4, 1e3, 40), -np.geomspace(1e-4, 1e3, 40)])


@pytest.mark.parametrize("npoti", KINDS)
@pytest.mark.parametrize("m", EXPONENTS)
def test_energy_against_its_formula(npoti, m):
    energies = Embedding((1.3, m), npoti).energy(RHO[:, None])
    expected = [1.3 * ace_naive.embedding(rho, m, npoti) for rho in RHO]
    np.testing.assert_allclose(energies, expected, rtol=1e-12)


@pytest.mark.parametrize("npoti", KINDS)
@pytest.mark.parametrize("m", EXPONENTS)
def test_derivatives(npoti, m):
    """Central differences; steps follow the size of rho, where the functions vary."""
    embedding, rho, h = Embedding((-0.7, m), npoti), RHO[:, None], 1e-5 * np.abs(RHO)
    up, down = rho + h[:, None], rho - h[:, None]
    slope = (embedding.energy(up) - embedding.energy(down)) / (2 * h)
    np.testing.assert_allclose(embedding.derivative(rho)[:, 0], slope, rtol=1e-7)
    curvature = (embedding.derivative(up) - embedding.derivative(down))[:, 0] / (2 * h)
    second = embedding.second_derivative(rho)[:, 0]
    np.testing.assert_allclose(second, curvature, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("m", EXPONENTS)
def test_finnis_sinclair_near_zero(m):
    """Where |rho|^m turns into a straight line, about 1e-6, and below 1e-10."""
    embedding = Embedding((1.0, m), FINNIS_SINCLAIR)
    rho = np.array([[0.0], [5e-11], [1e-7], [8e-7], [2e-6], [4e-6], [-8e-7]])
    h = 1e-4 * np.abs(rho[2:, 0])
    up, down = rho[2:] + h[:, None], rho[2:] - h[:, None]
    slope = (embedding.energy(up) - embedding.energy(down)) / (2 * h)
    np.testing.assert_allclose(embedding.derivative(rho)[2:, 0], slope, rtol=1e-6)
    curvature = (embedding.derivative(up) - embedding.derivative(down))[:, 0] / (2 * h)
    scale = embedding.derivative(rho)[0, 0] / 1e-6
    np.testing.assert_allclose(
        embedding.second_derivative(rho)[2:, 0], curvature, rtol=1e-5, atol=1e-5 * scale
    )
    np.testing.assert_allclose(embedding.derivative(rho)[:2, 0], 1e6 ** (1 - m), rtol=1e-3)
    assert embedding.energy(rho)[0] == 0
    assert embedding.second_derivative(rho)[0, 0] == 0


@pytest.mark.parametrize("npoti", KINDS)
def test_grows_like_a_power(npoti):
    rho = np.array([[1e4], [-1e4]])
    np.testing.assert_allclose(Embedding((2.0, 0.5), npoti).energy(rho), [200, -200], rtol=1e-12)


def test_exponent_one_is_linear():
    for npoti in KINDS:
        embedding = Embedding((2.0, 1.0, -0.5, 1.0), npoti)
        rho = np.array([[1.5, 3.0], [-2.0, 1e-9]])
        np.testing.assert_allclose(embedding.energy(rho), rho @ [2.0, -0.5], rtol=1e-12)
        assert embedding.is_linear
    assert not Embedding((1.0, 1.0, 1.0, 0.5)).is_linear
    assert Embedding().is_linear


def test_densities_add_up():
    embedding = Embedding((1.0, 1.0, 0.7, 0.5, -2.0, 1.5))
    rho = np.random.default_rng(0).normal(size=(5, 3))
    single = [Embedding((w, m)) for w, m in ((1.0, 1.0), (0.7, 0.5), (-2.0, 1.5))]
    expected = sum(one.energy(rho[:, [p]]) for p, one in enumerate(single))
    np.testing.assert_allclose(embedding.energy(rho), expected, rtol=1e-13)
    assert embedding.derivative(rho).shape == embedding.second_derivative(rho).shape == (5, 3)


@pytest.mark.parametrize("npoti", KINDS)
@pytest.mark.parametrize("m", EXPONENTS)
def test_kernel_is_the_same_function(npoti, m):
    embedding = Embedding((1.0, m), npoti)
    style = module.SHIFTED if npoti == SHIFTED_SCALED else module.POWER
    rho = np.concatenate([RHO, [0.0, 3e-11, 1e-7, 2e-6, -8e-7]])
    found = np.array([module.embedded(style, float(x), m) for x in rho])
    np.testing.assert_allclose(found[:, 0], embedding.energy(rho[:, None]), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found[:, 1], embedding.derivative(rho[:, None])[:, 0], rtol=1e-12)


def test_step_of_the_kernel():
    x = np.linspace(-1, 4, 101)
    for end, width in ((2.0, 1.5), (2.0, 0.0)):
        found = np.array([module.step_down(float(v), end, width) for v in x])
        value, slope = inner_step(x, end, width)
        np.testing.assert_allclose(found[:, 0], value, atol=1e-14)
        np.testing.assert_allclose(found[:, 1], slope, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"npoti": "Morse"}, "npoti 'Morse' is not supported; known are FinnisSinclairShifted"),
        ({"parameters": (1.0,)}, "1 to 32 densities, not 1 numbers"),
        ({"parameters": ()}, "not 0 numbers"),
        ({"parameters": (1.0, 1.0) * 33}, "not 66 numbers"),
        ({"parameters": (1.0, np.nan)}, "finite"),
        ({"parameters": (1.0, 0.0)}, "exponent 0.0 is not possible"),
        ({"parameters": (1.0, 1.0, 1.0, -0.5)}, "exponent -0.5 is not possible"),
        ({"drho_core_cutoff": -1.0}, r"drho_core_cutoff = \[100000.0, -1.0\]"),
        ({"rho_core_cutoff": np.inf}, "rho_core_cutoff"),
    ],
)
def test_unsupported_is_refused(change, message):
    with pytest.raises(PotentialFileError, match=message):
        dataclasses.replace(Embedding(), **change)
