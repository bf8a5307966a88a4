"""The least-squares problem of a fit: rows of three kinds of label in folds, weights, prior.

Rows of energies (per atom), forces and virials (per atom) are summed by kind and by fold of a cross
validation, so every choice of row weights, prior and fold is tried without touching the structures
again: with G = X^T X, b = X^T y, s = y^T y of a fold, the squared error of coefficients c on it is
c^T G c - 2 b^T c + s.

The solution is the mean of the Bayesian posterior with independent Gaussian priors whose width
falls with the degree of the basis function: high degrees make potentials rough. The mean of the
prior is zero, or a share of the coefficients of another potential (delta learning). A correction
from a few labels is small in another sense too: it changes the energies of the atoms that the other
potential knows by little. With the active set A of these atoms that is |A (c - mean)|^2, the metric
of the prior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, qr, solve_triangular
from scipy.linalg.blas import dsymv

from aiida_autopipe.core.ace.sums import GramSums, Sums, TriangularSums, symmetric
from aiida_autopipe.core.errors import FitError

Array = NDArray[np.float64]

KINDS = ("energy", "forces", "stress")
# A function whose columns are this small, relative to the largest, is touched by no label.
_UNTOUCHED = 1e-24
# Weight of the metric of a prior against independent widths, both for the same mean diagonal. With
# independent widths alone a dozen labels are fitted by corrections that spoil all other structures,
# with the metric alone a large basis by corrections that no other structure sees.
_METRIC = 30.0


@dataclass(frozen=True)
class RowWeights:
    """Factors on residuals of energies and virials per atom (eV/atom) and of forces (eV/Å)."""

    energy: float
    forces: float
    stress: float

    def of(self, kind: str) -> float:
        return {"energy": self.energy, "forces": self.forces, "stress": self.stress}[kind]


@dataclass(frozen=True)
class Choice:
    """The numbers of a fit that the data may choose.

    weights: of the kinds of label; regularisation: prior precision relative to the diagonal of the
    weighted sums; smoothness: prior widths are proportional to degree^-smoothness; share: of the
    coefficients of another potential that is the mean of the prior.
    """

    weights: RowWeights
    regularisation: float
    smoothness: float
    share: float = 1.0

    def penalty(self, degrees: Array) -> Array:
        """(F,) inverse prior widths, 1 for the median degree."""
        raised = np.maximum(degrees, 1.0) ** self.smoothness
        return np.asarray(raised / np.median(raised))

    def as_settings(self) -> dict[str, float]:
        """The numbers under the names of the fit settings that fix them."""
        return {
            "energy_weight": self.weights.energy,
            "force_weight": self.weights.forces,
            "stress_weight": self.weights.stress,
            "regularisation": self.regularisation,
            "smoothness": self.smoothness,
        }


@dataclass(frozen=True, eq=False)
class FewRows:
    """Rows kept as they are: matrix (k, F), targets, weights, fold and structure of each (k,)."""

    matrix: Array
    targets: Array
    weight: Array
    fold: NDArray[np.int64]
    structure: NDArray[np.int64]

    def part(self, used: NDArray[np.bool_]) -> FewRows:
        """The rows that are ``used`` (k,)."""
        return FewRows(
            self.matrix[used],
            self.targets[used],
            self.weight[used],
            self.fold[used],
            self.structure[used],
        )


class Equations:
    """The sums for F functions and a number of folds, and the prior mean.

    Attributes:
        sums: by kind, one for each fold.
        kept: rows of a sample by kind, those of forces thinned out; empty where none were kept.
        degrees: (F,) roughness of the functions.
        prior_mean: (F,) coefficients that the prior is centred on, for a share of 1.
        prior_metric: (F, F) positive matrix of the energies a correction changes, or None.
    """

    def __init__(
        self,
        degrees: Array,
        n_folds: int,
        qr: bool = False,
        prior_mean: Array | None = None,
        prior_metric: Array | None = None,
    ) -> None:
        """Empty sums; ``qr`` keeps triangular factors in place of normal equations."""
        self.degrees = degrees
        self.n_folds = n_folds
        self.qr = qr
        self.prior_mean = np.zeros(len(degrees)) if prior_mean is None else prior_mean
        self.prior_metric = prior_metric
        self.sums: dict[str, list[Sums]] = {
            kind: [self.empty() for _ in range(n_folds)] for kind in KINDS
        }
        self.kept: dict[str, FewRows] = {}

    @property
    def size(self) -> int:
        """F, the number of functions."""
        return len(self.degrees)

    def mean(self, choice: Choice) -> Array:
        """(F,) what the prior expects."""
        return np.asarray(choice.share * self.prior_mean)

    def empty(self) -> Sums:
        """Sums of no rows."""
        return TriangularSums(self.size) if self.qr else GramSums(self.size)

    def count(self, kind: str) -> int:
        """Number of rows of one kind."""
        return sum(sums.count for sums in self.sums[kind])

    @property
    def kinds(self) -> list[str]:
        """The kinds of label that have rows."""
        return [kind for kind in KINDS if self.count(kind)]

    def folds_without(self, fold: int | None) -> list[int]:
        """All folds but one."""
        return [k for k in range(self.n_folds) if k != fold]

    def assemble(self, weights: RowWeights, without: int | None = None) -> tuple[Array, Array]:
        """Weighted (F, F) matrix and (F,) right side of all folds but ``without``."""
        lower = np.zeros((self.size, self.size), order="F")
        right = np.zeros(self.size)
        for kind in self.kinds:
            factor = weights.of(kind) ** 2
            for k in self.folds_without(without):
                if factor and self.sums[kind][k].count:
                    lower += factor * self.sums[kind][k].lower
                    right += factor * self.sums[kind][k].moment
        return symmetric(lower), right

    def solve(self, choice: Choice, without: int | None = None) -> Array:
        """Posterior mean (F,) for one choice, from all folds but ``without``.

        Where these say nothing about the potential it is the mean of the prior. Raises FitError
        when no label at all depends on the potential or the sums are not finite.
        """
        if self.qr:
            return self._solve_qr(choice, without)
        matrix, right = self.assemble(choice.weights, without)
        if without is not None and not matrix.any():
            return self.mean(choice)
        return self.solve_sums(matrix, right, choice)

    def solve_sums(self, matrix: Array, right: Array, choice: Choice) -> Array:
        """Posterior mean (F,) for sums that were assembled before."""
        penalty = choice.penalty(self.degrees)
        return solve(
            matrix, right, penalty, choice.regularisation, self.mean(choice), self.prior_metric
        )

    def _solve_qr(self, choice: Choice, without: int | None) -> Array:
        """The same by a QR factorisation of the stacked factors and the rows of the prior."""
        blocks = [
            choice.weights.of(kind) * self.sums[kind][k].factor()
            for kind in self.kinds
            for k in self.folds_without(without)
            if self.sums[kind][k].count
        ]
        stacked = np.vstack(blocks) if blocks else np.zeros((0, self.size + 1))
        result = self.mean(choice)
        if without is not None and not stacked[:, :-1].any():
            return result
        diagonal = np.einsum("ij,ij->j", stacked[:, :-1], stacked[:, :-1])
        scale = column_scaling(diagonal, choice.penalty(self.degrees))
        touched = scale > 0
        rows = stacked[:, :-1][:, touched] * scale[touched]
        targets = stacked[:, -1] - stacked[:, :-1] @ result
        precision = scaled_prior(diagonal, scale, self.prior_metric)
        root = np.eye(int(touched.sum())) if precision is None else cholesky(precision)
        prior = np.sqrt(choice.regularisation) * root
        system = np.vstack([rows, prior])
        right = np.concatenate([targets, np.zeros(len(prior))])
        if not (np.isfinite(system).all() and np.isfinite(right).all()):
            raise FitError(NOT_FINITE)
        q, r = qr(system, mode="economic", overwrite_a=True)
        try:
            step = solve_triangular(r, q.T @ right)
        except np.linalg.LinAlgError:
            step = np.linalg.lstsq(system, right, rcond=None)[0]
        result[touched] += scale[touched] * step
        return result

    def mean_square(self, kind: str, fold: int, coefficients: Array) -> tuple[float, float]:
        """Weighted sum of squared errors of one kind of label on one fold, and the total weight."""
        sums = self.sums[kind][fold]
        total = (
            coefficients @ dsymv(1.0, sums.lower, coefficients, lower=1)
            - 2.0 * (sums.moment @ coefficients)
            + sums.square
        )
        return max(float(total), 0.0), float(sums.weight)

    def use_kept(self, kind: str, targets: Array, used: NDArray[np.bool_]) -> None:
        """Replace the sums of a kind by those of its kept rows with these ``targets``, and drop the
        rows not ``used``; both (k,)."""
        rows = self.kept[kind] = replace(self.kept[kind], targets=targets).part(used)
        self.sums[kind] = [self.empty() for _ in range(self.n_folds)]
        for k in range(self.n_folds):
            mine = rows.part(rows.fold == k)
            if len(mine.targets):
                self.sums[kind][k].add_rows(mine.matrix, mine.targets, mine.weight)

    def part(self, functions: NDArray[np.int64]) -> Equations:
        """The sums for some of the functions, in ascending order, without kept rows."""
        metric = self.prior_metric
        result = Equations(
            self.degrees[functions],
            0,
            self.qr,
            self.prior_mean[functions],
            None if metric is None else metric[np.ix_(functions, functions)],
        )
        result.n_folds = self.n_folds
        result.sums = {k: [one.part(functions) for one in sums] for k, sums in self.sums.items()}
        return result


NOT_FINITE = "The sums over the labels are not finite; check the labels for absurd values."


def column_scaling(diagonal: Array, penalty: Array) -> Array:
    """(F,) factors that turn the prior into a plain ridge; zero for functions no label touches.

    Raises FitError when no function is touched.
    """
    touched = diagonal > _UNTOUCHED * diagonal.max(initial=0.0)
    if not touched.any():
        raise FitError(
            "No label depends on the potential: every atom is farther than the cutoff from all "
            "others; choose a larger cutoff or other structures."
        )
    scale = np.zeros(len(diagonal))
    scale[touched] = 1.0 / (np.sqrt(diagonal[touched]) * penalty[touched])
    return scale


def solve(
    matrix: Array,
    right: Array,
    penalty: Array,
    regularisation: float,
    prior_mean: Array | None = None,
    prior_metric: Array | None = None,
) -> Array:
    """Coefficients (F,) minimising c^T A c - 2 b^T c + reg sum_f A_ff (penalty_f (c - mean)_f)^2.

    With a ``prior_metric`` the last term is that of `scaled_prior`. Columns are scaled to unit
    diagonal times ``penalty`` first, which makes the prior a plain ridge and the Cholesky
    factorisation stable; if that fails all the same, small eigenvalues are dropped. Functions that
    no row touches keep the coefficient of ``prior_mean`` (zero without).
    Raises FitError when no function is touched or the sums are not finite.
    """
    scale = column_scaling(np.diag(matrix), penalty)
    touched = scale > 0
    coefficients = np.zeros(len(right)) if prior_mean is None else prior_mean.copy()
    remaining = right if prior_mean is None else right - matrix @ prior_mean
    prior = scaled_prior(np.diag(matrix), scale, prior_metric)
    scaled = scaled_matrix(matrix, scale, regularisation, prior)
    if not (np.isfinite(scaled).all() and np.isfinite(remaining).all()):
        raise FitError(NOT_FINITE)
    step = _solve_positive(scaled, (remaining * scale)[touched])
    coefficients[touched] += scale[touched] * step
    return coefficients


def scaled_prior(diagonal: Array, scale: Array, metric: Array | None) -> Array | None:
    """Precision of the touched functions after `column_scaling`, for a regularisation of 1.

    Without a metric it is the identity, given as None. With one, its diagonal takes the place of
    that of the sums, which a few labels determine badly, and the metric itself is added.
    """
    if metric is None:
        return None
    touched = scale > 0
    part, widths = metric[np.ix_(touched, touched)], diagonal[touched]
    own = np.diag(part) / widths
    size = np.exp(-np.log(own).mean())
    prior = (_METRIC * size * scale[touched][:, None]) * part * scale[touched][None, :]
    prior[np.diag_indices_from(prior)] += size * own
    return np.asarray(prior)


def scaled_matrix(matrix: Array, scale: Array, regularisation: float, prior: Array | None) -> Array:
    """The matrix of the touched functions after `column_scaling`, with the `scaled_prior` added."""
    touched = scale > 0
    part = matrix if touched.all() else matrix[np.ix_(touched, touched)]
    scaled = part * scale[touched][:, None]
    scaled *= scale[touched][None, :]
    if prior is None:
        scaled[np.diag_indices_from(scaled)] += regularisation
    else:
        scaled += regularisation * prior
    return np.asarray(scaled)


def _solve_positive(matrix: Array, right: Array) -> Array:
    try:
        # That of NumPy lets other threads work, that of SciPy does not.
        factor = np.linalg.cholesky(matrix)
        solution = np.asarray(cho_solve((factor, True), right, check_finite=False))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
        solution = vectors[:, kept] @ ((vectors[:, kept].T @ right) / values[kept])
    return solution


def row_errors(rows: FewRows, solutions: list[Array]) -> tuple[Array, Array]:
    """Errors of kept rows predicted by the fit without their fold, and their weights."""
    if not solutions:
        return np.zeros(len(rows.targets)), rows.weight
    # Products with all solutions take less time than to pick the rows of each fold.
    predicted = rows.matrix @ np.stack(solutions, axis=1)
    return predicted[np.arange(len(rows.fold)), rows.fold] - rows.targets, rows.weight
