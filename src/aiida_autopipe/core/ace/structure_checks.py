"""A look at every structure before a fit, so that none fails it hours later without a name."""

from __future__ import annotations

import numpy as np

from aiida_autopipe.core.ace.kernels import SHORTEST_DISTANCE
from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError


def check_structures(dataset: Dataset, cutoff: float, threads: int = 1) -> None:
    """Raise DataError with the index of the first structure that no ACE can be evaluated on.

    That is one with atoms that are no element, without usable geometry (see `full_neighbour_list`
    for a ``cutoff`` in Å), or with two atoms on one spot.
    """

    def check(index: int) -> None:
        atoms = dataset.atoms(index)
        if not atoms.numbers.all():
            lost = int(np.argmin(atoms.numbers))
            raise DataError(f"Structure {index}: Atom {lost} (X) is no element; remove it.")
        try:
            centre, neighbour, vectors = full_neighbour_list(atoms, cutoff)
        except DataError as error:
            raise DataError(f"Structure {index}: {error}") from error
        squares = np.einsum("ij,ij->i", vectors, vectors)
        if squares.size and squares.min() < SHORTEST_DISTANCE**2:
            k = int(np.argmin(squares))
            i, j = sorted((int(centre[k]), int(neighbour[k])))
            raise DataError(
                f"Structure {index}: Atoms {i} and {j} are less than {SHORTEST_DISTANCE} Å apart; "
                "remove one."
            )

    for _ in in_threads(check, range(len(dataset)), threads):
        pass
