"""The CalcJob that trains a MACE model, from scratch or from another model."""

from __future__ import annotations

import json
from typing import Any

from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.orm import ArrayData, Dict, Int, RemoteData, SinglefileData

from aiida_autopipe.calculations.ace import validate_dataset, validate_seed
from aiida_autopipe.calculations.recovery import RecoveringCalcJob
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.mace_settings import MaceSettings
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.engines.mace.arguments import CHECKPOINTS, RESULTS
from aiida_autopipe.engines.mace.job import (
    DATA_FILES,
    ERROR_FILE,
    JOB_FILE,
    LOG_FILE,
    METRICS_FILE,
    PARITY_FILE,
    POTENTIAL_FILE,
    PRIOR_FILE,
)

# The scheduler kills what is over its time: the job ends itself before, by this part or so long.
_RESERVE_FRACTION = 0.05
_RESERVE_S = 120.0


def validate_settings(node: Dict, _: Any) -> str | None:
    """The sentence that says what is wrong with the settings, if anything."""
    try:
        MaceSettings.from_dict(node.get_dict())
    except InputError as error:
        return str(error)
    return None


def validate_prior(node: PotentialData | SinglefileData | None, _: Any) -> str | None:
    """A potential to start from must be one of MACE."""
    if isinstance(node, PotentialData) and (node.kind != "mace" or len(node.filenames) != 1):
        return (
            f"The prior is of kind '{node.kind}' and has {', '.join(node.filenames)}; MACE can "
            "start from one .model file."
        )
    return None


def validate_inputs(inputs: Any, _: Any) -> str | None:
    """What several inputs say together."""
    settings, prior = inputs.get("settings"), inputs.get("prior")
    if prior is None:
        if "replay" in inputs:
            return "replay needs a prior: the model that must not forget these data."
        if settings and settings.get_dict().get("reference_energies") == "base":
            return "reference_energies: 'base' needs a prior, the model that has them."
    elif not is_own(prior) and not (settings and settings.get_dict().get("trust")):
        return (
            "The prior is a pickle that no process here made, and opening it runs whatever its "
            "author put inside; if you know where it is from, set trust: true in the settings."
        )
    return None


def is_own(prior: PotentialData | SinglefileData) -> bool:
    """Whether a process of this profile wrote the model."""
    return isinstance(prior, PotentialData) and prior.creator is not None


class MaceCalculation(RecoveringCalcJob):
    """Train a MACE model; see `aiida_autopipe.engines.mace.job`.

    The interpreter of the code needs this package with the extra `mace`.
    """

    # Raise it with any change that gives other results for the same inputs: old ones stop counting.
    CACHE_VERSION = 1

    @classmethod
    def define(cls, spec: Any) -> None:
        """Declare inputs, outputs and exit codes."""
        super().define(spec)
        dataset = {"valid_type": DatasetData, "validator": validate_optional_dataset}
        spec.input("train", valid_type=DatasetData, validator=validate_dataset)
        spec.input(
            "validation",
            required=False,
            help="decides when to stop; without it a part of `train` does",
            **dataset,
        )
        spec.input("test", required=False, help="only reported on", **dataset)
        spec.input("settings", valid_type=Dict, validator=validate_settings, help="MaceSettings")
        spec.input(
            "seed", valid_type=Int, validator=validate_seed, help="of weights, order and split"
        )
        spec.input(
            "prior",
            valid_type=(PotentialData, SinglefileData),
            validator=validate_prior,
            required=False,
            help="model to start from (fine-tuning)",
        )
        spec.input(
            "replay",
            required=False,
            help="data `prior` was trained on and must not forget; without labels, its own count",
            **dataset,
        )
        spec.input(
            "restart_from",
            valid_type=RemoteData,
            required=False,
            help="folder of a training with the same inputs whose time was over",
        )
        spec.inputs.validator = validate_inputs
        defaults = {
            "parser_name": "autopipe.mace",
            "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1},
            "output_filename": "job.out",
            "withmpi": False,
        }
        for name, value in defaults.items():
            spec.inputs["metadata"]["options"][name].default = value
        spec.output("potential", valid_type=PotentialData)
        spec.output("metrics", valid_type=Dict, help="errors, what was chosen, seconds")
        spec.output("parity", valid_type=ArrayData, help="reference and predicted values")
        spec.output(
            "learning_curve",
            valid_type=ArrayData,
            required=False,
            help="losses and validation errors by epoch, also of a training that failed",
        )
        _define_exit_codes(spec)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write job.json and link data, model and checkpoints beside it."""
        copies = []
        job: dict[str, Any] = {
            "settings": self.inputs.settings.get_dict(),
            "seed": self.inputs.seed.value,
            "max_seconds": self._seconds(),
        }
        for name, target in DATA_FILES.items():
            if name in self.inputs:
                copies.append((self.inputs[name].uuid, self.inputs[name].filename, target))
                job[name] = target
        prior = self.inputs.get("prior")
        if prior is not None:
            own = isinstance(prior, PotentialData)
            name = prior.filenames[0] if own else prior.filename
            copies.append((prior.uuid, name, PRIOR_FILE))
            job |= {"prior": PRIOR_FILE, "trusted": is_own(prior)}
        with folder.open(JOB_FILE, "w", encoding="utf-8") as handle:
            json.dump(job, handle, indent=1)
        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = ["-m", "aiida_autopipe.engines.mace.job", JOB_FILE]
        code.stdout_name = self.options.output_filename
        info = CalcInfo()
        info.codes_info = [code]
        info.local_copy_list = copies
        if "restart_from" in self.inputs:
            old = self.inputs.restart_from
            info.remote_copy_list = [
                (old.computer.uuid, f"{old.get_remote_path()}/{name}", name)
                for name in (CHECKPOINTS, RESULTS)
            ]
        info.retrieve_list = [
            POTENTIAL_FILE,
            METRICS_FILE,
            PARITY_FILE,
            ERROR_FILE,
            LOG_FILE,
            (f"{RESULTS}/*_train.txt", ".", 0),
            self.options.output_filename,
        ]
        return info

    def _seconds(self) -> float | None:
        """The time of the job, less what it takes to end in good order."""
        seconds = self.options.get("max_wallclock_seconds")
        if seconds is None:
            return None
        return float(seconds - min(_RESERVE_S, _RESERVE_FRACTION * seconds))


def validate_optional_dataset(node: DatasetData | None, context: Any) -> str | None:
    """A data set that is given must hold something."""
    return None if node is None else validate_dataset(node, context)


def _define_exit_codes(spec: Any) -> None:
    spec.exit_code(201, "ERROR_INPUT_REFUSED", "The training refused its input: {message}")
    spec.exit_code(301, "ERROR_TRAINING_FAILED", "The training failed: {message}")
    faults = (
        (302, "ERROR_OUTPUT_MISSING", "The training ended without writing {missing}."),
        (303, "ERROR_OUTPUT_UNREADABLE", "The file {filename} is unusable: {message}"),
        (
            305,
            "ERROR_INTERPRETER",
            "The interpreter of the code lacks aiida_autopipe or the extra 'mace': {message}",
        ),
        (306, "ERROR_TRAINING_CRASHED", "The training crashed: {message}"),
        (
            308,
            "ERROR_OUT_OF_MEMORY",
            "The memory did not suffice: {message}; take a smaller batch_size, or ask for more.",
        ),
        (
            309,
            "ERROR_NO_EPOCH_IN_TIME",
            "The time of the job was over before a single epoch was; give it more time.",
        ),
        (
            401,
            "ERROR_INTERRUPTED",
            "The training was interrupted: it left neither a result nor an error message.",
        ),
        (
            402,
            "ERROR_OUT_OF_TIME",
            "The time of the job was over after {epochs} epochs; it can go on from there.",
        ),
    )
    for status, label, message in faults:
        spec.exit_code(status, label, message, invalidates_cache=True)
    spec.exit_code(
        304, "ERROR_METRICS_NOT_FINITE", "The trained model has the error {name} = {value}."
    )
    spec.exit_code(
        307,
        "ERROR_DIVERGED",
        "The training diverged in epoch {epoch}: {message}; take a smaller learning_rate.",
    )
