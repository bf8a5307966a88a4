"""What a run may cost, before anything runs: DFT calculations at most, and their CPU hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from aiida_autopipe.config.models import Config
from aiida_autopipe.config.timing import TimingModel, Work, usual_valence, work_of
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.embed import embed
from aiida_autopipe.core.generate.atoms import isolated_atoms
from aiida_autopipe.core.generate.recipe import generate_pool
from aiida_autopipe.core.material import Material
from aiida_autopipe.core.validate.plan import counts_by_family, equilibrium_plan
from aiida_autopipe.core.validate.settings import ValidationSettings


def max_dft_calculations(config: Config, material: Material) -> dict[str, int]:
    """Upper bounds of the number of oracle calculations, one entry for each purpose.

    :returns: ``isolated_atoms``, ``training`` (initial structures and active learning; with the
        isolated atoms this is the budget, retries included), ``equation_of_state``,
        ``elastic_constants``, ``vacancy`` (its cells and that of an interstitial atom), other
        families of properties where they are asked for (``energy_volume_curve``, ``phonons``,
        ``phases``, ``surfaces``, ``dimers``), ``validation_retries`` and their sum ``total``.
    """
    names = config.validation.properties
    settings = _validation_settings(config)
    found = counts_by_family(material.primitive, names, settings) if names else {}
    # These are named in any case, the others only where they are asked for.
    usual = dict.fromkeys(("equation_of_state", "elastic_constants", "vacancy"), 0)
    validation = {**usual, **found}
    isolated = len(material.elements)
    counts = {
        "isolated_atoms": isolated,
        "training": config.budget.labels - isolated,
        **validation,
        "validation_retries": sum(validation.values()) * (config.label.max_attempts - 1),
    }
    return {**counts, "total": sum(counts.values())}


def _validation_settings(config: Config) -> ValidationSettings:
    return ValidationSettings.from_mapping(config.validation.model_dump())


def initial_pool(config: Config, material: Material) -> Dataset:
    """The pool that the first training set is taken from.

    :raises InputError: the recipe makes nothing, or a structure above its ``max_atoms``.
    """
    return generate_pool(
        material.structures(),
        config.generate.model_dump(),
        np.random.default_rng(config.seed),
    )


USUAL_CUTOFF_RY = 40.0
"""Plane-wave cutoff where neither the file nor pseudopotentials give one."""
IONIC_STEPS = 6
"""Single points that a relaxation costs."""


@dataclass(frozen=True)
class Cost:
    """CPU hours of the labels of a run.

    :param hours: expected, when the whole budget is used and nothing fails.
    :param factor: one standard deviation, either way.
    :param n_labels: labels that were counted.
    :param n_past: labels of past runs that the estimate learned from.
    """

    hours: float
    factor: float
    n_labels: int
    n_past: int


def label_cost(
    config: Config,
    material: Material,
    pool: Dataset,
    model: TimingModel,
    cutoff_wfc_Ry: float | None = None,
    valence: Mapping[str, float] | None = None,
) -> Cost:
    """CPU hours of all label calculations with pw.x.

    The initial structures come first; the rest of the budget are frames of the MD; then the
    validation.

    :param pool: of `initial_pool`.
    :param cutoff_wfc_Ry: of the pseudopotentials, where the file gives none.
    :param valence: electrons of each pseudopotential; missing ones are guessed.
    """
    counts = max_dft_calculations(config, material)
    cutoff = config.label.cutoff_wfc_Ry or cutoff_wfc_Ry or USUAL_CUTOFF_RY
    electrons = {s: (valence or {}).get(s) or usual_valence(s) for s in material.elements}

    def work(atoms: Atoms) -> Work:
        total = sum(electrons[symbol] for symbol in atoms.get_chemical_symbols())
        return work_of(atoms, total, cutoff, config.label.kspacing_per_A, config.label.spin)

    works = [(work(atoms), 1.0) for atoms in isolated_atoms(material.elements)]
    room = counts["training"]
    works += [(work(atoms), 1.0) for atoms in pool[: min(len(pool), room)].iter_atoms()]
    works.append((work(_largest_frame(config, material)), float(max(0, room - len(pool)))))
    # Cells with a free coordinate are relaxed.
    steps = IONIC_STEPS if len(material.primitive) > 2 else 1
    works.append((work(material.primitive), float(counts["equation_of_state"] * steps)))
    if names := config.validation.properties:
        volume = float(material.primitive.get_volume())
        settings = _validation_settings(config)
        for atoms in equilibrium_plan(material.primitive, volume, names, settings):
            works.append((work(atoms), float(IONIC_STEPS if atoms.info["relax"] else 1)))
    seconds, factor = model.total([(one, n) for one, n in works if n > 0])
    labels = counts["total"] - counts["validation_retries"]
    return Cost(seconds / 3600, factor, labels, model.n_labels)


def _largest_frame(config: Config, material: Material) -> Atoms:
    """The largest cell that molecular dynamics hands over for a label."""
    md = config.md
    crystal = material.primitive
    cells = [crystal.repeat(tuple(md.supercell))]
    if md.schedule_supercell is not None:
        cells.append(crystal.repeat(tuple(md.schedule_supercell)))
    if md.embed is not None and material.periodic:
        radii = (md.embed.radius_A, md.embed.buffer_A)
        cells = [embed(cell, 0, *radii, crystal).atoms for cell in cells]
    largest: Atoms = max(cells, key=len)
    return largest
