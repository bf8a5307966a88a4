"""`autopipe.pw_batch`: pw.x on many small structures in one job."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

from aiida.common.datastructures import CalcInfo
from aiida.common.escaping import escape_for_bash
from aiida.common.exceptions import InputValidationError
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec
from aiida.orm import AbstractCode, Computer, Dict, Int
from aiida_pseudo.data.pseudo.upf import UpfData

from aiida_autopipe.calculations.recovery import RecoveringCalcJob
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.espresso import batch
from aiida_autopipe.engines.espresso.pw import PwSettings

# The batch ends by itself after this part of the job's time limit, so that its files are complete.
_TIMEOUT_FRACTION = 0.95


class PwBatchCalculation(RecoveringCalcJob):
    """pw.x on all structures of a dataset, as many at a time as the job has slots.

    Each structure has its own input, output and outcome, and none can end the others. Serial runs
    are the default: for a small cell a second core is better spent on a second structure.
    """

    # Raise it with any change that gives other results for the same inputs: old ones stop counting.
    CACHE_VERSION = 1

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare inputs, outputs and exit codes."""
        super().define(spec)
        spec.input(
            "dataset",
            valid_type=DatasetData,
            validator=validate_dataset,
            help="The structures; where the column `relax` is true, positions are relaxed first.",
        )
        spec.input(
            "settings",
            valid_type=Dict,
            validator=validate_settings,
            help="The method: fields of aiida_autopipe.engines.espresso.pw.PwSettings.",
        )
        spec.input_namespace("pseudos", valid_type=UpfData, dynamic=True, help="UPF by element.")
        spec.input(
            "slots",
            valid_type=Int,
            required=False,
            validator=validate_positive,
            help="Structures at a time; by default as many as the job has processes for.",
        )
        spec.input(
            "ranks",
            valid_type=Int,
            required=False,
            validator=validate_positive,
            help="MPI processes of one structure, by default 1.",
        )
        spec.input(
            "structure_seconds",
            valid_type=Int,
            required=False,
            validator=validate_positive,
            help="Longest time one structure may take; by default as long as the job has.",
        )
        options: Any = spec.inputs["metadata"]
        options["options"]["parser_name"].default = "autopipe.pw_batch"
        options["options"]["resources"].default = {
            "num_machines": 1,
            "num_mpiprocs_per_machine": 1,
        }
        options["options"]["withmpi"].default = False
        spec.inputs.validator = validate_inputs
        spec.output(
            "labelled",
            valid_type=DatasetData,
            required=False,
            help="Structures that succeeded; the column `position` is their index in the dataset.",
        )
        spec.output(
            "outcomes",
            valid_type=Dict,
            help="`outcomes`: position, outcome (ok, failed, not_run), reason, exit_status of "
            "pw.x as aiida-quantumespresso counts them, and seconds, of every structure.",
        )
        spec.default_output_node = "outcomes"
        _define_exit_codes(spec)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write one archive of inputs, the order and the runner."""
        dataset: DatasetData = self.inputs.dataset
        settings = PwSettings.from_dict(self.inputs.settings.get_dict())
        plan = batch.plan_batch(settings, list(dataset.get_dataset().iter_atoms()))
        contents = {
            batch.INPUTS_FILE: batch.inputs_archive(plan.inputs),
            batch.ORDER_FILE: batch.order_text(plan.order).encode(),
            batch.REFUSED_FILE: json.dumps(plan.refused, indent=1).encode(),
            batch.SCRIPT_FILE: batch.SCRIPT.read_bytes(),
        }
        for name, content in contents.items():
            folder.create_file_from_filelike(BytesIO(content), name, mode="wb")
        pseudos = {element: self.inputs.pseudos[element] for element in dataset.elements}

        info = CalcInfo()
        # Not one run of the code but many: the runner starts them.
        info.codes_info = []
        info.append_text = self._run_text()
        info.local_copy_list = [
            (node.uuid, node.filename, f"{batch.PSEUDO_FOLDER}/{batch.pseudo_file(element)}")
            for element, node in pseudos.items()
        ]
        info.retrieve_list = [batch.LOG_FILE, (batch.RESULTS, ".", 2)]
        return info

    def _run_text(self) -> str:
        """The lines of the job script that run the batch and hand signals on to it."""
        inputs = self.inputs
        computer: Computer = self.node.computer
        ranks = inputs.ranks.value if "ranks" in inputs else 1
        try:
            slots = slots_of_job(computer, inputs.code, dict(self.options), ranks)
        except InputError as error:
            raise InputValidationError(str(error)) from error
        if "slots" in inputs:
            slots = inputs.slots.value
        limit = self.options.get("max_wallclock_seconds", None)
        job_seconds = 0 if limit is None else max(1, int(_TIMEOUT_FRACTION * limit))
        seconds = inputs.structure_seconds.value if "structure_seconds" in inputs else 0
        command = _command(computer, inputs.code, dict(self.options), ranks)
        return (
            f"sh {batch.SCRIPT_FILE} {slots} {seconds} {job_seconds} -- {command} &\n"
            "batch=$!\n"
            "trap 'kill -TERM \"$batch\"' TERM INT HUP\n"
            'while kill -0 "$batch" 2>/dev/null; do wait "$batch" || true; done'
        )


def _define_exit_codes(spec: CalcJobProcessSpec) -> None:
    spec.exit_code(
        301,
        "ERROR_PROGRAM_NOT_STARTED",
        message="pw.x could not be started for any of {count} structures: {reason}",
        invalidates_cache=True,
    )
    spec.exit_code(
        302,
        "ERROR_OUTPUT_MISSING",
        message="The batch did not start: {filename} is missing. {stderr}",
        invalidates_cache=True,
    )
    spec.exit_code(
        401,
        "ERROR_INTERRUPTED",
        message="The job was interrupted: {not_run} of {count} structures were not run to an end.",
        invalidates_cache=True,
    )


def validate_dataset(node: DatasetData, _: Any) -> str | None:
    """Message when there is nothing to label."""
    return None if node.n_structures else "The data set contains no structures."


def validate_settings(node: Dict, _: Any) -> str | None:
    """Message of what is wrong with the settings."""
    try:
        PwSettings.from_dict(node.get_dict())
    except InputError as error:
        return str(error)
    return None


def validate_positive(node: Int | None, _: Any) -> str | None:
    """A count of at least one."""
    return None if node is None or node.value > 0 else f"must be at least 1, not {node.value}"


def validate_inputs(values: dict[str, Any], _: Any) -> str | None:
    """Message when inputs do not fit together."""
    if any(key not in values for key in ("dataset", "code", "metadata")):
        return None
    missing = sorted(set(values["dataset"].elements) - set(values.get("pseudos", {})))
    if missing:
        return f"There is no pseudopotential for {', '.join(missing)}."
    options = values["metadata"].get("options", {})
    if options.get("append_text"):
        # AiiDA puts it before what a plugin appends, and that is where the batch runs.
        return (
            "The option append_text would run before the structures: put it into the append text "
            "of the code or the computer."
        )
    code: AbstractCode = values["code"]
    computer = values["metadata"].get("computer") or code.computer
    if computer is None:
        return None
    ranks = values["ranks"].value if "ranks" in values else 1
    try:
        slots_of_job(computer, code, options, ranks)
    except InputError as error:
        return str(error)
    return None


def slots_of_job(
    computer: Computer, code: AbstractCode, options: dict[str, Any], ranks: int
) -> int:
    """How many structures the processes of a job can run at a time.

    Raises:
        InputError: the processes cannot be used so.
    """
    resource = _job_resource(computer, options)
    total = int(resource.get_tot_num_mpiprocs())
    machines = int(resource.get("num_machines") or 1)
    mpi = _uses_mpi(code, options)
    if ranks > 1 and not mpi:
        raise InputError(
            f"{ranks} ranks per structure need MPI, but '{code.label}' is run without: set "
            "withmpi in the options, or leave ranks out."
        )
    if machines > 1 and not (mpi and _launcher(computer) == "srun"):
        raise InputError(
            f"The job has {machines} machines, but only srun can start single runs on all of "
            "them: ask for one machine, or label with several jobs."
        )
    if ranks > total // machines:
        raise InputError(
            f"A structure is to have {ranks} ranks, but the job has {total // machines} "
            "processes per machine."
        )
    return machines * (total // machines // ranks)


def _job_resource(computer: Computer, options: dict[str, Any]) -> Any:
    resources = dict(options.get("resources") or {})
    scheduler = computer.get_scheduler()
    scheduler.preprocess_resources(resources, computer.get_default_mpiprocs_per_machine())
    try:
        return scheduler.create_job_resource(**resources)
    except (ValueError, TypeError) as error:
        raise InputError(f"The resources {resources} are unusable: {error}") from error


def _uses_mpi(code: AbstractCode, options: dict[str, Any]) -> bool:
    """What the code says counts, because it may not run otherwise; then the option."""
    return bool(options.get("withmpi", False) if code.with_mpi is None else code.with_mpi)


def _launcher(computer: Computer) -> str:
    words = computer.get_mpirun_command()
    return PurePosixPath(words[0]).name if words else ""


def _command(computer: Computer, code: AbstractCode, options: dict[str, Any], ranks: int) -> str:
    """One run of the code as a shell command, quoted as AiiDA quotes it."""
    words: list[str] = []
    if _uses_mpi(code, options):
        values = {
            **_job_resource(computer, options),
            "tot_num_mpiprocs": ranks,
            "num_machines": 1,
            "num_mpiprocs_per_machine": ranks,
        }
        words = [word.format(**values) for word in computer.get_mpirun_command()]
        if _launcher(computer) == "srun" and "--exact" not in words:
            # Otherwise the first step would take all processors of the job.
            words[1:1] = ["--exact", "--nodes=1"]
        words += options.get("mpirun_extra_params") or []
    before = code.get_prepend_cmdline_params(words)
    run = code.get_executable_cmdline_params(["-in", batch.INPUT_FILE])
    quoted = " ".join(escape_for_bash(word, code.use_double_quotes) for word in run)
    if code.wrap_cmdline_params:
        quoted = escape_for_bash(quoted, use_double_quotes=True)
    return " ".join(
        [*(escape_for_bash(word, computer.get_use_double_quotes()) for word in before), quoted]
    )
