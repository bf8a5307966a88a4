"""Speed of SOAP beside dscribe and featomic, and how far our features are from those of dscribe.

CPU microseconds per atomic environment, each program on one thread, all in this process and in
turns; medians over the rounds. `ours_us_2_threads` alone is WALL time, of two threads: it means
nothing while other programs use the cores. `max_abs_diff` is over every component of every
environment of all structures.

Settings: r_cut 5 A, n_max 8, l_max 6, sigma 0.5 A, Gaussian type orbitals. Like dscribe we count
neighbours up to r_cut + 3.72 sigma = 6.86 A; featomic counts those up to r_cut only.

Structures: silicon of the mlearn data, and rattled rock salt NaCl. The peers come with the extra
`bench`, in an environment of its own and without the constraints file, whose scikit-learn is too
new for one of them (pip install -e '.[bench]').

    python benchmarks/soap.py
    python benchmarks/soap.py --json
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
              "RAYON_NUM_THREADS")  # fmt: skip
os.environ.update(dict.fromkeys(ONE_THREAD, "1"))

import numpy as np  # noqa: E402
from ace_accuracy import load  # noqa: E402
from ase import Atoms  # noqa: E402
from ase.build import bulk  # noqa: E402

from aiida_autopipe.core.descriptors.soap import SoapDescriptor  # noqa: E402

R_CUT, N_MAX, L_MAX, SIGMA = 5.0, 8, 6, 0.5


def main() -> None:
    """Print the numbers as a table, or as one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--structures", type=int, default=200, help="of each system")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=1, help="of the rattled crystal")
    parser.add_argument("--rbf", choices=["gto", "polynomial"], default="gto",
                        help="radial basis; featomic has 'gto' only")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    systems = {
        "Si": silicon(options.structures),
        "NaCl": rock_salt(options.structures, options.seed),
    }
    result = {
        name: measure(structures, options.rounds, options.rbf)
        for name, structures in systems.items()
    }
    if options.json:
        print(json.dumps({"systems": result}, indent=1))
        return
    for name, row in result.items():
        peers = [row[key] for key in ("dscribe_us", "featomic_us") if row[key] is not None]
        print(f"\n{name}")
        for key, value in row.items():
            print(f"  {key:28} {'-' if value is None else format(value, '.3g')}")
        print(f"  {'faster peer / ours':28} {min(peers) / row['ours_us']:.3g}")
        print(f"  {'one thread / two':28} {row['ours_us'] / row['ours_us_2_threads']:.3g}")


def silicon(count: int) -> list[Atoms]:
    """Evenly spaced structures of the training part; dscribe wants atoms inside the cell."""
    dataset = load("Si", "train", None)
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
    structures = [dataset.atoms(int(index)) for index in chosen]
    for atoms in structures:
        atoms.wrap()
    return structures


def rock_salt(count: int, seed: int) -> list[Atoms]:
    """Cells of 64 atoms, each rattled on its own."""
    structures = []
    for k in range(count):
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)
        atoms.rattle(0.1, seed=seed + k)
        atoms.wrap()
        structures.append(atoms)
    return structures


def measure(structures: list[Atoms], rounds: int, rbf: str) -> dict[str, Any]:
    """All programs on the same structures, taking turns."""
    elements = sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})
    soap = SoapDescriptor(elements, R_CUT, N_MAX, L_MAX, SIGMA, rbf)
    dscribe = dscribe_soap(elements, rbf)
    tasks: dict[str, Callable[[], Any]] = {
        "ours_us": lambda: soap.compute(structures),
        "dscribe_us": lambda: [dscribe.create(atoms) for atoms in structures],
    }
    if rbf == "gto":
        featomic = featomic_soap()
        tasks["featomic_us"] = lambda: featomic.compute(structures)
    expected = np.concatenate(tasks["dscribe_us"]())
    difference = float(np.abs(soap.compute(structures) - expected).max())
    times: dict[str, list[float]] = {key: [] for key in [*tasks, "ours_us_2_threads"]}
    soap.compute(structures, threads=2)
    for task in tasks.values():
        task()
    for _ in range(rounds):
        # Two threads right after one: after a peer, both would find cold caches.
        for key, task in tasks.items():
            start = time.process_time()
            task()
            times[key].append(time.process_time() - start)
            if key == "ours_us":
                start = time.perf_counter()
                soap.compute(structures, threads=2)
                times["ours_us_2_threads"].append(time.perf_counter() - start)
    micro = {key: 1e6 * float(np.median(t)) / len(expected) for key, t in times.items()}
    return {
        "ours_us": micro["ours_us"],
        "dscribe_us": micro["dscribe_us"],
        "featomic_us": micro.get("featomic_us"),
        "max_abs_diff": difference,
        "ours_us_2_threads": micro["ours_us_2_threads"],
    }


def dscribe_soap(elements: list[str], rbf: str) -> Any:
    """The peer with the same features."""
    try:
        from dscribe.descriptors import SOAP
    except ImportError as error:
        raise SystemExit(f"Install the extra 'bench' first: {error}.") from error
    return SOAP(r_cut=R_CUT, n_max=N_MAX, l_max=L_MAX, sigma=SIGMA, rbf=rbf, species=elements,
                periodic=True)  # fmt: skip


def featomic_soap() -> Any:
    """The peer with features of its own kind, as many of them."""
    try:
        from featomic import SoapPowerSpectrum
    except ImportError as error:
        raise SystemExit(f"Install the extra 'bench' first: {error}.") from error
    return SoapPowerSpectrum(
        cutoff={"radius": R_CUT, "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
        density={"type": "Gaussian", "width": SIGMA},
        basis={
            "type": "TensorProduct",
            "max_angular": L_MAX,
            "radial": {"type": "Gto", "max_radial": N_MAX - 1},
        },
    )


if __name__ == "__main__":
    main()
