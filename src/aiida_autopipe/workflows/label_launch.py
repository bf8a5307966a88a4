"""From structures and the `label` section of a configuration to `autopipe.label`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida.engine import ProcessBuilder
from aiida.orm import Dict, Int, Str, WorkChainNode, load_code

from aiida_autopipe import __version__
from aiida_autopipe.config.expand import expand
from aiida_autopipe.config.heuristics import MAGNETIC_ELEMENTS
from aiida_autopipe.config.models import PW_ORACLE, Config
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.workflows.functions import find_described
from aiida_autopipe.workflows.inputs import job_options
from aiida_autopipe.workflows.label import LabelWorkChain
from aiida_autopipe.workflows.launch import label_method
from aiida_autopipe.workflows.preflight import check_oracle, code_problem, is_pw

PYTHON_CODE = "python@localhost"
"""Code of oracles other than pw.x where the user names none."""


@dataclass(frozen=True)
class LabelJob:
    """Structures ready to be labelled, and the key that recognises the process again."""

    builder: ProcessBuilder
    key: str


@dataclass(frozen=True)
class Limits:
    """Hard limits of a campaign; None where there is none."""

    max_labels: int | None = None
    max_concurrent: int = 2
    max_wall_time: int | None = None


def label_config(user: dict[str, Any], elements: list[str], folder: Path) -> Config:
    """A configuration whose `label` section is the user's, completed with defaults.

    :param user: a configuration with a `label` section, or that section alone.
    :param elements: those of the structures; they decide whether spins are polarised.
    :param folder: what a folder of pseudopotentials is relative to.
    :raises InputError: a key that is unknown or wrong.
    """
    section = user["label"] if isinstance(user.get("label"), dict) else user
    section = {"spin": bool(MAGNETIC_ELEMENTS.intersection(elements)), **section}
    if section.get("oracle", PW_ORACLE) != PW_ORACLE:
        section = {"code": PYTHON_CODE, **section}
    sections: dict[str, Any] = {"label": section}
    if isinstance(user.get("resources"), dict):
        sections["resources"] = user["resources"]
    # The material only decides about sections that are not used here.
    return expand({"material": "Si", "goal": "elastic", **sections}, folder, "label")


def prepare_labels(dataset: Dataset, config: Config, limits: Limits) -> LabelJob:
    """Resolve code and pseudopotentials of the loaded profile into the inputs of `autopipe.label`.

    :raises InputError: something is missing or of no use.
    """
    program = "pw.x" if is_pw(config) else "program"
    problem = code_problem("label.code", program, config.label.code)
    if problem:
        raise InputError(problem)
    if not is_pw(config):
        check_oracle(config)
    method, pseudos = label_method(config, dataset.elements)
    code = load_code(config.label.code)
    attempts = config.label.max_attempts
    builder = LabelWorkChain.get_builder()
    builder.dataset = DatasetData(dataset)
    builder.oracle = Str(config.label.oracle)
    builder.settings = Dict(method)
    builder.code = code
    if pseudos:
        builder.pseudos = pseudos
    builder.budget = Int(limits.max_labels or len(dataset) * attempts)
    builder.max_attempts = Int(attempts)
    builder.max_concurrent = Int(limits.max_concurrent)
    if limits.max_wall_time is not None:
        builder.max_wall_time = Int(limits.max_wall_time)
    builder.batching = Str(config.label.batching)
    builder.options = Dict(job_options(config.resources.model_dump()["label"], code.with_mpi))
    content = {
        "dataset": dataset.content_hash(),
        "oracle": config.label.oracle,
        "method": method,
        "pseudos": {element: node.md5 for element, node in sorted(pseudos.items())},
        "code": code.uuid,
        "limits": [limits.max_labels, limits.max_wall_time, attempts, config.label.batching],
        "version": __version__,
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    builder.metadata.description = f"labels {key}"
    return LabelJob(builder, key)


def find_label_run(key: str) -> WorkChainNode | None:
    """The newest process of the same structures and settings that still runs or has ended well."""
    return find_described(f"labels {key}")
