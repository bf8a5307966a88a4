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
        "elastic_constants": 4,  # the crystal, +xx, -xx and +yz
        "vacancy": 2,
        "validation_retries": 13,
        "total": 106,
    }
    # Room for all generations after the first pool.
    left = config.budget.labels - 1 - initial_structures(config, material)
    assert left >= config.loop.min_generations * config.loop.candidates_per_generation


def test_nothing_to_validate() -> None:
    user = {"material": "Cu", "goal": "elastic", "validate": {"properties": []}}
    config, material = expand_with_material(user, Path(), "copper")
    assert max_dft_calculations(config, material)["total"] == config.budget.labels
