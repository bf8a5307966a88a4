"""From sections of the configuration to inputs of the work chains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida.orm import Dict

from aiida_autopipe.config.explore import Explore
from aiida_autopipe.config.models import Config
from aiida_autopipe.config.trainers import COMMON_KEYS, MACE_TRAINER


def job_options(resources: dict[str, Any], code_with_mpi: bool | None = None) -> dict[str, Any]:
    """`metadata.options` from a `resources` section of the configuration.

    Args:
        resources: a section of `resources`.
        code_with_mpi: what the code itself says; AiiDA refuses options that contradict it, so
            the number of processes only decides for a code that leaves it open.
    """
    machine = {key: resources[key] for key in ("num_machines", "num_mpiprocs_per_machine")}
    if resources["num_cores_per_mpiproc"] > 1:
        machine["num_cores_per_mpiproc"] = resources["num_cores_per_mpiproc"]
    by_number = n_processes(resources) > 1
    return {
        "resources": machine,
        "max_wallclock_seconds": resources["max_wallclock_seconds"],
        "withmpi": by_number if code_with_mpi is None else code_with_mpi,
    }


def n_processes(resources: dict[str, Any]) -> int:
    """MPI processes that a `resources` section asks for."""
    return int(resources["num_machines"] * resources["num_mpiprocs_per_machine"])


def md_conditions(md: dict[str, Any], n_starts: int) -> list[dict[str, Any]]:
    """One simulation for each start, ensemble and temperature, and one of the schedule.

    Args:
        md: the `md` section of the configuration.
        n_starts: number of start structures; the last one is that of the schedule if it has a
            supercell of its own.
    """
    plain = [
        {
            "ensemble": ensemble,
            "temperature_K": temperature if isinstance(temperature, list) else [temperature] * 2,
            "pressure_GPa": md["pressure_GPa"],
            "steps": md["steps"],
        }
        for temperature in md["temperatures_K"]
        for ensemble in md["ensembles"]
    ]
    schedule = [_schedule(md)] if md["schedule"] else []
    n_plain = n_starts if md["schedule_supercell"] is None else n_starts - 1
    of_schedule = range(n_starts) if n_plain == n_starts else [n_plain]
    return [
        *({"start": start, **condition} for condition in plain for start in range(n_plain)),
        *({"start": start, **condition} for condition in schedule for start in of_schedule),
    ]


def _schedule(md: dict[str, Any]) -> dict[str, Any]:
    """The segments of `md.schedule`, and what they are together."""
    segments = [
        {
            **segment,
            "steps": segment["steps"] or md["steps"],
            "pressure_GPa": _or(segment["pressure_GPa"], md["pressure_GPa"]),
        }
        for segment in md["schedule"]
    ]
    kelvin = [t if isinstance(t, list) else [t, t] for t in (s["temperature_K"] for s in segments)]
    return {
        "ensemble": "schedule",
        "temperature_K": [kelvin[0][0], *(pair[1] for pair in kelvin)],
        "pressure_GPa": segments[0]["pressure_GPa"],
        "steps": sum(segment["steps"] for segment in segments),
        "segments": segments,
    }


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def md_settings(md: dict[str, Any]) -> dict[str, Any]:
    """Settings shared by all simulations, from the `md` section of the configuration."""
    names = (
        "uncertainty",
        "interface",
        "timestep_fs",
        "gamma_select",
        "gamma_halt",
        "gamma_every",
        "max_frames",
    )
    settings = {name: md[name] for name in names}
    kept = {} if md["keep_every"] is None else {"keep_every": md["keep_every"]}
    return {**settings, **kept, "thermo_every": md["gamma_every"]}


def trainer_settings(train: dict[str, Any]) -> dict[str, Any]:
    """Settings for the trainer: its own, or the keys that the built-in fit has in the section.

    Args:
        train: the `train` section of the configuration.
    """
    if train.get("settings") is not None:
        return dict(train["settings"])
    if train["trainer"] == MACE_TRAINER:
        return {}
    return {key: value for key, value in train.items() if key not in COMMON_KEYS}


def train_inputs(config: Config, dataset: Any) -> dict[str, Any]:
    """Inputs of `autopipe.train` from a configuration; needs a loaded profile.

    Args:
        config: the complete configuration.
        dataset: `DatasetData` with labels.

    Raises:
        InputError: no such model file.
        DataError: a file of replayed data that cannot be read.
    """
    from aiida.orm import Dict, Int, SinglefileData, load_code

    from aiida_autopipe.core.dataset import read_dataset
    from aiida_autopipe.core.errors import InputError
    from aiida_autopipe.data.dataset import DatasetData

    train = config.train.model_dump()
    code = load_code(train["code"])
    resources = config.resources.model_dump()
    inputs: dict[str, Any] = {
        "dataset": dataset,
        "trainer": train["trainer"],
        "settings": Dict(trainer_settings(train)),
        "split": Dict({"test_fraction": train["test_fraction"]}),
        "seed": Int(config.seed),
        "code": code,
        "options": Dict(job_options(resources["train"], code.with_mpi)),
        "committee": Int(train["committee"]),
        "max_concurrent": Int(resources["max_concurrent"]),
    }
    if train["base_model"] is not None:
        if not Path(train["base_model"]).is_file():
            raise InputError(f"train.base_model: there is no file '{train['base_model']}'")
        inputs["prior"] = SinglefileData(train["base_model"])
    if train["replay"] is not None:
        inputs["replay"] = DatasetData(read_dataset(train["replay"]))
    return inputs


def explore_inputs(explore: dict[str, Any]) -> dict[str, Dict]:
    """`surrogate`, `settings` and `select` of `autopipe.explore`, from the section `explore`."""
    section = Explore.model_validate(explore)
    return {
        "surrogate": Dict(
            {key: explore[key] for key in ("surrogate", "keywords", "device", "trust")}
        ),
        "settings": Dict(section.settings().to_dict()),
        "select": Dict(explore["select"]),
    }


def initial_choice(n_generated: int, n_explored: int, most: int) -> list[int]:
    """Which of the generated structures, and of the explored ones behind them, are labelled first.

    When the budget does not cover all, the explored ones get at most half of it. The first
    generated structures are the isolated atoms, and the explored ones are taken evenly, since they
    are in the order of their conditions.
    """
    kept = min(n_generated, most - min(n_explored, most // 2))
    room = min(n_explored, most - kept)
    spread = [n_generated + (i * n_explored) // room for i in range(room)]
    return [*range(kept), *spread]
