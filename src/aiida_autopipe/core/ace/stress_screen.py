"""Which stress labels agree with energies and forces, and by what constant they miss them.

Stresses are easily written in another order or sign than they are read: in one published data set
(Zuo et al., J. Phys. Chem. A 124, 731 (2020)) the yz and zx components are exchanged for five of
six elements, but not in the strained cells of two of these. Such labels cannot be fitted by any
potential and spoil its energies. They are found by a robust fit: rows are reweighted until those
that contradict the others no longer count. Where that shows that there is another order, every
label is taken in the likelier of the two.

Stresses of a basis of plane waves that is cut off too early are another case: computed at a
constant number of plane waves, they miss the pressure with which energies at a constant cutoff rise
(Pulay stress; Francis and Payne, J. Phys. Condens. Matter 2, 4395 (1990)). What is missing in the
virial is 2/3 E_cut dE/dE_cut, and an energy converges atom by atom, so that it is a constant for
each atom of an element. These constants are unknowns of the robust fit. In the copper and nickel of
the data set above they are 0.19 and 0.20 eV.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from ase.units import GPa
from numpy.typing import NDArray

from aiida_autopipe.core.ace.equations import Choice, Equations, FewRows, solve

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
_RIGHT = (3, 4, 5)
_DIAGONAL = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])

# Residuals beyond this many robust standard deviations contradict the rest, if they are also larger
# than the standard deviation of such numbers: the fit is then worse than their mean. Labels of rare
# structures (surfaces among bulk) are harder to fit than most, and no contradiction.
_CONTRADICTION = 8.0
# Cauchy weights 1 / (1 + (residual / (width scale))^2) between the rounds of the robust fit.
_WIDTH, _ROUNDS = 3.0, 6
# How often labels are put in order and the fit is repeated.
_PASSES = 2
# Constants are believed beyond this many of their own standard deviations, where they also exceed
# what counts as a good residual: a fit is never perfect, and many labels make all its faults
# certain. Smaller ones than the last number, in eV, matter to nobody.
_CERTAIN, _LEAST_EXCESS = 8.0, 1e-4
# Another order of the shear components must explain labels this much better, in this share of the
# structures (and in this many), before an order is called wrong: labels that miss by more than a
# contradiction would, but for this part of the standard deviation instead of all of it.
_TIMES_BETTER, _SHARE, _AT_LEAST, _UNLIKELY = 3.0, 0.03, 3, 0.25


@dataclass(frozen=True, eq=False)
class Contents:
    """What the kept stress labels (k / 6,) belong to.

    Attributes:
        composition: (k / 6, E) shares of the elements.
        volume: (k / 6,) in Å^3 per atom.
    """

    composition: Array
    volume: Array


@dataclass(frozen=True, eq=False)
class StressScreen:
    """The outcome, and a judge of labels that were not looked at.

    Attributes:
        coefficients: (F,) of the robust fit.
        tolerance: (6,) residuals beyond it, in eV per atom, contradict the rest.
        order: where yz, xz, xy are written in some labels or all, None when all are as they should.
        exchanged: share of the labels that are put back from this order.
        excess: (E,) eV per atom of each element that the diagonal of the virials has in excess of
            what energies and forces say; zero where that is not certain.
        pressure: what is missing in the labels on the average, in GPa.
    """

    coefficients: Array
    tolerance: Array
    order: tuple[int, ...] | None
    exchanged: float
    excess: Array
    pressure: float

    def corrected(self, rows: Array, targets: Array, composition: Array) -> Array:
        """(k,) labels in eV per atom, six for each structure, in order and without the excess of
        its elements; rows (k, F), composition (k / 6, E)."""
        if self.order is not None:
            targets = _in_order(rows @ self.coefficients, targets, self.order)[0]
        excess = (composition @ self.excess)[:, None] * _DIAGONAL
        return np.asarray(targets - excess.reshape(-1))

    def used(self, rows: Array, corrected: Array) -> Bools:
        """(k,) which components of the labels to use; rows (k, F)."""
        residual = np.abs(rows @ self.coefficients - corrected)
        return np.asarray((residual.reshape(-1, 6) <= self.tolerance).reshape(-1))

    def notes(self, left_out: int, total: int) -> list[str]:
        """What to tell the user: nothing when every label is used as it is."""
        notes = []
        if self.excess.any():
            than = "lower" if self.pressure > 0 else "higher"
            notes.append(
                f"The pressures of the stresses are {abs(self.pressure):.3g} GPa {than} than the "
                "energies say, as with a plane-wave cutoff too small for them (Pulay stress); the "
                "potential follows the energies."
            )
        if self.order is not None:
            moved = [COMPONENTS[k] for k in _RIGHT if self.order[k - 3] != k]
            notes.append(
                f"The stress components {' and '.join(moved)} are exchanged in about "
                f"{self.exchanged:.0%} of the labels and were put back: check the order in the "
                "file."
            )
        if left_out:
            notes.append(
                f"{left_out} of {total} stress components contradict energies and forces and were "
                "left out."
            )
        return notes


def screen_stress(equations: Equations, choice: Choice, contents: Contents) -> StressScreen:
    """Find the kept stress rows that no potential of this basis can fit with the rest, an order in
    which they can be fitted, and the constants by which they all miss it.

    Their rows are not part of the sums of ``equations`` yet. With a metric of the prior there are
    too few labels to tell constants from anything else.
    """
    rows = equations.kept["stress"]
    screen, scale = _screen(equations, choice, contents, rows)
    order = _wrong_order(rows, screen.coefficients, scale)
    if order is None:
        return screen
    # Half of the labels may have been wrong before.
    for _ in range(_PASSES):
        predicted = rows.matrix @ screen.coefficients
        targets, moved = _in_order(predicted, rows.targets, order)
        screen, _ = _screen(equations, choice, contents, replace(rows, targets=targets))
    return replace(screen, order=order, exchanged=float(moved.mean()))


def _screen(
    equations: Equations, choice: Choice, contents: Contents, rows: FewRows
) -> tuple[StressScreen, float]:
    """The outcome for labels that stay in the order they have, and the robust standard deviation of
    their residuals."""
    n_elements = contents.composition.shape[1]
    found, scale, excess = _robust_fit(equations, choice, rows, np.zeros((len(rows.targets), 0)))
    if equations.prior_metric is None:
        shares = (contents.composition[:, None, :] * _DIAGONAL[:, None]).reshape(-1, n_elements)
        with_excess = _robust_fit(equations, choice, rows, shares)
        if with_excess[2].any():
            found, scale, excess = with_excess
    excess = excess if len(excess) else np.zeros(n_elements)
    pressure = float((contents.composition @ excess / contents.volume).mean()) / GPa
    # Not of the labels, in which a few of another unit would make everything possible.
    predicted = (rows.matrix @ found).reshape(-1, 6)
    spread = np.repeat([np.std(predicted[:, :3]), np.std(predicted[:, 3:])], 3)
    tolerance = np.maximum(_CONTRADICTION * scale, spread)
    return StressScreen(found, tolerance, None, 0.0, excess, pressure), scale


def _robust_fit(
    equations: Equations, choice: Choice, rows: FewRows, shares: Array
) -> tuple[Array, float, Array]:
    """Coefficients (F,), the robust standard deviation of the residuals, and constants (E,) that
    come with the further columns ``shares`` (k, E): zero unless their mean is certain."""
    size = equations.size
    matrix, right = equations.assemble(choice.weights)
    n_constants = shares.shape[1]
    matrix = np.pad(matrix, (0, n_constants))
    right = np.pad(right, (0, n_constants))
    penalty = np.pad(choice.penalty(equations.degrees), (0, n_constants), constant_values=1.0)
    mean = np.pad(equations.mean(choice), (0, n_constants))
    columns = np.hstack([rows.matrix, shares])
    factor = choice.weights.stress * np.sqrt(rows.weight)
    trust = np.ones(len(rows.targets))
    prior = (penalty, choice.regularisation)
    for _ in range(_ROUNDS):
        root = factor * np.sqrt(trust)
        weighted = columns * root[:, None]
        sums, moment = matrix + weighted.T @ weighted, right + weighted.T @ (rows.targets * root)
        found = solve(sums, moment, *prior, mean, equations.prior_metric)
        residual = columns @ found - rows.targets
        counted = trust > 0.1
        scale = 1.4826 * float(np.median(np.abs(residual[counted if counted.any() else ...])))
        trust = 1.0 / (1.0 + (residual / (_WIDTH * max(scale, 1e-12))) ** 2)
    if not n_constants:
        return found, scale, np.zeros(0)
    # The inverse of sums and prior, times the square of the noise, is the covariance.
    share = np.pad(shares[shares.any(axis=1)].mean(axis=0), (size, 0))
    variance = max(float(share @ solve(sums, share, *prior)), 0.0)
    deviation = choice.weights.stress * scale * float(np.sqrt(variance))
    least = max(_CERTAIN * deviation, _WIDTH * scale, _LEAST_EXCESS)
    certain = abs(share @ found) > least
    return found[:size], scale, np.where(certain, found[size:], 0.0)


def _wrong_order(rows: FewRows, coefficients: Array, scale: float) -> tuple[int, ...] | None:
    """The order of the shear components that explains enough labels far better than the right one.

    Returns for yz, xz, xy the component in whose place each is found.
    """
    predicted = rows.matrix @ coefficients
    right = _shear_errors(predicted, rows.targets, _RIGHT)
    spread = float(np.std(predicted.reshape(-1, 6)[:, 3:]))
    impossible = right > max(_CONTRADICTION * scale, _UNLIKELY * spread)
    best, found = 0, None
    for order in permutations(_RIGHT):
        other = _shear_errors(predicted, rows.targets, order)
        count = int(np.sum(impossible & (_TIMES_BETTER * other < right)))
        if count > best:
            best, found = count, order
    return found if best >= max(_AT_LEAST, _SHARE * len(right)) else None


def _in_order(predicted: Array, targets: Array, order: tuple[int, ...]) -> tuple[Array, Bools]:
    """(k,) labels with yz, xz, xy in the right order or taken from this one, whichever is nearer
    to what is ``predicted`` (k,), and which were taken from it (k / 6,)."""
    labels = targets.reshape(-1, 6)
    nearer = _shear_errors(predicted, targets, order) < _shear_errors(predicted, targets, _RIGHT)
    moved = labels[:, [0, 1, 2, *order]]
    return np.where(nearer[:, None], moved, labels).reshape(-1), nearer


def _shear_errors(predicted: Array, targets: Array, order: tuple[int, ...]) -> Array:
    """(k / 6,) errors of the shear components of each label, taken in an order."""
    difference = predicted.reshape(-1, 6)[:, 3:] - targets.reshape(-1, 6)[:, list(order)]
    return np.asarray(np.linalg.norm(difference, axis=1))
