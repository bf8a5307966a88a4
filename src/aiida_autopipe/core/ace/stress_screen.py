"""Which stress labels agree with energies and forces, and by what constant they miss them.

Stresses are easily written in another order or sign than they are read: in one published data set
(Zuo et al., J. Phys. Chem. A 124, 731 (2020)) the yz and zx components of most or many structures
are exchanged. Such labels cannot be fitted by any potential and spoil its energies. They are found
by a robust fit: rows are reweighted until those that contradict the others no longer count.

Stresses of a basis of plane waves that is cut off too early are another case: computed at a
constant number of plane waves, they miss the pressure with which energies at a constant cutoff rise
(Pulay stress; Francis and Payne, J. Phys. Condens. Matter 2, 4395 (1990)). What is missing in the
virial is 2/3 E_cut dE/dE_cut, and an energy converges atom by atom, so that it is a constant for
each atom of an element. These constants are unknowns of the robust fit. In the copper and nickel of
the data set above they are 0.19 and 0.20 eV.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from ase.units import GPa
from numpy.typing import NDArray

from aiida_autopipe.core.ace.equations import Choice, Equations, FewRows, solve

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
_DIAGONAL = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])

# Residuals beyond this many robust standard deviations contradict the rest.
_CONTRADICTION = 8.0
# They must also be this share of the spread of such labels: a fit of few data may be very close to
# most of them, and labels of extreme structures, which are harder to fit, are no contradiction.
_LEAST_SHARE = 0.25
# Cauchy weights 1 / (1 + (residual / (width scale))^2) between the rounds of the robust fit.
_WIDTH, _ROUNDS = 3.0, 6
# Constants are believed beyond this many of their own standard deviations, where they also exceed
# what counts as a good residual: a fit is never perfect, and many labels make all its faults
# certain. Smaller ones than the last number, in eV, matter to nobody.
_CERTAIN, _LEAST_EXCESS = 8.0, 1e-4
# Another order of the shear components must explain a label this much better, in this share of the
# structures (and in this many), before an order is called wrong.
_TIMES_BETTER, _SHARE, _AT_LEAST = 3.0, 0.03, 3


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
        components: (6,) False for the components left out of all labels.
        order: the order in which the shear components look written, None when as they should.
        excess: (E,) eV per atom of each element that the diagonal of the virials has in excess of
            what energies and forces say; zero where that is not certain.
        pressure: what is missing in the labels on the average, in GPa.
    """

    coefficients: Array
    tolerance: Array
    components: Bools
    order: tuple[int, ...] | None
    excess: Array
    pressure: float

    def corrected(self, targets: Array, composition: Array) -> Array:
        """(k,) labels in eV per atom, six for each structure, without the excess of its elements;
        composition (k / 6, E)."""
        excess = (composition @ self.excess)[:, None] * _DIAGONAL
        return np.asarray(targets - excess.reshape(-1))

    def used(self, rows: Array, corrected: Array) -> Bools:
        """(k,) which components of the labels to use; rows (k, F)."""
        residual = np.abs(rows @ self.coefficients - corrected)
        agree = residual.reshape(-1, 6) <= self.tolerance
        return np.asarray((agree & self.components).reshape(-1))

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
        if left_out:
            text = (
                f"{left_out} of {total} stress components contradict energies and forces and were "
                "left out"
            )
            if self.order is not None:
                wrong = [k for k in (3, 4, 5) if self.order[k - 3] != k]
                names = " and ".join(COMPONENTS[k] for k in wrong)
                text += f"; the components {names} look exchanged: check the order in the file"
            notes.append(text + ".")
        return notes


def screen_stress(equations: Equations, choice: Choice, contents: Contents) -> StressScreen:
    """Find the kept stress rows that no potential of this basis can fit with the rest, and the
    constants by which they all miss it.

    Their rows are not part of the sums of ``equations`` yet. With a metric of the prior there are
    too few labels to tell constants from anything else.
    """
    rows = equations.kept["stress"]
    n_elements = contents.composition.shape[1]
    found, scale, excess = _robust_fit(equations, choice, np.zeros((len(rows.targets), 0)))
    if equations.prior_metric is None:
        shares = (contents.composition[:, None, :] * _DIAGONAL[:, None]).reshape(-1, n_elements)
        with_excess = _robust_fit(equations, choice, shares)
        if with_excess[2].any():
            found, scale, excess = with_excess
    excess = excess if len(excess) else np.zeros(n_elements)
    pressure = float((contents.composition @ excess / contents.volume).mean()) / GPa
    labels = rows.targets.reshape(-1, 6)
    spread = np.repeat([np.std(labels[:, :3]), np.std(labels[:, 3:])], 3)
    tolerance = np.maximum(_CONTRADICTION * scale, _LEAST_SHARE * spread)
    order = _wrong_order(rows, found, float(tolerance[3]))
    components = np.ones(6, dtype=bool)
    if order is not None:
        components[3:] = [order[k - 3] == k for k in (3, 4, 5)]
    return StressScreen(found, tolerance, components, order, excess, pressure)


def _robust_fit(equations: Equations, choice: Choice, shares: Array) -> tuple[Array, float, Array]:
    """Coefficients (F,), the robust standard deviation of the residuals, and constants (E,) that
    come with the further columns ``shares`` (k, E): zero unless their mean is certain."""
    rows, size = equations.kept["stress"], equations.size
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


def _wrong_order(rows: FewRows, coefficients: Array, tolerance: float) -> tuple[int, ...] | None:
    """The order of the shear components that explains enough labels far better than the right one.

    Returns for yz, xz, xy the component in whose place each is found.
    """
    predicted = (rows.matrix @ coefficients).reshape(-1, 6)
    labels = rows.targets.reshape(-1, 6)
    right = np.linalg.norm(predicted[:, 3:] - labels[:, 3:], axis=1)
    best, found = 0, None
    for order in permutations((3, 4, 5)):
        other = np.linalg.norm(predicted[:, 3:] - labels[:, list(order)], axis=1)
        count = int(np.sum((right > tolerance) & (_TIMES_BETTER * other < right)))
        if count > best:
            best, found = count, order
    return found if best >= max(_AT_LEAST, _SHARE * len(right)) else None
