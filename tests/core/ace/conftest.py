"""Shared structures and the reference potential computed with LAMMPS ML-PACE."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read

from aiida_autopipe.core.ace.basis import build_basis
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.potential import ACEPotential

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def sic_files(tmp_path_factory):
    """Folder with SiC_linear.yace, .yaml and .asi; the .asi is put together from its halves."""
    folder = tmp_path_factory.mktemp("sic")
    for name in ("SiC_linear.yace", "SiC_linear.yaml"):
        shutil.copy(DATA / name, folder / name)
    matrices = {}
    for element in ("C", "Si"):
        halves = []
        for half in ("top", "bottom"):
            with np.load(DATA / f"SiC_linear_asi_{element}_{half}.npz") as arrays:
                halves.append(arrays["rows"])
        matrices[element] = np.concatenate(halves)
    with (folder / "SiC_linear.asi").open("wb") as stream:
        np.savez(stream, **matrices)
    return folder


@pytest.fixture(scope="session")
def sic_reference():
    """Pairs of structure and the dictionary of LAMMPS results."""
    results = json.loads((DATA / "SiC_linear.json").read_text())
    return list(zip(read(DATA / "SiC_linear.extxyz", ":"), results, strict=True))


@pytest.fixture(scope="session")
def ternary():
    """Potential of two elements with ranks 1 to 5 and random coefficients."""
    settings = BasisSettings(
        elements=("Si", "Ge"),
        cutoff=3.4,
        max_rank=5,
        max_functions=400,
        nradmax=(4, 3, 2, 2, 1),
        lmax=(0, 3, 2, 2, 1),
    )
    basis = build_basis(settings)
    rng = np.random.default_rng(11)
    coefficients = rng.normal(size=basis.n_functions) * 10.0**-basis.ranks
    return ACEPotential(basis, coefficients, {"Si": -5.0, "Ge": -4.0})


@pytest.fixture
def alloy():
    """Eight rattled atoms of two elements in a skewed cell smaller than the cutoff."""
    atoms = bulk("Si", cubic=True)
    atoms.symbols[[1, 4, 6]] = "Ge"
    atoms.set_cell(
        atoms.cell[:] @ np.array([[0.9, 0.3, 0], [0, 0.8, 0.1], [0.2, 0, 1]]).T, scale_atoms=True
    )
    atoms.rattle(0.1, seed=3)
    return atoms


@pytest.fixture
def cluster():
    """Free molecule of two elements with one atom out of reach of the rest."""
    positions = [[0, 0, 0], [2.2, 0.1, 0], [0.3, 2.3, -0.2], [1.1, 1.0, 1.9], [30, 0, 0]]
    return Atoms("SiGeSiGeSi", positions=positions)


@pytest.fixture
def rng():
    return np.random.default_rng(7)
