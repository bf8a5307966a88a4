"""``mlip-auto select``: the structures of a pool that are worth a label, without AiiDA."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aiida_autopipe.cli.select_features import Source
    from aiida_autopipe.core.dataset import Dataset
    from aiida_autopipe.core.select.coverage import Coverage


@click.command()
@click.argument("file", type=options.FILE)
@click.option("-n", "n", type=int, required=True, help="How many to choose.")
@click.option(
    "--method", default="direct", show_default=True, metavar="NAME",
    help="direct, fps, or a selector another package registers.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=options.FILE, required=True, metavar="FILE",
    help="Where to write the chosen structures: .extxyz, .xyz, .h5 or .hdf5.",
)  # fmt: skip
@click.option(
    "--per", type=click.Choice(["structure", "environment"]), default="structure",
    show_default=True, help="What is chosen: structures, or surroundings of single atoms.",
)  # fmt: skip
@click.option(
    "--known", type=options.FILE, metavar="FILE",
    help="Structures that are labelled already: what they cover is not chosen.",
)  # fmt: skip
@click.option(
    "--features", "name", metavar="NAME",
    help="Features in FILE, written by `mlip-auto describe`; --known needs the same.",
)  # fmt: skip
@click.option(
    "--descriptor", "kind", type=click.Choice(["soap", "ace", "mace"]),
    help="Features to compute.  [default: soap]",
)  # fmt: skip
@click.option(
    "--model", type=options.FILE, metavar="FILE",
    help="A MACE model, or the .yaml or .yace of an ACE potential.",
)  # fmt: skip
@click.option("--trust", is_flag=True, help="Open a MACE model, which is a pickle.")
@click.option(
    "--k", "k", type=int, default=1, show_default=True,
    help="For direct: how many of each cluster; there are n / k clusters.",
)  # fmt: skip
@options.SEED
@click.option(
    "--report", "report_path", type=options.FILE, metavar="FILE",
    help="Plots of the coverage: a page (.html) or an image (.png).",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="Threads.  [default: all cores]")
@options.JSON_OUTPUT
def select(
    file: Path,
    n: int,
    method: str,
    output: Path,
    known: Path | None,
    name: str | None,
    kind: str | None,
    model: Path | None,
    trust: bool,
    per: Any,
    k: int,
    seed: int,
    report_path: Path | None,
    threads: int | None,
    json_path: Path | None,
) -> None:
    """Choose the structures of FILE that cover it best, to be labelled.

    Exactly n are chosen; the same file and seed give the same choice. With --per environment the
    structures around n chosen atoms are written, with the atoms in the column selected_atoms, such
    as "Si3 Si17" for indices 3 and 17. What the choice covers is printed next to random choices of
    the same size.

    \b
    Examples:
        mlip-auto select frames.extxyz -n 200 -o chosen.extxyz --report coverage.html
        mlip-auto select md.h5 -n 50 --method fps --features soap --known labelled.h5 -o new.h5
    """
    from aiida_autopipe.cli.select_features import Source
    from aiida_autopipe.core.ace.parallel import available_threads
    from aiida_autopipe.core.select.coverage import coverage
    from aiida_autopipe.core.select.rows import as_rows
    from aiida_autopipe.core.select.selectors import check_method, select_rows
    from aiida_autopipe.report.selection import write_selection_report

    check_method(method)
    _check_outputs(output, report_path, json_path)
    if n < 1:
        raise InputError(f"-n {n}: at least one structure must be chosen.")
    if name is not None and (kind is not None or model is not None):
        raise InputError("--features names stored features and --descriptor computes; give one.")
    cores = available_threads(threads)
    source = Source(name, kind or "soap", model, trust, per, cores)
    with ExitStack() as stack:
        dataset, pool, covered = _features(stack, file, known, source, n)
        chosen = select_rows(method, pool, n, covered, seed, k, cores)
        known_rows = None if covered is None else as_rows(covered, "covered set")
        result = coverage(as_rows(pool), chosen, known_rows, seed, cores)
        written = _write(dataset, chosen, per, output)
    if report_path is not None:
        write_selection_report(result, f"{file.name}: {n} by {method}", report_path)
    summary = {
        "method": method, "per": per, "seed": seed, "n": n, "structures": written,
        "indices": chosen.tolist(), "coverage": result.numbers(),
    }  # fmt: skip
    options.write_json(json_path, summary)
    if str(json_path) != "-":
        _print(result, per, written, output)


def _check_outputs(output: Path, report_path: Path | None, json_path: Path | None) -> None:
    """Refuse places that cannot be written before anything is computed."""
    from aiida_autopipe.report.selection import check_suffix

    if output.suffix.lower() not in (".h5", ".hdf5", ".extxyz", ".xyz"):
        raise InputError(
            f"Cannot write '{output}': use one of the endings .h5, .hdf5, .extxyz, .xyz."
        )
    options.check_place(output, "the chosen structures")
    if report_path is not None:
        check_suffix(report_path)
        options.check_place(report_path, "the report")
    options.check_json_path(json_path)


def _features(
    stack: ExitStack, file: Path, known: Path | None, source: Source, n: int
) -> tuple[Dataset, Any, Any]:
    """The pool, its features, and those of the known structures or None."""
    from aiida_autopipe.cli import select_features as features

    dataset = stack.enter_context(features.open_dataset(file))
    labelled = None if known is None else stack.enter_context(features.open_dataset(known))
    size, noun = (
        (len(dataset), "structures") if source.per == "structure" else (dataset.n_atoms, "atoms")
    )
    if n > size:
        raise InputError(f"Cannot choose {n} of the {size} {noun} of '{file}'; ask for fewer.")
    if source.name is not None:
        pool = stack.enter_context(features.stored_features(file, dataset, source))
        if known is None or labelled is None:
            return dataset, pool, None
        covered = stack.enter_context(features.stored_features(known, labelled, source))
        return dataset, pool, covered
    elements = set(dataset.elements) | set(labelled.elements if labelled is not None else ())
    descriptor = features.make_descriptor_for(source, sorted(elements))
    pool = features.computed_features(dataset, file, descriptor, source)
    if known is None or labelled is None:
        return dataset, pool, None
    return dataset, pool, features.computed_features(labelled, known, descriptor, source)


def _write(dataset: Dataset, chosen: NDArray[np.int64], per: str, output: Path) -> int:
    """Write the chosen structures in the order of the pool; their number."""
    import numpy as np
    from ase.data import chemical_symbols

    from aiida_autopipe.core.dataset import write_dataset

    if per == "structure":
        write_dataset(dataset[np.sort(chosen)], output)
        return len(chosen)
    owners = np.searchsorted(dataset.offsets, np.sort(chosen), side="right") - 1
    structures = np.unique(owners)
    atoms = np.sort(chosen) - dataset.offsets[owners]
    # With the symbol it stays text in an extxyz file, where 35 would become a number.
    symbols = [chemical_symbols[z] for z in dataset.numbers[:][np.sort(chosen)]]
    names = np.array([f"{s}{i}" for s, i in zip(symbols, atoms.tolist(), strict=True)])
    texts = [" ".join(names[owners == index].tolist()) for index in structures]
    write_dataset(dataset[structures].with_columns(selected_atoms=texts), output)
    return len(structures)


def _print(result: Coverage, per: str, written: int, output: Path) -> None:
    from aiida_autopipe.report.formatting import number
    from aiida_autopipe.report.selection import table

    noun = "structures" if per == "structure" else "environments"
    inside = "" if per == "structure" else f", in {written} structures"
    click.echo(f"{result.n_chosen} of {result.n_pool} {noun}{inside}: {output}")
    click.echo(f"{'':32}{'chosen':>10}{'random':>10}")
    for what, mine, random in table(result):
        click.echo(f"{what:32}{mine:>10}{random:>10}")
    within = round(result.chosen.within_reach * result.n_pool)
    click.echo(
        f"{within} of {result.n_pool} {noun} of the pool are within {number(result.reach, 3)} of a "
        f"chosen{' or known' if result.n_known else ''} one."
    )
