"""Cross validation: how well labels are predicted by a fit without them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.equations import KINDS, Choice, Equations, RowWeights, row_errors
from aiida_autopipe.core.ace.parallel import in_threads

Array = NDArray[np.float64]

# How much the log errors of the kinds count: forces drive MD, and their error is known best.
_IMPORTANCE = {"energy": 1.0, "forces": 2.0, "stress": 1.0}
# Errors below this (eV or eV/Å) are below any label's own noise; keeps exact data out of log 0.
_SMALLEST_ERROR = 1e-8
_TINY = 1e-300


class FoldSystems:
    """Normal equations of all folds but one for the row weights asked for last."""

    def __init__(self, equations: Equations, threads: int) -> None:
        self._equations, self._threads = equations, threads
        self._weights: RowWeights | None = None
        self._systems: list[tuple[Array, Array]] = []

    def of(self, weights: RowWeights) -> list[tuple[Array, Array]]:
        if weights != self._weights:
            folds = range(self._equations.n_folds)
            self._systems = []
            self._systems = list(
                in_threads(lambda k: self._equations.assemble(weights, k), folds, self._threads)
            )
            self._weights = weights
        return self._systems


def fold_solutions(
    equations: Equations,
    choice: Choice,
    systems: FoldSystems | None = None,
    threads: int = 1,
) -> list[Array]:
    """The coefficients fitted without each fold in turn; none with a single fold.

    With ``systems`` they solve these normal equations, however the sums are kept. Where the other
    folds say nothing about the potential, they are those of the prior.
    """
    if equations.n_folds < 2:
        return []

    def solution(fold: int) -> Array:
        if systems is None:
            return equations.solve(choice, without=fold)
        matrix, right = systems.of(choice.weights)[fold]
        if not matrix.any():
            return equations.mean(choice)
        return equations.solve_sums(matrix, right, choice)

    if systems is not None:
        systems.of(choice.weights)
    return list(in_threads(solution, range(equations.n_folds), threads))


@dataclass(frozen=True, eq=False)
class HeldOutErrors:
    """Errors of labels that were held out, by kind.

    sums, weights: (structures,) of absolute errors times weights, and of the weights; for kinds of
    which no rows were kept a single root mean square.
    """

    sums: dict[str, Array]
    weights: dict[str, Array]

    @property
    def score(self) -> float:
        """Weighted mean over kinds of label of the log error; lower is better.

        A sum of logarithms weighs relative gains, whatever the units: 2 % better energies pay for
        1 % worse forces. Errors are mean absolute ones where rows were kept, so that a few odd
        structures do not decide; else root mean squares.
        """
        logs = {kind: np.log(self.mean(kind) + _SMALLEST_ERROR) for kind in self.sums}
        return sum(float(self._shares[kind] * logs[kind]) for kind in logs)

    def mean(self, kind: str) -> float:
        """Weighted mean error of a kind, eV per atom or eV/Å."""
        return float(self.sums[kind].sum() / self.weights[kind].sum())

    @property
    def standard_error(self) -> float:
        """Of the score, the structures being a sample, from what each does to it."""
        influences = np.zeros(max((len(sums) for sums in self.sums.values()), default=0))
        for kind, share in self._shares.items():
            sums, weights = self.sums[kind], self.weights[kind]
            part = sums / max(sums.sum(), _TINY) - weights / max(weights.sum(), _TINY)
            influences[: len(part)] += share * part
        return float(np.linalg.norm(influences))

    @property
    def _shares(self) -> dict[str, float]:
        total = sum(_IMPORTANCE[kind] for kind in self.sums)
        return {kind: _IMPORTANCE[kind] / total for kind in self.sums}


def held_out_errors(
    equations: Equations,
    choice: Choice,
    systems: FoldSystems | None = None,
    threads: int = 1,
    kinds: Collection[str] = KINDS,
) -> HeldOutErrors:
    """Errors of the labels of some kinds, predicted without their fold."""
    solutions = fold_solutions(equations, choice, systems, threads)
    found = HeldOutErrors({}, {})
    for kind in equations.kinds:
        if kind not in kinds or choice.weights.of(kind) == 0:
            continue
        if kind in equations.kept:
            errors, weight = row_errors(equations.kept[kind], solutions)
            structure = equations.kept[kind].structure
            # The weights of rows are those of squares.
            root = np.sqrt(weight)
            found.sums[kind] = np.bincount(structure, np.abs(errors) * root).astype(float)
            found.weights[kind] = np.bincount(structure, root).astype(float)
        else:
            parts = [equations.mean_square(kind, k, c) for k, c in enumerate(solutions)]
            square = sum(part[0] for part in parts) / sum(part[1] for part in parts)
            found.sums[kind], found.weights[kind] = np.array([np.sqrt(square)]), np.ones(1)
    return found


def cross_validation_score(
    equations: Equations,
    choice: Choice,
    systems: FoldSystems | None = None,
    threads: int = 1,
    kinds: Collection[str] = KINDS,
) -> float:
    """The score of the errors of labels of some kinds that are held out; lower is better."""
    return held_out_errors(equations, choice, systems, threads, kinds).score
