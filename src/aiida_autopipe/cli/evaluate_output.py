"""What ``mlip-auto evaluate`` writes: a table, errors, parity files and JSON."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from aiida_autopipe.core.files import complete_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aiida_autopipe.core.ace.posterior import Uncertainty
    from aiida_autopipe.core.ace.potential import Evaluation
    from aiida_autopipe.core.dataset import Dataset

PARITY_SUFFIXES = (".npz", ".csv")
_COMPONENTS = {
    "energy": ("",),
    "forces": ("x", "y", "z"),
    "stress": ("xx", "yy", "zz", "yz", "xz", "xy"),
}


class Parity(NamedTuple):
    """One labelled quantity of all structures: reference and predicted values (k, components).

    structure (k,): index in the file; atom (k,): index in the structure, -1 for none; energies in
    eV per atom, forces in eV/Å without masked atoms, stresses in eV/Å^3.
    """

    structure: NDArray[np.int64]
    atom: NDArray[np.int64]
    reference: NDArray[np.float64]
    predicted: NDArray[np.float64]


def parity(dataset: Dataset, evaluations: Sequence[Evaluation]) -> dict[str, Parity]:
    """Labels and predictions by quantity: energy, forces and stress, those the file has."""
    import numpy as np

    rows: dict[str, list[tuple[int, Any, Any, Any]]] = {name: [] for name in _COMPONENTS}
    for index, found in enumerate(evaluations):
        labels, n = dataset.labels(index), len(found.forces)
        if labels.energy is not None:
            rows["energy"].append((index, [-1], [[labels.energy / n]], [[found.energy / n]]))
        if labels.forces is not None:
            mask = np.ones(n, bool) if labels.force_mask is None else labels.force_mask > 0
            chosen = np.flatnonzero(mask)
            rows["forces"].append((index, chosen, labels.forces[chosen], found.forces[chosen]))
        if labels.stress is not None and found.stress is not None:
            rows["stress"].append((index, [-1], [labels.stress], [found.stress]))
    return {
        name: Parity(
            np.concatenate([np.full(len(atoms), index) for index, atoms, _, _ in some]),
            np.concatenate([atoms for _, atoms, _, _ in some]).astype(np.int64),
            np.concatenate([reference for _, _, reference, _ in some]),
            np.concatenate([predicted for _, _, _, predicted in some]),
        )
        for name, some in rows.items()
        if some
    }


def write_parity(path: Path, found: dict[str, Parity]) -> None:
    """As arrays QUANTITY_reference and so on (.npz), or one line for each number (.csv)."""
    import numpy as np

    if path.suffix == ".npz":
        arrays = {f"{name}_{k}": v for name, one in found.items() for k, v in one._asdict().items()}
        with complete_file(path) as target, target.open("wb") as binary:
            np.savez_compressed(binary, allow_pickle=False, **arrays)
        return
    with complete_file(path) as target, target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["quantity", "structure", "atom", "component", "reference", "predicted"])
        for name, one in found.items():
            for structure, atom, *values in zip(*one, strict=True):
                where = [name, int(structure), "" if atom < 0 else int(atom)]
                for component, r, p in zip(_COMPONENTS[name], *values, strict=True):
                    writer.writerow([*where, component, repr(float(r)), repr(float(p))])


def evaluation_errors(
    dataset: Dataset, evaluations: Sequence[Evaluation]
) -> dict[str, float | None] | None:
    """Errors against the labels of the file; None where it has none."""
    from aiida_autopipe.core.metrics import error_metrics

    found = parity(dataset, evaluations)
    if not found:
        return None
    pairs = {name: (one.reference, one.predicted) for name, one in found.items()}
    energy = pairs.get("energy")
    # The energies of a parity are per atom already.
    n_atoms = [1] * len(energy[0]) if energy else []
    flat = (energy[0][:, 0], energy[1][:, 0]) if energy else None
    return error_metrics(n_atoms, flat, pairs.get("forces"), pairs.get("stress"))


def as_json(
    evaluations: Sequence[Evaluation],
    spreads: Sequence[Uncertainty],
    errors: dict[str, float | None] | None,
) -> dict[str, Any]:
    """All results; spreads and errors where there are any."""
    structures = [_one_as_json(found) for found in evaluations]
    for one, spread in zip(structures, spreads, strict=bool(spreads)):
        one |= {
            "energy_std": spread.energy,
            "forces_std": spread.forces.tolist(),
            "energy_std_total": spread.energy_total,
            "forces_std_total": spread.forces_total.tolist(),
        }
    return {"structures": structures} | ({"errors": errors} if errors else {})


def _one_as_json(found: Evaluation) -> dict[str, Any]:
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
# An environment of the active set has gamma = 1, up to rounding.
_ROUNDING = 1e-6


def print_table(
    dataset: Dataset, evaluations: Sequence[Evaluation], spreads: Sequence[Uncertainty]
) -> None:
    """One line for each of the first structures; the standard deviation is that of the energy."""
    header = (
        f"{'structure':>9s} {'atoms':>6s} {'energy (eV)':>16s} {'max force':>10s} {'gamma':>8s}"
    )
    click.echo(header + (f" {'std (eV)':>10s}" if spreads else ""))
    for index, found in enumerate(evaluations[:_SHOWN]):
        force = float((found.forces**2).sum(axis=1).max() ** 0.5)
        gamma = "-" if found.gamma is None else f"{found.gamma.max():.3f}"
        line = (
            f"{index:9d} {dataset.sizes[index]:6d} {found.energy:16.6f} {force:10.4f} {gamma:>8s}"
        )
        click.echo(line + (f" {spreads[index].energy:10.4g}" if spreads else ""))
    if len(evaluations) > _SHOWN:
        click.echo(f"... and {len(evaluations) - _SHOWN} more; --json FILE has them all")


def print_summary(
    dataset: Dataset,
    evaluations: Sequence[Evaluation],
    spreads: Sequence[Uncertainty],
    errors: dict[str, float | None] | None,
) -> None:
    """The worst gamma and standard deviations, with the structures they belong to, and errors."""
    grades = [found.gamma for found in evaluations if found.gamma is not None]
    if grades:
        worst = max(range(len(grades)), key=lambda index: grades[index].max())
        above = sum(int((gamma > 1 + _ROUNDING).sum()) for gamma in grades)
        click.echo(
            f"largest gamma = {grades[worst].max():.3f} (structure {worst}, atom "
            f"{grades[worst].argmax()}); above 1: {above} of {dataset.n_atoms} atoms"
        )
    if spreads:
        energies = [s.energy / size for s, size in zip(spreads, dataset.sizes, strict=True)]
        forces = [float(s.forces.max()) for s in spreads]
        first, second = (max(range(len(v)), key=v.__getitem__) for v in (energies, forces))
        atom = spreads[second].forces.max(axis=1).argmax()
        click.echo(
            f"largest standard deviation of the model: energy {energies[first]:.4g} eV/atom "
            f"(structure {first}), force {forces[second]:.4g} eV/Å (structure {second}, atom "
            f"{atom})"
        )
    for name, value in (errors or {}).items():
        if value is not None:
            click.echo(f"{name} = {value:.6g} {_UNITS[name]}")


def print_groups(dataset: Dataset, evaluations: Sequence[Evaluation], key: str) -> None:
    """A table of errors, one line for each value of a column."""
    import numpy as np

    column = np.asarray(dataset.columns[key])
    click.echo(f"{key:20s} {'structures':>10s} {'energy MAE':>12s} {'forces MAE':>12s}")
    for value in np.unique(column):
        chosen = np.flatnonzero(column == value)
        found = evaluation_errors(dataset[chosen], [evaluations[int(k)] for k in chosen]) or {}
        cells = [found.get("energy_mae_per_atom"), found.get("forces_mae")]
        texts = ["-" if cell is None else f"{cell:.6g}" for cell in cells]
        click.echo(f"{value!s:20s} {len(chosen):10d} {texts[0]:>12s} {texts[1]:>12s}")
