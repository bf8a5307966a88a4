"""What a run needs from AiiDA, checked before anything is submitted."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiida_autopipe.config.models import PW_ORACLE, Config
from aiida_autopipe.config.trainers import MACE_TRAINER
from aiida_autopipe.core.errors import EngineError, InputError
from aiida_autopipe.core.material import Material
from aiida_autopipe.workflows.pseudopotentials import SETUP_HINT, resolve_pseudos

TRAINER_PORTS = ("train", "test", "settings", "seed")

OWN_PROFILE = "autopipe"
PROFILE_VARIABLE = "AIIDA_PROFILE"


def choose_profile(names: Sequence[str], default: str | None) -> str | None:
    """The profile the commands work in: AIIDA_PROFILE, else this package's own, else the default.

    :param names: the profiles that AiiDA has.
    :param default: its default profile.
    :returns: None when there is none to choose; AIIDA_PROFILE may name one that does not exist.
    """
    return os.environ.get(PROFILE_VARIABLE) or (OWN_PROFILE if OWN_PROFILE in names else default)


def load_profile() -> str:
    """Load the profile of `choose_profile`; keep one that is loaded already.

    :returns: its name.
    :raises EngineError: there is no such profile.
    """
    from aiida.common.exceptions import ConfigurationError
    from aiida.manage.configuration import get_config, get_profile
    from aiida.manage.configuration import load_profile as load

    loaded = get_profile()
    if loaded is not None:
        return str(loaded.name)
    try:
        config = get_config()
        names = list(config.profile_names)
        chosen = choose_profile(names, config.default_profile_name)
        if chosen is not None and chosen not in names:
            listed = f"it has {', '.join(names)}" if names else SETUP_HINT
            raise EngineError(f"{PROFILE_VARIABLE}: AiiDA has no profile '{chosen}'; {listed}")
        profile = load(chosen)
    except ConfigurationError as error:
        raise EngineError(f"AiiDA has no profile here: {SETUP_HINT}") from error
    return str(profile.name)


def preflight(config: Config, material: Material) -> list[str]:
    """Problems that would stop a run, one sentence each; empty when it can start."""
    try:
        load_profile()
    except EngineError as error:
        return [str(error)]
    problems = _entry_point_problems(config)
    for stage, program, label in (
        ("label", "pw.x" if is_pw(config) else "program", config.label.code),
        ("train", "Python interpreter", config.train.code),
        ("md", "LAMMPS", config.md.code),
    ):
        problem = code_problem(f"{stage}.code", program, label)
        problem = problem or _mpi_problem(stage, label, config)
        if problem:
            problems.append(problem)
    if config.explore.surrogate is not None:
        problem = code_problem("explore.code", "Python interpreter", config.explore.code)
        problems += [problem] if problem else []
    try:
        if is_pw(config):
            resolve_pseudos(config, material.elements)
        else:
            check_oracle(config)
    except InputError as error:
        problems.append(str(error))
    return problems


def is_pw(config: Config) -> bool:
    """Whether pw.x labels, with its pseudopotentials and cutoffs."""
    return config.label.oracle == PW_ORACLE


def check_oracle(config: Config) -> None:
    """Refuse an oracle that is not installed, or settings that it does not understand."""
    from aiida.orm import Dict, Str

    from aiida_autopipe.workflows.oracles import validate_oracle

    asked = {"oracle": Str(config.label.oracle), "settings": Dict(config.label.settings or {})}
    if problem := validate_oracle(asked, None):
        raise InputError(f"label: {problem}")


def _entry_point_problems(config: Config) -> list[str]:
    """A trainer may come from another package: it must exist and have the ports of a trainer."""
    from aiida.plugins import CalculationFactory
    from aiida.plugins.entry_point import get_entry_point_names

    name = config.train.trainer
    known = get_entry_point_names("aiida.calculations")
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        suggestion = f"; did you mean '{nearest[0]}'?" if nearest else ""
        return [f"train.trainer: AiiDA knows no calculation '{name}'{suggestion}"]
    process = CalculationFactory(name)
    ports: Any = getattr(process, "spec", dict)()
    lacking = [port for port in TRAINER_PORTS if port not in getattr(ports, "inputs", {})]
    if lacking:
        return [f"train.trainer: '{name}' is no trainer, it has no input {', '.join(lacking)}"]
    if name == MACE_TRAINER:
        return [
            f"train.trainer: '{name}' makes no ACE potential, which the MD of the loop needs for "
            "its extrapolation grades; take autopipe.ace for a run, and train MACE with the "
            "process autopipe.train"
        ]
    return []


def code_problem(key: str, program: str, label: str) -> str | None:
    """Why the code `label` cannot be used, with the `key` that named it; None when it can."""
    from aiida.common.exceptions import MultipleObjectsError, NotExistent
    from aiida.orm import InstalledCode, load_code

    try:
        code = load_code(label)
    except (NotExistent, MultipleObjectsError):
        return f"{key}: no {program}, AiiDA has no code '{label}'; {SETUP_HINT}"
    if not isinstance(code, InstalledCode):
        return None
    if not code.computer.is_configured:
        return (
            f"{key}: the computer '{code.computer.label}' of '{label}' is not configured in AiiDA"
        )
    path = Path(str(code.filepath_executable))
    if code.computer.transport_type != "core.local":
        return None
    found = path if path.is_absolute() else Path(shutil.which(str(path)) or path)
    if not (found.is_file() and os.access(found, os.X_OK)):
        return (
            f"{key}: no {program}, '{path}' of the code '{label}' is not an executable file; "
            f"{SETUP_HINT}"
        )
    return None


def _mpi_problem(stage: str, label: str, config: Config) -> str | None:
    from aiida.orm import load_code

    from aiida_autopipe.workflows.inputs import n_processes

    processes = n_processes(config.resources.model_dump()[stage])
    if processes == 1 or load_code(label).with_mpi is not False:
        return None
    return (
        f"resources.{stage}: {processes} MPI processes are asked for, but the code '{label}' runs "
        "without MPI; ask for one, or choose a code that was made with MPI"
    )
