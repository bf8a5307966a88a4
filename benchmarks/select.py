"""DIRECT and farthest-point selection of 1,000 rows next to maml and skmatter, in one run.

Rows of 64 features look like those of environments along molecular dynamics: basins of different
weight and width in eight coordinates, curved into 64 features, with noise. Every measurement runs
in a process of its own: CPU seconds of the selection alone, after a small one that loads the
compiled kernels, and the largest memory of the process, the features included. The coverage is the
score of the DIRECT paper, computed for both by the same function on the same components.

maml is given its own steps (StandardScaler, PCA, BIRCH, selection of one row of each cluster),
without its structure encoder, with the smallest first threshold with which it fits into 16 GB.
Peers: `pip install aiida-autopipe[bench]`, then `pip install --no-deps maml==2025.4.3`.

    python benchmarks/select.py --json
    python benchmarks/select.py --sizes 10000,100000
    python benchmarks/select.py --sizes 10000000 --stream FOLDER     ours alone, from a .npy file
"""

# ruff: noqa: E402
import sys
from pathlib import Path

# This file hides the standard library's module `select`. Its folder must not come first here; the
# scripts beside it, whose libraries import `select` and get this file, are given the real one.
_others = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
if __name__ == "select":
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    _spec = PathFinder.find_spec("select", _others)
    assert _spec is not None and _spec.loader is not None
    sys.modules["select"] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["select"])
else:
    sys.path[:] = _others

import argparse
import importlib
import json
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

FEATURES = 64
CHOSEN = 1000
BLOCK = 65_536
PEER_BYTES = 16_000_000_000
"""Memory that a peer may have."""
MAML_THRESHOLDS = (0.05, 0.1, 0.15, 0.2)
"""First thresholds of its BIRCH clustering; with a small one nearly each row is a cluster at first,
and all distances between these are kept."""


def blocks_of_pool(n: int, seed: int) -> Any:
    """Blocks of float32 rows, always the same for a seed."""
    rng = np.random.default_rng(seed)
    basins, coordinates = 40, 8
    centres = 3 * rng.normal(size=(basins, coordinates))
    widths = rng.uniform(0.2, 1.2, size=(basins, coordinates))
    weights = rng.dirichlet(np.full(basins, 0.5))
    linear = rng.normal(size=(coordinates, FEATURES))
    curved = 0.15 * rng.normal(size=(coordinates, FEATURES))
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        basin = rng.choice(basins, size=size, p=weights)
        z = centres[basin] + widths[basin] * rng.standard_t(5, size=(size, coordinates))
        noise = 0.3 * rng.normal(size=(size, FEATURES))
        yield (z @ linear + (z * z) @ curved + noise).astype(np.float32)


def make_pool(n: int, seed: int) -> Any:
    """(n, 64) float32."""
    pool = np.empty((n, FEATURES), dtype=np.float32)
    start = 0
    for block in blocks_of_pool(n, seed):
        pool[start : start + len(block)] = block
        start += len(block)
    return pool


def ours(method: str, pool: Any, seed: int) -> Any:
    """Select with the package, on one thread."""
    from aiida_autopipe.core.select.selectors import select_rows

    return select_rows(method, pool, CHOSEN, seed=seed)


def warm_up(method: str) -> None:
    """Load the kernels that are compiled already, and compile them the first time."""
    from aiida_autopipe.core.select.selectors import select_rows

    for n in (3_000, 30_000):
        select_rows(method, make_pool(n, 0), 50)


def maml_direct(pool: Any, threshold: float) -> Any:
    """Run the steps of maml's DIRECTSampler that come after its structure encoder."""
    from maml.sampling.clustering import BirchClustering
    from maml.sampling.pca import PrincipalComponentAnalysis
    from maml.sampling.stratified_sampling import SelectKFromClusters
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    steps = [
        ("scale", StandardScaler()),
        ("pca", PrincipalComponentAnalysis()),
        ("birch", BirchClustering(n=CHOSEN, threshold_init=threshold)),
        ("select", SelectKFromClusters()),
    ]
    return Pipeline(steps).fit_transform(pool)["selected_indexes"]


def skmatter_fps(pool: Any) -> Any:
    """Select with skmatter's farthest points."""
    from skmatter.sample_selection import FPS

    return FPS(n_to_select=CHOSEN).fit(pool).selected_idx_


def score(pool: Any, chosen: Any) -> float:
    """Coverage score of a choice, as in the DIRECT paper."""
    from aiida_autopipe.core.select.components import ProjectedRows, principal_components
    from aiida_autopipe.core.select.coverage import bin_scores
    from aiida_autopipe.core.select.rows import as_rows, gather

    rows = as_rows(pool)
    components = principal_components(rows)
    projected = ProjectedRows(rows, components)
    points = gather(projected, np.asarray(chosen, dtype=np.int64))
    return float(bin_scores(projected, [points], components.n).mean())


def measure(who: str, n: int, seed: int, folder: str | None, answer: Any) -> None:
    """Run one selection; CPU seconds, peak and coverage go to the parent."""
    import logging

    logging.disable(logging.CRITICAL)
    method = "fps" if who.endswith("fps") else "direct"
    peer: Callable[[Any], Any] | None = None
    if who.startswith("maml"):
        peer = partial(maml_direct, threshold=float(who.split("@")[1]))
    elif who == "skmatter_fps":
        peer = skmatter_fps
    if peer is not None:
        resource.setrlimit(resource.RLIMIT_AS, (PEER_BYTES, PEER_BYTES))
    if peer is None:
        warm_up(method)
    else:
        importlib.import_module("sklearn.pipeline")
    pool = make_pool(n, seed) if folder is None else Path(folder)
    begun = time.process_time()
    chosen = peer(pool) if peer is not None else ours(method, pool, seed)
    seconds = time.process_time() - begun
    peak = peak_memory_mb()
    coverage = score(pool, chosen) if method == "direct" else None
    answer.put({"cpu_s": seconds, "peak_mb": peak, "coverage": coverage, "n": len(set(chosen))})


def peak_memory_mb() -> float:
    """Largest memory of this process; `ru_maxrss` would count that of the one it was made from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def in_a_process(who: str, n: int, seed: int, folder: str | None = None) -> dict[str, Any] | None:
    """Result of `measure`, from a fresh process; None where it did not end well."""
    context = get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=measure, args=(who, n, seed, folder, answer))
    process.start()
    while process.is_alive() and answer.empty():
        time.sleep(0.2)
    if answer.empty() and process.exitcode:
        return None
    result: dict[str, Any] = answer.get()
    process.join()
    return result


def write_stream(folder: Path, n: int, seed: int) -> Path:
    """Write the pool to a .npy file, block by block."""
    path = folder / f"pool_{n}.npy"
    pool = np.lib.format.open_memmap(path, "w+", np.float32, (n, FEATURES))
    start = 0
    for block in blocks_of_pool(n, seed):
        pool[start : start + len(block)] = block
        start += len(block)
    pool.flush()
    return path


def compare(n: int, seed: int, with_peers: bool, stream: Path | None) -> tuple[Any, Any]:
    """Rows of the two tables for one size."""
    if stream is not None:
        with tempfile.TemporaryDirectory(dir=stream) as folder:
            path = str(write_stream(Path(folder), n, seed))
            mine, far = (in_a_process(who, n, seed, path) for who in ("direct", "fps"))
    else:
        mine, far = (in_a_process(who, n, seed) for who in ("direct", "fps"))
    if mine is None or far is None:
        raise SystemExit(f"The measurement with {n} rows failed.")
    direct = {
        "ours_cpu_s": mine["cpu_s"],
        "ours_peak_mb": mine["peak_mb"],
        "ours_coverage": mine["coverage"],
        "ours_n": mine["n"],
    }
    fps = {"ours_cpu_s": far["cpu_s"], "ours_peak_mb": far["peak_mb"]}
    if with_peers:
        direct |= maml_row(n, seed)
        fps["skmatter_cpu_s"] = (in_a_process("skmatter_fps", n, seed) or {}).get("cpu_s")
    return direct, fps


def maml_row(n: int, seed: int) -> dict[str, Any]:
    """With the smallest first threshold of its clustering with which maml fits into memory."""
    for threshold in MAML_THRESHOLDS:
        found = in_a_process(f"maml@{threshold}", n, seed)
        if found is not None:
            return {"maml_threshold": threshold, **{f"maml_{k}": v for k, v in found.items()}}
    return dict.fromkeys(("maml_threshold", "maml_cpu_s", "maml_coverage"))


def main() -> None:
    """Print the numbers as a table, or as one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="10000,100000,1000000", help="rows of the pools")
    parser.add_argument("--peer-max", type=int, default=1_000_000, help="largest pool for peers")
    parser.add_argument(
        "--stream", type=Path, metavar="FOLDER", help="ours alone, from a file here"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result: dict[str, dict[str, Any]] = {"direct": {}, "fps": {}}
    for n in (int(size) for size in options.sizes.split(",")):
        with_peers = options.stream is None and n <= options.peer_max
        rows = compare(n, options.seed, with_peers, options.stream)
        result["direct"][str(n)], result["fps"][str(n)] = rows
        if not options.json:
            for name in result:
                for key, value in result[name][str(n)].items():
                    shown = "failed" if value is None else f"{value:.4g}"
                    print(f"{name:8}{n:10}  {key:16}{shown:>12}", flush=True)
    if options.json:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
