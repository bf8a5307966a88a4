"""What a run may cost: the most DFT calculations it can start, and their CPU hours."""

from pathlib import Path

import pytest

from aiida_autopipe.config.estimate import initial_pool, label_cost, max_dft_calculations
from aiida_autopipe.config.expand import expand_with_material
from aiida_autopipe.config.timing import fit_timing


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
    pool = initial_pool(config, material)
    # Room for all generations after the first pool.
    left = config.budget.labels - 1 - len(pool)
    assert left >= config.loop.min_generations * config.loop.candidates_per_generation
    cost = label_cost(config, material, pool, fit_timing([]))
    assert cost.n_labels == 92 and cost.n_past == 0
    # The run of the demo needs a quarter of an hour on two cores.
    assert 0.05 < cost.hours < 5
    assert cost.factor > 2
    finer = {**user, "label": {"kspacing_per_A": 0.15}}
    config, material = expand_with_material(finer, Path(), "silicon")
    assert label_cost(config, material, pool, fit_timing([])).hours > 3 * cost.hours


def test_the_equation_of_state_always_runs() -> None:
    user = {"material": "Cu", "goal": "elastic", "validate": {"properties": ["C44"]}}
    config, material = expand_with_material(user, Path(), "copper")
    counts = max_dft_calculations(config, material)
    assert counts["equation_of_state"] == config.validation.eos_points
    assert counts["vacancy"] == 0


@pytest.mark.parametrize(
    ("material", "goal"),
    [("H2O", "molecule"), ({"reactants": "hcn.xyz", "products": "hnc.xyz"}, "reaction")],
)
def test_molecules_cost_only_their_training(material: object, goal: str) -> None:
    user = {"material": material, "goal": goal, "protocol": "fast"}
    config, found = expand_with_material(user, Path(__file__).parent, "x")
    counts = max_dft_calculations(config, found)
    assert counts["total"] == counts["isolated_atoms"] + counts["training"] == 80
    pool = initial_pool(config, found)
    assert not any(atoms.pbc.any() for atoms in pool.iter_atoms())
    assert label_cost(config, found, pool, fit_timing([])).hours > 0


def test_every_family_of_properties_is_counted() -> None:
    names = [
        "eos_curve",
        "phonon_frequencies",
        "phase:bcc",
        "surface_energy:100",
        "dimer:Cu-Cu",
        "interstitial_formation_energy",
        "nve_stability",
        "max_stable_temperature",
    ]
    user = {"material": "Cu", "goal": "elastic", "validate": {"properties": names}}
    config, material = expand_with_material(user, Path(), "copper")
    counts = max_dft_calculations(config, material)
    families = {
        "equation_of_state": 9,
        "vacancy": 2,
        "energy_volume_curve": 11,
        "phonons": 1,
        "phases": 9,
        "surfaces": 2,
        "dimers": 16,
    }
    assert {name: counts[name] for name in families} == families
    retries = sum(families.values()) * (config.label.max_attempts - 1)
    assert counts["validation_retries"] == retries
    pool = initial_pool(config, material)
    cost = label_cost(config, material, pool, fit_timing([]))
    assert cost.n_labels == config.budget.labels + sum(families.values())
