"""Memory and time of a large fit: a million force rows and a thousand functions by default.

Rattled silicon is labelled with the energies and forces of a made-up ACE, which costs little; the
fit cannot know. Peak memory is that of the whole process, with the data in it.

    python benchmarks/ace_memory.py --json
"""

import argparse
import json
import resource
import time
from typing import Any

import numpy as np
from ase.build import bulk

from aiida_autopipe.core.ace.basis import build_basis
from aiida_autopipe.core.ace.fit import FitSettings, fit_ace
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.dataset import Dataset

ATOMS = 64


def labelled(rows: int, seed: int) -> Dataset:
    """Cells of 64 silicon atoms, as many as have so many force components together."""
    rng = np.random.default_rng(seed)
    basis = build_basis(BasisSettings(("Si",), cutoff=4.5, max_rank=3, max_functions=100))
    start = bulk("Si", cubic=True).repeat(2)
    sizes = np.sqrt((basis.values(start) ** 2).mean(axis=0)) + 1e-3
    potential = ACEPotential(basis, 0.002 * rng.normal(size=basis.n_functions) / sizes)
    n = -(-rows // (3 * ATOMS))
    positions, energies = np.empty((n, ATOMS, 3)), np.empty(n)
    forces = np.empty((n, ATOMS, 3))
    for k in range(n):
        atoms = start.copy()
        atoms.positions += rng.normal(0.0, rng.uniform(0.02, 0.2), (ATOMS, 3))
        found = potential.evaluate(atoms)
        positions[k], energies[k], forces[k] = atoms.positions, found.energy, found.forces
    return Dataset(
        np.arange(n + 1) * ATOMS,
        np.full(n * ATOMS, 14, dtype=np.int32),
        positions.reshape(-1, 3),
        np.repeat(start.cell.array[None], n, axis=0),
        np.ones((n, 3), dtype=bool),
        energies,
        forces.reshape(-1, 3),
    )


def measure(rows: int, functions: int, search: int, solver: str, seed: int) -> dict[str, Any]:
    """Fit once; peak memory in MB before and after, and seconds."""
    data = labelled(rows, seed)
    before = peak_mb()
    settings = FitSettings(
        cutoff=5.0, max_rank=3, max_functions=functions, search=search, solver=solver
    )
    begun, cpu = time.perf_counter(), time.process_time()
    result = fit_ace(data, settings, rng=np.random.default_rng(seed))
    return {
        "force_rows": 3 * data.n_atoms,
        "structures": len(data),
        "n_functions": result.potential.basis.n_functions,
        "solver": solver,
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb_before_the_fit": before,
        "peak_mb": peak_mb(),
        "forces_mae_validation": result.metrics["validation"]["forces_mae"],
    }


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def main() -> None:
    """Print the numbers as a table, or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="force components")
    parser.add_argument("--functions", type=int, default=1000)
    parser.add_argument("--search", type=int, default=1, help="bases to compare")
    parser.add_argument("--solver", choices=["normal", "qr"], default="normal")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result = measure(options.rows, options.functions, options.search, options.solver, options.seed)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for key, value in result.items():
        print(f"{key:28} {value:.4g}" if isinstance(value, float) else f"{key:28} {value}")


if __name__ == "__main__":
    main()
