"""Rates and peak memory of reading, writing and converting structures, beside ASE's own.

    python benchmarks/data.py [--frames 200000] [--peer-frames 20000] [--json]

Each task runs in a process of its own, so that its peak memory is its own. Ours runs with all
frames and with a quarter of them: `growth_mb` is how much more memory the larger file took. What
goes through ASE has fewer frames, because its rates are lower; rates are frames per CPU second,
without imports. Frames are 8 atoms of silicon with energy, forces, and a column.
"""

import sys

sys.path.pop(0)  # the folder of this file: its select.py would hide Python's module of that name

import argparse
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

BATCH = 1000


def frames(n: int) -> Iterator[Atoms]:
    """The same frames every time."""
    rng = np.random.default_rng(0)
    perfect = bulk("Si", cubic=True)
    for k in range(n):
        atoms = perfect.copy()
        atoms.positions += rng.normal(0, 0.1, (8, 3))
        atoms.info = {"energy": -40.0 + 1e-5 * k, "step": k}
        atoms.arrays["forces"] = rng.normal(0, 1, (8, 3))
        yield atoms


def batches(n: int) -> Iterator[list[Atoms]]:
    batch = []
    for atoms in frames(n):
        batch.append(atoms)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def generate(n: int, _folder: Path) -> None:
    """Making the frames, which the writing tasks do as well: taken off their time."""
    for _ in batches(n):
        pass


def write_hdf5(n: int, folder: Path) -> None:
    from aiida_autopipe.core.dataset_writer import DatasetWriter

    with DatasetWriter(folder / "ours.h5") as writer:
        for batch in batches(n):
            writer.append(batch)


def read_hdf5(n: int, folder: Path) -> None:
    from aiida_autopipe.core.dataset import Dataset

    with Dataset.open(folder / "ours.h5") as dataset:
        assert sum(len(block) for block in dataset.iter_blocks()) == n


def atoms_of_hdf5(n: int, folder: Path) -> None:
    from aiida_autopipe.core.dataset import Dataset

    with Dataset.open(folder / "ours.h5") as dataset:
        assert sum(1 for _ in dataset.iter_atoms()) == n


def filter_hdf5(n: int, folder: Path) -> None:
    from aiida_autopipe.core.conditions import condition
    from aiida_autopipe.core.dataset import Dataset
    from aiida_autopipe.core.dataset_writer import DatasetWriter

    with Dataset.open(folder / "ours.h5") as source, DatasetWriter(folder / "few.h5") as writer:
        for block in source.filter(condition("max_force>3")):
            writer.append(block)


def convert(source: str, target: str) -> Callable[[int, Path], None]:
    def task(n: int, folder: Path) -> None:
        from aiida_autopipe.cli.main import invoke

        assert invoke(["data", "convert", str(folder / source), str(folder / target)]) == 0

    return task


def ase_write_extxyz(n: int, folder: Path) -> None:
    from ase.io import write

    with (folder / "ase.extxyz").open("w") as file:
        for batch in batches(n):
            write(file, batch, format="extxyz")


def ase_read_extxyz(n: int, folder: Path) -> None:
    from ase.io import iread

    assert sum(1 for _ in iread(folder / "ase.extxyz", index=":")) == n


def ase_write_db(n: int, folder: Path) -> None:
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect

    with connect(str(folder / "ase.db"), use_lock_file=False) as database:
        for atoms in frames(n):
            info = atoms.info
            atoms.calc = SinglePointCalculator(
                atoms, energy=info["energy"], forces=atoms.arrays.pop("forces")
            )
            database.write(atoms, step=info["step"])


def ase_read_db(n: int, folder: Path) -> None:
    from ase.db import connect

    assert sum(1 for row in connect(str(folder / "ase.db")).select() if row.toatoms()) == n


OURS: dict[str, Callable[[int, Path], None]] = {
    "generate": generate,
    "write_hdf5": write_hdf5,
    "read_hdf5": read_hdf5,
    "atoms_of_hdf5": atoms_of_hdf5,
    "filter_hdf5": filter_hdf5,
    "hdf5_to_extxyz": convert("ours.h5", "ours.extxyz"),
    "extxyz_to_hdf5": convert("ours.extxyz", "again.h5"),
}
THROUGH_ASE: dict[str, Callable[[int, Path], None]] = {
    "small_generate": generate,
    "small_write_hdf5": write_hdf5,
    "hdf5_to_traj": convert("ours.h5", "ours.traj"),
    "traj_to_hdf5": convert("ours.traj", "again.h5"),
    "hdf5_to_db": convert("ours.h5", "ours.db"),
    "db_to_hdf5": convert("ours.db", "again.h5"),
}
ASE: dict[str, Callable[[int, Path], None]] = {
    "ase_generate": generate,
    "ase_write_extxyz": ase_write_extxyz,
    "ase_read_extxyz": ase_read_extxyz,
    "ase_write_db": ase_write_db,
    "ase_read_db": ase_read_db,
}


def measured(task: str, n: int, folder: Path) -> dict[str, float]:
    """CPU seconds and peak memory of a task in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--task",
        task,
        "--frames",
        str(n),
        "--folder",
        str(folder),
    ]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def run_task(task: str, n: int, folder: Path) -> None:
    """What a process of `measured` does."""
    function = (OURS | THROUGH_ASE | ASE)[task]
    import ase.db
    import ase.io.extxyz  # noqa: F401

    from aiida_autopipe.cli import data_convert, main  # noqa: F401
    from aiida_autopipe.core.formats import sink, source  # noqa: F401

    start = time.process_time()
    function(n, folder)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_s": round(seconds, 3), "peak_mb": round(peak, 1)}))


def compare(n: int, n_peer: int) -> dict[str, dict[str, float]]:
    """All tasks, largest files last."""
    results: dict[str, dict[str, float]] = {}
    plan = ((OURS, (n // 4, n)), (THROUGH_ASE, (n_peer // 4, n_peer)), (ASE, (n_peer,)))
    for tasks, sizes in plan:
        small: dict[str, float] = {}
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                making = 0.0
                for task in tasks:
                    found = measured(task, size, Path(folder))
                    making = found["cpu_s"] if "generate" in task else making
                    own = found["cpu_s"] - (making if "write_" in task else 0.0)
                    result = {"frames": size, **found, "frames_per_cpu_s": round(size / own)}
                    if task in small:
                        result["growth_mb"] = round(found["peak_mb"] - small[task], 1)
                    small[task] = found["peak_mb"]
                    results[task] = result
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--peer-frames", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--task", choices=[*OURS, *THROUGH_ASE, *ASE], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        run_task(arguments.task, arguments.frames, arguments.folder)
        return
    results = compare(arguments.frames, arguments.peer_frames)
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    for task, row in results.items():
        growth = (
            f", {row['growth_mb']:+.1f} MB for 4 times the frames" if "growth_mb" in row else ""
        )
        print(
            f"{task:17s} {row['frames']:7d} frames {row['frames_per_cpu_s']:8d} /CPU s, peak "
            f"{row['peak_mb']:.0f} MB{growth}"
        )


if __name__ == "__main__":
    main()
