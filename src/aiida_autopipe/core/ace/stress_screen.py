"""Which stress labels agree with energies and forces.

Stresses are easily written in another order or sign than they are read: in one published data set
(Zuo et al., J. Phys. Chem. A 124, 731 (2020)) the yz and zx components of most or many structures
are exchanged. Such labels cannot be fitted by any potential and spoil its energies. They are found
by a robust fit: rows are reweighted until those that contradict the others no longer count.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.equations import Choice, Equations, FewRows, solve

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")

# Residuals beyond this many robust standard deviations contradict the rest.
_CONTRADICTION = 8.0
# They must also be this share of the spread of such labels: a fit of few data may be very close to
# most of them, and labels of extreme structures, which are harder to fit, are no contradiction.
_LEAST_SHARE = 0.25
# Cauchy weights 1 / (1 + (residual / (width scale))^2) between the rounds of the robust fit.
_WIDTH, _ROUNDS = 3.0, 6
# Another order of the shear components must explain a label this much better, in this share of the
# structures (and in this many), before an order is called wrong.
_TIMES_BETTER, _SHARE, _AT_LEAST = 3.0, 0.03, 3


@dataclass(frozen=True, eq=False)
class StressScreen:
    """The outcome, and a judge of labels that were not looked at.

    Attributes:
        coefficients: (F,) of the robust fit.
        tolerance: (6,) residuals beyond it, in eV per atom, contradict the rest.
        components: (6,) False for the components left out of all labels.
        order: the order in which the shear components look written, None when as they should.
    """

    coefficients: Array
    tolerance: Array
    components: Bools
    order: tuple[int, ...] | None

    def used(self, rows: Array, targets: Array) -> Bools:
        """(6,) which components of one label to use; rows (6, F), targets (6,) in eV per atom."""
        residual = np.abs(rows @ self.coefficients - targets)
        return np.asarray((residual <= self.tolerance) & self.components)

    def used_rows(self, rows: FewRows) -> Bools:
        """(k,) the same for kept rows, six for each structure."""
        residual = np.abs(rows.matrix @ self.coefficients - rows.targets)
        agree = residual.reshape(-1, 6) <= self.tolerance
        return np.asarray((agree & self.components).reshape(-1))

    def sentence(self, left_out: int, total: int) -> str | None:
        """What to tell the user, None when every label is used."""
        if not left_out:
            return None
        text = (
            f"{left_out} of {total} stress components contradict energies and forces and were left "
            "out"
        )
        if self.order is not None:
            wrong = [k for k in (3, 4, 5) if self.order[k - 3] != k]
            names = " and ".join(COMPONENTS[k] for k in wrong)
            text += f"; the components {names} look exchanged: check the order in the file"
        return text + "."


def screen_stress(equations: Equations, choice: Choice) -> StressScreen:
    """Find the kept stress rows that no potential of this basis can fit with the rest.

    Their rows are not part of the sums of ``equations`` yet.
    """
    rows = equations.kept["stress"]
    matrix, right = equations.assemble(choice.weights)
    penalty = choice.penalty(equations.degrees)
    factor = choice.weights.stress * np.sqrt(rows.weight)
    trust = np.ones(len(rows.targets))
    coefficients, scale = np.zeros(equations.size), np.inf
    for _ in range(_ROUNDS):
        root = factor * np.sqrt(trust)
        weighted, targets = rows.matrix * root[:, None], rows.targets * root
        coefficients = solve(
            matrix + weighted.T @ weighted,
            right + weighted.T @ targets,
            penalty,
            choice.regularisation,
            equations.mean(choice),
            equations.prior_metric,
        )
        residual = rows.matrix @ coefficients - rows.targets
        counted = trust > 0.1
        scale = 1.4826 * float(np.median(np.abs(residual[counted if counted.any() else ...])))
        trust = 1.0 / (1.0 + (residual / (_WIDTH * max(scale, 1e-12))) ** 2)
    labels = rows.targets.reshape(-1, 6)
    spread = np.repeat([np.std(labels[:, :3]), np.std(labels[:, 3:])], 3)
    tolerance = np.maximum(_CONTRADICTION * scale, _LEAST_SHARE * spread)
    order = _wrong_order(rows, coefficients, float(tolerance[3]))
    components = np.ones(6, dtype=bool)
    if order is not None:
        components[3:] = [order[k - 3] == k for k in (3, 4, 5)]
    return StressScreen(coefficients, tolerance, components, order)


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
