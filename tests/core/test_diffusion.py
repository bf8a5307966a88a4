"""Diffusion coefficients of walks with a known one."""

import numpy as np
import pytest

from aiida_autopipe.core.diffusion import diffusion

TIME = np.linspace(3.0, 13.0, 201)


def test_random_walk() -> None:
    """Steps of variance 2 D dt in each direction."""
    steps = np.random.default_rng(1).normal(0, np.sqrt(2 * 0.5 * 0.05), (200, 2000, 3))
    paths = np.concatenate([np.zeros((1, 2000, 3)), np.cumsum(steps, axis=0)])
    found = diffusion(TIME, (paths**2).sum(axis=2).mean(axis=1))
    assert found.coefficient == pytest.approx(0.5, rel=0.06)
    assert found.r2 is not None and found.r2 > 0.99


@pytest.mark.parametrize(
    ("time", "msd", "reason"),
    [
        (TIME, 0.1 + 0.02 * np.sin(TIME), "below 1 Å²: the atoms keep their places"),
        (TIME, 3 + np.sin(3 * TIME), "not linear (R² = 0.0"),
        (TIME, 20 - TIME, "not linear (R² = 1.00)"),
        (TIME / 100, TIME, "shorter than 0.5 ps"),
        (TIME[:5], TIME[:5], "shorter than 0.5 ps"),
        (TIME, np.full_like(TIME, np.nan), "shorter than 0.5 ps"),
    ],
)
def test_no_coefficient(time: np.ndarray, msd: np.ndarray, reason: str) -> None:
    found = diffusion(time, msd)
    assert found.coefficient is None
    assert found.reason.startswith(reason)
