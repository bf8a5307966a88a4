"""Make the data of `delta.py`: silicon labelled by SevenNet (many) and by pw.x with PBE (few).

Rattled and strained cells of 8 atoms, the same with a vacancy, and snapshots of melting at 2500 K
with CHGNet in the ratio 2 : 1 : 2. Both models need torch, so run this in an environment of its own
that has only `pip install chgnet sevenn`, with pw.x on PATH. Run again, it continues with the
labels that are missing.

    OMP_NUM_THREADS=1 python benchmarks/delta_data.py FOLDER
"""

import argparse
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.espresso import Espresso, EspressoProfile
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

PSEUDO = "Si.pbe-rrkj.UPF"
KPOINTS = (4, 4, 4)
PW = {
    "control": {"tprnfor": True, "disk_io": "none"},
    "system": {"ecutwfc": 20, "occupations": "smearing", "smearing": "mv", "degauss": 0.02},
    "electrons": {"conv_thr": 1e-7},
}
SIZES = {"base": 250, "target_train": 20, "target_test": 20}
TEMPERATURE_K, STEP_FS = 2500.0, 3.0
# Steps before the first snapshot, from one to the next, and snapshots of one run.
MELTING, APART, SNAPSHOTS = 20, 15, 4
SHORTEST_DISTANCE = 1.7


def chgnet() -> Calculator:
    """CHGNet with the weights of its package."""
    from chgnet.model.dynamics import CHGNetCalculator  # type: ignore[import-not-found]

    warnings.filterwarnings("ignore", category=UserWarning, module="chgnet")
    calculator: Calculator = CHGNetCalculator(use_device="cpu", verbose=False)
    return calculator


def sevennet() -> Calculator:
    """SevenNet-0 with the weights of its package."""
    from sevenn.calculator import SevenNetCalculator  # type: ignore[import-not-found]

    calculator: Calculator = SevenNetCalculator("7net-0", device="cpu")
    return calculator


def pw(folder: Path, pseudos: Path) -> Espresso:
    """pw.x that runs in a folder."""
    return Espresso(
        profile=EspressoProfile("pw.x", pseudos),
        directory=folder,
        pseudopotentials={"Si": PSEUDO},
        input_data=PW,
        kpts=KPOINTS,
    )


def strained(rng: np.random.Generator) -> Atoms:
    """The cubic cell of diamond, every component of the strain up to 5 %."""
    atoms = bulk("Si", "diamond", a=5.43, cubic=True)
    strain = rng.uniform(-0.05, 0.05, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
    return atoms


def rattled(rng: np.random.Generator, vacancy: bool) -> Iterator[Atoms]:
    """Strained cells, without an atom if so asked, displaced by up to 0.25 Å (rms)."""
    while True:
        atoms = strained(rng)
        if vacancy:
            del atoms[0]
        atoms.positions += rng.normal(0, rng.uniform(0.03, 0.25), (len(atoms), 3))
        distances = atoms.repeat(2).get_all_distances(mic=True)
        if distances[distances > 0].min() > SHORTEST_DISTANCE:
            yield atoms


def molten(calculator: Calculator, rng: np.random.Generator) -> Iterator[Atoms]:
    """Snapshots of many short Langevin runs with the calculator."""
    while True:
        atoms = strained(rng)
        atoms.positions += rng.normal(0, 0.2, (len(atoms), 3))
        atoms.calc = calculator
        MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE_K, rng=rng)
        dynamics = Langevin(
            atoms,
            STEP_FS * units.fs,
            temperature_K=TEMPERATURE_K,
            friction=0.02 / units.fs,
            rng=rng,
        )
        dynamics.run(MELTING)
        for _ in range(SNAPSHOTS):
            dynamics.run(APART)
            yield Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)


def structures(n: int, calculator: Calculator, rng: np.random.Generator) -> list[Atoms]:
    """The mixture, in random order; no two calls share a run of molecular dynamics."""
    part = n // 5
    mixture = [
        *islice(rattled(rng, vacancy=False), n - 3 * part),
        *islice(rattled(rng, vacancy=True), part),
        *islice(molten(calculator, rng), 2 * part),
    ]
    for atoms in mixture:
        atoms.wrap()
    return [mixture[i] for i in rng.permutation(len(mixture))]


def labelled(atoms: Atoms, calculator: Calculator | Espresso) -> Atoms:
    """A copy with energy and forces."""
    atoms = atoms.copy()
    atoms.calc = calculator
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=np.asarray(forces))
    return atoms


def label_file(path: Path, bare: list[Atoms], calculator: Calculator | Espresso) -> None:
    """Append the labels that a file lacks; the file stays readable if this is interrupted."""
    done = len(list(iread(path))) if path.is_file() else 0
    for atoms in bare[done:]:
        write(path, labelled(atoms, calculator), format="extxyz", append=True)
        done += 1
        print(f"{path.name}: {done} of {len(bare)}", flush=True)


def main() -> None:
    """Write base.extxyz, target_train.extxyz and target_test.extxyz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES), metavar="NAME")
    parser.add_argument("--pseudos", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(", ".join(f"{name} {version(name)}" for name in ("chgnet", "sevenn", "torch", "ase")))
    sampler, base = chgnet(), sevennet()
    target = pw(options.folder / "pw", options.pseudos)
    for name in options.only:
        rng = np.random.default_rng([options.seed, list(SIZES).index(name)])
        bare_file = options.folder / f"{name}_unlabelled.extxyz"
        if not bare_file.is_file():
            write(bare_file, structures(SIZES[name], sampler, rng), format="extxyz")
        label_file(
            options.folder / f"{name}.extxyz",
            list(iread(bare_file)),
            base if name == "base" else target,
        )


if __name__ == "__main__":
    main()
