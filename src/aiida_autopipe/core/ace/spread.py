"""A linear ACE in MD whose uncertainty is the spread of the forces instead of the grade gamma."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.posterior import Posterior, load_posterior
from aiida_autopipe.core.ace.potential import ACEPotential, PairEvaluation
from aiida_autopipe.core.errors import DataError

Floats = NDArray[np.float64]


class SpreadPotential:
    """Evaluated on somebody else's neighbour list, such as `ACEPotential`.

    The spread of the force on an atom is that of a committee of samples of the posterior, in the
    limit of infinitely many: predictions are linear in the coefficients, so it follows from one
    pass over the derivatives of the functions (Bishop, Pattern Recognition and Machine Learning,
    3.3), which costs about two evaluations.
    """

    def __init__(self, potential: ACEPotential, posterior: Posterior) -> None:
        """Take a linear potential and the posterior of its coefficients."""
        self.potential = potential
        self.posterior = posterior

    @classmethod
    def of_file(cls, path: Path, potential: ACEPotential) -> SpreadPotential:
        """With the posterior kept beside the file of the potential; see `load_posterior`."""
        return cls(potential, load_posterior(path, potential))

    @property
    def elements(self) -> list[str]:
        """Symbol of each type."""
        return self.potential.elements

    @property
    def cutoff(self) -> float:
        """Largest distance of an interaction in Å."""
        return self.potential.cutoff

    def evaluate_pairs(
        self,
        types: NDArray[Any],
        centre: NDArray[Any],
        neighbour: NDArray[Any],
        vectors: Floats,
        n_atoms: int,
        gamma: bool = False,
    ) -> PairEvaluation:
        """As `ACEPotential.evaluate_pairs`, with the spread (n_atoms,) in eV/Å in place of gamma.

        Raises DataError for ghost atoms, whose forces would be spread over several rows.
        """
        if n_atoms != len(types):
            raise DataError(
                f"There are {len(types) - n_atoms} ghost atoms; name the atoms they are images of."
            )
        result = self.potential.evaluate_pairs(types, centre, neighbour, vectors, n_atoms)
        if not gamma:
            return result
        kinds = np.ascontiguousarray(types, dtype=np.int64)
        pairs = self.potential.basis.sort_pairs(
            kinds,
            np.ascontiguousarray(centre, dtype=np.int64),
            np.ascontiguousarray(neighbour, dtype=np.int64),
            np.ascontiguousarray(vectors, dtype=np.float64),
            n_atoms,
        )
        rows = self.potential.basis.design_rows(kinds, pairs).force_rows
        return result._replace(gamma=self.posterior.force_std(rows))
