"""``mlip-auto evaluate`` for MACE models: one, or a committee with its spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import evaluate_output
from aiida_autopipe.core.errors import DataError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aiida_autopipe.core.ace.potential import Evaluation
    from aiida_autopipe.core.committee import Calibration
    from aiida_autopipe.core.dataset import Dataset

SUFFIX = ".model"


@dataclass(frozen=True)
class Spread:
    """What the members of a committee say beyond their mean.

    energy (n,) standard deviations in eV; forces (N,) spreads in eV/Å times the scale; uncertainty
    (n,) the largest of each structure; decisions (n,) or None.
    """

    energy: NDArray[np.float64]
    forces: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    scale: float
    calibration: Calibration | None
    decisions: NDArray[np.str_] | None


def is_mace(potentials: Sequence[Path]) -> bool:
    """Whether the files are MACE models.

    Raises:
        InputError: several potentials that are none.
    """
    mace = [path.suffix == SUFFIX for path in potentials]
    if len(potentials) > 1 and not all(mace):
        raise InputError(
            f"a committee is made of MACE models ({SUFFIX} files); for the spread of an ACE type "
            "one potential and --uncertainty"
        )
    return all(mace)


def evaluate_models(
    paths: Sequence[Path], dataset: Dataset, file: Path, device: str | None, trust: bool
) -> list[list[Evaluation]]:
    """Evaluations of each model for all structures.

    Raises:
        InputError, PotentialFileError, EngineError, DataError: as `MaceModel`.
    """
    from aiida_autopipe.core.mace_evaluate import MaceModel

    structures = list(dataset.iter_atoms())
    found = []
    for path in paths:
        model = MaceModel.from_file(path, trust=trust, device=device or "auto")  # type: ignore[arg-type]
        try:
            found.append(model.evaluate(structures))
        except DataError as error:
            raise DataError(f"'{file}': {error}") from error
    return found


def mean(members: Sequence[Sequence[Evaluation]]) -> list[Evaluation]:
    """The mean of all members for each structure."""
    import numpy as np

    from aiida_autopipe.core.ace.potential import Evaluation

    return [
        Evaluation(
            float(np.mean([one.energy for one in found])),
            np.mean([one.energies for one in found], axis=0),
            np.mean([one.forces for one in found], axis=0),
            None
            if found[0].stress is None
            else np.mean([one.stress for one in found if one.stress is not None], axis=0),
            None,
        )
        for found in zip(*members, strict=True)
    ]


def spread(
    members: Sequence[Sequence[Evaluation]],
    dataset: Dataset,
    scale: float | None,
    known_below: float | None,
    reject_above: float | None,
) -> Spread:
    """Spreads, scaled by `scale`, else by the labels of the file, else not at all.

    Raises:
        InputError: thresholds that are not ordered.
        DataError: members that all agree.
    """
    import numpy as np

    from aiida_autopipe.core import committee

    forces = np.array([np.concatenate([one.forces for one in member]) for member in members])
    calibration = None
    if scale is None and (known := _labelled(dataset)).any():
        labels = np.asarray(dataset.forces)[known] if dataset.forces is not None else forces[0]
        calibration = committee.calibrate(forces[:, known], labels)
    factor = scale or (calibration.scale if calibration else 1.0)
    scaled = factor * committee.force_spread(forces)
    uncertainty = committee.frame_uncertainty(scaled, dataset.offsets)
    decisions = None
    if known_below is not None:
        most = np.inf if reject_above is None else reject_above
        decisions = committee.decide(uncertainty, known_below, most)
    energies = [[one.energy for one in member] for member in members]
    return Spread(
        committee.energy_spread(energies), scaled, uncertainty, factor, calibration, decisions
    )


def _labelled(dataset: Dataset) -> NDArray[np.bool_]:
    """(N,) atoms with a force that counts."""
    import numpy as np

    if dataset.forces is None:
        return np.zeros(dataset.n_atoms, bool)
    known = np.asarray(np.isfinite(np.asarray(dataset.forces)).all(axis=1))
    if dataset.force_mask is not None:
        known &= np.asarray(dataset.force_mask) > 0
    return known


def as_json(
    evaluations: Sequence[Evaluation],
    found: Spread | None,
    dataset: Dataset,
    errors: dict[str, float | None] | None,
) -> dict[str, Any]:
    """All results; with a committee also spreads, what they mean, and the calibration."""
    answer = evaluate_output.as_json(evaluations, [], errors)
    if found is None:
        return answer
    for index, one in enumerate(answer["structures"]):
        rows = slice(int(dataset.offsets[index]), int(dataset.offsets[index + 1]))
        one |= {
            "energy_std": float(found.energy[index]),
            "force_spread": found.forces[rows].tolist(),
            "uncertainty": float(found.uncertainty[index]),
        }
        if found.decisions is not None:
            one["decision"] = str(found.decisions[index])
    answer["committee"] = {
        "scale": found.scale,
        "calibration": found.calibration.to_dict() if found.calibration else None,
    }
    return answer


def print_spread(found: Spread) -> None:
    """The scale and where it is from, the most uncertain structure, and the decisions."""
    source = "given, or none" if found.calibration is None else "from the labels of the file"
    click.echo(f"scale of the spread = {found.scale:.4g} ({source})")
    worst = int(found.uncertainty.argmax())
    click.echo(
        f"largest spread of a force = {found.uncertainty[worst]:.4g} eV/Å (structure {worst})"
    )
    if found.calibration is not None:
        known = found.calibration
        click.echo(
            f"errors of forces: rank correlation with the spread {known.rank_correlation:.2f}, "
            f"within two spreads {100 * known.covered:.1f} %"
        )
    if found.decisions is not None:
        counts = Counter(found.decisions.tolist())
        told = ", ".join(f"{counts[word]} {word}" for word in ("known", "label", "reject"))
        click.echo(f"decisions: {told}")
