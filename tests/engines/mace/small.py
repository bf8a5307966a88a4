"""The smallest MACE that learns: one layer, eight channels, ten cells of silicon."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk
from ase.calculators.lj import LennardJones

from aiida_autopipe.core.dataset import Dataset

SETTINGS: dict[str, Any] = {
    "cutoff": 4.0,
    "channels": 8,
    "max_L": 0,
    "max_ell": 1,
    "correlation": 1,
    "layers": 1,
    "radial_functions": 4,
    "radial_layers": [8],
    "readout_channels": 4,
    "max_epochs": 2,
    "batch_size": 4,
    "validation_fraction": 0.2,
}
FINE = {"max_epochs": 1, "batch_size": 4, "validation_fraction": 0.25, "trust": True}
E0 = -5.0


def silicon(n: int, seed: int = 5, **changes: Any) -> Dataset:
    """Rattled two-atom cells with Lennard-Jones labels and an energy of the isolated atom."""
    rng = np.random.default_rng(seed)
    structures = []
    for _ in range(n):
        atoms = bulk("Si", a=5.4 * (1 + 0.02 * rng.normal()))
        atoms.positions += 0.1 * rng.normal(size=(2, 3))
        atoms.calc = LennardJones(sigma=2.1, epsilon=0.5, rc=4.0, smooth=True)
        atoms.info["energy"] = atoms.get_potential_energy() + 2 * E0
        atoms.arrays["forces"] = atoms.get_forces()
        atoms.info["stress"] = atoms.get_stress()
        atoms.calc = None
        structures.append(atoms)
    dataset = Dataset.from_atoms(structures, attributes={"reference_energies": {"Si": E0}})
    return replace(dataset, **changes)


def write_job(
    folder: Path, data: dict[str, Dataset], settings: dict[str, Any] | None = None, **more: Any
) -> Path:
    """A folder with job.json and its data sets."""
    folder.mkdir(parents=True, exist_ok=True)
    job: dict[str, Any] = {"settings": SETTINGS | (settings or {}), "seed": 3, **more}
    for name, dataset in data.items():
        dataset.write_hdf5(folder / f"{name}.h5")
        job[name] = f"{name}.h5"
    (folder / "job.json").write_text(json.dumps(job))
    return folder
