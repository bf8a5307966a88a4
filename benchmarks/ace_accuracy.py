"""Errors of default fits on the mlearn data; see `ace.py`."""

import json
import lzma
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import GPa

from aiida_autopipe.core.ace.fit import FitSettings, fit_ace
from aiida_autopipe.core.dataset import Dataset, read_dataset

DATA = Path(__file__).parent / "data" / "mlearn"

# Test MAE of energies (meV/atom) and forces (eV/A), each the best of GAP and MTP.
PUBLISHED = {
    "Li": (0.49, 0.01),
    "Si": (2.21, 0.06),
    "Ge": (1.79, 0.05),
    "Mo": (2.24, 0.09),
    "Ni": (0.42, 0.02),
    "Cu": (0.41, 0.01),
}


def measure_accuracy(
    element: str, mlearn: Path | None, settings: FitSettings, seed: int
) -> dict[str, Any]:
    """Fit the training part, then look at the test part once."""
    train, test = (load(element, part, mlearn) for part in ("train", "test"))
    begun, cpu = time.perf_counter(), time.process_time()
    result = fit_ace(train, settings, test, rng=np.random.default_rng(seed))
    seconds = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu}
    energy, forces = PUBLISHED[element]
    errors = {
        f"{part}_{name}": (result.metrics[part][key] or 0.0) * factor
        for part in ("validation", "test")
        for name, key, factor in (
            ("energy_mae_mev_per_atom", "energy_mae_per_atom", 1000.0),
            ("forces_mae_ev_per_a", "forces_mae", 1.0),
        )
    }
    return {
        **errors,
        "published_energy_mae_mev_per_atom": energy,
        "published_forces_mae_ev_per_a": forces,
        "energy_over_published": errors["test_energy_mae_mev_per_atom"] / energy,
        "forces_over_published": errors["test_forces_mae_ev_per_a"] / forces,
        **{key: result.chosen[key] for key in ("cutoff", "max_rank", "n_functions")},
        **seconds,
        "notes": " ".join(result.notes),
    }


def load(element: str, part: str, mlearn: Path | None) -> Dataset:
    """The part of the data, from the benchmark's own files or from a clone of mlearn."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{element}_{part}.extxyz"
        packed = DATA / f"{path.name}.xz"
        if packed.is_file():
            path.write_bytes(lzma.decompress(packed.read_bytes()))
        elif mlearn is not None:
            name = {"train": "training.json", "test": "test.json"}[part]
            entries = json.loads((mlearn / "data" / element / name).read_text(encoding="utf-8"))
            write(path, [atoms_of(entry) for entry in entries], format="extxyz")
        else:
            raise SystemExit(f"There is no {packed}; give a clone of mlearn with --mlearn.")
        return read_dataset(path)


def atoms_of(entry: dict[str, Any]) -> Atoms:
    """A structure of mlearn; its stresses are VASP's, in kbar, xx yy zz xy yz xz."""
    sites = entry["structure"]["sites"]
    atoms = Atoms(
        [site["label"] for site in sites],
        positions=[site["xyz"] for site in sites],
        cell=entry["structure"]["lattice"]["matrix"],
        pbc=True,
    )
    outputs = entry["outputs"]
    stress = -0.1 * GPa * np.asarray(outputs["virial_stress"], dtype=float)
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=float(outputs["energy"]),
        forces=np.asarray(outputs["forces"], dtype=float),
        stress=stress[[0, 1, 2, 4, 5, 3]],
    )
    return atoms
