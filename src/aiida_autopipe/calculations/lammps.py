"""`autopipe.lammps`: one MD run with LAMMPS, watched by the extrapolation grade."""

from __future__ import annotations

from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec
from aiida.orm import ArrayData, Dict, Int

from aiida_autopipe.calculations.recovery import RecoveringCalcJob
from aiida_autopipe.core.ace.posterior import posterior_path
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.engines.lammps import deck
from aiida_autopipe.engines.lammps.results import restart_structure
from aiida_autopipe.engines.lammps.sampling import MSD_PATTERN, RDF_PATTERN
from aiida_autopipe.engines.lammps.settings import MdSettings

# LAMMPS ends by itself after this part of the job's time limit, so that its files are complete.
_TIMEOUT_FRACTION = 0.9


class LammpsCalculation(RecoveringCalcJob):
    """MD of one structure in NVE, NVT and NPT segments, halted when the potential extrapolates.

    The code is a `lmp` with ML-PACE, or `autopipe-lammps` (settings: `interface`).
    """

    # Raise it with any change that gives other results for the same inputs: old ones stop counting.
    CACHE_VERSION = 3

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare inputs, outputs and exit codes."""
        super().define(spec)
        spec.input(
            "structure",
            valid_type=DatasetData,
            validator=validate_structure,
            help="Dataset with exactly one structure: where the run starts.",
        )
        spec.input("potential", valid_type=PotentialData, help="Potential with its active set.")
        spec.input(
            "settings",
            valid_type=Dict,
            validator=validate_settings,
            help="Fields of aiida_autopipe.engines.lammps.settings.MdSettings.",
        )
        spec.input("seed", valid_type=Int, help="Decides the initial velocities.")
        spec.input(
            "restart",
            valid_type=ArrayData,
            required=False,
            help="Go on from here, keeping the clock: output `restart` of a run of the same "
            "structure and segments, with this potential or another.",
        )
        options: Any = spec.inputs["metadata"]
        options["options"]["parser_name"].default = "autopipe.lammps"
        options["options"]["resources"].default = {
            "num_machines": 1,
            "num_mpiprocs_per_machine": 1,
        }
        options["options"]["withmpi"].default = False
        spec.inputs.validator = validate_inputs

        spec.output(
            "frames",
            valid_type=DatasetData,
            required=False,
            help="Frames above gamma_select and the last one below it, with their gamma.",
        )
        spec.output(
            "trace",
            valid_type=ArrayData,
            required=False,
            help="Arrays step, time_ps, temperature_K, pressure, volume, potential_energy, "
            "gamma_max.",
        )
        spec.output(
            "restart",
            valid_type=ArrayData,
            required=False,
            help="The last frame not above gamma_select: step, numbers, positions, velocities "
            "(Å/fs), cell, gamma.",
        )
        spec.output(
            "structure",
            valid_type=ArrayData,
            required=False,
            help="Radial distribution functions, coordination, density and mean-square "
            "displacement of each segment; see `structure_arrays` of `engines.lammps.sampling`.",
        )
        spec.output("results", valid_type=Dict, required=False, help="How the run went.")
        spec.default_output_node = "results"
        _define_exit_codes(spec)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the deck, the data file and the include; copy the potential's files."""
        settings = MdSettings.from_dict(self.inputs.settings.get_dict())
        potential: PotentialData = self.inputs.potential
        elements = potential.elements
        # Only ML-PACE cannot find the repulsion in the files by itself.
        zbl = potential.get_zbl() if settings.interface == "ml-pace" else None
        start = deck.in_vacuum(self.inputs.structure.get_dataset().atoms(0))
        rotation = deck.lammps_rotation(start.cell.array)
        first_step, atoms = None, start
        if "restart" in self.inputs:
            first_step, atoms = restart_structure(restart_values(self.inputs.restart))
        seed = self.inputs.seed.value
        limit = self.inputs.metadata.options.get("max_wallclock_seconds", None)
        timeout = None if limit is None else max(1, int(_TIMEOUT_FRACTION * limit))
        sampled = sampled_elements(self.inputs.structure)
        texts = {
            deck.INPUT_FILE: deck.input_deck(
                settings, elements, seed, timeout, first_step, sampled
            ),
            deck.POTENTIAL_FILE: deck.potential_include(settings, elements, potential.cutoff, zbl),
            deck.DATA_FILE: deck.data_file(atoms, elements, rotation),
        }
        for name, text in texts.items():
            folder.create_file_from_filelike(BytesIO(text.encode()), name, mode="wb")

        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = ["-in", deck.INPUT_FILE]
        info = CalcInfo()
        info.codes_info = [code]
        info.prepend_text = (
            "set -e\nexport OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1"
        )
        info.local_copy_list = [
            (potential.uuid, source, target)
            for target, source in potential_files(potential, settings.uncertainty).items()
        ]
        info.retrieve_list = [deck.LOG_FILE, deck.TRACE_FILE]
        if settings.keep_every:
            info.retrieve_list.append(deck.KEPT_FILE)
        patterns = (deck.SAFE_PATTERN, *((RDF_PATTERN, MSD_PATTERN) if sampled else ()))
        info.retrieve_temporary_list = [deck.FRAMES_FILE, *((name, ".", 0) for name in patterns)]
        return info


def _define_exit_codes(spec: CalcJobProcessSpec) -> None:
    spec.exit_code(
        301,
        "ERROR_OUTPUT_MISSING",
        message="LAMMPS did not start or left no output: {filename} is missing. {stderr}",
        invalidates_cache=True,
    )
    spec.exit_code(
        302,
        "ERROR_INTERRUPTED",
        message="The run was interrupted after step {step} of {steps}. {stderr}",
        invalidates_cache=True,
    )
    spec.exit_code(
        303,
        "ERROR_LAMMPS",
        message="LAMMPS stopped at step {step}: {message}",
        invalidates_cache=True,
    )
    spec.exit_code(
        304,
        "ERROR_LOST_ATOMS",
        message="The structure flew apart after step {step} of {steps}: {message}",
    )
    spec.exit_code(
        305,
        "ERROR_UNSTABLE",
        message="Temperature, pressure or positions became NaN after step {step} of {steps}.",
    )
    spec.exit_code(
        306,
        "ERROR_OUTPUT_UNREADABLE",
        message="The output of LAMMPS cannot be read: {message}",
        invalidates_cache=True,
    )
    spec.exit_code(
        400,
        "ERROR_OUT_OF_WALLTIME",
        message="The job's time limit ended the run after step {step} of {steps}.",
        invalidates_cache=True,
    )


def validate_settings(value: Dict, _: Any) -> str | None:
    """Message of what is wrong with the settings."""
    try:
        MdSettings.from_dict(value.get_dict())
    except InputError as error:
        return str(error)
    return None


def validate_structure(value: DatasetData, _: Any) -> str | None:
    """Message when the dataset does not hold exactly one structure."""
    if value.n_structures != 1:
        return f"The structure to run must be a dataset of 1 structure, not {value.n_structures}."
    return None


def validate_inputs(values: dict[str, Any], _: Any) -> str | None:
    """Message when structure and potential do not fit together."""
    if not all(key in values for key in ("structure", "potential")):
        return None
    potential: PotentialData = values["potential"]
    try:
        deck.check_structure(
            deck.in_vacuum(values["structure"].get_dataset().atoms(0)), potential.elements
        )
        settings = values["settings"].get_dict() if "settings" in values else {}
        potential_files(potential, settings.get("uncertainty", "gamma"))
        if "restart" in values and "settings" in values:
            _check_restart(values)
    except InputError as error:
        return str(error)
    return None


def _check_restart(values: dict[str, Any]) -> None:
    """Raise InputError where a run cannot go on from the restart node."""
    restart = restart_values(values["restart"])
    missing = sorted({"step", "numbers", "positions", "velocities", "cell"} - set(restart))
    if missing:
        raise InputError(f"The restart has no array '{missing[0]}'; it is no output of a run.")
    start = values["structure"].get_dataset().atoms(0)
    if not np.array_equal(start.numbers, restart["numbers"]):
        raise InputError("The restart has other atoms than the structure that the run began with.")
    MdSettings.from_dict(values["settings"].get_dict()).remaining(int(restart["step"]))


def sampled_elements(structure: DatasetData) -> list[str]:
    """Elements whose structure is recorded along a run; none of a molecule, without a density."""
    atoms = structure.get_dataset().atoms(0)
    return sorted(set(atoms.get_chemical_symbols())) if np.any(atoms.pbc) else []


def restart_values(node: ArrayData) -> dict[str, Any]:
    """Arrays of a restart node by name."""
    return {name: node.get_array(name) for name in node.get_arraynames()}


def potential_files(potential: PotentialData, uncertainty: str = "gamma") -> dict[str, str]:
    """Name in the run directory -> name in the node, for the files a run reads.

    A committee needs the posterior of the coefficients as well.

    Raises:
        InputError: the node lacks one of them.
    """
    found = {PurePosixPath(name).suffix: name for name in potential.filenames}
    files = {}
    for target in deck.POTENTIAL_FILES:
        suffix = PurePosixPath(target).suffix
        if suffix not in found:
            raise InputError(
                f"MD needs a {suffix} file in the potential, which has "
                f"{', '.join(potential.filenames)}."
            )
        files[target] = found[suffix]
    if uncertainty == "committee":
        if ".npz" not in found:
            raise InputError(
                "MD watched by a committee needs the posterior of the potential, which has "
                f"{', '.join(potential.filenames)}; fit it with `train: {{posterior: true}}`."
            )
        files[posterior_path(deck.POTENTIAL_FILES[0]).name] = found[".npz"]
    return files
