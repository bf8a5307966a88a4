"""How many DFT calculations a configuration can start at most, before anything runs."""

from __future__ import annotations

import numpy as np

from aiida_autopipe.config.models import Config
from aiida_autopipe.core.generate.recipe import generate_pool
from aiida_autopipe.core.material import Material
from aiida_autopipe.core.validate.elastic import elastic_structures


def max_dft_calculations(config: Config, material: Material) -> dict[str, int]:
    """Upper bounds of the number of oracle calculations, one entry for each purpose.

    :returns: ``isolated_atoms``, ``training`` (initial structures and active learning; with the
        isolated atoms this is the budget, retries included), ``equation_of_state``,
        ``elastic_constants``, ``vacancy``, ``validation_retries`` and their sum ``total``.
    """
    wanted = set(config.validation.properties)
    volumes = config.validation.eos_points
    elastic = 0
    if wanted & {"C11", "C12", "C44"}:
        strained = elastic_structures(material.primitive, config.validation.elastic_strain)
        elastic = len(strained)
    # The perfect supercell and the one with an atom missing.
    vacancy = 2 if "vacancy_formation_energy" in wanted else 0
    isolated = len(material.elements)
    counts = {
        "isolated_atoms": isolated,
        "training": config.budget.labels - isolated,
        "equation_of_state": volumes,
        "elastic_constants": elastic,
        "vacancy": vacancy,
        "validation_retries": (volumes + elastic + vacancy) * (config.label.max_attempts - 1),
    }
    return {**counts, "total": sum(counts.values())}


def initial_structures(config: Config, material: Material) -> int:
    """Number of structures in the pool that the first training set is taken from.

    :raises InputError: the recipe makes nothing, or a structure above its ``max_atoms``.
    """
    pool = generate_pool(
        material.primitive,
        config.generate.model_dump(),
        np.random.default_rng(config.seed),
    )
    return len(pool)
