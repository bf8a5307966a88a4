"""Linear least squares on energies, forces and stresses by accumulated normal equations.

Rows of the three kinds of label are summed into one F x F matrix each and per fold of a cross
validation. Memory does not grow with the number of structures, and every choice of row weights,
prior and fold is tried without touching the structures again: with G = X^T X, b = X^T y, s = y^T y
of a fold, the squared error of coefficients c on it is c^T G c - 2 b^T c + s.

The solution is the mean of the Bayesian posterior with independent Gaussian priors whose width
falls with the polynomial degree of the basis function: high degrees make potentials rough.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, eigh

from aiida_autopipe.core.errors import FitError

Array = NDArray[np.float64]

KINDS = ("energy", "forces", "stress")


@dataclass
class LabelSums:
    """Sums over the rows of one kind of label, per fold: X^T X, X^T y, y^T y and total weight."""

    gram: Array
    moment: Array
    square: Array
    weight: Array

    @classmethod
    def zeros(cls, n_folds: int, size: int) -> "LabelSums":
        return cls(
            np.zeros((n_folds, size, size)),
            np.zeros((n_folds, size)),
            np.zeros(n_folds),
            np.zeros(n_folds),
        )


@dataclass(frozen=True)
class RowWeights:
    """Factors on residuals of energies and virials per atom (eV/atom) and of forces (eV/Å)."""

    energy: float
    forces: float
    stress: float

    def of(self, kind: str) -> float:
        return {"energy": self.energy, "forces": self.forces, "stress": self.stress}[kind]


@dataclass
class NormalEquations:
    """The accumulated sums for ``size`` functions and ``n_folds`` folds."""

    size: int
    n_folds: int = 1
    sums: dict[str, LabelSums] = field(init=False)

    def __post_init__(self) -> None:
        self.sums = {kind: LabelSums.zeros(self.n_folds, self.size) for kind in KINDS}

    def add(self, kind: str, fold: int, rows: Array, targets: Array, weight: Array) -> None:
        """Add rows (k, F) with targets (k,); ``weight`` (k,) multiplies their squared residuals.

        Rows of zero weight (buffer atoms) leave no trace, whatever their target.
        """
        used = weight > 0
        if not used.any():
            return
        root = np.sqrt(weight[used])
        matrix = rows[used] * root[:, None]
        values = targets[used] * root
        sums = self.sums[kind]
        sums.gram[fold] += matrix.T @ matrix
        sums.moment[fold] += matrix.T @ values
        sums.square[fold] += values @ values
        sums.weight[fold] += weight[used].sum()

    @property
    def kinds(self) -> list[str]:
        """The kinds of label that have rows."""
        return [kind for kind in KINDS if self.sums[kind].weight.sum() > 0]

    def assemble(self, weights: RowWeights, without: int | None = None) -> tuple[Array, Array]:
        """Weighted (F, F) matrix and (F,) right side of all folds but ``without``."""
        folds = [k for k in range(self.n_folds) if k != without]
        matrix = np.zeros((self.size, self.size))
        right = np.zeros(self.size)
        for kind in self.kinds:
            factor = weights.of(kind) ** 2
            for k in folds:
                matrix += factor * self.sums[kind].gram[k]
                right += factor * self.sums[kind].moment[k]
        return matrix, right

    def mean_square(self, kind: str, fold: int, coefficients: Array) -> tuple[float, float]:
        """Weighted sum of squared errors of one kind of label on one fold, and the total weight."""
        sums = self.sums[kind]
        total = (
            coefficients @ sums.gram[fold] @ coefficients
            - 2.0 * (sums.moment[fold] @ coefficients)
            + sums.square[fold]
        )
        return max(float(total), 0.0), float(sums.weight[fold])


def solve(matrix: Array, right: Array, penalty: Array, regularisation: float) -> Array:
    """Coefficients (F,) minimising c^T A c - 2 b^T c + regularisation sum_f A_ff (penalty_f c_f)^2.

    Columns are scaled to unit diagonal times ``penalty`` first, which makes the prior a plain
    ridge and the Cholesky factorisation stable; if that fails all the same, small eigenvalues are
    dropped.
    Functions that no row touches get coefficient zero. Raises FitError when no function is
    touched or the sums are not finite.
    """
    diagonal = np.diag(matrix)
    touched = diagonal > 1e-24 * diagonal.max(initial=0.0)
    if not touched.any():
        raise FitError(
            "No label depends on the potential: every atom is farther than the cutoff from all "
            "others; choose a larger cutoff or other structures."
        )
    scale = 1.0 / (np.sqrt(diagonal[touched]) * penalty[touched])
    scaled = matrix[np.ix_(touched, touched)] * scale[:, None] * scale[None, :]
    scaled[np.diag_indices_from(scaled)] += regularisation
    if not (np.isfinite(scaled).all() and np.isfinite(right).all()):
        raise FitError(
            "The sums over the labels are not finite; check the labels for absurd values."
        )
    coefficients = np.zeros(len(right))
    coefficients[touched] = scale * _solve_positive(scaled, right[touched] * scale)
    return coefficients


def _solve_positive(matrix: Array, right: Array) -> Array:
    try:
        solution: Array = cho_solve(cho_factor(matrix, lower=True), right)
    except np.linalg.LinAlgError:
        values, vectors = eigh(matrix)
        kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
        solution = vectors[:, kept] @ ((vectors[:, kept].T @ right) / values[kept])
    return solution


@dataclass(frozen=True)
class Choice:
    """One set of the numbers that cross validation may choose."""

    weights: RowWeights
    regularisation: float
    smoothness: float

    def penalty(self, degrees: Array) -> Array:
        """(F,) prior widths are proportional to 1 / penalty = degree^-smoothness."""
        return np.asarray(np.maximum(degrees, 1.0) ** self.smoothness)

    def as_settings(self) -> dict[str, float]:
        """The numbers under the names of the fit settings that fix them."""
        return {
            "energy_weight": self.weights.energy,
            "force_weight": self.weights.forces,
            "stress_weight": self.weights.stress,
            "regularisation": self.regularisation,
            "smoothness": self.smoothness,
        }


def fold_solutions(equations: NormalEquations, degrees: Array, choice: Choice) -> list[Array]:
    """The coefficients fitted without each fold in turn."""
    penalty = choice.penalty(degrees)
    return [
        solve(*equations.assemble(choice.weights, without=k), penalty, choice.regularisation)
        for k in range(equations.n_folds)
    ]


def cross_validation_score(equations: NormalEquations, degrees: Array, choice: Choice) -> float:
    """Mean over the kinds of label of log RMSE on the folds left out; lower is better.

    A sum of logarithms weighs relative gains alike, so that 10 % better energies pay for 10 % worse
    forces whatever their units.
    """
    solutions = fold_solutions(equations, degrees, choice)
    logs = []
    for kind in equations.kinds:
        parts = [equations.mean_square(kind, k, c) for k, c in enumerate(solutions)]
        total = sum(part[0] for part in parts)
        weight = sum(part[1] for part in parts)
        # 1e-8 in eV or eV/Å is far below any label's own noise and keeps exact data out of log 0.
        logs.append(0.5 * np.log(total / weight + 1e-16))
    return float(np.mean(logs))


def best_of(
    equations: NormalEquations,
    degrees: Array,
    choices: Iterable[Choice],
    tolerance: float = 0.0,
) -> Choice:
    """The first choice whose cross-validation score is within ``tolerance`` of the lowest.

    With the more cautious choices first, a tolerance takes the most cautious one that is as good.
    """
    scored = [(cross_validation_score(equations, degrees, c), c) for c in choices]
    if not scored:
        raise FitError("There is nothing to choose from: no candidate settings were given.")
    limit = min(score for score, _ in scored) + tolerance
    return next(choice for score, choice in scored if score <= limit)
