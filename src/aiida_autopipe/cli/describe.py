"""``mlip-auto describe``: features of structures added to the HDF5 file they are in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import DataError, InputError

if TYPE_CHECKING:
    import h5py

    from aiida_autopipe.core.descriptors.add import Added, Progress
    from aiida_autopipe.core.descriptors.base import Descriptor

_SOAP_ACE = "SOAP, ACE without --model: "


@click.command()
@click.argument("file", type=options.FILE)
@click.option(
    "--key", "keys", multiple=True, metavar="GROUP",
    help="Group of FILE with the structures, or a pattern such as 'runs/*'; may be repeated. Not "
    "needed for dataset files of mlip-auto.",
)  # fmt: skip
@click.option(
    "--descriptor", "kind", type=click.Choice(["soap", "ace", "mace"]), required=True,
    help="What describes the surroundings of an atom.",
)  # fmt: skip
@click.option(
    "--model", type=options.FILE, metavar="FILE",
    help="A MACE model, or the .yaml or .yace of an ACE potential.",
)  # fmt: skip
@click.option(
    "--trust", is_flag=True,
    help="Open a MACE model. It is a pickle, which can run any program its author put inside.",
)  # fmt: skip
@click.option("--average", is_flag=True, help="The mean over the atoms of each structure.")
@click.option("--name", help="Name of the new dataset.  [default: that of the descriptor]")
@click.option(
    "--overwrite", is_flag=True,
    help="Replace features of that name with other settings, or of structures that have changed.",
)  # fmt: skip
@click.option(
    "--elements", metavar="LIST",
    help=f"{_SOAP_ACE}elements, such as 'Si,C'.  [default: those of the groups]",
)  # fmt: skip
@click.option(
    "--cutoff", "--r-cut", "cutoff", type=float, metavar="Å",
    help=f"{_SOAP_ACE}radius in Å.  [default: 5]",
)  # fmt: skip
@click.option("--n-max", type=int, help="SOAP: radial functions.  [default: 8]")
@click.option("--l-max", type=int, help="SOAP: largest angular momentum.  [default: 6]")
@click.option("--sigma", type=float, metavar="Å", help="SOAP: width of an atom.  [default: 0.5]")
@click.option("--rbf", help="SOAP: radial functions, gto or polynomial.  [default: gto]")
@click.option(
    "--functions", "n_functions", type=int,
    help="ACE without --model: functions for each element.  [default: 100]",
)  # fmt: skip
@click.option(
    "--max-rank", type=int, help="ACE without --model: neighbours in a function.  [default: 3]"
)
@click.option("--layers", metavar="LIST", help="MACE: layers, such as '1,2'.  [default: all]")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), help="MACE: where to compute."
)
@click.option(
    "--precision", "dtype", type=click.Choice(["float32", "float64"]),
    help="MACE: precision.  [default: that of the model]",
)  # fmt: skip
@click.option("--positions", metavar="NAME", help="Dataset of the positions.")
@click.option("--numbers", metavar="NAME", help="Dataset of the atomic numbers or symbols.")
@click.option("--cell", metavar="NAME", help="Dataset of the cells.")
@click.option("--pbc", metavar="NAME", help="Dataset of the periodic directions.")
@click.option("--no-pbc", is_flag=True, help="The structures are not periodic.")
@click.option("--float32", "is_single", is_flag=True, help="Store four bytes a number, not eight.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads.  [default: all cores]")
@options.JSON_OUTPUT
def describe(
    file: Path,
    keys: tuple[str, ...],
    kind: str,
    model: Path | None,
    trust: bool,
    elements: str | None,
    layers: str | None,
    no_pbc: bool,
    is_single: bool,
    threads: int | None,
    json_path: Path | None,
    **others: Any,
) -> None:
    """Add features to the structures and trajectories in FILE, an HDF5 file of any program.

    Positions, atomic numbers and cells of a group are read, and one dataset, GROUP/NAME, is
    written beside them: for each atom, or with --average for each structure. Nothing else in the
    file changes, and whatever happens meanwhile, it is the old file or the new one. The same
    command again does nothing. The structures of other formats are put into such a file with
    `mlip-auto data convert`.

    \b
    Examples:
        mlip-auto describe md.h5 --key runs/300K --descriptor soap --average
        mlip-auto describe md.h5 --key 'runs/*' --descriptor ace --model si.yaml
        mlip-auto describe md.h5 --key runs/300K --descriptor mace --model my.model --trust
    """
    from aiida_autopipe.core.ace.parallel import available_threads
    from aiida_autopipe.core.descriptors.add import add_descriptors
    from aiida_autopipe.core.hdf5_edit import finish_commit, open_read_only

    options.check_json_path(json_path)
    _check_format(file)
    names: dict[str, Any] = {name: others.pop(name) for name in ("positions", "numbers", "cell")}
    names["pbc"] = _periodic(others.pop("pbc"), no_pbc)
    target = {name: others.pop(name) for name in ("name", "average", "overwrite")}
    settings = _settings(kind, layers, others)
    finish_commit(file)
    with open_read_only(file) as handle:
        groups = _groups(handle, keys, names)
        descriptor = _descriptor(handle, groups, kind, settings, elements, model, trust, names)
    with _progress() as progress:
        added = add_descriptors(
            file,
            groups,
            descriptor,
            threads=available_threads(threads),
            dtype="float32" if is_single else "float64",
            progress=progress,
            **target,
            **names,
        )
    options.write_json(json_path, {"groups": [_as_json(one) for one in added]})
    if str(json_path) != "-":
        for one in added:
            click.echo(_sentence(one))


def _check_format(file: Path) -> None:
    """Structures of other formats must be converted first."""
    import h5py

    if not file.exists() or file.is_dir():
        raise DataError(f"There is no file '{file}'.")
    if file.suffix.lower() not in (".h5", ".hdf5") and not h5py.is_hdf5(file):
        raise InputError(
            f"'{file}' is not an HDF5 file, to which features could be added; make one of it with "
            f"`mlip-auto data convert {file} {file.with_suffix('.h5').name}`."
        )


def _periodic(name: str | None, no_pbc: bool) -> str | bool | None:
    if name is not None and no_pbc:
        raise InputError("--pbc names periodic directions and --no-pbc denies them; give one.")
    return False if no_pbc else name


def _settings(kind: str, layers: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of the descriptor that were given, by its own names."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if kind == "soap" and "cutoff" in chosen:
        chosen["r_cut"] = chosen.pop("cutoff")
    if layers is not None:
        chosen["layers"] = _integers(layers)
    return chosen


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"--layers '{text}': give whole numbers, such as 1,2.") from error


def _groups(handle: h5py.File, keys: tuple[str, ...], names: dict[str, Any]) -> list[str]:
    """Paths of the groups that are meant."""
    from aiida_autopipe.core.descriptors.keys import (
        describe_groups,
        expand_keys,
        structure_groups,
    )
    from aiida_autopipe.core.hdf5 import FORMAT

    fields = {"positions": names["positions"], "numbers": names["numbers"]}
    if keys:
        return expand_keys(handle, keys, **fields)
    if handle.attrs.get("format") == FORMAT:
        return ["/"]
    found = describe_groups(structure_groups(handle, **fields))
    raise InputError(f"Say with --key what to describe in '{handle.filename}'; {found}.")


def _descriptor(
    handle: h5py.File,
    groups: list[str],
    kind: str,
    settings: dict[str, Any],
    elements: str | None,
    model: Path | None,
    trust: bool,
    names: dict[str, Any],
) -> Descriptor:
    from aiida_autopipe.core.descriptors.add import open_group
    from aiida_autopipe.core.descriptors.make import elements_of_groups, make_descriptor

    if elements is not None:
        if model is not None:
            raise InputError("A model has elements of its own; leave --elements or --model out.")
        symbols = elements.replace(",", " ").split()
    elif model is None and kind != "mace":
        symbols = elements_of_groups([open_group(handle, key) for key in groups], **names)
    else:
        symbols = []
    return make_descriptor(kind, settings, symbols, model, trust)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"{what} structures", total=total)
            bar.update(tasks[what], completed=done)

        yield show


def _as_json(added: Added) -> dict[str, Any]:
    return {
        "key": added.key,
        "dataset": added.dataset,
        "shape": list(added.shape),
        "structures": added.frames,
        "written": added.written,
    }


def _sentence(added: Added) -> str:
    shape = " x ".join(str(n) for n in added.shape)
    if added.written:
        return f"{added.dataset}: {shape} features of {added.frames} structures"
    return f"{added.dataset}: these features are there already; nothing was changed"
