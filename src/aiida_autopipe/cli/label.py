"""`mlip-auto label`: labels for plain files; the calculations run in the AiiDA profile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.cli.commands import mlip_auto_command
from aiida_autopipe.core.errors import InputError

PW_CODE = "pw@localhost"


@click.command()
@click.argument("files", type=options.FILE, nargs=-1, required=True)
@click.option(
    "--pw-input", is_flag=True,
    help="FILES are inputs of pw.x, which are run as they are: namelists, k-points, kinds and "
    "pseudopotentials (from pseudo_dir, else $ESPRESSO_PSEUDO) are kept.",
)  # fmt: skip
@click.option("--oracle", metavar="NAME", help="What labels structures.  [default: autopipe.pw]")
@click.option(
    "-o", "--output", type=options.FILE, metavar="FILE",
    help="The labelled structures (.extxyz or .h5).  [default: labelled.extxyz]",
)  # fmt: skip
@click.option(
    "--rejected", type=options.FILE, metavar="FILE", help="The rejected ones, each with its reason."
)
@click.option(
    "--settings", type=options.FILE, metavar="FILE",
    help="The `label` section of a configuration (YAML); options below win over it.",
)  # fmt: skip
@click.option(
    "--pseudopotentials", metavar="NAME",
    help="Installed family, or folder of UPF files.  [default: the first family that has all]",
)  # fmt: skip
@click.option("--cutoff-wfc", type=float, metavar="RY", help="Cutoff.  [default: the family's]")
@click.option("--cutoff-rho", type=float, metavar="RY", help="Of the density.")
@click.option("--kspacing", type=float, metavar="1/A", help="Of k-points.  [default: 0.25]")
@click.option("--calculator", metavar="PATH", help="For autopipe.ase, such as tblite.ase.TBLite.")
@click.option("--keywords", metavar="JSON", help="Of the calculator, such as '{\"rc\": 7.0}'.")
@click.option(
    "--code", metavar="LABEL",
    help=f"AiiDA's code.  [default: {PW_CODE}, python@localhost for other oracles]",
)  # fmt: skip
@click.option(
    "--max-labels", type=click.IntRange(min=1), metavar="N",
    help="Most calculations in all, retries included (not with --pw-input).",
)  # fmt: skip
@click.option(
    "--max-concurrent", type=click.IntRange(min=1), default=2, show_default=True, metavar="N",
    help="Most jobs at once.",
)  # fmt: skip
@click.option(
    "--max-attempts", type=click.IntRange(min=1), metavar="N",
    help="Most calculations for one structure, retries included.",
)  # fmt: skip
@click.option(
    "--max-wall-time", type=click.IntRange(min=1), metavar="SECONDS", help="End after so long."
)
@click.option("--profile", metavar="NAME", help="AiiDA's profile.  [default: as for run]")
@click.option("--new", is_flag=True, help="Calculate anew what was calculated before.")
@options.JSON_OUTPUT
def label(files: tuple[Path, ...], pw_input: bool, profile: str | None, **given: Any) -> int:
    """Label structures: energies, forces and stresses; what fails is rescued or rejected.

    FILES is one file of structures (extxyz, HDF5, CIF, ...), which are labelled by the oracle, pw.x
    or any ASE calculator. With --pw-input they are existing inputs of pw.x.

    The calculations run in AiiDA's profile, by its daemon. After Ctrl-C those that were started go
    on, and the same command comes back to them.

    The exit status is 1 if nothing was labelled, or if an input of pw.x could not be run at all.

    \b
    Examples:
        mlip-auto label pool.extxyz -o labelled.extxyz --rejected rejected.extxyz
        mlip-auto label pool.extxyz --oracle autopipe.ase --calculator ase.calculators.emt.EMT
        mlip-auto label --pw-input a.in b.in --json out.json
    """
    _check(files, pw_input, given)
    options.check_json_path(given["json_path"])
    from aiida_autopipe.workflows.preflight import PROFILE_VARIABLE, load_profile

    if profile is not None:
        os.environ[PROFILE_VARIABLE] = profile
    load_profile()
    again = _again(files, pw_input, given)
    return _pw_inputs(files, given, again) if pw_input else _structures(files[0], given, again)


_STRUCTURES_ONLY = (
    "oracle", "output", "rejected", "settings", "pseudopotentials", "cutoff_wfc", "cutoff_rho",
    "kspacing", "calculator", "keywords", "max_labels",
)  # fmt: skip


def _check(files: tuple[Path, ...], pw_input: bool, given: dict[str, Any]) -> None:
    """Refuse options of the other form of the command."""
    if pw_input:
        foreign = [name for name in _STRUCTURES_ONLY if given[name] is not None]
        if foreign:
            option = foreign[0].replace("_", "-")
            raise InputError(f"--{option} is for files of structures, not for --pw-input")
    elif len(files) > 1:
        hint = "; inputs of pw.x need --pw-input" if files[0].suffix in (".in", ".pwi") else ""
        raise InputError(f"give one file of structures, not {len(files)}{hint}")


def _again(files: tuple[Path, ...], pw_input: bool, given: dict[str, Any]) -> str:
    """The command to come back with."""
    words: list[object] = [*(["--pw-input"] if pw_input else []), *files]
    for name, value in given.items():
        if value is not None and name != "new":
            option = "json" if name == "json_path" else name.replace("_", "-")
            words += [f"--{option}", value]
    return mlip_auto_command("label", *words)


def _pw_inputs(files: tuple[Path, ...], given: dict[str, Any], again: str) -> int:
    from aiida_autopipe.cli.label_pw import Campaign, Entry, label_inputs

    entries = [Entry(path) for path in files]
    campaign = Campaign(
        entries, given["json_path"], given["max_concurrent"], given["max_wall_time"]
    )
    code = given["code"] or PW_CODE
    return label_inputs(campaign, code, given["max_attempts"], given["new"], again)


def _structures(path: Path, given: dict[str, Any], again: str) -> int:
    from aiida_autopipe.cli.label_file import (
        Targets,
        label_structures,
        oracle_settings,
        read_settings,
    )
    from aiida_autopipe.workflows.label_launch import Limits

    section = {
        "oracle": given["oracle"],
        "code": given["code"],
        "settings": oracle_settings(given["calculator"], given["keywords"]),
        "pseudopotentials": _absolute(given["pseudopotentials"]),
        "cutoff_wfc_Ry": given["cutoff_wfc"],
        "cutoff_rho_Ry": given["cutoff_rho"],
        "kspacing_per_A": given["kspacing"],
        "max_attempts": given["max_attempts"],
    }
    user, folder = read_settings(given["settings"], section)
    limits = Limits(given["max_labels"], given["max_concurrent"], given["max_wall_time"])
    output = given["output"] or Path("labelled.extxyz")
    targets = Targets(output, given["rejected"], given["json_path"])
    return label_structures(path, user, folder, limits, targets, given["new"], again)


def _absolute(pseudopotentials: str | None) -> str | None:
    """A folder is relative to the current one here, and to the file of settings there."""
    if pseudopotentials is not None and Path(pseudopotentials).expanduser().is_dir():
        return str(Path(pseudopotentials).expanduser().resolve())
    return pseudopotentials
