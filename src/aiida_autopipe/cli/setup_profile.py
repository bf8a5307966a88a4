"""Profile, computer, codes and pseudopotential families of the embedded default.

Every function here creates what is missing and keeps what is there, so it may be called again.
A profile that this module did not create is only added to, never reconfigured, and the default
profile of an existing configuration stays the default.
"""

import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aiida_autopipe.core.errors import EngineError, InputError
from aiida_autopipe.engines.espresso.pseudos import FUNCTIONALS, available_pseudos
from aiida_autopipe.workflows.preflight import OWN_PROFILE

if TYPE_CHECKING:
    from aiida.manage.configuration.config import Config
    from aiida.manage.configuration.profile import Profile
    from aiida.orm import Computer, InstalledCode
    from aiida_pseudo.groups.family import CutoffsPseudoPotentialFamily

COMPUTER_LABEL = "localhost"
FAMILY_PREFIX = "autopipe/debian"
STRINGENCY = "normal"
Interface = Literal["library", "ml-pace"]

PROFILE_OPTIONS: dict[str, Any] = {
    # A process waits at most this long for a step it did not hear about by message.
    "runner.poll.interval": 1,
    "daemon.default_workers": 2,
    # The default of 2 s is too short where all cores are busy with pw.x; a stopped daemon is only
    # noticed after this time, so not much longer either.
    "daemon.timeout": 5,
    "caching.enabled_for": [
        "aiida.calculations:quantumespresso.pw",
        "aiida.calculations:autopipe.*",
    ],
}
PW_PREPEND = """\
# Keep the last lines of output when pw.x aborts: without them the failure cannot be recognised.
export GFORTRAN_UNBUFFERED_PRECONNECTED=y
export OMP_NUM_THREADS=1"""
PYTHON_PREPEND = "export OMP_NUM_THREADS=1"


@dataclass(frozen=True)
class Made:
    """What an `ensure_*` function did: the name of the thing, and whether it is new."""

    name: str
    created: bool


def configuration() -> "Config":
    """Return AiiDA's configuration under AIIDA_PATH (or ~/.aiida), created where there is none."""
    from aiida.manage.configuration import get_config

    return get_config(create=True)


def choose_profile_name(config: "Config", asked: str | None) -> str:
    """Return the profile to use: the one asked for, else ours, else refuse to guess.

    Raises InputError where the configuration has profiles of the user's, none of them ours, and
    no name was given.
    """
    if asked is not None:
        return asked
    names = list(config.profile_names)
    if names and OWN_PROFILE not in names:
        raise InputError(
            f"AiiDA in {config.dirpath} already has the profile '{names[0]}' and nothing was "
            f"changed: type 'mlip-auto setup --profile {OWN_PROFILE}' to add a profile beside "
            "it (your default stays), or set AIIDA_PATH to a new folder."
        )
    return OWN_PROFILE


def ensure_profile(name: str, config: "Config | None" = None) -> Made:
    """Create (core.sqlite_dos, core.zeromq) or keep the profile `name`, and load it.

    Raises EngineError where AiiDA cannot create or open the profile.
    """
    from aiida.common.exceptions import AiidaException
    from aiida.manage.configuration import create_profile, load_profile

    config = configuration() if config is None else config
    created = name not in config.profile_names
    try:
        if created:
            default_before = config.default_profile_name
            folder = Path(config.dirpath) / "repository" / name
            profile = create_profile(
                config,
                storage_backend="core.sqlite_dos",
                storage_config={"filepath": str(folder)},
                broker_backend="core.zeromq",
                broker_config={},
                name=name,
                email="aiida@localhost",
            )
            configure_profile(config, profile)
            config.set_default_profile(default_before or name, overwrite=True)
            config.store()
        load_profile(name, allow_switch=True)
    except (AiidaException, ValueError, TypeError) as error:
        raise EngineError(f"AiiDA cannot open the profile '{name}': {error}") from error
    return Made(name, created)


def configure_profile(config: "Config", profile: "Profile") -> None:
    """Set `PROFILE_OPTIONS` on a profile that we own, and on no other."""
    for option, value in PROFILE_OPTIONS.items():
        config.set_option(option, value, scope=profile.name)


def ensure_computer(
    label: str = COMPUTER_LABEL, workdir: Path | None = None, poll_interval_s: float = 0.5
) -> Made:
    """Create (core.local, core.direct, one process per job) or keep the computer `label`.

    `workdir` defaults to `scratch/<profile>` in AiiDA's configuration folder.
    """
    from aiida.common.exceptions import NotExistent
    from aiida.orm import Computer, load_computer

    try:
        load_computer(label)
    except NotExistent:
        folder = workdir or Path(configuration().dirpath) / "scratch" / _loaded_profile()
        computer = Computer(
            label=label,
            hostname="localhost",
            description="This machine, without a queue",
            transport_type="core.local",
            scheduler_type="core.direct",
            workdir=str(folder),
        )
        # A job script stops at its first failing line.
        computer.set_prepend_text("set -e")
        computer.store()
        computer.configure(use_login_shell=False, safe_interval=0.0)
        computer.set_minimum_job_poll_interval(poll_interval_s)
        computer.set_default_mpiprocs_per_machine(1)
        return Made(label, created=True)
    return Made(label, created=False)


def ensure_code(
    label: str,
    executable: Path,
    plugin: str,
    prepend_text: str = "",
    description: str = "",
    extras: dict[str, Any] | None = None,
    computer_label: str = COMPUTER_LABEL,
) -> Made:
    """Create or keep the code `label`@`computer_label` that runs `executable` without mpirun.

    A code of that label with another executable is set aside under the label `LABEL-<pk>` (its
    calculations keep it) and a new one takes the label.
    """
    from aiida.orm import InstalledCode

    full_label = f"{label}@{computer_label}"
    code = find_code(label, computer_label)
    if code is not None:
        if str(code.filepath_executable) == str(executable):
            code.base.extras.set_many(extras or {})
            return Made(full_label, created=False)
        code.label = f"{label}-{code.pk}"
    code = InstalledCode(
        label=label,
        computer=_computer(computer_label),
        filepath_executable=str(executable),
        default_calc_job_plugin=plugin,
        with_mpi=False,
        prepend_text=prepend_text,
        description=description,
    ).store()
    code.base.extras.set_many(extras or {})
    return Made(full_label, created=True)


def ensure_pw_code(executable: Path, computer_label: str = COMPUTER_LABEL) -> Made:
    """Create or keep `pw`, the code of pw.x."""
    return ensure_code(
        "pw",
        executable,
        "quantumespresso.pw",
        PW_PREPEND,
        "Quantum ESPRESSO pw.x",
        computer_label=computer_label,
    )


def ensure_python_code(executable: Path, computer_label: str = COMPUTER_LABEL) -> Made:
    """Create or keep `python`, the interpreter that runs the ACE fit."""
    return ensure_code(
        "python",
        executable,
        "autopipe.ace",
        PYTHON_PREPEND,
        "Python with aiida_autopipe",
        computer_label=computer_label,
    )


def ensure_lammps_code(
    executable: Path, interface: Interface, computer_label: str = COMPUTER_LABEL
) -> Made:
    """Create or keep `lammps`; the extra `interface` says how it is to be driven.

    'library' is our own runner (forces from the numba ACE through `fix external`), 'ml-pace' a
    LAMMPS executable with `pair_style pace/extrapolation`.
    """
    return ensure_code(
        "lammps",
        executable,
        "autopipe.lammps",
        lammps_prepend(executable, interface),
        f"LAMMPS, driven through the interface {interface}",
        {"interface": interface},
        computer_label=computer_label,
    )


def lammps_prepend(executable: Path, interface: Interface) -> str:
    """Return the job script lines of the LAMMPS code.

    The library of the PyPI wheel needs the MPI library of the same environment on its search path.
    """
    lines = ["export OMP_NUM_THREADS=1"]
    if interface == "library":
        library = shlex.quote(str(executable.parent.parent / "lib"))
        lines.append(f'export LD_LIBRARY_PATH={library}"${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"')
    return "\n".join(lines)


def ensure_pseudo_families(folder: Path) -> list[Made]:
    """Create or keep one family per functional from Debian's pseudopotential folder.

    The families are called `autopipe/debian/PZ` and `autopipe/debian/PBE`, and carry the
    recommended cutoffs of the curated table. A functional of which the folder has no file is left
    out.
    """
    made = []
    for functional in FUNCTIONALS:
        if available_pseudos(folder, functional):
            made.append(_ensure_family(folder, functional))
    return made


def _ensure_family(folder: Path, functional: str) -> Made:
    from aiida_pseudo.data.pseudo import UpfData
    from aiida_pseudo.groups.family import CutoffsPseudoPotentialFamily

    label = f"{FAMILY_PREFIX}/{functional}"
    pseudos = available_pseudos(folder, functional)
    cutoffs = {
        element: {"cutoff_wfc": pseudo.cutoff_wfc_Ry, "cutoff_rho": pseudo.cutoff_rho_Ry}
        for element, pseudo in pseudos.items()
    }
    existing = find_family(label)
    if existing is not None and existing.get_cutoffs(STRINGENCY) == cutoffs:
        return Made(label, created=False)
    if existing is not None:
        # The table changed with a new version: runs on the old family keep it under its own name.
        existing.label = f"{label}-{existing.pk}"
    with tempfile.TemporaryDirectory() as chosen:
        for pseudo in pseudos.values():
            shutil.copy(folder / pseudo.file, chosen)
        family = CutoffsPseudoPotentialFamily.create_from_folder(
            Path(chosen),
            label,
            pseudo_type=UpfData,
            description=f"{functional} files of Debian's quantum-espresso-data",
        )
    family.set_cutoffs(cutoffs, STRINGENCY, unit="Ry")
    return Made(label, created=True)


def find_family(label: str) -> "CutoffsPseudoPotentialFamily | None":
    """Return the pseudopotential family `label` of the loaded profile, or None."""
    from aiida.common.exceptions import NotExistent
    from aiida.orm import load_group

    try:
        return load_group(label)
    except NotExistent:
        return None


def find_code(label: str, computer_label: str = COMPUTER_LABEL) -> "InstalledCode | None":
    """Return the code `label`@`computer_label` of the loaded profile, or None.

    Raises InputError where the label belongs to another kind of code (a container, for instance).
    """
    from aiida.common.exceptions import NotExistent
    from aiida.orm import InstalledCode, load_code

    full_label = f"{label}@{computer_label}"
    try:
        code = load_code(full_label)
    except NotExistent:
        return None
    if not isinstance(code, InstalledCode):
        raise InputError(
            f"The code {full_label} of this profile is a {type(code).__name__}, not an installed "
            "code: name it in your input, or use another profile with --profile."
        )
    return code


def _loaded_profile() -> str:
    from aiida.manage.configuration import get_profile

    profile = get_profile()
    if profile is None:
        raise EngineError("No AiiDA profile is loaded: create one with 'mlip-auto setup'.")
    return str(profile.name)


def _computer(label: str) -> "Computer":
    from aiida.orm import load_computer

    return load_computer(label)
