"""The ACE basis as a descriptor: the B functions of each atom.

Drautz, Phys. Rev. B 99, 014104 (2019), equations 21 to 27; which functions there are is said in
`aiida_autopipe.core.ace.functions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.ace.basis import Basis, build_basis
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.parallel import in_threads
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.files import file_sha256

CUTOFF = 5.0
N_FUNCTIONS = 100


class AceDescriptor:
    """Values of the functions of an ACE basis, without coefficients.

    An atom has values in the columns of its own element, and zeros in those of the other elements.
    """

    kind = "ace"

    def __init__(self, basis: Basis, identity: dict[str, Any]) -> None:
        """Describe with a basis; `identity` is what tells it from others, see `settings`."""
        self.basis = basis
        self._identity = identity

    @classmethod
    def from_file(cls, path: str | Path) -> AceDescriptor:
        """Take the basis of a potential, a B-basis .yaml or a .yace file.

        Where the B basis stands beside a .yace file, with its active set, the functions are those
        of the .yaml (see `ACEPotential.load`). A .yace file alone has its coefficients multiplied
        into the functions: the features then are contributions to the energy.

        Raises:
            PotentialFileError: as `ACEPotential.load`.
        """
        path = Path(path)
        basis = ACEPotential.load(path).basis
        source = path.with_suffix(".yaml") if basis.coupled and path.suffix == ".yace" else path
        identity = {
            "elements": list(basis.elements),
            "cutoff": basis.cutoff,
            "functions": "B" if basis.coupled else "C-tilde",
            "model_sha256": file_sha256(source),
        }
        return cls(basis, identity)

    @classmethod
    def from_elements(
        cls,
        elements: Sequence[str],
        cutoff: float = CUTOFF,
        n_functions: int = N_FUNCTIONS,
        max_rank: int = 3,
    ) -> AceDescriptor:
        """Build a basis without a potential.

        Args:
            elements: chemical symbols.
            cutoff: Å.
            n_functions: functions for each element, those of lowest degree.
            max_rank: most neighbours in one function, 1 to 6.

        Raises:
            InputError: an unknown element, or a number out of range.
        """
        settings = BasisSettings(
            tuple(elements), cutoff=cutoff, max_functions=n_functions, max_rank=max_rank
        )
        return cls(build_basis(settings), asdict(settings))

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols in alphabetical order."""
        return tuple(self.basis.elements)

    @property
    def n_features(self) -> int:
        """Functions of all elements together."""
        return self.basis.n_functions

    def settings(self) -> dict[str, Any]:
        """What decides the features; see `Descriptor`."""
        return {"descriptor": self.kind, **self._identity}

    def compute(self, structures: Sequence[Atoms], *, threads: int = 1) -> NDArray[np.float64]:
        """B function values (sum of atoms, F); structures are shared out among threads.

        Raises:
            DataError: an element without functions, or an unusable geometry.
        """
        blocks = list(in_threads(self.basis.values, structures, max(1, threads)))
        return np.concatenate(blocks) if blocks else np.empty((0, self.n_features))
