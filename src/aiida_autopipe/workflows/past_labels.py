"""Labels of past runs in the profile, as what the cost preview learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida.orm import CalcJobNode, Dict, QueryBuilder

from aiida_autopipe.config.timing import PastLabel, Work, plane_waves, work_of
from aiida_autopipe.data.dataset import DatasetData

MOST_LABELS = 2000
"""The newest labels that are looked at."""
MOST_BATCHES = 50
TRIAL_EXTRA = "autopipe_trial"
"""On jobs that only show that a code works: of the cost of real labels they say nothing."""


def past_labels() -> list[PastLabel]:
    """CPU seconds of successful pw.x calculations of the loaded profile, the newest first."""
    return [*_single_labels(), *_batch_labels()][:MOST_LABELS]


def _single_labels() -> Iterator[PastLabel]:
    names = (
        "number_of_electrons",
        "number_of_k_points",
        "wfc_cutoff",
        "volume",
        "wall_time_seconds",
        "lsda",
        "number_of_bfgs_steps",
    )
    query = QueryBuilder().append(
        CalcJobNode,
        filters={
            "process_type": {"like": "%quantumespresso.pw"},
            "attributes.exit_status": 0,
            "extras": {"and": [{"!has_key": "_aiida_cached_from"}, {"!has_key": TRIAL_EXTRA}]},
        },
        tag="job",
        project=[
            "attributes.resources.num_machines",
            "attributes.resources.num_mpiprocs_per_machine",
        ],
    )
    query.append(
        Dict,
        with_incoming="job",
        edge_filters={"label": "output_parameters"},
        project=[f"attributes.{name}" for name in names],
    )
    query.order_by({"job": {"id": "desc"}}).limit(MOST_LABELS)
    for machines, processes, *values in query.iterall():
        found = dict(zip(names, values, strict=True))
        label = _from_parameters(found, (machines or 1) * (processes or 1))
        if label is not None:
            yield label


def _from_parameters(values: Mapping[str, Any], processes: int) -> PastLabel | None:
    needed = ("number_of_electrons", "number_of_k_points", "wfc_cutoff", "wall_time_seconds")
    if any(not values.get(name) for name in needed) or not values.get("volume"):
        return None
    if values.get("number_of_bfgs_steps"):
        return None  # a relaxation is several labels
    cutoff_Ry = float(values["wfc_cutoff"]) / 13.605693
    spin = bool(values.get("lsda"))
    # pw.x counts each k-point twice when spins are polarised.
    kpoints = float(values["number_of_k_points"]) / (2.0 if spin else 1.0)
    work = Work(
        electrons=float(values["number_of_electrons"]),
        kpoints=kpoints,
        plane_waves=plane_waves(float(values["volume"]), cutoff_Ry),
        spin=spin,
    )
    return PastLabel(work, float(values["wall_time_seconds"]) * processes)


def _batch_labels() -> Iterator[PastLabel]:
    query = QueryBuilder().append(
        CalcJobNode, filters={"process_type": {"like": "%autopipe.pw_batch"}}, tag="job"
    )
    query.add_projection("job", "*")
    query.append(DatasetData, with_outgoing="job", edge_filters={"label": "dataset"}, project="*")
    query.order_by({"job": {"id": "desc"}}).limit(MOST_BATCHES)
    for job, dataset in query.iterall():
        if "outcomes" in job.outputs and not job.base.caching.is_created_from_cache:
            yield from _of_batch(job, dataset)


def _of_batch(job: CalcJobNode, dataset: DatasetData) -> Iterator[PastLabel]:
    settings = job.inputs.settings.get_dict()
    valence = {element: float(pseudo.z_valence) for element, pseudo in job.inputs.pseudos.items()}
    data = dataset.get_dataset()
    ranks = job.inputs.ranks.value if "ranks" in job.inputs else 1
    for outcome in job.outputs.outcomes.get_dict()["outcomes"]:
        if outcome["outcome"] != "ok" or not outcome["seconds"]:
            continue
        atoms = data.atoms(outcome["position"])
        if atoms.info.get("relax"):
            continue
        electrons = sum(valence[symbol] for symbol in atoms.get_chemical_symbols())
        work = work_of(
            atoms,
            electrons,
            settings["cutoff_wfc_Ry"],
            settings["kspacing_per_A"],
            bool(settings.get("spin", False)),
        )
        yield PastLabel(work, float(outcome["seconds"]) * ranks)
