"""Delta learning: a potential of many cheap labels, corrected with a few of a better method.

Silicon of 8 atoms. The base is fitted to labels of SevenNet-0; the target is pw.x with PBE. Three
potentials are measured on held-out labels of the target: the base alone, for which only the
reference energy is fitted to the few labels; a fit of the few labels alone; and the fit of these
that starts from the base. The data are those of the tests, made by `delta_data.py`.

    python benchmarks/delta.py --labels 5 10 20 --seeds 3 --json
    python benchmarks/delta.py --labels 20 --seeds 24 --shuffle
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from aiida_autopipe.core.ace.fit import fit_ace
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.settings import FitSettings
from aiida_autopipe.core.dataset import Dataset, read_dataset

DATA = Path(__file__).parents[1] / "tests" / "core" / "ace" / "data" / "delta"
METHODS = ("base alone", "labels alone", "delta")
KEYS = ("energy_mae_per_atom", "forces_mae")

Errors = dict[str, float]


def compare(
    base: ACEPotential, few: Dataset, test: Dataset, alone: FitSettings, seed: int
) -> dict[str, Errors]:
    """Errors on ``test`` of the three potentials; ``alone`` are the settings of the second."""
    delta = fit_ace(few, FitSettings(), test, prior=base, rng=np.random.default_rng(seed))
    single = fit_ace(few, alone, test, rng=np.random.default_rng(seed))
    found = (delta.metrics["prior_test"], single.metrics["test"], delta.metrics["test"])
    errors = ({key: metrics[key] or 0.0 for key in KEYS} for metrics in found)
    return dict(zip(METHODS, errors, strict=True))


def average(results: list[dict[str, Errors]]) -> dict[str, dict[str, float]]:
    """Mean absolute errors over the seeds by method."""
    return {
        method: {key: float(np.mean([errors[method][key] for errors in results])) for key in KEYS}
        for method in METHODS
    }


def won(errors: dict[str, Errors]) -> bool:
    """Whether the delta fit has the lowest errors of energies and of forces."""
    return all(min(METHODS, key=lambda method: errors[method][key]) == "delta" for key in KEYS)


def measure(
    data: Path, labels: list[int], seeds: int, settings: FitSettings, shuffle: bool
) -> dict[str, Any]:
    """The comparison for several numbers of labels, drawn anew for every seed; from those to test
    as well and tested on as many others, with ``shuffle``."""
    many, few, test = (
        read_dataset(data / f"{name}.extxyz") for name in ("base", "target_train", "target_test")
    )
    fitted = fit_ace(many, settings, rng=np.random.default_rng(0))
    rows = {}
    for n in labels:
        results = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            known, unknown = few, test
            if shuffle:
                order = rng.permutation(len(few) + len(test))
                both = Dataset.concatenate([few, test])
                known, unknown = both[order[: len(few)]], both[order[len(few) :]]
            chosen = rng.permutation(len(known))[:n]
            results.append(compare(fitted.potential, known[chosen], unknown, settings, seed))
        rows[str(n)] = {**average(results), "seeds_won": sum(map(won, results))}
    return {
        "base_labels": len(many),
        "test_labels": len(test),
        "base_functions": fitted.chosen["n_functions"],
        "base_cutoff": fitted.chosen["cutoff"],
        "base_validation": fitted.metrics["validation"],
        "seeds": seeds,
        "labels": rows,
    }


def print_table(result: dict[str, Any]) -> None:
    """The numbers for people."""
    print(
        f"Base: {result['base_labels']} labels, {result['base_functions']} functions, "
        f"cutoff {result['base_cutoff']:g} A. Errors on {result['test_labels']} held-out labels of "
        f"the target, mean of {result['seeds']} seeds:"
    )
    print(f"{'labels':8}{'':14}{'meV/atom':>10}{'eV/A':>9}")
    for n, row in result["labels"].items():
        for method in METHODS:
            energy, forces = (row[method][key] for key in KEYS)
            print(f"{n:8}{method:14}{1000 * energy:10.2f}{forces:9.4f}")
        print(f"{'':8}delta is best in both with {row['seeds_won']} of {result['seeds']} seeds")


def main() -> None:
    """Print the comparison as a table, or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the three files")
    parser.add_argument("--labels", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--shuffle", action="store_true", help="divide labels and test anew for every seed"
    )
    parser.add_argument("--functions", type=int, default=600, help="most functions of a basis")
    parser.add_argument("--search", type=int, default=10, help="most bases to compare in a fit")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    settings = FitSettings(max_functions=options.functions, search=options.search)
    result = measure(options.data, options.labels, options.seeds, settings, options.shuffle)
    if options.json:
        print(json.dumps(result))
    else:
        print_table(result)


if __name__ == "__main__":
    main()
