"""Inputs, outputs and exit codes of `autopipe.active_learning`."""

from __future__ import annotations

from typing import Any

from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import AbstractCode, ArrayData, Dict, SinglefileData, Str
from aiida_pseudo.data.pseudo.upf import UpfData
from pydantic import ValidationError

from aiida_autopipe.config.errors import explain
from aiida_autopipe.config.models import Config
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData


def validate_config(node: Dict, _: Any) -> str | None:
    """A complete configuration, as `mlip-auto check` prints it."""
    try:
        Config.model_validate(node.get_dict())
    except ValidationError as error:
        return "; ".join(explain(error, Config))
    return None


def define_inputs(spec: WorkChainSpec) -> None:
    """The configuration, and the nodes that it stands for."""
    spec.input(
        "config", valid_type=Dict, validator=validate_config, help="The expanded configuration."
    )
    spec.input(
        "run_key",
        valid_type=Str,
        required=False,
        help="Hash of everything the run starts from; the same input finds its run by it.",
    )
    spec.input("method", valid_type=Dict, help="Settings of the oracle.")
    spec.input(
        "crystal", valid_type=DatasetData, help="The material; the primitive cell comes first."
    )
    spec.input_namespace(
        "codes", valid_type=AbstractCode, help="`label`, `train`, `md`, and `explore` if asked for."
    )
    spec.input("codes.label", valid_type=AbstractCode, help="The program of the oracle.")
    spec.input("codes.train", valid_type=AbstractCode, help="A Python interpreter.")
    spec.input("codes.md", valid_type=AbstractCode, help="LAMMPS.")
    spec.input(
        "codes.explore",
        valid_type=AbstractCode,
        required=False,
        help="A Python interpreter with the package of the surrogate.",
    )
    spec.input(
        "surrogate_model", valid_type=SinglefileData, required=False, help="The surrogate's file."
    )
    spec.input_namespace("pseudos", valid_type=UpfData, dynamic=True, required=False)


def define_outputs(spec: WorkChainSpec) -> None:
    """What the run was for, and its history."""
    spec.output("potential", valid_type=PotentialData, help="The final potential.")
    spec.output("dataset", valid_type=DatasetData, help="Everything labelled.")
    spec.output("rejected", valid_type=DatasetData, required=False, help="With reasons.")
    spec.output("metrics", valid_type=Dict, help="Errors of the final potential.")
    spec.output("parity", valid_type=ArrayData, required=False)
    spec.output("history", valid_type=Dict, help="Generations, label counts, stop reason.")
    spec.output("validation", valid_type=Dict, required=False, help="The validation table.")
    spec.output(
        "exploration",
        valid_type=Dict,
        required=False,
        help="Frames of the surrogate, kept and rejected by reason.",
    )


def define_exit_codes(spec: WorkChainSpec) -> None:
    """What ends a run."""
    for status, name, message in (
        (301, "ERROR_REFERENCES", "The isolated atoms of {elements} could not be labelled."),
        (302, "ERROR_GENERATE", "No first structures: {reason}"),
        (303, "ERROR_NO_LABELS", "Not one of the first structures could be labelled: {reason}"),
        (304, "ERROR_MERGE", "The labels cannot be put together: {reason}"),
        (305, "ERROR_TRAINING", "The training failed: {reason}"),
        (306, "ERROR_MD", "All simulations failed: {reason}"),
        (307, "ERROR_SELECT", "The selection failed: {reason}"),
        (308, "ERROR_EXPLORE", "The exploration with the surrogate failed: {reason}"),
        (309, "ERROR_EMBED", "No cells around the uncertain atoms: {reason}"),
        (401, "ERROR_VALIDATION", "There is a potential, but it was not validated: {reason}"),
    ):
        spec.exit_code(status, name, message=message)
