"""``mlip-auto md``: molecular dynamics with an ACE potential that halts where it is lost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import EngineError, InputError

if TYPE_CHECKING:
    from aiida_autopipe.engines.lammps.local import LocalRun
    from aiida_autopipe.engines.lammps.settings import MdSettings

FRAMES = 100
"""Frames that are written where the user does not say how many."""
WITHOUT_HALT = 1e300


@click.command()
@click.argument("potential", type=options.FILE)
@click.argument("structure", type=options.FILE)
@click.option(
    "--temperature", metavar="K", default="300", show_default=True,
    help="Temperature, or a ramp such as 300:900.",
)  # fmt: skip
@click.option("--steps", type=int, default=10000, show_default=True, help="Steps.")
@click.option(
    "--ensemble", type=click.Choice(["nve", "nvt", "npt"]), default="nvt", show_default=True,
    help="Ensemble.",
)  # fmt: skip
@click.option(
    "--pressure", type=float, default=0.0, show_default=True, metavar="GPa", help="For npt."
)
@click.option(
    "--timestep", type=float, default=2.0, show_default=True, metavar="fs", help="Time step."
)
@click.option(
    "--schedule", type=options.FILE, metavar="FILE",
    help="A YAML file with a list of segments, `schedule: [{ensemble: npt, temperature_K: [300, "
    "900], steps: 5000}, ...]`, in the place of the four options above.",
)  # fmt: skip
@click.option(
    "--supercell", type=int, nargs=3, metavar="N N N", help="Repeat the structure before."
)
@click.option(
    "--index", type=int, default=-1, show_default=True, metavar="N",
    help="Which structure of STRUCTURE, counted from 0; -1 is the last.",
)  # fmt: skip
@click.option(
    "--every", type=int, metavar="N", help=f"Steps between frames.  [default: {FRAMES} frames]"
)
@click.option(
    "--gamma-halt", type=float, default=10.0, show_default=True, metavar="G",
    help="End the run at the first extrapolation grade above this; 0 never does.",
)  # fmt: skip
@click.option(
    "--gamma-every", type=int, default=10, show_default=True, metavar="N",
    help="Steps between evaluations of the extrapolation grade.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=options.FILE, default="trajectory.extxyz", show_default=True,
    help="The frames, an .extxyz, with gamma of each atom.",
)  # fmt: skip
@options.SEED
@options.JSON_OUTPUT
def md(
    potential: Path,
    structure: Path,
    supercell: tuple[int, int, int] | None,
    index: int,
    output: Path,
    seed: int,
    json_path: Path | None,
    **asked: Any,
) -> None:
    """Run molecular dynamics of STRUCTURE with POTENTIAL in LAMMPS, on this machine.

    The extrapolation grade gamma is watched: a run that leaves what the potential was taught is
    halted, and the frames up to there are written. POTENTIAL is a .yace or .yaml with its .asi.
    The exit status is 0 for a run that reached its end or was halted; `halted` in the JSON tells
    which.

    \b
    Example:
        mlip-auto md potential.yace si.cif --supercell 3 3 3 --temperature 300:1200 --steps 20000
    """
    from aiida_autopipe.engines.lammps.local import run_local

    options.check_json_path(json_path)
    if output.suffix != ".extxyz":
        raise InputError(f"The output '{output}' must end in .extxyz.")
    if not output.parent.is_dir():
        raise InputError(f"The folder '{output.parent}' of the output does not exist.")
    if not potential.is_file():
        raise InputError(f"There is no file '{potential}'.")
    settings = _settings(asked)
    atoms = options.structure_at(structure, index)
    if supercell is not None:
        if min(supercell) < 1:
            raise InputError(f"--supercell {supercell}: every number must be at least 1.")
        atoms = atoms.repeat(supercell)
    with (
        tempfile.TemporaryDirectory() as folder,
        _progress(settings.steps) as update,
    ):
        run = run_local(atoms, potential, settings, seed, Path(folder), update)
    _finish(run, settings, output, json_path, periodic=bool(atoms.pbc.any()))


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[int], None]]:
    """Shows the step on a terminal, nothing elsewhere."""
    stderr = click.get_text_stream("stderr")
    if not stderr.isatty():
        yield lambda step: None
        return
    with click.progressbar(length=steps, label="MD", file=stderr) as bar:
        yield lambda step: bar.update(step - bar.pos)


def _settings(asked: dict[str, Any]) -> MdSettings:
    from aiida_autopipe.engines.lammps.settings import MdSettings

    segments = [_segment(asked)] if asked["schedule"] is None else _schedule(asked["schedule"])
    every = asked["gamma_every"]
    if every < 1:
        raise InputError(f"--gamma-every {every}: it must be at least 1.")
    steps = sum(int(one.get("steps", 0)) for one in segments)
    kept = asked["every"]
    if kept is None:
        kept = max(1, steps // FRAMES // every) * every
    halt = asked["gamma_halt"] or WITHOUT_HALT
    return MdSettings.from_dict(
        {
            "segments": segments,
            "gamma_select": halt,
            "gamma_halt": halt,
            "timestep_fs": asked["timestep"],
            "gamma_every": every,
            "thermo_every": every,
            "keep_every": kept,
        }
    )


def _segment(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        kelvin = [float(word) for word in asked["temperature"].split(":")]
    except ValueError:
        kelvin = []
    if not 1 <= len(kelvin) <= 2:
        raise InputError(
            f"--temperature {asked['temperature']}: give K, such as 300, or a ramp, as 300:900."
        )
    return {
        "ensemble": asked["ensemble"],
        "temperature_K": [kelvin[0], kelvin[-1]],
        "pressure_GPa": asked["pressure"],
        "steps": asked["steps"],
    }


def _schedule(path: Path) -> list[dict[str, Any]]:
    from aiida_autopipe.config.loading import load_input

    found = load_input(path, needed="'schedule: [...]'")
    segments = found.get("schedule")
    if set(found) != {"schedule"} or not isinstance(segments, list) or not segments:
        raise InputError(f"'{path}' must hold 'schedule:' with a list of segments, and only that.")
    for segment in segments:
        if not isinstance(segment, dict) or type(segment.get("steps")) is not int:
            raise InputError(f"'{path}': the segment {segment} must be a mapping with 'steps'.")
    return segments


def _finish(
    run: LocalRun, settings: MdSettings, output: Path, json_path: Path | None, *, periodic: bool
) -> None:
    """Write what there is, then say how the run ended."""
    from aiida_autopipe.core.structure_files import write_extxyz
    from aiida_autopipe.engines.lammps.parse import Outcome

    frames = []
    for frame in run.frames:
        atoms = frame.atoms
        if not periodic:
            atoms.pbc, atoms.cell = False, None
        atoms.arrays["gamma"] = frame.gamma
        atoms.info |= {
            "step": frame.step,
            "time_ps": frame.step * settings.timestep_fs * 1e-3,
            "gamma_max": float(frame.gamma.max()),
        }
        frames.append(atoms)
    if frames:
        write_extxyz(frames, output)
    result = {**run.results, "frames": len(frames), "output": str(output) if frames else None}
    options.write_json(json_path, result)
    if str(json_path) != "-":
        _print(run, result)
    if run.interrupted:
        raise click.Abort
    if run.ending not in (Outcome.FINISHED, Outcome.HALTED):
        raise EngineError(
            f"The run ended at step {result['steps_done']} of {result['steps_asked']} "
            f"({run.ending}): {run.message or 'no message'}"
        )


def _print(run: LocalRun, result: dict[str, Any]) -> None:
    done, asked = result["steps_done"], result["steps_asked"]
    click.echo(f"steps            {done} of {asked}")
    if result["halted"]:
        click.echo(f"halted           {result['halt_reason']}")
    if result["gamma_max"] is not None:
        click.echo(f"largest gamma    {result['gamma_max']:.3g}")
    if len(run.trace.step):
        kelvin = run.trace.temperature_K[len(run.trace.step) // 2 :].mean()
        click.echo(f"mean temperature {kelvin:.0f} K in the second half")
    if result["output"]:
        click.echo(f"{result['frames']} frames in {result['output']}")
