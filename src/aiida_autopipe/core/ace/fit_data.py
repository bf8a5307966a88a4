"""The labels of a data set as a fit uses them: checked, without reference energies, weighted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.ace.zbl import ZBL
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, InputError

Array = NDArray[np.float64]

# Labels of equal structures that differ by more, in eV per atom and eV/Å, are not noise.
_CONTRADICTION, _FORCE_CONTRADICTION = 0.01, 0.2
# No structure is bound so much stronger than others, or compressed so far, in eV per atom. One far
# below would count as the lowest, and all others little.
_DEEPEST, _HIGHEST = 30.0, 1000.0
# Nor are the energies of most structures, relative to their atoms, so large, in eV per atom.
_LARGEST = 100.0
# Positions and cells that agree to this (Å) belong to the same structure.
_SAME_LENGTH = 1e-5


@dataclass(frozen=True, eq=False)
class FitLabels:
    """Labels of one structure, checked, with the reference energies taken off.

    Attributes:
        energy: eV relative to the isolated atoms.
        forces: (n, 3) in eV/Å, zero where not learnt.
        force_weight: (n,) factors on squared residuals, 0 for the forces not to learn from.
        virial: (6,) volume times stress in eV, ASE sign and order.
        weight: multiplies the squared residuals of energy and stress; those of forces too, where it
            is in `force_weight` already.
    """

    energy: float | None
    forces: Array | None
    force_weight: Array
    virial: Array | None
    weight: float

    @property
    def n_rows(self) -> int:
        """Number of equations these labels give."""
        forces = 0 if self.forces is None else 3 * int(np.count_nonzero(self.force_weight))
        return (self.energy is not None) + forces + 6 * (self.virial is not None)


@dataclass(frozen=True)
class LabelScales:
    """How fast labels lose weight; infinite for not at all.

    Squared residuals are divided by 1 + (E - E_min)/energy per structure, E in eV/atom, and those
    of a force F in addition by 1 + (F/force)^2, force in eV/Å: structures of low energy are those a
    potential is used for, and errors grow with the size of a force.
    """

    energy: float
    force: float


def fit_labels(dataset: Dataset, index: int, reference_energies: Mapping[str, float]) -> FitLabels:
    """The labels of structure ``index``; raises DataError naming the structure for unusable ones.

    An energy or stress of NaN counts as missing, so that data sets with different labels can be
    merged; a structure with forces of which only some are NaN is an error unless they are masked.
    """
    rows = slice(int(dataset.offsets[index]), int(dataset.offsets[index + 1]))
    size = rows.stop - rows.start
    mask = np.ones(size) if dataset.force_mask is None else np.asarray(dataset.force_mask[rows])
    forces = None if dataset.forces is None else np.asarray(dataset.forces[rows], dtype=float)
    energy = None if dataset.energy is None else float(dataset.energy[index])
    stress = None if dataset.stress is None else np.asarray(dataset.stress[index], dtype=float)
    weight = 1.0 if dataset.weight is None else float(dataset.weight[index])
    if not np.isfinite(weight) or weight < 0:
        raise DataError(f"Structure {index} has the weight {weight}; weights must be >= 0.")
    if not np.isfinite(mask).all() or (mask < 0).any():
        raise DataError(f"Structure {index} has a force_mask that is not between 0 and 1.")
    _refuse_infinite(index, "energy", energy)
    _refuse_infinite(index, "stress", stress)
    energy = None if energy is None or np.isnan(energy) else energy
    stress = None if stress is None or np.isnan(stress).any() else stress
    if forces is not None:
        if forces.shape != (size, 3):
            raise DataError(
                f"Structure {index} has {size} atoms but forces of shape {forces.shape}."
            )
        if np.isnan(forces).all() and size:
            forces = None
        elif not np.isfinite(forces[mask > 0]).all():
            raise DataError(f"Structure {index} has NaN or infinite forces; mask or remove them.")
        else:
            forces = np.where(mask[:, None] > 0, forces, 0.0)
    if energy is None and forces is None and stress is None:
        raise DataError(
            f"Structure {index} has no energy, forces or stress; label it or leave it out."
        )
    if energy is not None:
        symbols = [chemical_symbols[z] for z in dataset.numbers[rows]]
        energy -= sum(reference_energies[s] for s in symbols)
    volume = abs(float(np.linalg.det(dataset.cell[index])))
    virial = stress * volume if stress is not None and np.all(dataset.pbc[index]) else None
    return FitLabels(energy, forces, mask * weight, virial, weight)


def without_cutout_energies(dataset: Dataset) -> Dataset:
    """The data set with energies and stresses of structures with some masked forces set to NaN.

    Such a structure is a cut-out: its energy and stress contain a boundary that the material does
    not have. Without forces to learn, or with all of them masked, a structure keeps its energy.
    """
    if dataset.force_mask is None or dataset.forces is None:
        return dataset
    masked = np.asarray(dataset.force_mask[:]) == 0
    sums = np.concatenate([[0], np.cumsum(masked)])[np.asarray(dataset.offsets[:])]
    count = np.diff(sums)
    cut = (count > 0) & (count < np.diff(np.asarray(dataset.offsets[:])))
    if not cut.any():
        return dataset
    changed: dict[str, Any] = {}
    for name in ("energy", "stress"):
        values = getattr(dataset, name)
        if values is not None:
            changed[name] = np.array(values[:], dtype=np.float64)
            changed[name][cut] = np.nan
    return replace(dataset, **changed)


def _refuse_infinite(index: int, name: str, value: float | Array | None) -> None:
    if value is not None and np.isinf(value).any():
        raise DataError(f"Structure {index} has an infinite {name}; relabel it or leave it out.")


class TrainingSet:
    """A data set with everything that turns its labels into rows of a fit.

    Attributes:
        dataset: the structures, which may stay in a file.
        reference_energies: eV by element, taken off the energies.
        zbl: core repulsion taken off all labels, None for none.
        n_rows: energies, force components and stress components to learn from.
        energy_per_atom: (n,) in eV without reference energies and repulsion, NaN where missing.
    """

    def __init__(
        self,
        dataset: Dataset,
        reference_energies: Mapping[str, float],
        scales: LabelScales,
        zbl: ZBL | None = None,
    ) -> None:
        """Look at every label once.

        Raises DataError with the structure's index for labels that cannot be used, energies far
        from all others, two atoms on one spot where a core repulsion is taken off, or equal
        structures of different labels; InputError for reference energies of something else.
        """
        self.dataset = dataset
        self.reference_energies = dict(reference_energies)
        self.zbl = zbl
        self._scales = scales
        self.energy_per_atom = np.full(len(dataset), np.nan)
        self.n_rows, weight = 0, 0.0
        for index in range(len(dataset)):
            found = self._unweighted(index)
            self.n_rows += found.n_rows
            weight += found.weight
            if found.energy is not None:
                self.energy_per_atom[index] = found.energy / len(found.force_weight)
        if weight == 0:
            raise DataError("All structures have the weight 0; give some a positive weight.")
        _check_energies(self.energy_per_atom)
        known = self.energy_per_atom[np.isfinite(self.energy_per_atom)]
        self._lowest = float(known.min()) if known.size else 0.0
        self.groups = _equal_structures(dataset, self.energy_per_atom)

    def __len__(self) -> int:
        return len(self.dataset)

    def labels(self, index: int) -> FitLabels:
        """Labels of structure ``index`` with the weights of its energy and forces."""
        found = self._unweighted(index)
        factor = 1.0
        if found.energy is not None:
            above = found.energy / len(found.force_weight) - self._lowest
            factor = 1.0 / (1.0 + max(above, 0.0) / self._scales.energy)
        force_weight = found.force_weight * factor
        if found.forces is not None:
            squares = np.einsum("ij,ij->i", found.forces, found.forces)
            force_weight = force_weight / (1.0 + squares / self._scales.force**2)
        return replace(found, weight=found.weight * factor, force_weight=force_weight)

    def deal(self, n_folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(n,) fold of each structure, of about equal sizes; equal structures share one.

        A structure in one fold would otherwise be predicted from its own copy in another.
        """
        n_groups = int(self.groups.max()) + 1
        folds = np.arange(n_groups) % max(min(n_folds, n_groups), 1)
        return np.asarray(rng.permutation(folds)[self.groups], dtype=np.int64)

    def _unweighted(self, index: int) -> FitLabels:
        found = fit_labels(self.dataset, index, self.reference_energies)
        if self.zbl is None:
            return found
        try:
            core = self.zbl.evaluate(self.dataset.atoms(index))
        except DataError as error:
            raise DataError(f"Structure {index}: {error}") from error
        kept = found.force_weight[:, None] > 0
        forces = None if found.forces is None else np.where(kept, found.forces - core.forces, 0.0)
        return replace(
            found,
            energy=None if found.energy is None else found.energy - float(core.energies.sum()),
            forces=forces,
            virial=None if found.virial is None else found.virial - core.virial,
        )


def _check_energies(energy_per_atom: Array) -> None:
    """Refuse energies that no chemistry explains: other units, other methods, typing errors."""
    if np.isnan(energy_per_atom).all():
        return
    middle = float(np.nanmedian(energy_per_atom))
    above = energy_per_atom - middle
    strange = np.flatnonzero((above < -_DEEPEST) | (above > _HIGHEST))
    if len(strange):
        worst = int(strange[np.argmax(np.abs(above[strange]))])
        raise DataError(
            f"Structure {worst} has an energy {abs(above[worst]):.6g} eV/atom "
            f"{'above' if above[worst] > 0 else 'below'} the median of the data; check its unit "
            "and method, or leave it out."
        )
    if abs(middle) > _LARGEST:
        raise InputError(
            f"The energies without those of the isolated atoms are {middle:.6g} eV/atom (median); "
            "the reference energies belong to another method or unit."
        )


def _equal_structures(dataset: Dataset, energy_per_atom: Array) -> NDArray[np.int64]:
    """(n,) number of the group of equal structures each one belongs to, in order of appearance.

    Raises DataError when two equal structures have different energies or forces.
    """
    first: dict[bytes, int] = {}
    groups = np.empty(len(dataset), dtype=np.int64)
    members: list[int] = []
    for index in range(len(dataset)):
        key = _structure_key(dataset, index)
        group = first.setdefault(key, len(members))
        groups[index] = group
        if group == len(members):
            members.append(index)
            continue
        difference = abs(energy_per_atom[index] - energy_per_atom[members[group]])
        text = f"energies differ by {1000 * difference:.1f} meV/atom"
        if not difference > _CONTRADICTION:
            difference = _force_difference(dataset, members[group], index)
            text = f"forces differ by {difference:.2f} eV/Å"
            if not difference > _FORCE_CONTRADICTION:
                continue
        raise DataError(
            f"Structures {members[group]} and {index} are the same, but their {text}: they come "
            "from different methods; remove one of them."
        )
    return groups


def _force_difference(dataset: Dataset, first: int, second: int) -> float:
    """Largest difference of two structures' force components; 0 where one has none."""
    one, other = dataset.labels(first), dataset.labels(second)
    if one.forces is None or other.forces is None:
        return 0.0
    difference = np.abs(one.forces - other.forces)
    for mask in (one.force_mask, other.force_mask):
        if mask is not None:
            difference[mask == 0] = 0.0
    return float(difference.max())


def _structure_key(dataset: Dataset, index: int) -> bytes:
    rows = slice(int(dataset.offsets[index]), int(dataset.offsets[index + 1]))

    def rounded(values: Array) -> bytes:
        # Adding zero turns -0 into 0.
        return (np.rint(np.asarray(values, dtype=float) / _SAME_LENGTH) + 0.0).tobytes()

    digest = blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(dataset.numbers[rows]).tobytes())
    digest.update(np.ascontiguousarray(dataset.pbc[index]).tobytes())
    digest.update(rounded(dataset.cell[index]))
    digest.update(rounded(dataset.positions[rows]))
    return digest.digest()
