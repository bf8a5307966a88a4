"""Predictions of potentials on labelled data: errors and the arrays of a parity plot."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.ace.potential import ACEPotential, Evaluation
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.metrics import error_metrics

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Parity:
    """Reference and predicted values, one row per label.

    Attributes:
        n_atoms: (k,) atoms of each structure with an energy.
        energy: (k,) reference and predicted energies in eV per atom.
        forces: (m, 3) reference and predicted forces in eV/Å, masked atoms left out.
        stress: (s, 6) reference and predicted stresses in eV/Å^3.
    """

    n_atoms: NDArray[np.int64]
    energy: tuple[Array, Array]
    forces: tuple[Array, Array]
    stress: tuple[Array, Array]

    def metrics(self) -> dict[str, float | None]:
        """The errors under the keys of `aiida_autopipe.core.metrics`."""
        totals = (self.energy[0] * self.n_atoms, self.energy[1] * self.n_atoms)
        return error_metrics(self.n_atoms, totals, self.forces, self.stress)

    def arrays(self, prefix: str) -> dict[str, NDArray[np.float64]]:
        """Flat arrays named PREFIX_energy_reference and so on, for a .npz file."""
        pairs = {"energy": self.energy, "forces": self.forces, "stress": self.stress}
        return {
            f"{prefix}_{name}_{which}": values
            for name, pair in pairs.items()
            for which, values in zip(("reference", "predicted"), pair, strict=True)
        }


def predict(dataset: Dataset, potential: Callable[[int], ACEPotential], threads: int = 1) -> Parity:
    """Evaluate every labelled structure; ``potential(i)`` is the potential for structure i.

    A cross validation hands each structure to the potential that was fitted without it.
    """

    def evaluation(index: int) -> Evaluation:
        return potential(index).evaluate(dataset.atoms(index))

    return compare(dataset, in_threads(evaluation, range(len(dataset)), threads))


def compare(dataset: Dataset, evaluations: Iterable[Evaluation]) -> Parity:
    """The labels of every structure beside what was computed for it, in the same order."""
    sizes: list[int] = []
    energies: list[tuple[float, float]] = []
    forces: list[tuple[Array, Array]] = []
    stresses: list[tuple[Array, Array]] = []
    for index, result in enumerate(evaluations):
        labels = dataset.labels(index)
        size = len(result.energies)
        if labels.energy is not None:
            sizes.append(size)
            energies.append((labels.energy / size, result.energy / size))
        if dataset.forces is not None:
            rows = slice(int(dataset.offsets[index]), int(dataset.offsets[index + 1]))
            reference = np.asarray(dataset.forces[rows], dtype=np.float64)
            used = np.isfinite(reference).all(axis=1)
            if labels.force_mask is not None:
                used &= labels.force_mask > 0
            forces.append((reference[used], result.forces[used]))
        if labels.stress is not None and result.stress is not None:
            stresses.append((labels.stress[None], result.stress[None]))
    return Parity(
        np.array(sizes, dtype=np.int64),
        (np.array([e[0] for e in energies]), np.array([e[1] for e in energies])),
        _stack(forces, 3),
        _stack(stresses, 6),
    )


def _stack(pairs: list[tuple[Array, Array]], width: int) -> tuple[Array, Array]:
    if not pairs:
        return np.zeros((0, width)), np.zeros((0, width))
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])
