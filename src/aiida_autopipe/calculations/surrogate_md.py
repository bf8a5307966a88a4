"""`autopipe.surrogate_md`: molecular dynamics with a surrogate, as a job and in this process."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.engine import calcfunction
from aiida.orm import Dict, Int, SinglefileData

from aiida_autopipe.calculations.functions import stated
from aiida_autopipe.calculations.recovery import RecoveringCalcJob
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.explore.choose import choose, without_labels
from aiida_autopipe.core.explore.job import (
    ERROR_FILE,
    FRAMES_FILE,
    JOB_FILE,
    MODEL_PREFIX,
    STARTS_FILE,
    SUMMARY_FILE,
)
from aiida_autopipe.core.explore.run import explore
from aiida_autopipe.core.explore.settings import ExploreSettings
from aiida_autopipe.core.surrogates.registry import SurrogateSpec
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MODEL_SUFFIXES = (".model", ".yace")
# The scheduler kills what is over its time: the job ends itself before, by this part or so long.
_RESERVE_FRACTION = 0.1
_RESERVE_S = 60.0


def validate_surrogate(node: Dict, _: Any) -> str | None:
    """The sentence that says what is wrong with the surrogate, if anything."""
    try:
        SurrogateSpec.from_dict(node.get_dict())
    except InputError as error:
        return str(error)
    return None


def validate_settings(node: Dict, _: Any) -> str | None:
    """The sentence that says what is wrong with the settings, if anything."""
    try:
        ExploreSettings.from_dict(node.get_dict())
    except InputError as error:
        return str(error)
    return None


def validate_starts(node: DatasetData, _: Any) -> str | None:
    """There must be something to start from."""
    return None if node.n_structures else "The data set of starts contains no structures."


def validate_seed(node: Int, _: Any) -> str | None:
    """A seed cannot be negative."""
    return None if node.value >= 0 else f"The seed {node.value} must not be negative."


def validate_processes(node: Int | None, _: Any) -> str | None:
    """At least one trajectory must run."""
    if node is not None and node.value < 1:
        return f"processes must be at least 1, not {node.value}."
    return None


def validate_model(node: SinglefileData | PotentialData | None, _: Any) -> str | None:
    """A potential must have a file that a surrogate can be opened from."""
    if node is not None and _model_file(node) is None:
        return f"The model has no file that ends in {' or '.join(MODEL_SUFFIXES)}."
    return None


class SurrogateMdCalculation(RecoveringCalcJob):
    """Run trajectories of a surrogate from every start; see `aiida_autopipe.core.explore.job`.

    The interpreter of the code needs this package (its science part alone is imported) and the
    package of the surrogate.
    """

    # Raise it with any change that gives other results for the same inputs: old ones stop counting.
    CACHE_VERSION = 1

    @classmethod
    def define(cls, spec: Any) -> None:
        """Declare inputs, outputs and exit codes."""
        super().define(spec)
        spec.input("starts", valid_type=DatasetData, validator=validate_starts)
        spec.input("surrogate", valid_type=Dict, validator=validate_surrogate, help="SurrogateSpec")
        spec.input(
            "model",
            valid_type=(SinglefileData, PotentialData),
            validator=validate_model,
            required=False,
            help="the surrogate's file, which takes the place of `surrogate['surrogate']`",
        )
        spec.input("settings", valid_type=Dict, validator=validate_settings, help="ExploreSettings")
        spec.input("seed", valid_type=Int, validator=validate_seed)
        spec.input(
            "processes",
            valid_type=Int,
            validator=validate_processes,
            required=False,
            help="trajectories at the same time; else the processes of the job's resources",
        )
        spec.input(
            "engine", valid_type=str, non_db=True, default="auto", help="auto, ase or torch-sim"
        )
        defaults = {
            "parser_name": "autopipe.surrogate_md",
            "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1},
            "output_filename": "explore.out",
            "withmpi": False,
            # Each process is one thread.
            "environment_variables": dict.fromkeys(_THREAD_VARIABLES, "1"),
        }
        for name, value in defaults.items():
            spec.inputs["metadata"]["options"][name].default = value
        spec.output(
            "frames",
            valid_type=DatasetData,
            required=False,
            help="frames with the surrogate's labels, and their conditions as columns",
        )
        spec.output(
            "summary",
            valid_type=Dict,
            required=False,
            help="`frames`, `rejected` by reason, `trajectories`, `surrogate`, `seconds`",
        )
        _define_exit_codes(spec)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write job.json and link the starts and the model beside it."""
        starts: DatasetData = self.inputs.starts
        copies = [(starts.uuid, starts.filename, STARTS_FILE)]
        surrogate = self.inputs.surrogate.get_dict()
        if "model" in self.inputs:
            source = _model_file(self.inputs.model)
            name = MODEL_PREFIX + Path(str(source)).suffix
            copies.append((self.inputs.model.uuid, source, name))
            surrogate["surrogate"] = name
        job = {
            "starts": STARTS_FILE,
            "surrogate": surrogate,
            "settings": self.inputs.settings.get_dict(),
            "seed": self.inputs.seed.value,
            "processes": self._processes(),
            "engine": self.inputs.engine,
            "max_seconds": self._seconds(),
        }
        with folder.open(JOB_FILE, "w", encoding="utf-8") as handle:
            json.dump(job, handle, indent=1)
        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = ["-m", "aiida_autopipe.core.explore.job", JOB_FILE]
        code.stdout_name = self.options.output_filename
        info = CalcInfo()
        info.codes_info = [code]
        info.local_copy_list = copies
        info.retrieve_list = [FRAMES_FILE, SUMMARY_FILE, ERROR_FILE, self.options.output_filename]
        return info

    def _processes(self) -> int:
        """Processes of the job on one machine: they do not reach further."""
        if "processes" in self.inputs:
            return int(self.inputs.processes.value)
        resources = self.options.resources
        machines = int(resources.get("num_machines") or 1)
        total = int(resources.get("tot_num_mpiprocs") or 0) // machines
        return max(1, int(resources.get("num_mpiprocs_per_machine") or total))

    def _seconds(self) -> float | None:
        """When the job ends itself: before the scheduler does."""
        seconds = self.options.get("max_wallclock_seconds")
        if seconds is None:
            return None
        return float(seconds - min(_RESERVE_S, _RESERVE_FRACTION * seconds))


@calcfunction
@stated
def surrogate_md(starts: DatasetData, surrogate: Dict, settings: Dict, seed: Int) -> dict[str, Any]:
    """The same as the CalcJob in this process, for surrogates by name.

    Args:
        starts: start structures.
        surrogate: the fields of `SurrogateSpec`.
        settings: the fields of `ExploreSettings`.
        seed: of everything random.

    Returns:
        `frames` and `summary`.
    """
    spec = SurrogateSpec.from_dict(surrogate.get_dict())
    chosen = ExploreSettings.from_dict(settings.get_dict())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FRAMES_FILE
        found = explore(starts.get_dataset(), spec, chosen, seed.value, path)
        return {"frames": DatasetData.from_file(path), "summary": Dict(found.summary())}


@calcfunction
@stated
def choose_frames(
    frames: DatasetData, settings: Dict, known: DatasetData | None = None
) -> dict[str, Any]:
    """The most informative frames of an exploration, without the surrogate's labels.

    Args:
        frames: the pool.
        settings: `n`, `method` (direct, fps or a registered selector) and `seed`.
        known: structures that are labelled or will be; none near to them is chosen.

    Returns:
        `selected`, only where a frame is worth choosing, and `summary`: `n`, `indices` and the
        `coverage` next to random choices.
    """
    values = settings.get_dict()
    before = None if known is None else without_labels(known.get_dataset())
    choice = choose(
        frames.get_dataset(),
        int(values["n"]),
        str(values.get("method", "direct")),
        before,
        int(values.get("seed", 0)),
    )
    summary = {
        "n": len(choice.indices),
        "pool": frames.n_structures,
        "indices": choice.indices.tolist(),
        "coverage": choice.coverage,
    }
    outputs: dict[str, Any] = {"summary": Dict(summary)}
    if len(choice.indices):
        outputs["selected"] = DatasetData(choice.structures)
    return outputs


def _model_file(node: SinglefileData | PotentialData) -> str | None:
    """Name of the file in the node that a surrogate can be opened from."""
    names = [node.filename] if isinstance(node, SinglefileData) else list(node.filenames)
    return next((n for n in names if Path(n).suffix in MODEL_SUFFIXES), None)


def _define_exit_codes(spec: Any) -> None:
    fresh = {"invalidates_cache": True}
    for status, name, message, options in (
        (201, "ERROR_INPUT_REFUSED", "The exploration refused its input: {message}", {}),
        (301, "ERROR_SURROGATE", "The surrogate cannot be used: {message}", fresh),
        (302, "ERROR_OUTPUT_MISSING", "The job ended without writing {missing}.", fresh),
        (303, "ERROR_OUTPUT_UNREADABLE", "The file {filename} is unusable: {message}", fresh),
        (
            304,
            "ERROR_INTERPRETER",
            "The interpreter of the code cannot import aiida_autopipe: {message}",
            fresh,
        ),
        (305, "ERROR_CRASHED", "The exploration crashed: {message}", fresh),
        (306, "ERROR_NO_FRAMES", "{message}", {}),
        (
            401,
            "ERROR_INTERRUPTED",
            "The job was interrupted: it left neither a result nor an error message.",
            fresh,
        ),
        (
            402,
            "ERROR_OUT_OF_TIME",
            "The time of the job was over when {done} of {total} trajectories were finished.",
            fresh,
        ),
    ):
        spec.exit_code(status, name, message, **options)
