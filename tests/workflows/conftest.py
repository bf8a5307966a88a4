"""Small, real inputs for the work chains: two-atom silicon with tiny cutoffs."""

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset


@pytest.fixture
def method() -> Any:
    """A coarse method: cheap, but real pw.x with forces and stress."""
    from aiida.orm import Dict

    return Dict(
        {
            "cutoff_wfc_Ry": 12.0,
            "cutoff_rho_Ry": 48.0,
            "kspacing_per_A": 1.1,
            "kpoints_shift": True,
            "functional": "PZ",
            "scf_threshold_Ry_per_atom": 1e-7,
        }
    )


@pytest.fixture
def silicon_pseudos(pz_family: Any) -> Any:
    """The LDA pseudopotential of silicon."""
    return pz_family.get_pseudos(elements=("Si",))


@pytest.fixture
def crystal(aiida_profile: Any) -> Any:
    """Primitive and conventional cell of silicon."""
    from aiida_autopipe.data.dataset import DatasetData

    cells = [bulk("Si", a=5.4), bulk("Si", a=5.4, cubic=True)]
    return DatasetData(Dataset.from_atoms(cells))


@pytest.fixture
def overlapping() -> Atoms:
    """Two silicon atoms on one spot."""
    atoms = bulk("Si", a=5.4)
    atoms.positions[1] = atoms.positions[0] + 0.01
    return atoms


@pytest.fixture
def rattled() -> list[Atoms]:
    """Rattled two-atom cells, the first one light."""
    rng = np.random.default_rng(5)
    cells = []
    for amplitude in (0.02, 0.05, 0.1, 0.1, 0.15, 0.15):
        atoms = bulk("Si", a=5.4 * (1 + 0.02 * rng.normal()))
        atoms.positions += amplitude * rng.normal(size=(2, 3))
        cells.append(atoms)
    return cells
