"""``mlip-auto explore``: molecular dynamics with a surrogate from the structures of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import InputError

if TYPE_CHECKING:
    from aiida_autopipe.core.dataset import Dataset
    from aiida_autopipe.core.explore.run import Explored, Progress, State
    from aiida_autopipe.core.explore.settings import ExploreSettings
    from aiida_autopipe.core.surrogates.registry import SurrogateSpec


@click.command()
@click.argument("pool", type=options.FILE)
@click.option(
    "--surrogate", default="auto", show_default=True, metavar="NAME|FILE",
    help="chgnet, sevennet, mace:NAME (a foundation model), a .model of MACE, a .yace or .yaml of "
    "an ACE, or the import path of an ASE calculator; auto is a universal model that is installed.",
)  # fmt: skip
@click.option(
    "--keywords",
    metavar="JSON",
    help='Keywords of the surrogate, such as \'{"dtype": "float64"}\'.',
)
@click.option(
    "-o", "--output", type=options.FILE, required=True, help="Dataset file (.h5) of the frames."
)
@click.option(
    "--temperatures", default="300", show_default=True, metavar="LIST", help="Temperatures in K."
)
@click.option(
    "--pressures", metavar="LIST",
    help="Pressures in GPa of npt trajectories, which are run beside those at constant volume.",
)  # fmt: skip
@click.option(
    "--ensembles", metavar="LIST", help="nvt, npt or both.  [default: nvt; with --pressures both]"
)
@click.option("--steps", type=int, default=1000, show_default=True, help="Steps of a trajectory.")
@click.option(
    "--timestep", type=float, metavar="FS",
    help="Time step in fs.  [default: 2; 0.5 with hydrogen]",
)  # fmt: skip
@click.option("--every", type=int, default=20, show_default=True, help="Steps between frames.")
@click.option(
    "--seeds", type=int, default=1, show_default=True,
    help="Trajectories for each start and condition.",
)  # fmt: skip
@click.option(
    "--max-force", type=float, default=50.0, show_default=True, metavar="EV/Å",
    help="A larger force ends a trajectory.",
)  # fmt: skip
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, show_default=True,
    help="Trajectories at the same time, each in one thread.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Where the surrogate computes; auto takes a GPU where there is one.",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice(["auto", "ase", "torch-sim"]), default="auto", show_default=True,
    help="torch-sim runs many trajectories of a MACE model in one batch; auto: on a GPU.",
)  # fmt: skip
@click.option(
    "--trust", is_flag=True,
    help="Open a .model file. It is a pickle, which can run any program its author put inside.",
)  # fmt: skip
@click.option("--select", "n", type=int, help="Choose so many frames to be labelled.")
@click.option(
    "--method", default="direct", show_default=True, help="How: direct, fps or a registered name."
)
@click.option(
    "--known", type=options.FILE, help="Structures that are labelled; none near to them is chosen."
)
@click.option(
    "--selected", type=options.FILE, metavar="FILE",
    help="Where the chosen frames go, without labels.  [default: OUTPUT-selected.extxyz]",
)  # fmt: skip
@options.SEED
@options.JSON_OUTPUT
def explore(
    pool: Path,
    output: Path,
    processes: int,
    engine: Any,
    n: int | None,
    method: str,
    known: Path | None,
    selected: Path | None,
    seed: int,
    json_path: Path | None,
    **given: Any,
) -> None:
    """Explore from the structures of POOL with a surrogate, and write the frames to a file.

    Every structure is started at every temperature and pressure. A trajectory ends where a frame
    is unphysical: a force above the limit, atoms on top of each other, atoms that are lost, an
    exploding volume, NaN. After an interruption the same command goes on.

    \b
    Examples:
        mlip-auto explore pool.extxyz -o frames.h5 --temperatures 300,900 --steps 5000
        mlip-auto explore pool.extxyz -o frames.h5 --surrogate my.model --trust \\
            --pressures 0,5 --processes 4 --select 200 --known labelled.h5
    """
    from aiida_autopipe.core.dataset import read_dataset
    from aiida_autopipe.core.explore.parts import parts_folder
    from aiida_autopipe.core.explore.run import explore as run_exploration
    from aiida_autopipe.core.select.selectors import check_method

    check_method(method)
    if n is not None and n < 1:
        raise InputError(f"--select {n}: at least one frame must be chosen.")
    target = selected or output.with_name(f"{output.stem}-selected.extxyz")
    _check_places(output, target if n is not None else None, json_path)
    spec, settings = _spec(given), _settings(given)
    labelled = None if known is None else read_dataset(known)
    starts = read_dataset(pool)
    with _progress() as progress, _hint_on_interruption(parts_folder(output)):
        found = run_exploration(
            starts, spec, settings, seed, output,
            processes=processes, engine=engine, progress=progress,
        )  # fmt: skip
    summary: dict[str, Any] = {**found.summary(), "output": str(output)}
    if n is not None:
        summary["selection"] = _select(output, target, n, method, labelled, seed)
    options.write_json(json_path, summary)
    if str(json_path) != "-":
        _print(found, summary, output, target)


def _check_places(output: Path, selected: Path | None, json_path: Path | None) -> None:
    if output.suffix.lower() not in (".h5", ".hdf5"):
        raise InputError(f"-o {output}: the frames go to a dataset file, whose name ends in .h5.")
    options.check_place(output, "the frames")
    if selected is not None:
        options.check_place(selected, "the chosen frames")
    options.check_json_path(json_path)


def _spec(given: dict[str, Any]) -> SurrogateSpec:
    import json

    from aiida_autopipe.core.surrogates.registry import SurrogateSpec

    try:
        keywords = json.loads(given["keywords"] or "{}")
    except ValueError as error:
        raise InputError(f"--keywords is not JSON: {error}.") from error
    return SurrogateSpec(given["surrogate"], keywords, given["device"], given["trust"])


def _settings(given: dict[str, Any]) -> ExploreSettings:
    from aiida_autopipe.core.explore.settings import ExploreSettings

    pressures = given["pressures"]
    words = given["ensembles"] or ("nvt,npt" if pressures else "nvt")
    return ExploreSettings(
        temperatures_K=tuple(_numbers("--temperatures", given["temperatures"])),
        pressures_GPa=tuple(_numbers("--pressures", pressures or "0")),
        ensembles=tuple(words.replace(",", " ").split()),
        steps=given["steps"],
        timestep_fs=given["timestep"],
        every=given["every"],
        seeds=given["seeds"],
        max_force=given["max_force"],
    )


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"{option} '{text}': give numbers, such as 300,600.") from error


def _select(
    output: Path, target: Path, n: int, method: str, known: Dataset | None, seed: int
) -> dict[str, Any]:
    from aiida_autopipe.core.ace.parallel import available_threads
    from aiida_autopipe.core.dataset import Dataset, write_dataset
    from aiida_autopipe.core.explore.choose import choose

    with Dataset.open(output) as frames:
        choice = choose(frames, n, method, known, seed, threads=available_threads(None))
    if len(choice.indices):
        write_dataset(choice.structures, target)
    return {
        "method": method,
        "n": len(choice.indices),
        "indices": choice.indices.tolist(),
        "coverage": choice.coverage,
        "output": str(target),
    }


@contextmanager
def _hint_on_interruption(parts: Path) -> Iterator[None]:
    """Say after Ctrl-C, or when the disk is full, what is kept."""
    try:
        yield
    except (KeyboardInterrupt, OSError):
        done = len(list(parts.glob("[0-9]*.json"))) if parts.is_dir() else 0
        if done:
            click.echo(
                f"{done} finished trajectories are kept in '{parts}': the same command goes on "
                "with the others.",
                err=True,
            )
        raise


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda state: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("steps", total=None)

        def show(state: State) -> None:
            told = f"trajectory {state.trajectories} of {state.all_trajectories}, steps"
            bar.update(task, description=told, completed=state.steps, total=state.all_steps)

        yield show


def _print(found: Explored, summary: dict[str, Any], output: Path, target: Path) -> None:
    from aiida_autopipe.core.explore.screen import REASONS

    steps, n = summary["steps"], len(found.trajectories)
    click.echo(f"{found.frames} frames of {n} trajectories ({steps} steps): {output}")
    click.echo(f"{'frames kept':64}{found.frames:>8}")
    for reason, count in found.rejected.items():
        click.echo(f"{'rejected: ' + REASONS[reason]:64}{count:>8}")
    detail = next((t for t in found.trajectories if t["detail"]), None)
    if detail is not None:
        click.echo(f"First rejection, trajectory {detail['index']}: {detail['detail']}")
    if "selection" in summary:
        selection = summary["selection"]
        click.echo(f"{selection['n']} frames chosen by {selection['method']}: {target}")
        if selection["coverage"]:
            mine, random = (selection["coverage"][k]["score"] for k in ("chosen", "random"))
            click.echo(f"coverage {mine:.3f}, of random choices {random:.3f}")
