"""``mlip-auto fit``: a potential from labelled structures, without AiiDA."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import DataError, InputError

if TYPE_CHECKING:
    import numpy as np

    from aiida_autopipe.core.ace.fit import FitResult
    from aiida_autopipe.core.ace.settings import FitSettings
    from aiida_autopipe.core.dataset import Dataset


@click.command()
@click.argument("train", type=options.FILE)
@click.option("--test", type=options.FILE, metavar="FILE", help="Structures to measure errors on.")
@click.option(
    "-o", "--output", type=options.FILE, default=Path("potential.yace"), show_default=True,
    help="The .yace file; .yaml (B-basis), .asi (active set), .in (LAMMPS commands) go beside it.",
)  # fmt: skip
@click.option(
    "--prior", type=options.FILE, metavar="POTENTIAL",
    help="Linear potential to start from (delta learning): its basis is used, its coefficients are "
    "the mean of the prior.",
)  # fmt: skip
@click.option("--time-limit", type=float, metavar="SECONDS", help="Try no basis after so long.")
@click.option("--search", type=int, help="Most bases to compare; 1 = none.  [default: 40]")
@click.option("--cutoff", type=float, help="Range in Å.  [default: cross validation]")
@click.option(
    "--max-rank", type=int,
    help="Most neighbours in one function, 1 to 6.  [default: cross validation of 3 and 4]",
)  # fmt: skip
@click.option(
    "--functions", "max_functions", type=int, help="Most functions per element.  [default: 1200]"
)
@click.option(
    "--candidates-per-function", type=int, metavar="N",
    help="Choose the functions from N times as many: smaller errors.  [default: 1, the first ones]",
)  # fmt: skip
@click.option(
    "--energy-weight", type=float, help="Weight of energies.  [default: cross validation]"
)
@click.option("--force-weight", type=float, help="Weight of forces.  [default: 1]")
@click.option(
    "--stress-weight",
    type=float,
    help="Weight of stresses.  [default: at most 0.05 of the energies']",
)
@click.option("--regularisation", type=float, help="Ridge.  [default: cross validation]")
@click.option("--smoothness", type=float, help="Decay of the prior.  [default: cross validation]")
@click.option("--zbl", is_flag=True, help="Add a ZBL core repulsion, so that atoms never fuse.")
@click.option(
    "--solver",
    type=click.Choice(["normal", "qr"]),
    help="Normal equations or QR.  [default: normal]",
)
@click.option("--threads", type=int, help="Threads.  [default: all cores]")
@click.option(
    "--committee", type=click.IntRange(min=1), metavar="N",
    help="Also write N potentials drawn from the posterior, OUTPUT-committee-1.yace and so on.",
)  # fmt: skip
@click.option(
    "--posterior", is_flag=True,
    help="Also write the posterior, OUTPUT.posterior.npz, from which `evaluate "
    "--uncertainty` gives standard deviations.",
)  # fmt: skip
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
    prior: Path | None,
    committee: int | None,
    posterior: bool,
    reference_energies: Path | None,
    energy_key: str | None,
    forces_key: str | None,
    stress_key: str | None,
    seed: int,
    json_path: Path | None,
    **settings: Any,
) -> None:
    """Fit a linear ACE potential to the labelled structures of TRAIN (extxyz or HDF5).

    Cutoff, size and correlation order of the basis, weights and regularisation are chosen by cross
    validation on TRAIN; what was chosen is printed. An option fixes its number.

    Energies of isolated atoms are taken off before the fit. They come from --reference-energies,
    else from the file (HDF5), else from structures of one atom with no image within 8 Å, else, for
    elements without one, they are estimated: from a least-squares fit of the energies to the
    composition and the cohesive energies of the elements.

    \b
    Examples:
        mlip-auto fit train.extxyz --test test.extxyz -o si.yace --json metrics.json
        mlip-auto fit twenty.extxyz --prior base.yace -o corrected.yace
    """
    import numpy as np

    from aiida_autopipe.core.ace.fit import fit_ace
    from aiida_autopipe.core.ace.prior import load_prior
    from aiida_autopipe.core.ace.settings import FitSettings
    from aiida_autopipe.core.dataset import read_dataset

    _check_output(output)
    options.check_json_path(json_path)
    settings["posterior"] = posterior
    given = {k: v for k, v in settings.items() if v is not None and v is not False}
    chosen = FitSettings.from_dict(given)
    keys = (energy_key, forces_key, stress_key)
    references = _read_references(reference_energies) if reference_energies else None
    base = load_prior(prior) if prior else None
    train_set = options.require_labels(read_dataset(train, *keys), train, keys)
    test_set = options.require_labels(read_dataset(test, *keys), test, keys) if test else None
    quiet = str(json_path) == "-"
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    with options.progress_of("aiida_autopipe.core.ace.search", quiet):
        try:
            result = fit_ace(train_set, chosen, test_set, references, base, rng=rng)
        except DataError as error:
            raise DataError(f"'{train}': {error}") from error
    seconds = time.perf_counter() - started
    files = _write(result, output, committee, posterior, rng)
    about = {"seed": seed, "seconds": seconds, "files": files}
    options.write_json(json_path, summary(result, chosen, train_set, about))
    if not quiet:
        _print_summary(result, files, seconds)


def _write(
    result: FitResult,
    output: Path,
    committee: int | None,
    posterior: bool,
    rng: np.random.Generator,
) -> list[str]:
    """The files of the potential and what else was asked for; their names."""
    from aiida_autopipe.core.ace.posterior import posterior_path

    prefix = output.with_suffix("")
    paths = result.potential.save(prefix)
    if posterior:
        paths.append(posterior_path(output))
        result.posterior.save(paths[-1])
    for number, member in enumerate(result.committee(committee or 0, rng), start=1):
        paths += member.save(prefix.with_name(f"{prefix.name}-committee-{number}"))
    return [str(path) for path in paths]


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
        **{part: errors for part, errors in result.metrics.items() if part.startswith("prior")},
        **({} if result.calibration is None else {"calibration": result.calibration}),
    }


def _check_output(output: Path) -> None:
    if output.suffix != ".yace":
        raise InputError(f"the output '{output}' must end in .yace")
    options.check_place(output, "the output")


def _read_references(path: Path) -> dict[str, float]:
    from ase.data import atomic_numbers

    from aiida_autopipe.config.loading import load_input

    energies: dict[str, float] = {}
    for symbol, value in load_input(path, "'Si: -107.2'").items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if symbol not in atomic_numbers or not number or not math.isfinite(value):
            raise InputError(
                f"'{path}' must hold one energy in eV for each element, such as {{Si: -107.2}}, "
                f"not {{{symbol}: {value}}}"
            )
        energies[str(symbol)] = float(value)
    return energies


def _print_summary(result: FitResult, files: list[str], seconds: float) -> None:
    from aiida_autopipe.core.ace.calibration import sentences

    chosen = result.chosen
    click.echo(f"{'':12s}{'energy (meV/atom)':>22s}{'forces (eV/Å)':>20s}")
    click.echo(f"{'':12s}{'MAE':>11s}{'RMSE':>11s}{'MAE':>10s}{'RMSE':>10s}")
    for part, metrics in result.metrics.items():
        energies = [metrics["energy_mae_per_atom"], metrics["energy_rmse_per_atom"]]
        forces = [metrics["forces_mae"], metrics["forces_rmse"]]
        row = "".join(_cell(value, 1000, 11) for value in energies)
        click.echo(f"{part:12s}{row}" + "".join(_cell(value, 1, 10) for value in forces))
    click.echo(
        f"Chosen: cutoff {chosen['cutoff']:g} Å, rank {chosen['max_rank']}, "
        f"{chosen['functions_per_element']} functions per element{_from(chosen)}, "
        f"weight of energies {chosen['energy_weight']:g}, of stresses "
        f"{chosen['stress_weight']:g}, regularisation {chosen['regularisation']:.0e}, smoothness "
        f"{chosen['smoothness']:g}; "
        f"{len(chosen['candidates'])} bases compared, {chosen['search_ended']}."
    )
    if chosen["zbl_outer"] is not None:
        click.echo(f"ZBL repulsion from {chosen['zbl_inner']:g} to {chosen['zbl_outer']:g} Å.")
    for sentence in sentences(result.calibration or {}):
        click.echo(f"Uncertainty, {sentence}")
    for note in result.notes:
        click.echo(f"Note: {note}")
    click.echo(f"{chosen['n_functions']} functions, {seconds:.1f} s; wrote {', '.join(files)}.")


def _from(chosen: dict[str, Any]) -> str:
    """Of how many functions they are the best, where there was a choice."""
    if chosen["chosen_from"] == chosen["n_functions"]:
        return ""
    return f" ({chosen['n_functions']} of {chosen['chosen_from']})"


def _cell(value: float | None, factor: float, width: int) -> str:
    return f"{'-':>{width}s}" if value is None else f"{value * factor:{width}.4g}"
