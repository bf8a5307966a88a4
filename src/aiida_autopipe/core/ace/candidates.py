"""Candidate bases of a fit: how they are built, sized by the data, and judged on a sample."""

from __future__ import annotations

import math
import time
from functools import cached_property

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.ace.accumulate import accumulate
from aiida_autopipe.core.ace.basis import Basis, build_basis
from aiida_autopipe.core.ace.cross_validation import cross_validation_score
from aiida_autopipe.core.ace.environments import distinct_environments, neighbour_distance
from aiida_autopipe.core.ace.equations import Choice, Equations, FewRows
from aiida_autopipe.core.ace.fit_data import TrainingSet
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.prior import prior_metric
from aiida_autopipe.core.ace.search import COST_OF_DOUBLING, Limits, Shape, Trial
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.ace.stress_screen import Contents, StressScreen
from aiida_autopipe.core.ace.tuning import Tuned, start_choice, tune
from aiida_autopipe.core.ace.unit_check import check_units
from aiida_autopipe.core.errors import InputError

#: Where the search for a cutoff begins, in nearest-neighbour distances: beyond the third shell of
#: diamond (1.91), the fifth of fcc (2.24) and the fifth of bcc (2.0).
CUTOFF_IN_NEIGHBOUR_DISTANCES = 2.3
#: Size at which shapes are compared first.
START_FUNCTIONS = 300
#: Even a handful of labels is given this many functions: the prior keeps them in order.
FEWEST_FUNCTIONS = 20
#: Functions of all elements together: beyond it the F x F sums no longer fit into memory.
MOST_FUNCTIONS = 5000

_DEFAULT_RANK = 4
# Energy and stress rows of the sample are kept, seven for each structure.
_SAMPLED_STRUCTURES = 3000
_JUDGED_ATOMS = 4000
# Numbers to learn from for each function of a prior from which on corrections are compared by cross
# validation. With fewer it says little, and the metric of the prior holds corrections back (silicon
# with 600 functions: better with 3 labels of 8 atoms, worse with 5 and 10).
_ENOUGH_ROWS = 0.2

Array = NDArray[np.float64]


class Candidates:
    """Makes trials of one training set on a fixed sample of its structures."""

    def __init__(
        self,
        data: TrainingSet,
        folds: NDArray[np.int64],
        settings: FitSettings,
        rng: np.random.Generator,
        threads: int,
    ) -> None:
        """Draw the sample; raises DataError when a cutoff is wanted and no atom has a neighbour."""
        self._data, self._folds, self._settings, self._threads = data, folds, settings, threads
        self.sample = _sample(data, settings.search_atoms, rng)
        self._units_agree = False

    @property
    def is_everything(self) -> bool:
        """Whether the sample is the whole training set."""
        return len(self.sample) == len(self._data)

    @cached_property
    def start(self) -> Shape:
        """The first shape."""
        settings = self._settings
        cutoff = settings.cutoff
        if cutoff is None:
            distance = neighbour_distance(self._data.dataset)
            cutoff = round(CUTOFF_IN_NEIGHBOUR_DISTANCES * distance, 1)
        rank = _DEFAULT_RANK if settings.max_rank is None else settings.max_rank
        most = self._most_functions(cutoff)
        searched = settings.search > 1
        return Shape(cutoff, rank, min(START_FUNCTIONS, most) if searched else most)

    def limits(self, started: float) -> Limits:
        """What the search may vary, for a fit that began at ``started`` (time.monotonic())."""
        settings = self._settings
        most = self._most_functions(self.start.cutoff)
        limit = math.inf if settings.time_limit is None else started + settings.time_limit
        # With a single fold nothing tells a good basis from a bad one.
        searched = settings.search > 1 and int(self._folds.max()) > 0
        rest = self._data.dataset.n_atoms / max(self._data.dataset.sizes[self.sample].sum(), 1)
        reserve = 1.0 + (0.0 if self.is_everything else rest)
        if settings.candidates_per_function > 1:
            # The candidates to choose from come first, and the rest is with them.
            doublings = math.log2(settings.candidates_per_function)
            reserve = (1.0 + reserve) * COST_OF_DOUBLING**doublings
        return Limits(
            cutoff=settings.cutoff is None and searched,
            max_rank=settings.max_rank is None and searched,
            functions=most if searched else 0,
            candidates=settings.search,
            deadline=limit,
            reserve=reserve,
        )

    def evaluate(self, shape: Shape, choice: Choice | None) -> Trial:
        """Fit the sample with a basis of this shape; ``choice`` is where tuning begins."""
        basis = self._basis(shape)
        return self._judge(basis, shape, choice, self._empty(basis))

    def of_prior(self, prior: ACEPotential) -> Trial:
        """The one trial of a fit that starts from another potential."""
        basis = prior.basis
        largest = int(np.diff(basis.offsets).max())
        shape = Shape(basis.cutoff, int(basis.ranks.max()), largest)
        few = self._data.n_rows < _ENOUGH_ROWS * basis.n_functions
        metric = prior_metric(prior) if few else None
        empty = self._empty(basis, prior.coefficients[:, 0], metric)
        return self._judge(basis, shape, start_choice(self._settings, correction=True), empty)

    def judge(self, shape: Shape, choice: Choice | None) -> Trial:
        """Like `evaluate`, but with the numbers of the choice as they are."""
        begun, basis = time.monotonic(), self._basis(shape)
        equations = self._empty(basis)
        self._fill(basis, equations)
        choice = choice or start_choice(self._settings)
        score = cross_validation_score(equations, choice, threads=self._threads)
        tuned = Tuned.alone(choice, score)
        return Trial(shape, basis, equations, tuned, time.monotonic() - begun, is_tuned=False)

    def most_to_choose_from(self, shape: Shape) -> int:
        """Functions per element from which those of a shape are chosen; as many for no choice."""
        # With a single fold nothing says how to fit them.
        if int(self._folds.max()) == 0:
            return shape.functions
        wanted = self._settings.candidates_per_function * shape.functions
        limit = MOST_FUNCTIONS // len(self._data.dataset.elements)
        return max(min(wanted, limit), shape.functions)

    def everything(self, trial: Trial, screen: StressScreen | None) -> Equations:
        """Equations of the whole training set for the basis of a trial."""

        def judge(index: int, rows: Array, targets: Array) -> tuple[Array, NDArray[np.bool_]]:
            assert screen is not None
            contents = self.contents(np.array([index]))
            corrected = screen.corrected(rows, targets, contents.composition)
            return corrected, screen.used(rows, corrected)

        equations = self._empty(
            trial.basis, trial.equations.prior_mean, trial.equations.prior_metric
        )
        accumulate(
            self._data,
            np.arange(len(self._data)),
            trial.basis,
            self._folds,
            equations,
            summed=self._kinds(),
            stress_judge=None if screen is None else judge,
            threads=self._threads,
        )
        return equations

    def _judge(
        self, basis: Basis, shape: Shape, choice: Choice | None, equations: Equations
    ) -> Trial:
        """Fill the equations and tune the choice."""
        begun = time.monotonic()
        self._fill(basis, equations)
        tuned = tune(equations, self._settings, choice, self._threads)
        return Trial(shape, basis, equations, tuned, time.monotonic() - begun)

    def _basis(self, shape: Shape) -> Basis:
        settings = self._settings
        return build_basis(
            BasisSettings(
                elements=tuple(self._data.dataset.elements),
                cutoff=shape.cutoff,
                max_rank=shape.max_rank,
                max_functions=shape.functions,
                radial=settings.radial,
                lambda_=settings.radial_lambda,
                l_weight=settings.degree_l_weight,
                rank_cost=settings.rank_cost,
            )
        )

    def _fill(self, basis: Basis, equations: Equations) -> None:
        """Add the sample to empty equations.

        Stresses wait until they are known to agree with energies and forces. Raises DataError when
        the units of these differ.
        """
        kinds = self._kinds()
        trusted = [kind for kind in kinds if kind != "stress"] or kinds
        accumulate(
            self._data,
            self.sample,
            basis,
            self._folds,
            equations,
            summed=trusted,
            kept={
                kind: self._force_stride if kind == "forces" else 1
                for kind in kinds
                if kinds != ["stress"]
            },
            threads=self._threads,
        )
        if not self._units_agree and "energy" in equations.kept:
            check_units(equations, self._settings, self._families(equations.kept["energy"]))
            self._units_agree = True

    def contents(self, indices: NDArray[np.int64]) -> Contents:
        """What structures (n,) are made of."""
        dataset = self._data.dataset
        numbers = np.array([atomic_numbers[element] for element in dataset.elements])
        begin = np.asarray(dataset.offsets[:])
        atoms = [dataset.numbers[begin[i] : begin[i + 1]] for i in indices.tolist()]
        shares = [(np.asarray(mine)[:, None] == numbers).mean(axis=0) for mine in atoms]
        volumes = [abs(np.linalg.det(dataset.cell[i])) for i in indices.tolist()]
        sizes = [len(mine) for mine in atoms]
        return Contents(np.array(shares), np.array(volumes) / np.array(sizes))

    def _families(self, energies: FewRows) -> NDArray[np.int64]:
        """(k,) equal numbers for structures of as many atoms of each element."""
        sizes = self._data.dataset.sizes[energies.structure]
        counts = self.contents(energies.structure).composition * sizes[:, None]
        found = np.unique(np.rint(counts).astype(np.int64), axis=0, return_inverse=True)[1]
        return np.asarray(found, dtype=np.int64).reshape(-1)

    def count_stresses(self) -> int:
        """Structures with a stress label that can be used."""
        dataset = self._data.dataset
        if dataset.stress is None:
            return 0
        known = np.isfinite(np.asarray(dataset.stress[:])).all(axis=1)
        return int(np.count_nonzero(known & np.asarray(dataset.pbc[:]).all(axis=1)))

    @property
    def _force_stride(self) -> int:
        """Forces of every so many atoms of the sample are kept to judge by."""
        n_atoms = int(self._data.dataset.sizes[self.sample].sum())
        return max(1, math.ceil(n_atoms / _JUDGED_ATOMS))

    def _empty(
        self, basis: Basis, prior_mean: Array | None = None, prior_metric: Array | None = None
    ) -> Equations:
        n_folds = int(self._folds.max()) + 1
        qr = self._settings.solver == "qr"
        return Equations(basis.degrees, n_folds, qr, prior_mean, prior_metric)

    def _kinds(self) -> list[str]:
        """The kinds of label that the data has and the settings do not switch off."""
        dataset, settings = self._data.dataset, self._settings
        weights = start_choice(settings).weights
        present = {
            "energy": dataset.energy is not None and weights.energy != 0,
            "forces": dataset.forces is not None and weights.forces != 0,
            "stress": dataset.stress is not None and weights.stress != 0,
        }
        kinds = [kind for kind, used in present.items() if used]
        if not kinds:
            raise InputError(
                "The weights of all kinds of label that the data have are 0; give energy_weight, "
                "force_weight or stress_weight a positive value."
            )
        return kinds

    def _most_functions(self, cutoff: float) -> int:
        """Functions per element that this much data can carry, at most what the settings allow."""
        settings, dataset = self._settings, self._data.dataset
        n_elements = len(dataset.elements)
        most = min(settings.max_functions, MOST_FUNCTIONS // n_elements)
        if settings.environments_per_function == 0:
            return most
        enough = most * settings.environments_per_function
        diversity = distinct_environments(dataset, cutoff, enough)
        rows = self._data.n_rows / 3 / n_elements
        carried = int(min(min(diversity.values()) / settings.environments_per_function, rows))
        return min(most, max(carried, FEWEST_FUNCTIONS))


def _sample(data: TrainingSet, n_atoms: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Structures of about so many atoms, at random; all when there are not more."""
    sizes = data.dataset.sizes
    if sizes.sum() <= n_atoms and len(sizes) <= _SAMPLED_STRUCTURES:
        return np.arange(len(sizes))
    order = rng.permutation(len(sizes))[:_SAMPLED_STRUCTURES]
    count = int(np.searchsorted(np.cumsum(sizes[order]), n_atoms)) + 1
    return np.sort(order[:count])
