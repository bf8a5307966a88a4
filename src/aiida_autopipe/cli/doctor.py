"""`mlip-auto doctor`: whether every code works, tried with a real tiny calculation."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from aiida_autopipe.cli import options
from aiida_autopipe.cli.commands import mlip_auto_command, verdi_command
from aiida_autopipe.cli.main import EXIT_ERROR
from aiida_autopipe.core.errors import EngineError

if TYPE_CHECKING:
    from aiida_autopipe.workflows.examine import Finding


@click.command()
@click.argument("codes", metavar="[CODE]...", nargs=-1)
@click.option("--profile", metavar="NAME", help="AiiDA's profile.  [default: as for run]")
@options.JSON_FLAG
def doctor(codes: tuple[str, ...], profile: str | None, as_json: bool) -> int:
    """Let each code calculate something that takes seconds, and say which of them work.

    CODE is a label such as pw@cluster; without one all codes of the profile are tried that label,
    train or run MD: pw.x labels two atoms of silicon, Python fits copper, LAMMPS runs 20 steps of
    it. The jobs go where the code's computer sends them, through its scheduler, with the default
    resources, and nothing is taken from AiiDA's cache. The exit status is 1 if a code fails.

    \b
    Examples:
        mlip-auto doctor
        mlip-auto doctor pw@cluster lammps@cluster
    """
    from aiida_autopipe.workflows.examine import codes_to_examine, examine
    from aiida_autopipe.workflows.preflight import PROFILE_VARIABLE, load_profile

    if profile is not None:
        os.environ[PROFILE_VARIABLE] = profile
    name = load_profile()
    chosen = codes_to_examine(codes)
    if not chosen:
        again = mlip_auto_command("setup")
        raise EngineError(f"The profile '{name}' has no code that could be tried: type '{again}'.")
    findings = []
    for code in chosen:
        findings.append(examine(code))
        if not as_json:
            _tell(findings[-1])
    if as_json:
        click.echo(json.dumps({"codes": [asdict(finding) for finding in findings]}, indent=2))
    return 0 if all(finding.ok for finding in findings) else EXIT_ERROR


def _tell(finding: Finding) -> None:
    click.echo(f"{'[OK]    ' if finding.ok else '[FAILED]'} {finding.code}: {finding.detail}")
    if not finding.ok and finding.pk is not None:
        click.echo(f"         look at it with: {verdi_command('process', 'report', finding.pk)}")
