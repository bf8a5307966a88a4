"""What every descriptor offers: its identity, and the features of atoms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from numpy.typing import NDArray


class Descriptor(Protocol):
    """Features of atoms that do not change when a structure is moved, rotated or renumbered.

    kind: 'soap', 'ace' or 'mace'; elements: chemical symbols it can describe; n_features: F, the
    numbers for each atom.
    """

    @property
    def kind(self) -> str: ...

    @property
    def elements(self) -> tuple[str, ...]: ...

    @property
    def n_features(self) -> int: ...

    def settings(self) -> dict[str, Any]:
        """Everything that decides the features, as JSON values in a fixed order.

        Two descriptors with equal settings give equal features. A descriptor made from a model
        file has its hash under 'model_sha256', and no path: a file may be moved.
        """
        ...

    def compute(self, structures: Sequence[Atoms], *, threads: int = 1) -> NDArray[np.float64]:
        """Features (sum of atoms, F), rows in the order of structures and atoms.

        Raises:
            DataError: an element that is not described, no atoms, NaN, or atoms on one spot.
        """
        ...


@runtime_checkable
class AveragingDescriptor(Descriptor, Protocol):
    """A descriptor that has averages for less than the features of all atoms."""

    def averages(self, structures: Sequence[Atoms], *, threads: int = 1) -> NDArray[np.float64]:
        """Means over the atoms of each structure (S, F).

        Raises:
            DataError: as `compute`.
        """
        ...
