"""From a configuration to a submitted run, and back to a run that is already there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida.common.exceptions import MultipleObjectsError, NotExistent
from aiida.engine import ProcessBuilder, submit
from aiida.orm import (
    AbstractCode,
    Dict,
    Group,
    QueryBuilder,
    SinglefileData,
    Str,
    WorkChainNode,
    load_code,
    load_group,
    load_node,
)

from aiida_autopipe.config.loading import material_words
from aiida_autopipe.config.models import Config
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.material import Material
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.espresso.pw import PwSettings
from aiida_autopipe.workflows.active_learning import ActiveLearningWorkChain
from aiida_autopipe.workflows.preflight import is_pw, preflight
from aiida_autopipe.workflows.pseudopotentials import resolve_pseudos

INTERFACE_KEY = "interface"
"""Extra of a LAMMPS code, written by `mlip-auto setup`: 'library' or 'ml-pace'."""


@dataclass(frozen=True)
class Launch:
    """A run ready to be submitted: its inputs and the key that recognises it again."""

    builder: ProcessBuilder
    key: str


def prepare(config: Config, material: Material) -> Launch:
    """Resolve codes and pseudopotentials of the loaded profile into the inputs of the loop.

    Raises:
        InputError: everything that is missing, one sentence each.
    """
    problems = preflight(config, material)
    if problems:
        raise InputError("\n".join(problems))
    method, pseudos = label_method(config, material.elements)
    codes = {
        "label": load_code(config.label.code),
        "train": load_code(config.train.code),
        "md": load_code(config.md.code),
    }
    expanded = config.model_dump()
    expanded["md"]["interface"] = _interface(config, codes["md"])
    structures = material.structures()
    crystal = Dataset.from_atoms(list(structures.values()), columns={"cell": list(structures)})
    model = None
    if config.explore.surrogate is not None:
        codes["explore"] = load_code(config.explore.code)
        path = Path(config.explore.surrogate)
        model = SinglefileData(path) if path.is_file() else None
    builder = ActiveLearningWorkChain.get_builder()
    builder.config = Dict(expanded)
    builder.method = Dict(method)
    builder.crystal = DatasetData(crystal)
    builder.codes = codes
    if model is not None:
        builder.surrogate_model = model
    if pseudos:
        builder.pseudos = pseudos
    builder.metadata.label = config.name
    builder.metadata.description = (
        f"{material_words(config.material)}, goal {config.goal}, {config.protocol}"
    )
    key = _run_key(expanded, method, crystal, pseudos, codes, model)
    builder.run_key = Str(key)
    return Launch(builder, key)


def label_method(config: Config, elements: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the labels, and for pw.x the pseudopotentials by element."""
    if not is_pw(config):
        return dict(config.label.settings or {}), {}
    choice = resolve_pseudos(config, elements)
    family: Group = load_group(choice.family)
    settings = PwSettings(
        cutoff_wfc_Ry=choice.cutoff_wfc_Ry,
        cutoff_rho_Ry=choice.cutoff_rho_Ry,
        functional=choice.functional,
        kspacing_per_A=config.label.kspacing_per_A,
        kpoints_shift=config.label.kpoints_shift,
        smearing=config.label.smearing,
        smearing_width_Ry=config.label.smearing_width_Ry,
        spin=config.label.spin,
        scf_threshold_Ry_per_atom=config.label.scf_threshold_Ry_per_atom,
    )
    return vars(settings), family.get_pseudos(elements=tuple(elements))


def _run_key(
    config: dict[str, Any],
    method: dict[str, Any],
    crystal: Dataset,
    pseudos: dict[str, Any],
    codes: dict[str, AbstractCode],
    model: SinglefileData | None,
) -> str:
    content = {
        "config": config,
        "method": method,
        "crystal": crystal.content_hash(),
        "pseudos": {element: pseudo.md5 for element, pseudo in sorted(pseudos.items())},
        "codes": {stage: code.uuid for stage, code in sorted(codes.items())},
        **(
            {}
            if model is None
            else {"surrogate": hashlib.sha256(model.get_content(mode="rb")).hexdigest()}
        ),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _interface(config: Config, code: AbstractCode) -> str:
    """How this LAMMPS gets its forces: as the user says, else as the set-up found out."""
    if config.md.interface != "auto":
        return str(config.md.interface)
    found = code.base.extras.get(INTERFACE_KEY, None)
    if found is None:
        raise InputError(
            f"md.interface: it is not known whether '{code.full_label}' has ML-PACE; set "
            "'ml-pace' or 'library', or let 'mlip-auto setup' make the code"
        )
    if found == "ml-pace" and config.md.uncertainty == "committee":
        raise InputError(
            f"md.uncertainty: '{code.full_label}' is a LAMMPS with ML-PACE, which has no "
            "committee; take gamma, or the code of autopipe-lammps that 'mlip-auto setup' makes"
        )
    return str(found)


def find_run(key: str) -> WorkChainNode | None:
    """The newest run started from exactly these inputs, None when there is none."""
    query = QueryBuilder().append(Str, filters={"attributes.value": key}, tag="key")
    query.append(WorkChainNode, with_incoming="key", project=["*", "id"], tag="run")
    query.order_by({"run": {"id": "desc"}})
    found = query.first()
    return None if found is None else found[0]


def find_runs(name: str | None = None) -> list[WorkChainNode]:
    """All runs of the profile, the newest first; only those with a label when a name is given."""
    filters: dict[str, Any] = {"process_type": {"like": "%autopipe.active_learning"}}
    if name is not None:
        filters["label"] = name
    query = QueryBuilder().append(WorkChainNode, filters=filters, tag="run")
    query.order_by({"run": {"id": "desc"}})
    runs: list[WorkChainNode] = query.all(flat=True)
    return runs


def start(launch: Launch) -> WorkChainNode:
    """Submit a run to the daemon."""
    node: WorkChainNode = submit(launch.builder)
    return node


def load_run(identifier: str) -> WorkChainNode:
    """A run by pk, UUID (or its beginning) or name; of several with one name the newest.

    Raises:
        InputError: there is no such run.
    """
    named = find_runs(identifier)
    if named:
        return named[0]
    try:
        node = load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError):
        node = None
    if not isinstance(node, WorkChainNode) or node.process_label != "ActiveLearningWorkChain":
        known = ", ".join(sorted({run.label for run in find_runs()})) or "none yet"
        raise InputError(f"There is no run '{identifier}'; known names are: {known}.")
    return node
