"""Least-squares fit of a linear ACE potential with its active set.

The design matrix is never stored. Every structure adds its rows to the normal equations (see
`normal_equations`) and its basis values to a spool on disk, from which the active set is chosen.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.active_set import ActiveSet
from aiida_autopipe.core.ace.basis import Basis, DesignBlock, build_basis
from aiida_autopipe.core.ace.fit_data import (
    FitLabels,
    default_cutoff,
    distinct_environments,
    fit_labels,
    resolve_reference_energies,
)
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.normal_equations import (
    Choice,
    NormalEquations,
    RowWeights,
    best_of,
    fold_solutions,
    solve,
)
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.predict import Parity, predict
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.ace.spool import Spool
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError

__all__ = ["FitResult", "FitSettings", "fit_ace"]

Array = NDArray[np.float64]

DEFAULT_ENERGY_WEIGHT = 100.0
DEFAULT_REGULARISATION = 1e-9
DEFAULT_SMOOTHNESS = 1.0
ENERGY_WEIGHTS = (10.0, 30.0, 100.0, 300.0, 1000.0)
# Strong priors first: see the tolerance below.
REGULARISATIONS = tuple(10.0**-k for k in range(3, 13))
SMOOTHNESSES = (3.0, 2.0, 1.0, 0.0)
STRESS_TO_ENERGY_WEIGHT = 0.05
#: A prior this much worse (0.5 % of the errors) but stronger is preferred: it extrapolates better.
_SCORE_TOLERANCE = 0.005
#: Even a handful of labels is given this many functions: the prior keeps them in order.
FEWEST_FUNCTIONS = 20


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted potential and how well it does.

    Attributes:
        potential: with reference energies and active set.
        metrics: "train", "validation" (cross validation) and "test" -> errors.
        chosen: what the data decided: number of functions, weights, regularisation, ...
        parity: "train", "validation" and "test" -> reference and predicted values.
        active_sets: the chosen environments by element.
    """

    potential: ACEPotential
    metrics: dict[str, dict[str, float | None]]
    chosen: dict[str, Any]
    parity: dict[str, Parity]
    active_sets: dict[str, ActiveSet]

    def parity_arrays(self) -> dict[str, Array]:
        """All parity arrays under names such as train_energy_reference."""
        arrays: dict[str, Array] = {}
        for part, parity in self.parity.items():
            arrays |= parity.arrays(part)
        return arrays


def fit_ace(
    train: Dataset,
    settings: FitSettings,
    test: Dataset | None = None,
    reference_energies: Mapping[str, float] | None = None,
    *,
    rng: np.random.Generator,
) -> FitResult:
    """Fit a linear ACE potential to ``train`` and report its errors, also on ``test``.

    ``reference_energies`` (eV by element) are taken off the energies before the fit; without them
    see `resolve_reference_energies`. Settings that are None are chosen by cross validation inside
    ``train``; ``test`` is only reported on. ``rng`` deals structures to the folds.

    Raises DataError (unusable labels, with the structure's index), InputError (settings or
    reference energies that do not fit the data) or FitError (no label depends on the potential).
    """
    if len(train) == 0:
        raise DataError("The training set contains no structures.")
    energies, source = resolve_reference_energies(train, reference_energies)
    _check_test(train, test)
    labels = [fit_labels(train, i, energies) for i in range(len(train))]
    cutoff = default_cutoff(train) if settings.cutoff is None else settings.cutoff
    basis = _build_basis(settings, train, labels, cutoff)
    folds = _deal(len(train), settings.n_folds, rng)
    with Spool(basis) as spool:
        equations = _accumulate(train, labels, basis, folds, settings, spool)
        active_sets = spool.active_sets(settings.active_set_tolerance, settings.active_set_floor)
    choice = _choose(equations, basis.degrees, settings)
    penalty = choice.penalty(basis.degrees)
    coefficients = solve(*equations.assemble(choice.weights), penalty, choice.regularisation)
    inverses = {element: chosen.inverse for element, chosen in active_sets.items()}
    potential = ACEPotential(basis, coefficients, energies, inverses)

    parity = {"train": predict(train, lambda _: potential)}
    if equations.n_folds > 1:
        held_out = [
            ACEPotential(basis, c, energies, None)
            for c in fold_solutions(equations, basis.degrees, choice)
        ]
        parity["validation"] = predict(train, lambda i: held_out[folds[i]])
    if test is not None:
        parity["test"] = predict(test, lambda _: potential)
    chosen = {
        "cutoff": cutoff,
        "functions_per_element": int(np.diff(basis.offsets).max()),
        "n_functions": basis.n_functions,
        "pseudo_rows": {element: a.n_pseudo for element, a in active_sets.items()},
        "reference_energies_from": source,
        **choice.as_settings(),
    }
    metrics = {part: values.metrics() for part, values in parity.items()}
    return FitResult(potential, metrics, chosen, parity, active_sets)


def _build_basis(
    settings: FitSettings, train: Dataset, labels: list[FitLabels], cutoff: float
) -> Basis:
    """The basis these settings ask for, of a size that the data can carry."""
    enough = settings.max_functions * settings.environments_per_function
    diversity = distinct_environments(train, cutoff, enough)
    return build_basis(
        BasisSettings(
            elements=tuple(train.elements),
            cutoff=cutoff,
            max_rank=settings.max_rank,
            max_functions=_number_of_functions(settings, labels, diversity),
            radial=settings.radial,
            lambda_=settings.radial_lambda,
            l_weight=settings.degree_l_weight,
        )
    )


def _check_test(train: Dataset, test: Dataset | None) -> None:
    if test is None:
        return
    if len(test) == 0:
        raise DataError("The test set contains no structures.")
    unknown = [e for e in test.elements if e not in train.elements]
    if unknown:
        raise DataError(
            f"The test set contains {', '.join(unknown)}, which the training set lacks; "
            "a potential cannot be tested on elements it has never seen."
        )


def _number_of_functions(
    settings: FitSettings, labels: list[FitLabels], diversity: Mapping[str, int]
) -> int:
    """Functions per element that this much data can carry, at most ``settings.max_functions``."""
    if settings.environments_per_function == 0:
        return settings.max_functions
    rows = sum(
        (label.energy is not None)
        + 3 * int(np.count_nonzero(label.force_weight)) * (label.forces is not None)
        + 6 * (label.virial is not None)
        for label in labels
    )
    carried = int(
        min(
            min(diversity.values()) / settings.environments_per_function,
            rows / 3 / len(diversity),
        )
    )
    return min(settings.max_functions, max(carried, FEWEST_FUNCTIONS))


def _deal(n_structures: int, n_folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) fold of each structure, of equal sizes; a single structure cannot be held out."""
    folds = np.arange(n_structures) % max(min(n_folds, n_structures), 1)
    return np.asarray(rng.permutation(folds), dtype=np.int64)


def _accumulate(
    train: Dataset,
    labels: list[FitLabels],
    basis: Basis,
    folds: NDArray[np.int64],
    settings: FitSettings,
    spool: Spool,
) -> NormalEquations:
    """One pass over the structures: sums for the fit, basis values for the active set."""
    equations = NormalEquations(basis.n_functions, int(folds.max()) + 1)
    for index, block in enumerate(_design_blocks(train, basis, settings.threads)):
        label, fold, size = labels[index], int(folds[index]), len(block.values)
        rows_of_atoms = slice(int(train.offsets[index]), int(train.offsets[index + 1]))
        spool.add(block.values, np.asarray(train.numbers[rows_of_atoms]))
        if label.energy is not None:
            rows, target = block.energy_row[None] / size, np.array([label.energy / size])
            equations.add("energy", fold, rows, target, np.array([label.weight]))
        if label.forces is not None and settings.force_weight > 0:
            weight = np.repeat(label.force_weight * label.weight, 3)
            equations.add("forces", fold, block.force_rows, label.forces.ravel(), weight)
        if label.virial is not None and settings.stress_weight != 0:
            rows, target = block.virial_rows / size, label.virial / size
            equations.add("stress", fold, rows, target, np.full(6, label.weight))
    return equations


def _design_blocks(train: Dataset, basis: Basis, threads: int) -> Iterator[DesignBlock]:
    """Design matrices in the order of the structures; the kernels release the interpreter lock."""
    if threads == 1:
        yield from map(basis.design_block, train.iter_atoms())
        return
    with ThreadPoolExecutor(threads) as pool:
        # Batches bound the number of finished blocks that wait to be added up.
        for first in range(0, len(train), 4 * threads):
            batch = range(first, min(first + 4 * threads, len(train)))
            yield from pool.map(basis.design_block, [train.atoms(i) for i in batch])


def _choose(equations: NormalEquations, degrees: Array, settings: FitSettings) -> Choice:
    """Fill in what the settings leave open, one number after the other, by cross validation."""
    energy = DEFAULT_ENERGY_WEIGHT if settings.energy_weight is None else settings.energy_weight
    default = DEFAULT_REGULARISATION
    choice = Choice(
        _weights(energy, settings),
        default if settings.regularisation is None else settings.regularisation,
        DEFAULT_SMOOTHNESS if settings.smoothness is None else settings.smoothness,
    )
    if equations.n_folds < 2:
        return choice
    for _ in range(2):
        before = choice
        if settings.smoothness is None:
            options = [replace(choice, smoothness=value) for value in SMOOTHNESSES]
            choice = best_of(equations, degrees, options, _SCORE_TOLERANCE)
        if settings.regularisation is None:
            options = [replace(choice, regularisation=value) for value in REGULARISATIONS]
            choice = best_of(equations, degrees, options, _SCORE_TOLERANCE)
        if settings.energy_weight is None and {"energy", "forces"} <= set(equations.kinds):
            options = [replace(choice, weights=_weights(v, settings)) for v in ENERGY_WEIGHTS]
            choice = best_of(equations, degrees, options)
        if choice == before:
            break
    return choice


def _weights(energy: float, settings: FitSettings) -> RowWeights:
    stress = settings.stress_weight
    stress = energy * STRESS_TO_ENERGY_WEIGHT if stress is None else stress
    return RowWeights(energy=energy, forces=settings.force_weight, stress=stress)
