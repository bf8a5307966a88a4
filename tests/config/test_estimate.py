"""The most DFT calculations a configuration can start."""

from pathlib import Path

from aiida_autopipe.config.estimate import initial_structures, max_dft_calculations
from aiida_autopipe.config.expand import expand_with_material


def test_silicon_fast() -> None:
    user = {"material": "Si", "goal": "elastic", "protocol": "fast"}
    config, material = expand_with_material(user, Path(), "silicon")
    counts = max_dft_calculations(config, material)
    assert counts == {
        "isolated_atoms": 1,
        "training": 79,
        "equation_of_state": 7,
        "elastic_constants": 3,  # +xx, -xx and +yz
        "vacancy": 2,
        "validation_retries": 12,
        "total": 104,
    }
    # Room for all generations after the first pool.
    left = config.budget.labels - 1 - initial_structures(config, material)
    assert left >= config.loop.min_generations * config.loop.candidates_per_generation


def test_the_equation_of_state_always_runs() -> None:
    user = {"material": "Cu", "goal": "elastic", "validate": {"properties": ["C44"]}}
    config, material = expand_with_material(user, Path(), "copper")
    counts = max_dft_calculations(config, material)
    assert counts["equation_of_state"] == config.validation.eos_points
    assert counts["vacancy"] == 0
