"""The CalcJob that fits an ACE potential with Pacemaker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.exceptions import InputValidationError
from aiida.common.folders import Folder
from aiida.orm import Dict, Int

from aiida_autopipe.calculations.ace import validate_dataset, validate_prior, validate_seed
from aiida_autopipe.calculations.recovery import RecoveringCalcJob
from aiida_autopipe.core.errors import AutopipeError, InputError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.engines.pacemaker.dataset import reference_energies, write_table
from aiida_autopipe.engines.pacemaker.files import (
    ACTIVE_SET_FILE,
    BASE_FILE,
    INPUT_FILE,
    LOG_FILE,
    METRICS_FILES,
    RESULT_FILE,
    TEST_FILE,
    TRAIN_FILE,
)
from aiida_autopipe.engines.pacemaker.settings import PacemakerSettings, fit_input

# Pacemaker's own tool; with -a it keeps the environments it would otherwise take for outliers.
_ACTIVE_SET = f"""
if [ -s {RESULT_FILE} ] && command -v pace_activeset >/dev/null; then
    pace_activeset -a -d fitting_data_info.pckl.gzip {RESULT_FILE} >activeset.log 2>&1 || true
fi
"""


def validate_settings(node: Dict, _: Any) -> str | None:
    """The sentence that says what is wrong with the settings, if anything."""
    try:
        PacemakerSettings.from_mapping(node.get_dict())
    except InputError as error:
        return str(error)
    return None


class PacemakerCalculation(RecoveringCalcJob):
    """Fit an ACE potential to a labelled dataset with Pacemaker."""

    CACHE_VERSION = 1

    @classmethod
    def define(cls, spec: Any) -> None:
        """Declare inputs, outputs and exit codes."""
        super().define(spec)
        spec.input("train", valid_type=DatasetData, validator=validate_dataset)
        spec.input("test", valid_type=DatasetData, validator=validate_dataset, required=False)
        spec.input("settings", valid_type=Dict, validator=validate_settings)
        spec.input("seed", valid_type=Int, validator=validate_seed)
        spec.input(
            "prior",
            valid_type=PotentialData,
            validator=validate_prior,
            required=False,
            help="potential to continue from; functions that the settings add start with zero",
        )
        defaults = {
            "parser_name": "autopipe.pacemaker",
            "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1},
            "output_filename": "pacemaker.out",
            "withmpi": False,
            "append_text": _ACTIVE_SET,
        }
        for name, value in defaults.items():
            spec.inputs["metadata"]["options"][name].default = value
        spec.output("potential", valid_type=PotentialData)
        spec.output("metrics", valid_type=Dict, help="errors, loss, metrics of each step")
        spec.exit_code(201, "ERROR_INPUT_REFUSED", "Pacemaker refused its input: {message}")
        spec.exit_code(301, "ERROR_DIVERGED", "The fit diverged: {message}")
        spec.exit_code(302, "ERROR_CRASHED", "{message}", invalidates_cache=True)
        spec.exit_code(
            303,
            "ERROR_OUTPUT_MISSING",
            "The fit ended without writing {missing}.",
            invalidates_cache=True,
        )
        spec.exit_code(
            304,
            "ERROR_OUTPUT_UNREADABLE",
            "The file {filename} is unusable: {message}",
            invalidates_cache=True,
        )
        spec.exit_code(401, "ERROR_INTERRUPTED", "{message}", invalidates_cache=True)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write input.yaml and the tables of the data sets."""
        train = self.inputs.train.get_dataset()
        settings = PacemakerSettings.from_mapping(self.inputs.settings.get_dict())
        prior: PotentialData | None = self.inputs.get("prior")
        names = {TRAIN_FILE: train}
        if "test" in self.inputs:
            names[TEST_FILE] = self.inputs.test.get_dataset()
        try:
            text = fit_input(
                settings,
                train.elements,
                self.inputs.seed.value,
                TRAIN_FILE,
                TEST_FILE if "test" in self.inputs else None,
                None if prior is None else BASE_FILE,
            )
            references = reference_energies(train)
            for name, dataset in names.items():
                write_table(
                    Path(folder.abspath) / name, dataset, references, settings.cutout_energies
                )
        except AutopipeError as error:
            raise InputValidationError(str(error)) from error
        with folder.open(INPUT_FILE, "w", encoding="utf-8") as handle:
            handle.write(text)
        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = [INPUT_FILE]
        code.stdout_name = self.options.output_filename
        info = CalcInfo()
        info.codes_info = [code]
        if prior is not None:
            base = next(name for name in prior.filenames if Path(name).suffix == ".yaml")
            info.local_copy_list = [(prior.uuid, base, BASE_FILE)]
        info.retrieve_list = [
            LOG_FILE, RESULT_FILE, ACTIVE_SET_FILE, *METRICS_FILES, self.options.output_filename,
        ]  # fmt: skip
        return info
