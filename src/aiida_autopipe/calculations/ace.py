"""The CalcJob that fits a linear ACE potential with a Python interpreter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.orm import ArrayData, Dict, Int

from aiida_autopipe.calculations.recovery import RecoveringCalcJob
from aiida_autopipe.core.ace.fit import FitSettings
from aiida_autopipe.core.ace.job import (
    ERROR_FILE,
    JOB_FILE,
    METRICS_FILE,
    PARITY_FILE,
    PRIOR_PREFIX,
    TEST_FILE,
    TRAIN_FILE,
    potential_files,
)
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def validate_settings(node: Dict, _: Any) -> str | None:
    """The sentence that says what is wrong with the settings, if anything."""
    try:
        FitSettings.from_dict(node.get_dict())
    except InputError as error:
        return str(error)
    return None


def validate_seed(node: Int, _: Any) -> str | None:
    """The seed of a NumPy generator cannot be negative."""
    return None if node.value >= 0 else f"The seed {node.value} must not be negative."


def validate_dataset(node: DatasetData, _: Any) -> str | None:
    """A data set without structures cannot be fitted or tested."""
    return None if node.n_structures else "The data set contains no structures."


def validate_prior(node: PotentialData | None, _: Any) -> str | None:
    """The mean of the prior needs the B functions of a linear ACE."""
    suffixes = set() if node is None else {Path(name).suffix for name in node.filenames}
    if node is not None and (node.kind != "ace" or not suffixes >= {".yace", ".yaml"}):
        return (
            f"The prior is of kind '{node.kind}' and has {', '.join(node.filenames)}; a fit "
            "can start from an ACE with its .yace and its B-basis .yaml."
        )
    return None


class AceCalculation(RecoveringCalcJob):
    """Fit a linear ACE potential to a labelled dataset; see `aiida_autopipe.core.ace.job`."""

    # Raise it with any change that gives other results for the same inputs: old ones stop counting.
    CACHE_VERSION = 3

    @classmethod
    def define(cls, spec: Any) -> None:
        """Declare inputs, outputs and exit codes."""
        super().define(spec)
        spec.input("train", valid_type=DatasetData, validator=validate_dataset)
        spec.input("test", valid_type=DatasetData, validator=validate_dataset, required=False)
        spec.input("settings", valid_type=Dict, validator=validate_settings, help="FitSettings")
        spec.input("seed", valid_type=Int, validator=validate_seed, help="for the fold assignment")
        spec.input(
            "prior",
            valid_type=PotentialData,
            validator=validate_prior,
            required=False,
            help="potential whose basis is used and whose coefficients are the mean of the prior",
        )
        defaults = {
            "parser_name": "autopipe.ace",
            "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1},
            "output_filename": "ace.out",
            "withmpi": False,
            # Spinning threads of the numerical libraries cost more than they bring.
            "environment_variables": dict.fromkeys(_THREAD_VARIABLES, "1"),
        }
        for name, value in defaults.items():
            spec.inputs["metadata"]["options"][name].default = value
        spec.output("potential", valid_type=PotentialData)
        spec.output(
            "metrics",
            valid_type=Dict,
            help="errors, chosen settings, seconds; with a test set `calibration`",
        )
        spec.output("parity", valid_type=ArrayData, help="reference and predicted values")
        spec.exit_code(201, "ERROR_INPUT_REFUSED", "The fit refused its input: {message}")
        spec.exit_code(301, "ERROR_FIT_FAILED", "The fit failed: {message}")
        spec.exit_code(
            302,
            "ERROR_OUTPUT_MISSING",
            "The fit ended without writing {missing}.",
            invalidates_cache=True,
        )
        spec.exit_code(
            303,
            "ERROR_OUTPUT_UNREADABLE",
            "The file {filename} is unusable: {message}",
            invalidates_cache=True,
        )
        spec.exit_code(304, "ERROR_METRICS_NOT_FINITE", "The fit has the error {name} = {value}.")
        spec.exit_code(
            305,
            "ERROR_INTERPRETER",
            "The interpreter of the code cannot import aiida_autopipe: {message}",
            invalidates_cache=True,
        )
        spec.exit_code(
            306, "ERROR_FIT_CRASHED", "The fit crashed: {message}", invalidates_cache=True
        )
        spec.exit_code(
            401,
            "ERROR_INTERRUPTED",
            "The fit was interrupted: it left neither a result nor an error message.",
            invalidates_cache=True,
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write job.json and link the data sets beside it."""
        train: DatasetData = self.inputs.train
        copies = [(train.uuid, train.filename, TRAIN_FILE)]
        if "test" in self.inputs:
            copies.append((self.inputs.test.uuid, self.inputs.test.filename, TEST_FILE))
        prior: PotentialData | None = self.inputs.get("prior")
        for name in [] if prior is None else prior.filenames:
            suffix = Path(name).suffix
            if prior is not None and suffix in (".yace", ".yaml", ".asi"):
                copies.append((prior.uuid, name, PRIOR_PREFIX + suffix))
        job = {
            "train": TRAIN_FILE,
            "test": TEST_FILE if "test" in self.inputs else None,
            "settings": self.inputs.settings.get_dict(),
            "seed": self.inputs.seed.value,
            "prior": None if prior is None else f"{PRIOR_PREFIX}.yace",
        }
        with folder.open(JOB_FILE, "w", encoding="utf-8") as handle:
            json.dump(job, handle, indent=1)
        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = ["-m", "aiida_autopipe.core.ace.job", JOB_FILE]
        code.stdout_name = self.options.output_filename
        info = CalcInfo()
        info.codes_info = [code]
        info.local_copy_list = copies
        info.retrieve_list = [
            *potential_files(self.inputs.settings.get_dict()),
            METRICS_FILE,
            PARITY_FILE,
            ERROR_FILE,
            self.options.output_filename,
        ]
        return info
