"""``mlip-auto evaluate``: a potential on structures, without AiiDA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aiida_autopipe.cli import evaluate_mace, evaluate_output, options
from aiida_autopipe.core.errors import DataError, InputError

if TYPE_CHECKING:
    from aiida_autopipe.core.ace.posterior import Posterior, Uncertainty
    from aiida_autopipe.core.ace.potential import ACEPotential, Evaluation
    from aiida_autopipe.core.dataset import Dataset


@click.command()
@click.argument("potentials", type=options.FILE, nargs=-1, required=True, metavar="POTENTIAL...")
@click.argument("file", type=options.FILE)
@options.label_keys
@click.option(
    "--parity", "parity_path", type=options.FILE, metavar="FILE",
    help="Write reference and predicted values of all labels to FILE, a .npz or a .csv.",
)  # fmt: skip
@click.option(
    "--uncertainty", is_flag=True,
    help="Standard deviations of energies and forces, from the posterior that `fit --posterior` "
    "wrote beside POTENTIAL.",
)  # fmt: skip
@click.option(
    "--trust", is_flag=True,
    help="Open MACE models. They are pickles, which can run any program their author put inside.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="MACE: where to compute.",
)  # fmt: skip
@click.option(
    "--scale", type=click.FloatRange(min=0, min_open=True),
    help="Committee: factor on its spreads.  [default: from the labels of FILE, else 1]",
)  # fmt: skip
@click.option(
    "--known-below", type=click.FloatRange(min=0), metavar="EV_PER_A",
    help="Committee: structures whose forces all spread less are known well enough.",
)  # fmt: skip
@click.option(
    "--reject-above", type=click.FloatRange(min=0), metavar="EV_PER_A",
    help="Committee: structures with a force that spreads more are not worth a label.",
)  # fmt: skip
@click.option("--group", metavar="KEY", help="Errors for each value of KEY in the file as well.")
@options.JSON_OUTPUT
def evaluate(
    potentials: tuple[Path, ...],
    file: Path,
    energy_key: str | None,
    forces_key: str | None,
    stress_key: str | None,
    parity_path: Path | None,
    uncertainty: bool,
    trust: bool,
    device: str,
    scale: float | None,
    known_below: float | None,
    reject_above: float | None,
    group: str | None,
    json_path: Path | None,
) -> None:
    """Energies, forces, stresses and extrapolation grades of the structures of FILE.

    POTENTIAL is a .yace or a B-basis .yaml file; with the active set (.asi) beside it each atom
    gets its extrapolation grade gamma. Where FILE has labels, the errors are printed too.
    Units: eV and Å.

    POTENTIAL may also be a MACE model (.model); several are a committee: its mean is evaluated,
    and its spread says which structures need a label (--known-below).

    With --uncertainty the JSON has energy_std and forces_std, the standard deviations of the model
    alone, and energy_std_total and forces_std_total, to be compared with an error against a label.

    \b
    Examples:
        mlip-auto evaluate si.yace test.extxyz --json out.json --parity parity.npz
        mlip-auto evaluate si.yace test.extxyz --uncertainty
        mlip-auto evaluate a.model b.model c.model pool.extxyz --trust --known-below 0.1
    """
    from aiida_autopipe.core.dataset import read_dataset

    options.check_json_path(json_path)
    _check_parity_path(parity_path)
    mace = evaluate_mace.is_mace(potentials)
    if uncertainty and mace:
        raise InputError("--uncertainty is for ACE potentials; of MACE give several models")
    committee = (scale, known_below, reject_above)
    if len(potentials) < 2 and any(value is not None for value in committee):
        raise InputError("--scale, --known-below and --reject-above need several MACE models")
    loaded = None if mace else _load_ace(potentials[0], uncertainty)
    keys = (energy_key, forces_key, stress_key)
    dataset = read_dataset(file, *keys)
    if any(keys) or parity_path is not None:
        options.require_labels(dataset, file, keys)
    if group is not None and group not in dataset.columns:
        known = ", ".join(sorted(dataset.columns)) or "none"
        raise InputError(f"'{file}' has no '{group}' to group by; it has: {known}")
    spreads: list[Uncertainty] = []
    spread = None
    if loaded is not None:
        evaluations, spreads = _evaluate_all(*loaded, dataset, file)
    else:
        members = evaluate_mace.evaluate_models(potentials, dataset, file, device, trust)
        evaluations = evaluate_mace.mean(members)
        if len(members) > 1:
            spread = evaluate_mace.spread(members, dataset, *committee)
    errors = evaluate_output.evaluation_errors(dataset, evaluations)
    if loaded is not None:
        answer = evaluate_output.as_json(evaluations, spreads, errors)
    else:
        answer = evaluate_mace.as_json(evaluations, spread, dataset, errors)
    options.write_json(json_path, answer)
    if parity_path is not None:
        evaluate_output.write_parity(parity_path, evaluate_output.parity(dataset, evaluations))
    if str(json_path) != "-":
        evaluate_output.print_table(dataset, evaluations, spreads)
        evaluate_output.print_summary(dataset, evaluations, spreads, errors)
        if spread is not None:
            evaluate_mace.print_spread(spread)
        if group is not None:
            evaluate_output.print_groups(dataset, evaluations, group)


def _load_ace(path: Path, uncertainty: bool) -> tuple[ACEPotential, Posterior | None]:
    """A potential, and its posterior where standard deviations are wanted."""
    from aiida_autopipe.core.ace.posterior import load_posterior
    from aiida_autopipe.core.ace.potential import ACEPotential

    loaded = ACEPotential.load(path)
    return loaded, load_posterior(path, loaded) if uncertainty else None


def _check_parity_path(path: Path | None) -> None:
    """Refuse a place that cannot be written before anything is computed."""
    if path is None:
        return
    if path.suffix not in evaluate_output.PARITY_SUFFIXES:
        raise InputError(f"the parity file '{path}' must end in .npz or .csv")
    options.check_place(path, "the parity file")


def _evaluate_all(
    potential: ACEPotential, posterior: Posterior | None, dataset: Dataset, file: Path
) -> tuple[list[Evaluation], list[Uncertainty]]:
    """Every structure, with a posterior also its standard deviations; what cannot be evaluated is
    refused with its index."""
    evaluations, spreads = [], []
    for index, atoms in enumerate(dataset.iter_atoms()):
        try:
            evaluations.append(potential.evaluate(atoms, gamma=potential.has_active_set))
            if posterior is not None:
                spreads.append(posterior.uncertainty(potential.basis, atoms))
        except DataError as error:
            raise DataError(f"'{file}', structure {index}: {error}") from error
    return evaluations, spreads
