"""``mlip-auto fit``: a potential from labelled structures, without AiiDA."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import InputError

if TYPE_CHECKING:
    from aiida_autopipe.core.ace.fit import FitResult
    from aiida_autopipe.core.ace.settings import FitSettings
    from aiida_autopipe.core.dataset import Dataset


@click.command()
@click.argument("train", type=options.FILE)
@click.option("--test", type=options.FILE, metavar="FILE", help="Structures to measure errors on.")
@click.option(
    "-o", "--output", type=options.FILE, default=Path("potential.yace"), show_default=True,
    help="The .yace file; the B-basis .yaml and the active set .asi are written beside it.",
)  # fmt: skip
@click.option("--cutoff", type=float, help="Range in Å.  [default: from the neighbour distance]")
@click.option("--max-rank", type=int, help="Most neighbours in one function, 1 to 5.  [default: 4]")
@click.option(
    "--functions", "max_functions", type=int, help="Most functions per element.  [default: 300]"
)
@click.option(
    "--energy-weight", type=float, help="Weight of energies.  [default: cross validation]"
)
@click.option("--force-weight", type=float, help="Weight of forces.  [default: 1]")
@click.option(
    "--stress-weight", type=float, help="Weight of stresses.  [default: 0.05 of the energies']"
)
@click.option("--regularisation", type=float, help="Ridge.  [default: cross validation]")
@click.option("--smoothness", type=float, help="Decay of the prior.  [default: cross validation]")
@click.option("--threads", type=int, help="Threads.  [default: 1]")
@click.option(
    "--reference-energies", type=options.FILE, metavar="FILE",
    help="Isolated-atom energies in eV, as a YAML or JSON file such as {Si: -107.2}.",
)  # fmt: skip
@options.label_keys
@options.SEED
@options.JSON_OUTPUT
def fit(
    train: Path,
    test: Path | None,
    output: Path,
    reference_energies: Path | None,
    energy_key: str | None,
    forces_key: str | None,
    stress_key: str | None,
    seed: int,
    json_path: Path | None,
    **settings: float | None,
) -> None:
    """Fit a linear ACE potential to the labelled structures of TRAIN (extxyz or HDF5).

    Energies of isolated atoms are taken off before the fit. They come from --reference-energies,
    else from the file (HDF5), else from structures of one atom without periodic images, else from a
    least-squares fit of the energies to the composition: forces and energy differences are the same
    then, but energies are relative to the average of the data.

    \b
    Example:
        mlip-auto fit train.extxyz --test test.extxyz -o si.yace --json metrics.json
    """
    import numpy as np

    from aiida_autopipe.core.ace.fit import fit_ace
    from aiida_autopipe.core.ace.settings import FitSettings
    from aiida_autopipe.core.dataset import read_dataset

    _check_output(output)
    options.check_json_path(json_path)
    chosen = FitSettings.from_dict({k: v for k, v in settings.items() if v is not None})
    keys = (energy_key, forces_key, stress_key)
    references = _read_references(reference_energies) if reference_energies else None
    train_set = options.require_labels(read_dataset(train, *keys), train, keys)
    test_set = options.require_labels(read_dataset(test, *keys), test, keys) if test else None
    started = time.perf_counter()
    result = fit_ace(train_set, chosen, test_set, references, rng=np.random.default_rng(seed))
    seconds = time.perf_counter() - started
    files = [str(path) for path in result.potential.save(output.with_suffix(""))]
    about = {"seed": seed, "seconds": seconds, "files": files}
    options.write_json(json_path, summary(result, chosen, train_set, about))
    if str(json_path) != "-":
        _print_summary(result, files, seconds)


def summary(
    result: FitResult, settings: FitSettings, train: Dataset, about: dict[str, Any]
) -> dict[str, Any]:
    """The JSON of a fit: settings with what the data decided, errors of each part, and `about`."""
    return {
        "settings": {**settings.to_dict(), **result.chosen},
        "elements": list(result.potential.elements),
        "reference_energies": dict(result.potential.reference_energies),
        "n_structures": len(train),
        "n_atoms": train.n_atoms,
        **about,
        **{part: result.metrics.get(part) for part in ("train", "validation", "test")},
    }


def _check_output(output: Path) -> None:
    if output.suffix != ".yace":
        raise InputError(f"the output '{output}' must end in .yace")
    if not output.parent.is_dir():
        raise InputError(f"the folder '{output.parent}' of the output does not exist")


def _read_references(path: Path) -> dict[str, float]:
    from ase.data import atomic_numbers

    from aiida_autopipe.config.loading import load_input

    energies: dict[str, float] = {}
    for symbol, value in load_input(path).items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if symbol not in atomic_numbers or not number or not math.isfinite(value):
            raise InputError(
                f"'{path}' must hold one energy in eV for each element, such as {{Si: -107.2}}, "
                f"not {{{symbol}: {value}}}"
            )
        energies[str(symbol)] = float(value)
    return energies


def _print_summary(result: FitResult, files: list[str], seconds: float) -> None:
    click.echo(f"{'':12s}{'energy (meV/atom)':>22s}{'forces (eV/Å)':>20s}")
    click.echo(f"{'':12s}{'MAE':>11s}{'RMSE':>11s}{'MAE':>10s}{'RMSE':>10s}")
    for part, metrics in result.metrics.items():
        energies = [metrics["energy_mae_per_atom"], metrics["energy_rmse_per_atom"]]
        forces = [metrics["forces_mae"], metrics["forces_rmse"]]
        row = "".join(_cell(value, 1000, 11) for value in energies)
        click.echo(f"{part:12s}{row}" + "".join(_cell(value, 1, 10) for value in forces))
    click.echo(
        f"{result.chosen['n_functions']} functions, {seconds:.1f} s; wrote {', '.join(files)}."
    )


def _cell(value: float | None, factor: float, width: int) -> str:
    return f"{'-':>{width}s}" if value is None else f"{value * factor:{width}.4g}"
