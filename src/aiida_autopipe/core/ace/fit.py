"""Least-squares fit of a linear ACE potential with its active set and posterior.

The design matrix is never stored. Structures add their rows to the sums of `equations`, chunk by
chunk on all cores; which basis, weights and prior to use is decided by cross validation on these
sums; the basis values of all atoms go to a spool on disk, from which the active set is chosen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from aiida_autopipe.core.ace.active_set import ActiveSet
from aiida_autopipe.core.ace.basis import Basis
from aiida_autopipe.core.ace.calibration import HeldOut, calibration, evaluate_held_out
from aiida_autopipe.core.ace.candidates import Candidates
from aiida_autopipe.core.ace.cross_validation import FoldSystems, fold_solutions
from aiida_autopipe.core.ace.environments import shortest_distances
from aiida_autopipe.core.ace.equations import Choice, Equations
from aiida_autopipe.core.ace.final import final_equations
from aiida_autopipe.core.ace.fit_data import LabelScales, TrainingSet, without_cutout_energies
from aiida_autopipe.core.ace.parallel import available_threads
from aiida_autopipe.core.ace.posterior import Posterior, posterior_of
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.predict import Parity, predict
from aiida_autopipe.core.ace.prior import check_prior, prior_energies
from aiida_autopipe.core.ace.pruning import pruned
from aiida_autopipe.core.ace.references import resolve_reference_energies
from aiida_autopipe.core.ace.search import Search, SearchRecord, Trial
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.ace.spool import active_sets
from aiida_autopipe.core.ace.structure_checks import check_structures
from aiida_autopipe.core.ace.tuning import Tuned
from aiida_autopipe.core.ace.zbl import ZBL, default_zbl
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, InputError

__all__ = ["FitResult", "FitSettings", "fit_ace"]

Array = NDArray[np.float64]

# Å; the range in which structures are looked at when their cutoff is not known yet.
_CHECKED_CUTOFF = 6.0


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted potential and how well it does.

    Attributes:
        potential: with reference energies and active set.
        metrics: "train", "validation" (cross validation) and "test" -> errors; with a prior also
            "prior_train" and "prior_test", its errors when only the reference energies are fitted.
        chosen: what the data decided: cutoff, number of functions, weights, regularisation, ...
        parity: "train", "validation" and "test" -> reference and predicted values.
        active_sets: the chosen environments by element.
        posterior: of the coefficients, for uncertainties and committees.
        notes: sentences a user should read, such as about labels that were left out.
        held_out: uncertainties and errors of the forces of ``test``; None without.
    """

    potential: ACEPotential
    metrics: dict[str, dict[str, float | None]]
    chosen: dict[str, Any]
    parity: dict[str, Parity]
    active_sets: dict[str, ActiveSet]
    posterior: Posterior
    notes: list[str]
    held_out: HeldOut | None = None

    def parity_arrays(self) -> dict[str, NDArray[Any]]:
        """All parity arrays under names such as train_energy_reference, and those of `held_out`."""
        arrays: dict[str, NDArray[Any]] = {}
        for part, parity in self.parity.items():
            arrays |= parity.arrays(part)
        return arrays if self.held_out is None else arrays | self.held_out.arrays()

    @cached_property
    def calibration(self) -> dict[str, dict[str, Any]] | None:
        """What 'gamma' and 'committee' are worth on ``test``, and thresholds; None without."""
        return None if self.held_out is None else calibration(self.held_out, self.posterior)

    def committee(self, n: int, rng: np.random.Generator) -> list[ACEPotential]:
        """Potentials with coefficients drawn from the posterior, without active sets."""
        p = self.potential
        return [
            ACEPotential(p.basis, c, p.reference_energies, zbl=p.zbl)
            for c in self.posterior.samples(n, rng)
        ]


def fit_ace(
    train: Dataset,
    settings: FitSettings,
    test: Dataset | None = None,
    reference_energies: Mapping[str, float] | None = None,
    prior: ACEPotential | None = None,
    *,
    rng: np.random.Generator,
) -> FitResult:
    """Fit a linear ACE potential to ``train`` and report its errors, also on ``test``.

    ``reference_energies`` (eV by element) are taken off the energies before the fit; without them
    see `resolve_reference_energies`. Settings that are None are chosen by cross validation inside
    ``train``; ``test`` is only reported on. ``prior`` is a linear potential, read with its
    B-basis, whose basis is used and whose coefficients are the mean of the prior (delta learning);
    its active set, if it has one, is continued. ``rng`` deals structures to the folds.

    Raises DataError (unusable structures or labels in ``train``, with the index), InputError
    (settings, reference energies, a prior or test set that do not fit the data) or FitError (no
    label depends on the potential).
    """
    started = time.monotonic()
    if len(train) == 0:
        raise DataError("The training set contains no structures.")
    if not settings.cutout_energies:
        train = without_cutout_energies(train)
        test = None if test is None else without_cutout_energies(test)
    threads = available_threads(settings.threads)
    cutoff = (settings.cutoff or _CHECKED_CUTOFF) if prior is None else prior.cutoff
    check_structures(train, cutoff, threads)
    _check_test(train, test, cutoff, threads)
    with threadpool_limits(1, "blas"):
        data, source = _training_set(train, settings, reference_energies, prior, threads)
        folds = data.deal(settings.n_folds, rng)
        candidates = Candidates(data, folds, settings, rng, threads)
        trial, most, record = _best_trial(candidates, prior, started)
        equations, tuned, notes = final_equations(candidates, trial, settings, threads)
        model = _model(trial.basis, equations, tuned, most, threads)
        sets = active_sets(
            train,
            model.basis,
            settings.active_set_tolerance,
            settings.active_set_floor,
            None if prior is None else prior.inverse_active_set,
            threads,
        )
        inverses = {element: chosen.inverse for element, chosen in sets.items()}
        references = data.reference_energies
        potential = ACEPotential(model.basis, model.mean, references, inverses, zbl=data.zbl)
        held_out = [
            replace(potential, basis=basis, coefficients=mean, inverse_active_set=None)
            for basis, mean in model.held_out
        ]
        parity = _parity(train, test, potential, held_out, folds, threads)
        metrics = {part: values.metrics() for part, values in parity.items()}
        if prior is not None:
            metrics |= _prior_metrics(train, test, replace(prior, reference_energies=references))
        posterior = _posterior(model.equations, tuned.choice, model.mean, metrics)
    chosen = {
        "reference_energies_from": source,
        **_chosen(trial, model.basis, record, tuned, data.zbl, prior),
        "pseudo_rows": {element: a.n_pseudo for element, a in sets.items()},
        "notes": notes,
    }
    unseen = None if test is None else evaluate_held_out(test, potential, posterior, threads)
    return FitResult(potential, metrics, chosen, parity, sets, posterior, notes, unseen)


class _Model(NamedTuple):
    """What was fitted: the basis with its equations and coefficients, and for each fold the basis
    and the coefficients without it."""

    basis: Basis
    equations: Equations
    mean: Array
    held_out: list[tuple[Basis, Array]]


def _model(basis: Basis, equations: Equations, tuned: Tuned, most: int, threads: int) -> _Model:
    """Fit at most ``most`` functions for each element, chosen where the basis has more."""
    if int(np.diff(basis.offsets).max()) <= most:
        held_out = [(basis, mean) for mean in _fold_means(equations, tuned, threads)]
        return _Model(basis, equations, tuned.mean(equations.solve, threads), held_out)
    choice = tuned.choice
    chosen = pruned(equations, choice, basis.offsets, most, threads)
    held_out = [
        (basis.part(functions), equations.part(functions).solve(choice, without=fold))
        for fold, functions in enumerate(chosen.kept_without)
    ]
    equations = equations.part(chosen.kept)
    return _Model(basis.part(chosen.kept), equations, equations.solve(choice), held_out)


def _chosen(
    trial: Trial,
    basis: Basis,
    record: SearchRecord,
    tuned: Tuned,
    zbl: ZBL | None,
    prior: ACEPotential | None,
) -> dict[str, Any]:
    """What search and cross validation decided, under the names of the settings where they are."""
    return {
        "cutoff": trial.shape.cutoff,
        "max_rank": trial.shape.max_rank,
        "functions_per_element": int(np.diff(basis.offsets).max()),
        "n_functions": basis.n_functions,
        "chosen_from": trial.basis.n_functions,
        **tuned.choice.as_settings(),
        **({} if prior is None else {"prior_share": tuned.share}),
        "zbl_inner": None if zbl is None else zbl.inner,
        "zbl_outer": None if zbl is None else zbl.outer,
        "candidates": record.candidates,
        "search_ended": record.ended,
    }


def _fold_means(equations: Equations, tuned: Tuned, threads: int) -> list[Array]:
    """The coefficients without each fold in turn; none with a single fold."""
    if equations.n_folds < 2:
        return []
    # Those of many choices for normal equations only, as when the choices were compared.
    systems = FoldSystems(equations, threads) if len(tuned.blend) > 1 else None
    return list(tuned.mean(lambda one: np.array(fold_solutions(equations, one, systems, threads))))


def _check_test(train: Dataset, test: Dataset | None, cutoff: float, threads: int) -> None:
    if test is None:
        return
    if len(test) == 0:
        raise InputError("The test set contains no structures.")
    try:
        check_structures(test, cutoff, threads)
    except DataError as error:
        raise InputError(f"The test set cannot be used: {error}") from error
    unknown = [e for e in test.elements if e not in train.elements]
    if unknown:
        raise InputError(
            f"The test set contains {', '.join(unknown)}, which the training set lacks; "
            "a potential cannot be tested on elements it has never seen."
        )


def _training_set(
    train: Dataset,
    settings: FitSettings,
    reference_energies: Mapping[str, float] | None,
    prior: ACEPotential | None,
    threads: int,
) -> tuple[TrainingSet, str]:
    """Checked labels, and where the reference energies come from."""
    predicted = None
    if prior is not None:
        check_prior(prior, train, settings)
        predicted = prior_energies(prior, train, threads)
    energies, source = resolve_reference_energies(train, reference_energies, predicted)
    zbl = _zbl(train, settings) if prior is None else prior.zbl
    scales = LabelScales(settings.energy_scale or math.inf, settings.force_scale or math.inf)
    data = TrainingSet(train, energies, scales, zbl)
    if prior is not None:
        # Elements without data keep what the prior says of them.
        data.reference_energies = {**prior.reference_energies, **energies}
    return data, source


def _zbl(train: Dataset, settings: FitSettings) -> ZBL | None:
    if not settings.zbl:
        return None
    if settings.zbl_inner is not None and settings.zbl_outer is not None:
        return ZBL(settings.zbl_inner, settings.zbl_outer)
    return default_zbl(train.elements, shortest_distances(train))


def _best_trial(
    candidates: Candidates, prior: ACEPotential | None, started: float
) -> tuple[Trial, int, SearchRecord]:
    """The trial to fit, and how many functions of each element may be used."""
    if prior is not None:
        record = SearchRecord(ended="the basis is that of the prior")
        trial = candidates.of_prior(prior)
        return trial, trial.shape.functions, record
    search = Search(candidates.evaluate, candidates.limits(started))
    best = search.run(candidates.start)
    functions, larger = candidates.most_to_choose_from(best.shape), None
    if functions > best.shape.functions:
        larger = search.larger(best, functions, candidates.judge)
    return larger or best, best.shape.functions, search.record


def _parity(
    train: Dataset,
    test: Dataset | None,
    potential: ACEPotential,
    held_out: list[ACEPotential],
    folds: NDArray[np.int64],
    threads: int,
) -> dict[str, Parity]:
    parity = {"train": predict(train, lambda _: potential, threads)}
    if held_out:
        parity["validation"] = predict(train, lambda i: held_out[folds[i]], threads)
    if test is not None:
        parity["test"] = predict(test, lambda _: potential, threads)
    return parity


def _prior_metrics(
    train: Dataset, test: Dataset | None, prior: ACEPotential
) -> dict[str, dict[str, float | None]]:
    """Errors of the prior alone, with the reference energies of the fit."""
    metrics = {"prior_train": predict(train, lambda _: prior).metrics()}
    if test is not None:
        metrics["prior_test"] = predict(test, lambda _: prior).metrics()
    return metrics


def _posterior(
    equations: Equations,
    choice: Choice,
    mean: Array,
    metrics: Mapping[str, Mapping[str, float | None]],
) -> Posterior:
    """Noise from held-out errors where there are any."""
    errors = metrics.get("validation", metrics["train"])
    energy, forces = errors["energy_rmse_per_atom"] or 0.0, errors["forces_rmse"] or 0.0
    return posterior_of(equations, choice, mean, energy, forces)
