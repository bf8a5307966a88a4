"""CPU time of design matrix, energy, forces and extrapolation grade; see `ace.py`."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from aiida_autopipe.core.ace.active_set import column_scale, select_active_set
from aiida_autopipe.core.ace.basis import build_basis
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.engines.lammps.library import open_lammps

# Environments for each function in the data of a fit.
ENVIRONMENTS = 5
TWOJMAX = 8
SNAP_COEFFICIENTS = 56
COPPER = Path(__file__).parents[1] / "tests" / "core" / "ace" / "data" / "Cu_fs.yaml"

# CPU microseconds per atom, from the developers' records: best and worst.
PACEMAKER_DESIGN_US = {300: (1800.0, 2700.0), 600: (4600.0, 4600.0)}
MLPACE_US, MLPACE_GAMMA_US = (44.0, 52.0), 63.0

START = """
import sys
from ase.build import bulk
from aiida_autopipe.core.ace.potential import ACEPotential
atoms = bulk("Cu", cubic=True).repeat(3)
ACEPotential.load(sys.argv[1]).evaluate(atoms, gamma=True)
"""


def measure_speed(
    sizes: list[int], repeat: int, cutoff: float, rounds: int, seed: int
) -> dict[str, Any]:
    """All parts: silicon beside SNAP for each size, a Pacemaker file of copper, start-up."""
    with threadpool_limits(1):
        silicon = {
            f"Si_{size}_functions": _silicon(size, repeat, cutoff, rounds, seed) for size in sizes
        }
        return {**silicon, "Cu_pacemaker_file": _copper(rounds, seed), "second_process": _start()}


def cpu_seconds(
    tasks: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, NDArray[np.float64]]:
    """CPU seconds of each task in rounds in which they take turns."""
    seconds = {key: np.empty(rounds) for key in tasks}
    for task in tasks.values():
        task()
    for k in range(rounds):
        for key, task in tasks.items():
            start = time.process_time()
            task()
            seconds[key][k] = time.process_time() - start
    return seconds


def _silicon(size: int, repeat: int, cutoff: float, rounds: int, seed: int) -> dict[str, Any]:
    atoms = bulk("Si", cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=seed)
    atoms.wrap()
    potential = _default_potential(cutoff, size, atoms, seed)
    few = _with_active_set(potential, [atoms])
    block = atoms[: min(len(atoms), 64)] if size > 600 else atoms
    with tempfile.TemporaryDirectory() as name:
        lmp = _snap(atoms, cutoff, Path(name), seed)
        steps = 5
        # A run computes forces once to set up and once a step: the difference is the steps alone.
        seconds = cpu_seconds(
            {
                "design": lambda: potential.basis.design_block(block),
                "evaluate": lambda: potential.evaluate(atoms),
                "gamma": lambda: potential.evaluate(atoms, gamma=True),
                "gamma_few": lambda: few.evaluate(atoms, gamma=True),
                "neighbours": lambda: full_neighbour_list(atoms, cutoff),
                "snap_many": lambda: lmp.command(f"run {steps}"),
                "snap_none": lambda: lmp.command("run 0"),
            },
            rounds,
        )
        lmp.close()
    micro = {key: 1e6 * value.min() / len(atoms) for key, value in seconds.items()}
    design = 1e6 * seconds["design"].min() / len(block)
    snap = (micro["snap_many"] - micro["snap_none"]) / steps
    peer = PACEMAKER_DESIGN_US.get(size)
    return {
        "n_functions": potential.basis.n_functions,
        "neighbours_per_atom": len(full_neighbour_list(atoms, cutoff).centre) / len(atoms),
        "design_us_per_atom": design,
        "pacemaker_design_us_per_atom": peer,
        "pacemaker_over_design": None if peer is None else peer[0] / design,
        "evaluate_us_per_atom": micro["evaluate"],
        "evaluate_with_gamma_us_per_atom": micro["gamma"],
        "gamma_over_evaluate": float(np.median(seconds["gamma"] / seconds["evaluate"])),
        "gamma_of_few_over_evaluate": float(np.median(seconds["gamma_few"] / seconds["evaluate"])),
        "neighbour_list_us_per_atom": micro["neighbours"],
        "snap_us_per_atom": snap,
        "evaluate_over_snap": micro["evaluate"] / snap,
    }


def _default_potential(cutoff: float, size: int, atoms: Atoms, seed: int) -> ACEPotential:
    """The default basis with small random coefficients and an active set like that of a fit."""
    defaults = FitSettings()
    basis = build_basis(
        BasisSettings(
            elements=("Si",),
            cutoff=cutoff,
            max_functions=size,
            radial=defaults.radial,
            lambda_=defaults.radial_lambda,
            l_weight=defaults.degree_l_weight,
            rank_cost=defaults.rank_cost,
        )
    )
    rng = np.random.default_rng(seed)
    scale = column_scale((basis.values(atoms) ** 2).sum(axis=0), len(atoms))
    potential = ACEPotential(basis, 1e-3 * rng.normal(size=basis.n_functions) / scale)
    structures = []
    for _ in range(-(-ENVIRONMENTS * basis.n_functions // len(atoms))):
        one = atoms.copy()
        one.set_cell(one.cell[:] * rng.uniform(0.95, 1.05), scale_atoms=True)
        one.rattle(rng.uniform(0.05, 0.3), rng=rng)
        structures.append(one)
    return _with_active_set(potential, structures)


def _with_active_set(potential: ACEPotential, structures: list[Atoms]) -> ACEPotential:
    values = np.concatenate([potential.basis.values(atoms) for atoms in structures])
    scale = column_scale((values**2).sum(axis=0), len(values))
    active = select_active_set(lambda: [values], scale)
    return replace(potential, inverse_active_set={"Si": active.inverse})


def _snap(atoms: Atoms, cutoff: float, folder: Path, seed: int) -> Any:
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


def _copper(rounds: int, seed: int) -> dict[str, Any]:
    """A Pacemaker file with two densities and a list of 245 neighbours, as an MD step has it."""
    potential = ACEPotential.load(COPPER)
    atoms = bulk("Cu", cubic=True).repeat(5)
    atoms.rattle(0.05, seed=seed)
    pairs = full_neighbour_list(atoms, 8.95)
    arguments = (np.zeros(len(atoms), int), pairs.centre, pairs.neighbour, pairs.vectors)
    seconds = cpu_seconds(
        {
            "step": lambda: potential.evaluate_pairs(*arguments, len(atoms)),
            "gamma": lambda: potential.evaluate_pairs(*arguments, len(atoms), gamma=True),
        },
        rounds,
    )
    step, gamma = (1e6 * seconds[key].min() / len(atoms) for key in ("step", "gamma"))
    return {
        "n_functions": potential.basis.n_functions,
        "n_densities": potential.coefficients.shape[1],
        "neighbours_per_atom": len(pairs.centre) / len(atoms),
        "step_us_per_atom": step,
        "step_with_gamma_us_per_atom": gamma,
        "gamma_over_step": float(np.median(seconds["gamma"] / seconds["step"])),
        "mlpace_step_us_per_atom": MLPACE_US,
        "mlpace_step_with_gamma_us_per_atom": MLPACE_GAMMA_US,
        "step_over_mlpace": step / MLPACE_US[0],
    }


def _start() -> dict[str, float]:
    """Seconds of a whole Python process that loads a potential and evaluates a structure."""
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", START, str(COPPER)], check=True)
        seconds.append(time.perf_counter() - begun)
    return {"seconds": min(seconds[1:])}
