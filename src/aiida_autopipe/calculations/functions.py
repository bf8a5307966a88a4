"""Calculation functions: unwrap the nodes, call the science, wrap the result."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from aiida.engine import ExitCode, calcfunction
from aiida.orm import ArrayData, Dict, Int, List, StructureData
from ase import Atoms

from aiida_autopipe.core.ace.calculator import ACECalculator
from aiida_autopipe.core.columns import join_references
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.distances import overlaps
from aiida_autopipe.core.errors import AutopipeError, DataError, EngineError, InputError
from aiida_autopipe.core.generate.atoms import isolated_atoms
from aiida_autopipe.core.generate.recipe import generate_pool
from aiida_autopipe.core.select.fps import farthest_point
from aiida_autopipe.core.validate.compare import compare
from aiida_autopipe.core.validate.plan import ValidationSettings, eos_plan, equilibrium_plan
from aiida_autopipe.core.validate.properties import (
    equation_of_state,
    potential_properties,
    reference_properties,
)
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.engines.espresso.pw import (
    PwSettings,
    in_box,
    is_isolated_atom,
    label_from_output,
    method,
)

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
        crystal: the primitive cell is the first structure.
        settings: the `generate` section of the configuration.
        seed: seed of the displacements.
    """
    cells = crystal.get_dataset()
    rng = np.random.default_rng(seed.value)
    pool = generate_pool(cells.atoms(0), settings.get_dict(), rng)
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
    return StructureData(ase=in_box(_bare(dataset.get_dataset(), index.value)))


def _bare(dataset: Dataset, index: int) -> Any:
    atoms = dataset.atoms(index)
    atoms.arrays.pop("forces", None)
    atoms.arrays.pop("force_mask", None)
    return atoms


@calcfunction
@stated
def collect_labels(
    dataset: DatasetData, settings: Dict, outcome: Dict, **results: Any
) -> dict[str, Any]:
    """Labelled and rejected structures from the outcome of each label calculation.

    A calculation that succeeded but gave no usable label is rejected like one that failed.

    Args:
        dataset: the structures that were to be labelled.
        settings: the method (`PwSettings`).
        outcome: `ok` (indices), `rejected` (index -> reason), `pseudos` (element -> MD5) and
            `calculations` (how many were run).
        results: `parameters_<index>`, `trajectory_<index>` and, where relaxed, `structure_<index>`.

    Returns:
        `labelled` and `rejected`, each only when it is not empty, and `summary`: structures
        requested, ok, rejected and not_run, and calculations.
    """
    source = dataset.get_dataset()
    labelled = []
    rejected = {int(index): str(reason) for index, reason in outcome["rejected"].items()}
    for index in outcome["ok"]:
        try:
            labelled.append(_labelled(_bare(source, index), index, results))
        except EngineError as error:
            rejected[index] = str(error)
    requested = len(labelled) + len(rejected)
    summary = {
        "requested": requested,
        "ok": len(labelled),
        "rejected": len(rejected),
        "not_run": len(source) - requested,
        "calculations": outcome["calculations"],
    }
    outputs: dict[str, Any] = {"summary": Dict(summary)}
    if labelled:
        how = method(PwSettings.from_dict(settings.get_dict()), outcome["pseudos"])
        data = Dataset.from_atoms(labelled, attributes={"method": how})
        outputs["labelled"] = DatasetData(data)
    if rejected:
        chosen = source[np.array(sorted(rejected), dtype=int)]
        reasons = [rejected[index] for index in sorted(rejected)]
        outputs["rejected"] = DatasetData(
            chosen.with_columns(reason=reasons, source_index=sorted(rejected))
        )
    return outputs


def _labelled(atoms: Atoms, index: int, results: Mapping[str, Any]) -> Atoms:
    """A structure with the label that its calculation gave; raises EngineError without one."""
    wanted = ["parameters", "trajectory", *(["structure"] if atoms.info.get("relax") else [])]
    missing = [name for name in wanted if f"{name}_{index}" not in results]
    if missing:
        raise EngineError(f"pw.x ended well but gave no output {', '.join(missing)}.")
    arrays: ArrayData = results[f"trajectory_{index}"]
    missing = [name for name in ("forces", "stress") if name not in arrays.get_arraynames()]
    if missing:
        raise EngineError(f"pw.x ended well but printed no {', '.join(missing)}.")
    isolated = is_isolated_atom(atoms)
    label = label_from_output(
        results[f"parameters_{index}"].get_dict(),
        arrays.get_array("forces")[-1],
        arrays.get_array("stress")[-1],
        isolated,
    )
    if "structure" in wanted:
        relaxed = results[f"structure_{index}"].get_ase()
        atoms.set_cell(relaxed.cell)
        atoms.positions[:] = relaxed.positions
    atoms.info |= {"energy": label.energy, "source_index": index}
    atoms.arrays["forces"] = label.forces
    # The stress of an atom alone in a box is an artefact of the box.
    atoms.info.pop("stress", None)
    if not isolated:
        atoms.info["stress"] = label.stress
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
    """The most different structures of a pool by farthest-point sampling on ACE descriptors.

    A structure is described by the mean of its atoms' B-functions, each scaled by its standard
    deviation over the known structures. Structures with overlapping atoms are left out and counted.

    Args:
        pool: candidates.
        known: structures already labelled; the choice keeps its distance from them.
        potential: an ACE potential, whose basis is the descriptor.
        settings: `n`, the most structures to choose.

    Returns:
        `selected` (absent when nothing was worth choosing) and `summary`.
    """
    candidates, labelled = pool.get_dataset(), known.get_dataset()
    ace = potential.get_potential()
    sane = [
        i
        for i in range(len(candidates))
        if not overlaps(candidates.atoms(i), MIN_COVALENT_FRACTION)
    ]
    n = min(int(settings["n"]), len(sane))
    summary = {
        "pool": len(candidates),
        "overlapping": len(candidates) - len(sane),
        "selected": n,
    }
    outputs: dict[str, Any] = {"summary": Dict(summary)}
    if n and not len(labelled):
        raise InputError("There are no known structures for the candidates to differ from.")
    if n:
        features = np.array([ace.descriptors(candidates.atoms(i)).mean(axis=0) for i in sane])
        reference = np.array([ace.descriptors(a).mean(axis=0) for a in labelled.iter_atoms()])
        scale = reference.std(axis=0)
        scale[scale < 1e-12] = 1.0
        chosen = farthest_point(features / scale, n, already=reference / scale)
        rows = np.array(sane, dtype=int)[np.sort(chosen)]
        outputs["selected"] = DatasetData(candidates[rows])
    return outputs


@calcfunction
@stated
def collect_candidates(settings: Dict, simulations: List, **frames: DatasetData) -> dict[str, Any]:
    """Frames above the selection threshold, from all simulations of a generation.

    Args:
        settings: `gamma_select`, and the `generation` the frames belong to.
        simulations: what became of each simulation, with its `survival`.
        frames: frames of each simulation, with the column `gamma_max`.

    Returns:
        `candidates`, only when there are any, and `summary`: the simulations, their mean survival
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
            pools.append(chosen.with_columns(origin=["md"] * len(chosen), generation=generation))
    records = simulations.get_list()
    summary = {
        "simulations": records,
        "survival": sum(record["survival"] for record in records) / len(records),
        "new_candidates": sum(len(pool) for pool in pools),
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
        `rows`, and the energy-volume curves `eos_reference` and `eos_potential`.
    """
    chosen, _ = _validation_settings(settings)
    primitive = crystal.get_dataset().atoms(0)
    eos = labelled["eos"].get_dataset()
    equilibrium = labelled["equilibrium"].get_dataset() if "equilibrium" in labelled else None
    calculator = ACECalculator(potential.get_potential())
    names = settings["properties"]
    reference = reference_properties(primitive, eos, equilibrium, names)
    predicted = potential_properties(calculator, primitive, names, chosen)
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

    Args:
        crystal: the primitive cell is the first structure.
        settings: `supercell` and `include_vacancy`.
    """
    perfect = crystal.get_dataset().atoms(0).repeat(tuple(settings["supercell"]))
    starts = [perfect]
    # What is left of two atoms is not a crystal with a vacancy.
    if settings["include_vacancy"] and len(perfect) > 2:
        defective = perfect.copy()
        del defective[0]
        starts.append(defective)
    names = ["supercell", "vacancy"][: len(starts)]
    return DatasetData(Dataset.from_atoms(starts, columns={"start": names}))
