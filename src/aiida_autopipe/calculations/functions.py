"""Calculation functions: unwrap the nodes, call the science, wrap the result."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, Int, List, StructureData

from aiida_autopipe.core.ace.calculator import ACECalculator
from aiida_autopipe.core.columns import join_references
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.distances import overlaps
from aiida_autopipe.core.errors import AutopipeError, DataError, InputError
from aiida_autopipe.core.generate.atoms import isolated_atoms
from aiida_autopipe.core.generate.recipe import generate_pool
from aiida_autopipe.core.select.coverage import coverage
from aiida_autopipe.core.select.rows import as_rows
from aiida_autopipe.core.select.selectors import select_at_most
from aiida_autopipe.core.validate.compare import compare, plots
from aiida_autopipe.core.validate.plan import ValidationSettings, eos_plan, equilibrium_plan
from aiida_autopipe.core.validate.properties import (
    equation_of_state,
    potential_properties,
    reference_properties,
)
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.engines.espresso.pw import in_box, is_isolated_atom

ERROR_STATUS = 310
"""Exit status of a calculation function whose science raised one of our errors."""

MIN_COVALENT_FRACTION = 0.5
"""Candidates with atoms closer than this part of the covalent bond length are not worth a label."""


Result = TypeVar("Result")


def stated(function: Callable[..., Result]) -> Callable[..., Result | ExitCode]:
    """Turn one of our errors into an exit code with its sentence, instead of an exception."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Result | ExitCode:
        try:
            return function(*args, **kwargs)
        except AutopipeError as error:
            return ExitCode(ERROR_STATUS, str(error))

    return wrapped


@calcfunction
@stated
def generate(crystal: DatasetData, settings: Dict, seed: Int) -> DatasetData:
    """The first pool: an isolated atom of each element, then the generated structures.

    Args:
        crystal: structures of the material by the column `cell`; the primitive cell, or the
            molecule, is the first.
        settings: the `generate` section of the configuration.
        seed: seed of everything random in the generators.
    """
    cells = crystal.get_dataset()
    rng = np.random.default_rng(seed.value)
    names = cells.columns.get("cell", np.array(["primitive"] * len(cells)))
    structures = {str(name): bare_atoms(cells, i) for i, name in enumerate(names)}
    pool = generate_pool(structures, settings.get_dict(), rng)
    atoms = isolated_atoms(cells.elements)
    columns = {name: [atom.info.get(name, 0) for atom in atoms] for name in pool.columns}
    return DatasetData(Dataset.concatenate([Dataset.from_atoms(atoms, columns=columns), pool]))


@calcfunction
@stated
def take(dataset: DatasetData, indices: List) -> DatasetData:
    """The chosen structures of a dataset, in the chosen order."""
    return DatasetData(dataset.get_dataset()[np.array(indices.get_list(), dtype=int)])


@calcfunction
@stated
def extract_structure(dataset: DatasetData, index: Int) -> StructureData:
    """One structure of a dataset as pw.x gets it (an isolated atom in a box)."""
    return StructureData(ase=in_box(bare_atoms(dataset.get_dataset(), index.value)))


def bare_atoms(dataset: Dataset, index: int) -> Any:
    """A structure without labels it may have had."""
    atoms = dataset.atoms(index)
    atoms.arrays.pop("forces", None)
    atoms.arrays.pop("force_mask", None)
    return atoms


@calcfunction
@stated
def merge(**datasets: DatasetData) -> DatasetData:
    """All structures of several datasets, in the order of their names.

    Labelled isolated atoms do not become structures of the result: their energies become its
    reference energies, which must agree with those the datasets already have.
    """
    merged = Dataset.concatenate([datasets[name].get_dataset() for name in sorted(datasets)])
    energies = dict(merged.reference_energies)
    structures = []
    for index in range(len(merged)):
        atoms, energy = merged.atoms(index), merged.labels(index).energy
        if energy is not None and is_isolated_atom(atoms):
            energies = join_references(energies, {str(atoms.symbols[0]): energy})
        else:
            structures.append(index)
    if len(structures) == len(merged):
        return DatasetData(merged)
    return DatasetData(merged[structures].with_attributes(reference_energies=energies))


@calcfunction
@stated
def split(dataset: DatasetData, settings: Dict, seed: Int) -> dict[str, DatasetData]:
    """Training and test part; a structure keeps its part when structures are added behind it.

    Of the first two structures one is always in each part, so that neither part is empty.

    Args:
        dataset: labelled structures.
        settings: `test_fraction`.
        seed: seed of the assignment.
    """
    data = dataset.get_dataset()
    fraction = float(settings["test_fraction"])
    if len(data) < 2:
        raise InputError(f"{len(data)} structures cannot be split into training and test set.")
    # One draw per structure in order: the first n draws do not depend on how many follow.
    is_test = np.random.default_rng(seed.value).random(len(data)) < fraction
    if is_test[0] == is_test[1]:
        is_test[:2] = False, True
    return {"train": DatasetData(data[~is_test]), "test": DatasetData(data[is_test])}


@calcfunction
@stated
def select(
    pool: DatasetData, known: DatasetData, potential: PotentialData, settings: Dict
) -> dict[str, Any]:
    """The structures of a pool that are worth a label, chosen on ACE descriptors.

    A structure is described by the mean of its atoms' B-functions, each scaled by its standard
    deviation over the known structures. Structures with overlapping atoms are left out and counted.

    Args:
        pool: candidates.
        known: structures already labelled; the choice keeps its distance from them.
        potential: an ACE potential, whose basis is the descriptor.
        settings: `n`, the most structures to choose; `method`: fps (the default), direct, or a
            registered selector; `seed` of the method.

    Returns:
        `selected` (absent when nothing was worth choosing) and `summary`, with the `coverage` of
        the choice next to random ones. Equal structures are chosen once.
    """
    candidates, labelled = pool.get_dataset(), known.get_dataset()
    ace = potential.get_potential()
    sane = [
        i
        for i in range(len(candidates))
        if not overlaps(candidates.atoms(i), MIN_COVALENT_FRACTION)
    ]
    n = min(int(settings["n"]), len(sane))
    summary: dict[str, Any] = {
        "pool": len(candidates),
        "overlapping": len(candidates) - len(sane),
        "selected": n,
    }
    outputs: dict[str, Any] = {}
    if n and not len(labelled):
        raise InputError("There are no known structures for the candidates to differ from.")
    if n:
        features = np.array([ace.descriptors(candidates.atoms(i)).mean(axis=0) for i in sane])
        reference = np.array([ace.descriptors(a).mean(axis=0) for a in labelled.iter_atoms()])
        scale = reference.std(axis=0)
        scale[scale < 1e-12] = 1.0
        pool_rows, known_rows = features / scale, reference / scale
        method, seed = str(settings.get("method", "fps")), int(settings.get("seed", 0))
        chosen = np.sort(select_at_most(method, pool_rows, n, known_rows, seed))
        summary |= {"selected": len(chosen), "method": method}
        if len(chosen):
            outputs["selected"] = DatasetData(candidates[np.array(sane, dtype=int)[chosen]])
            covered = coverage(as_rows(pool_rows), chosen, as_rows(known_rows), seed)
            summary["coverage"] = covered.numbers()
    outputs["summary"] = Dict(summary)
    return outputs


@calcfunction
@stated
def collect_candidates(settings: Dict, simulations: List, **frames: DatasetData) -> dict[str, Any]:
    """Frames above the selection threshold, from all simulations of a generation.

    Args:
        settings: `gamma_select`, the `generation` the frames belong to, and the simulations that
            are still `running`.
        simulations: what became of each simulation that ended, with its `survival`.
        frames: frames of each simulation, with the column `gamma_max`.

    Returns:
        `candidates`, only when there are any, with the columns origin, generation and simulation
        (the number in the name of its frames), and `summary`: the simulations, their mean survival
        and the number of new candidates.
    """
    order = sorted(frames, key=lambda name: int(name.rsplit("_", 1)[1]))
    pools = []
    for name in order:
        data = frames[name].get_dataset()
        if "gamma_max" not in data.columns:
            raise DataError(f"The frames '{name}' have no column gamma_max to choose by.")
        chosen = data[data.columns["gamma_max"] > float(settings["gamma_select"])]
        if len(chosen):
            generation = np.full(len(chosen), int(settings["generation"]))
            simulation = np.full(len(chosen), int(name.rsplit("_", 1)[1]))
            pools.append(
                chosen.with_columns(
                    origin=["md"] * len(chosen), generation=generation, simulation=simulation
                )
            )
    records = simulations.get_list()
    summary = {
        "simulations": records,
        "survival": sum(record["survival"] for record in records) / len(records),
        "new_candidates": sum(len(pool) for pool in pools),
        "running": settings.get("running", {}),
    }
    outputs: dict[str, Any] = {"summary": Dict(summary)}
    if pools:
        outputs["candidates"] = DatasetData(Dataset.concatenate(pools))
    return outputs


@calcfunction
@stated
def plan_eos(crystal: DatasetData, settings: Dict) -> DatasetData:
    """Strained cells for the equation of state of the reference method.

    Args:
        crystal: the primitive cell is the first structure.
        settings: `validate` section of the configuration and `kspacing_per_A`.
    """
    chosen, kspacing = _validation_settings(settings)
    return DatasetData(
        Dataset.from_atoms(eos_plan(crystal.get_dataset().atoms(0), chosen, kspacing))
    )


@calcfunction
@stated
def plan_equilibrium(
    crystal: DatasetData, eos: DatasetData, settings: Dict
) -> dict[str, DatasetData]:
    """Structures for the other properties, at the reference method's own equilibrium volume.

    Returns:
        `structures`, only when the properties need any.
    """
    chosen, kspacing = _validation_settings(settings)
    volume = equation_of_state(eos.get_dataset()).v0
    plan = equilibrium_plan(
        crystal.get_dataset().atoms(0), volume, settings["properties"], chosen, kspacing
    )
    return {"structures": DatasetData(Dataset.from_atoms(plan))} if plan else {}


@calcfunction
@stated
def compare_properties(
    potential: PotentialData, crystal: DatasetData, settings: Dict, **labelled: DatasetData
) -> Dict:
    """The validation table: each property from the potential and from the labelled structures.

    Args:
        potential: the potential to judge.
        crystal: the primitive cell is the first structure.
        settings: `validate` section of the configuration and `kspacing_per_A`.
        labelled: `eos` and, where the properties need it, `equilibrium`.

    Returns:
        `rows`, `plots` of the properties that are curves, and the energy-volume curves
        `eos_reference` and `eos_potential`.
    """
    chosen, _ = _validation_settings(settings)
    primitive = crystal.get_dataset().atoms(0)
    eos = labelled["eos"].get_dataset()
    equilibrium = labelled["equilibrium"].get_dataset() if "equilibrium" in labelled else None
    calculator = ACECalculator(potential.get_potential())
    names = settings["properties"]
    reference = reference_properties(primitive, eos, equilibrium, names, chosen)
    volume = equation_of_state(eos).v0
    predicted = potential_properties(calculator, primitive, names, chosen, volume)
    rows = compare(predicted, reference, float(settings["tolerance"]))
    volumes, energies, model = [], [], []
    for atoms in eos.iter_atoms():
        volumes.append(atoms.get_volume() / len(atoms))
        energies.append(atoms.info["energy"] / len(atoms))
        atoms.calc = calculator
        model.append(atoms.get_potential_energy() / len(atoms))
    return Dict(
        {
            "rows": [row.as_dict() for row in rows],
            "plots": [plot.as_dict() for plot in plots(predicted, reference)],
            "tolerance": float(settings["tolerance"]),
            "eos_reference": {"volume_per_atom": volumes, "energy_per_atom": energies},
            "eos_potential": {"volume_per_atom": volumes, "energy_per_atom": model},
        }
    )


def _validation_settings(settings: Dict) -> tuple[ValidationSettings, float]:
    values = settings.get_dict()
    kspacing = float(values.pop("kspacing_per_A"))
    return ValidationSettings.from_mapping(values), kspacing


@calcfunction
@stated
def md_starts(crystal: DatasetData, settings: Dict) -> DatasetData:
    """Start structures of the molecular dynamics: the perfect supercell and one with a vacancy.

    Of a reaction path its two ends, of a molecule the molecule.

    Args:
        crystal: the primitive cell is the first structure.
        settings: `supercell`, `include_vacancy`, and where the schedule has a supercell of its own
            `schedule_supercell`, which comes last.
    """
    cells = crystal.get_dataset()
    if not np.any(cells.atoms(0).pbc):
        ends = sorted({0, len(cells) - 1})
        names = ["molecule"] if len(ends) == 1 else ["reactants", "products"]
        return DatasetData(
            Dataset.from_atoms([bare_atoms(cells, i) for i in ends], columns={"start": names})
        )
    perfect = cells.atoms(0).repeat(tuple(settings["supercell"]))
    starts = [perfect]
    # What is left of two atoms is not a crystal with a vacancy.
    if settings["include_vacancy"] and len(perfect) > 2:
        defective = perfect.copy()
        del defective[0]
        starts.append(defective)
    names = ["supercell", "vacancy"][: len(starts)]
    larger = settings.get("schedule_supercell", None)
    if larger is not None:
        starts.append(cells.atoms(0).repeat(tuple(larger)))
        names.append("schedule")
    return DatasetData(Dataset.from_atoms(starts, columns={"start": names}))
