"""The same failing MD learned once from whole cells and once from cut-outs, side by side.

A linear ACE potential of silicon knows rattled cells of 16 atoms. Hot simulations of 128 atoms are
halted by its extrapolation grade. Their frames are labelled by pw.x as a whole, and as small cells
around their most uncertain atom of which only the forces within R are learned; a potential is
fitted to each, and both are asked for the forces in other whole frames, which pw.x labelled as well
and nobody learned. The simulations are then run again. Printed: CPU hours of the labels, errors in
the whole cell, of all atoms and of those that were uncertain, and the steps until the next halt.

Every cell has the k-points of the same spacing, and all labels the same settings, which are coarse:
what is compared is the way of learning.

    python benchmarks/embed.py --json

Needs pw.x and Debian's pseudopotentials; about 20 minutes on one core.
"""

import argparse
import json
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.espresso import Espresso, EspressoProfile
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from aiida_autopipe.core.ace.calculator import ACECalculator
from aiida_autopipe.core.ace.fit import FitSettings, fit_ace
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.embed import embed
from aiida_autopipe.core.embed_sanity import make_sane
from aiida_autopipe.core.kpoints import mesh_from_spacing
from aiida_autopipe.engines.espresso.pseudos import find_debian_folder

LATTICE = 5.4
CUTOFF_RY = 12.0
KSPACING = 0.6
GAMMA_SELECT, GAMMA_HALT, GAMMA_EVERY = 1.5, 10.0, 5
RADIUS, BUFFER = 3.9, 1.5
MOST_STEPS = 2000
FIT = FitSettings(cutoff=5.0, max_rank=3, max_functions=40, search=1, environments_per_function=1)


@dataclass(frozen=True)
class Run:
    """One simulation: steps until the halt (or the end), and its frames above the threshold."""

    steps: int
    halted: bool
    frames: list[Atoms]


class Oracle:
    """pw.x; adds up the CPU seconds it takes."""

    def __init__(self, folder: Path) -> None:
        pseudos = find_debian_folder()
        assert pseudos is not None, "no pseudopotentials of Debian"
        self.profile = EspressoProfile("pw.x", str(pseudos))
        self.folder, self.seconds = folder, 0.0

    def label(self, cells: list[Atoms]) -> list[Atoms]:
        """Energy, forces and stress of each cell, as a calculator of its own."""
        return [self._label(cell) for cell in cells]

    def _label(self, cell: Atoms) -> Atoms:
        labelled = cell.copy()
        mesh = mesh_from_spacing(cell.cell.array, cell.pbc, KSPACING)
        pw = Espresso(
            profile=self.profile,
            directory=self.folder,
            pseudopotentials={"Si": "Si.pz-vbc.UPF"},
            kpts=None if max(mesh) == 1 else tuple(mesh),
            input_data={
                "control": {"tprnfor": True, "tstress": True},
                "system": {
                    "ecutwfc": CUTOFF_RY,
                    "occupations": "smearing",
                    "smearing": "cold",
                    "degauss": 0.01,
                },
                "electrons": {"conv_thr": 1e-8 * len(cell)},
            },
        )
        labelled.calc = pw
        before = _child_seconds()
        values = {
            "energy": labelled.get_potential_energy(),
            "forces": labelled.get_forces(),
            "stress": labelled.get_stress(),
        }
        self.seconds += _child_seconds() - before
        labelled.calc = SinglePointCalculator(labelled, **values)
        return labelled


def main() -> None:
    """Print a table, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=4, help="halted frames to learn from")
    parser.add_argument("--test", type=int, default=3, help="whole frames that nobody learns")
    parser.add_argument("--temperature", type=float, default=900.0, help="of the MD, K")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = compare(Oracle(Path(folder)), options)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    keys = ("atoms", "cpu_hours", "forces_rmse", "uncertain_rmse", "steps")
    print(f"{'learned from':14}" + "".join(f"{key:>16}" for key in keys))
    for name, row in result["potentials"].items():
        print(f"{name:14}" + "".join(f"{_text(row[key]):>16}" for key in keys))


def compare(oracle: Oracle, options: argparse.Namespace) -> dict[str, Any]:
    """Both ways of learning from the same frames."""
    rng = np.random.default_rng(options.seed)
    base_cells = oracle.label(rattled(12, rng))
    base_hours = oracle.seconds / 3600
    base = fit(base_cells, options.seed)
    seeds = range(options.frames + options.test)
    runs = [simulate(base, options.temperature, options.seed + k) for k in seeds]
    last = [run.frames[-1] for run in runs if run.frames]
    learned, asked = last[: options.frames], last[options.frames :]
    whole, whole_hours = timed(oracle, learned)
    cuts, cut_hours = timed(oracle, [cut_out(frame, base) for frame in learned])
    test, _ = timed(oracle, asked)
    rows = {
        "base": (base, 0.0, [len(base_cells[0])]),
        "whole cells": (fit([*base_cells, *whole], options.seed), whole_hours, sizes(whole)),
        "cut-outs": (fit([*base_cells, *cuts], options.seed), cut_hours, sizes(cuts)),
    }
    uncertain = [grade(base, frame) > GAMMA_SELECT for frame in test]
    return {
        "temperature_K": options.temperature,
        "base_cpu_hours": base_hours,
        "halted_at": [run.steps for run in runs],
        "potentials": {
            name: {
                "atoms": float(np.mean(atoms)),
                "cpu_hours": hours,
                **errors(potential, test, uncertain),
                "steps": survival(potential, options),
            }
            for name, (potential, hours, atoms) in rows.items()
        },
    }


def rattled(number: int, rng: np.random.Generator) -> list[Atoms]:
    """Strained and moderately rattled cells of 16 atoms."""
    cells = []
    for k in range(number):
        atoms = bulk("Si", a=LATTICE * (1 + 0.02 * rng.normal())).repeat(2)
        atoms.positions += (0.04 + 0.02 * (k % 4)) * rng.normal(size=(16, 3))
        cells.append(atoms)
    return cells


def fit(cells: list[Atoms], seed: int) -> ACEPotential:
    """The product's fit; the mask of a cut-out keeps its energy and its boundary out."""
    lowest = min(atoms.get_potential_energy() / len(atoms) for atoms in cells)
    result = fit_ace(
        Dataset.from_atoms(cells),
        FIT,
        reference_energies={"Si": lowest},
        rng=np.random.default_rng(seed),
    )
    return result.potential


def simulate(potential: ACEPotential, kelvin: float, seed: int) -> Run:
    """Langevin dynamics of 128 atoms until the extrapolation grade halts it."""
    atoms = bulk("Si", a=LATTICE).repeat(4)
    atoms.calc = ACECalculator(potential)
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * kelvin, rng=rng)
    md = Langevin(
        atoms, 2 * units.fs, temperature_K=kelvin, friction=0.005 / units.fs, fixcm=False, rng=rng
    )
    frames, step = [], 0
    while step < MOST_STEPS:
        md.run(GAMMA_EVERY)
        step += GAMMA_EVERY
        gamma = float(atoms.calc.results["gamma"].max())
        if gamma > GAMMA_SELECT:
            frames.append(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True))
        if gamma > GAMMA_HALT:
            return Run(step, True, frames)
    return Run(step, False, frames)


def cut_out(frame: Atoms, potential: ACEPotential) -> Atoms:
    """The small cell around the most uncertain atom, made sane at its boundary."""
    atom = int(np.argmax(grade(potential, frame)))
    embedding = embed(frame, atom, RADIUS, BUFFER, bulk("Si", a=LATTICE))
    calculator = ACECalculator(potential, gamma=False)
    atoms: Atoms = make_sane(embedding, frame, calculator).embedding.atoms
    atoms.arrays.pop("source_index")
    return atoms


def grade(potential: ACEPotential, atoms: Atoms) -> Any:
    """Extrapolation grade of each atom."""
    return potential.evaluate(atoms, gamma=True).gamma


def errors(potential: ACEPotential, test: list[Atoms], uncertain: list[Any]) -> dict[str, float]:
    """RMSE of the forces in whole cells, of all atoms and of the uncertain ones, eV/Å."""
    differences = [potential.evaluate(a).forces - a.get_forces() for a in test]
    chosen = [d[mask] for d, mask in zip(differences, uncertain, strict=True)]
    return {
        "forces_rmse": float(np.sqrt(np.mean(np.concatenate(differences) ** 2))),
        "uncertain_rmse": float(np.sqrt(np.mean(np.concatenate(chosen) ** 2))),
    }


def survival(potential: ACEPotential, options: argparse.Namespace) -> float:
    """Mean steps of the same simulations until the next halt."""
    seeds = range(options.frames)
    runs = [simulate(potential, options.temperature, options.seed + k) for k in seeds]
    return float(np.mean([run.steps for run in runs]))


def timed(oracle: Oracle, cells: list[Atoms]) -> tuple[list[Atoms], float]:
    """Labels, and the CPU hours they took."""
    before = oracle.seconds
    return oracle.label(cells), (oracle.seconds - before) / 3600


def sizes(cells: list[Atoms]) -> list[int]:
    """Numbers of atoms."""
    return [len(atoms) for atoms in cells]


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _text(value: float) -> str:
    return f"{value:.4g}"


if __name__ == "__main__":
    main()
