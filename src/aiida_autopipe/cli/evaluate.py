"""``mlip-auto evaluate``: a potential on structures, without AiiDA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import InputError

if TYPE_CHECKING:
    from aiida_autopipe.core.ace.potential import Evaluation
    from aiida_autopipe.core.dataset import Dataset


@click.command()
@click.argument("potential", type=options.FILE)
@click.argument("file", type=options.FILE)
@options.label_keys
@options.JSON_OUTPUT
def evaluate(
    potential: Path,
    file: Path,
    energy_key: str | None,
    forces_key: str | None,
    stress_key: str | None,
    json_path: Path | None,
) -> None:
    """Energies, forces, stresses and extrapolation grades of the structures of FILE.

    POTENTIAL is a .yace or a B-basis .yaml file; with the active set (.asi) beside it each atom
    gets its extrapolation grade gamma. Where FILE has labels, the errors are printed too.
    Units: eV and Å.

    \b
    Example:
        mlip-auto evaluate si.yace test.extxyz --json out.json
    """
    from aiida_autopipe.core.ace.potential import ACEPotential
    from aiida_autopipe.core.dataset import read_dataset

    options.check_json_path(json_path)
    keys = (energy_key, forces_key, stress_key)
    dataset = read_dataset(file, *keys)
    if any(keys):
        options.require_labels(dataset, file, keys)
    loaded = ACEPotential.load(potential)
    unknown = [symbol for symbol in dataset.elements if symbol not in loaded.elements]
    if unknown:
        raise InputError(
            f"'{file}' contains {', '.join(unknown)}, but '{potential}' is for "
            f"{', '.join(loaded.elements)} only"
        )
    has_active_set = loaded.inverse_active_set is not None
    evaluations = [loaded.evaluate(atoms, gamma=has_active_set) for atoms in dataset.iter_atoms()]
    errors = evaluation_errors(dataset, evaluations)
    answer: dict[str, Any] = {"structures": [_as_json(one) for one in evaluations]}
    if errors:
        answer["errors"] = errors
    options.write_json(json_path, answer)
    if str(json_path) != "-":
        _print(dataset, evaluations, errors)


def evaluation_errors(
    dataset: Dataset, evaluations: list[Evaluation]
) -> dict[str, float | None] | None:
    """Errors against the labels of the file; None where it has none."""
    import numpy as np

    from aiida_autopipe.core.metrics import error_metrics

    sizes: list[int] = []
    pairs: dict[str, list[tuple[Any, Any]]] = {"energy": [], "forces": [], "stress": []}
    for index, found in enumerate(evaluations):
        labels = dataset.labels(index)
        if labels.energy is not None:
            sizes.append(len(found.forces))
            pairs["energy"].append(([labels.energy], [found.energy]))
        if labels.forces is not None:
            mask = slice(None) if labels.force_mask is None else labels.force_mask > 0
            pairs["forces"].append((labels.forces[mask], found.forces[mask]))
        if labels.stress is not None and found.stress is not None:
            pairs["stress"].append(([labels.stress], [found.stress]))
    if not any(pairs.values()):
        return None
    joined = {
        name: (np.concatenate([r for r, _ in rows]), np.concatenate([p for _, p in rows]))
        if rows
        else None
        for name, rows in pairs.items()
    }
    return error_metrics(sizes, joined["energy"], joined["forces"], joined["stress"])


def _as_json(found: Evaluation) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "energy": float(found.energy),
        "energies": found.energies.tolist(),
        "forces": found.forces.tolist(),
        "stress": None if found.stress is None else found.stress.tolist(),
    }
    if found.gamma is not None:
        answer["gamma"] = found.gamma.tolist()
    return answer


_UNITS = {
    "energy_mae_per_atom": "eV/atom",
    "energy_rmse_per_atom": "eV/atom",
    "forces_mae": "eV/Å",
    "forces_rmse": "eV/Å",
    "stress_mae": "eV/Å^3",
}
_SHOWN = 20


def _print(
    dataset: Dataset, evaluations: list[Evaluation], errors: dict[str, float | None] | None
) -> None:
    click.echo(
        f"{'structure':>9s} {'atoms':>6s} {'energy (eV)':>16s} {'max force':>10s} {'gamma':>8s}"
    )
    for index, found in enumerate(evaluations[:_SHOWN]):
        force = float((found.forces**2).sum(axis=1).max() ** 0.5)
        gamma = "-" if found.gamma is None else f"{found.gamma.max():.3f}"
        click.echo(
            f"{index:9d} {dataset.sizes[index]:6d} {found.energy:16.6f} {force:10.4f} {gamma:>8s}"
        )
    if len(evaluations) > _SHOWN:
        click.echo(f"... and {len(evaluations) - _SHOWN} more; --json FILE has them all")
    for name, value in (errors or {}).items():
        if value is not None:
            click.echo(f"{name} = {value:.6g} {_UNITS[name]}")
