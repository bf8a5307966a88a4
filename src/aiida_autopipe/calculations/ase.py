"""The CalcJob that labels structures with any ASE calculator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.orm import Dict, Int

from aiida_autopipe.calculations.recovery import RecoveringCalcJob
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.oracle import job as job_program
from aiida_autopipe.core.oracle import pyscf_calculator
from aiida_autopipe.core.oracle import worker as worker_program
from aiida_autopipe.core.oracle.job import (
    ERROR_FILE,
    JOB_FILE,
    JOB_PROGRAM,
    PYSCF_PROGRAM,
    RESULTS_FILE,
    STRUCTURES_FILE,
    WORKER_PROGRAM,
)
from aiida_autopipe.core.oracle.settings import AseSettings
from aiida_autopipe.core.oracle.structures import structure_lines
from aiida_autopipe.data.dataset import DatasetData

_PROGRAMS = {
    job_program: JOB_PROGRAM,
    worker_program: WORKER_PROGRAM,
    pyscf_calculator: PYSCF_PROGRAM,
}
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# The scheduler kills what is over its time: the job ends itself before, by this part or so long.
_RESERVE_FRACTION = 0.05
_RESERVE_S = 60.0


def validate_settings(node: Dict, _: Any) -> str | None:
    """The sentence that says what is wrong with the settings, if anything."""
    try:
        AseSettings.from_dict(node.get_dict())
    except InputError as error:
        return str(error)
    return None


def validate_dataset(node: DatasetData, _: Any) -> str | None:
    """There must be something to label."""
    return None if node.n_structures else "The data set contains no structures."


def validate_slots(node: Int | None, _: Any) -> str | None:
    """At least one structure must run."""
    if node is not None and node.value < 1:
        return f"slots must be at least 1, not {node.value}."
    return None


class AseCalculation(RecoveringCalcJob):
    """Label structures with an ASE calculator given by import path and keywords.

    All structures run in one job, as many at a time as it has slots, each with an outcome of its
    own; see `aiida_autopipe.core.oracle.job`. The interpreter of the code needs ASE and the
    calculator's package, nothing of this one.
    """

    # Raise it with any change that gives other results for the same inputs: old ones stop counting.
    CACHE_VERSION = 1

    @classmethod
    def define(cls, spec: Any) -> None:
        """Declare inputs, outputs and exit codes."""
        super().define(spec)
        spec.input(
            "dataset",
            valid_type=DatasetData,
            validator=validate_dataset,
            help="all its structures are labelled; where the column `relax` is true, relaxed first",
        )
        spec.input(
            "settings",
            valid_type=Dict,
            validator=validate_settings,
            help="the fields of AseSettings",
        )
        spec.input(
            "slots",
            valid_type=Int,
            validator=validate_slots,
            required=False,
            help="structures that run at the same time; else the processes of the job's resources",
        )
        defaults = {
            "parser_name": "autopipe.ase",
            "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1},
            "output_filename": "ase.out",
            "withmpi": False,
            # Each slot is one process of one thread.
            "environment_variables": dict.fromkeys(_THREAD_VARIABLES, "1"),
        }
        for name, value in defaults.items():
            spec.inputs["metadata"]["options"][name].default = value
        spec.output(
            "labelled",
            valid_type=DatasetData,
            required=False,
            help="structures with labels; `position` is the index in the input",
        )
        spec.output("outcomes", valid_type=Dict, help="one entry for each structure")
        _define_exit_codes(spec)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the structures and settings, and copy the job's programs beside them."""
        settings = AseSettings.from_dict(self.inputs.settings.get_dict())
        with folder.open(STRUCTURES_FILE, "w", encoding="utf-8") as handle:
            for line in structure_lines(self.inputs.dataset.get_dataset(), settings):
                handle.write(line + "\n")
        with folder.open(JOB_FILE, "w", encoding="utf-8") as handle:
            json.dump(self._job(settings), handle, indent=1)
        for program, name in _PROGRAMS.items():
            folder.insert_path(str(Path(str(program.__file__)).resolve()), name)
        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = [JOB_PROGRAM, JOB_FILE]
        code.stdout_name = self.options.output_filename
        info = CalcInfo()
        info.codes_info = [code]
        # The data set is an input already.
        info.provenance_exclude_list = [STRUCTURES_FILE]
        info.retrieve_list = [RESULTS_FILE, ERROR_FILE, self.options.output_filename]
        return info

    def _job(self, settings: AseSettings) -> dict[str, Any]:
        """What job.json holds."""
        seconds = self.options.get("max_wallclock_seconds")
        if seconds is not None:
            seconds -= min(_RESERVE_S, _RESERVE_FRACTION * seconds)
        slots = self.inputs.slots.value if "slots" in self.inputs else self._processes()
        return {
            "calculator": settings.calculator,
            "keywords": dict(settings.keywords),
            "force_threshold": settings.force_threshold,
            "relax_steps": settings.relax_steps,
            "seconds_per_structure": settings.seconds_per_structure,
            "reuse_calculator": settings.reuse_calculator,
            "slots": slots,
            "max_seconds": seconds,
        }

    def _processes(self) -> int:
        """Processes of the job on one machine: workers do not reach further."""
        resources = self.options.resources
        machines = int(resources.get("num_machines") or 1)
        total = int(resources.get("tot_num_mpiprocs") or 0) // machines
        return max(1, int(resources.get("num_mpiprocs_per_machine") or total))


def _define_exit_codes(spec: Any) -> None:
    spec.exit_code(
        201,
        "ERROR_CALCULATOR_NOT_FOUND",
        "The calculator {calculator} cannot be imported: {message}",
        invalidates_cache=True,
    )
    spec.exit_code(
        202,
        "ERROR_KEYWORDS_REFUSED",
        "The calculator {calculator} cannot be made with its keywords: {message}",
        invalidates_cache=True,
    )
    spec.exit_code(
        301,
        "ERROR_INTERPRETER",
        "The interpreter of the code cannot run the job: {message}",
        invalidates_cache=True,
    )
    spec.exit_code(
        302,
        "ERROR_CALCULATOR_CRASHED",
        "The calculator {calculator} cannot be started: {message}",
        invalidates_cache=True,
    )
    spec.exit_code(
        303,
        "ERROR_OUTPUT_UNREADABLE",
        "The file {filename} is unusable: {message}",
        invalidates_cache=True,
    )
    spec.exit_code(304, "ERROR_JOB_CRASHED", "The job crashed: {message}", invalidates_cache=True)
    spec.exit_code(
        401,
        "ERROR_INTERRUPTED",
        "The job was interrupted when {done} of {total} structures had an outcome.",
        invalidates_cache=True,
    )
    spec.exit_code(
        402,
        "ERROR_OUT_OF_TIME",
        "The time of the job was over when {done} of {total} structures had an outcome.",
        invalidates_cache=True,
    )
