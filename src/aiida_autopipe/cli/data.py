"""``mlip-auto data``: files of structures of any size, without AiiDA."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.cli.data_options import followed, open_source, reading

_ELSEWHERE = {
    "convert": "data_convert", "merge": "data_convert", "split": "data_split"
}  # fmt: skip


class DataGroup(click.Group):
    """Subcommands in the order in which they are needed; those in other files are loaded late."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return ["info", *_ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one."""
        if cmd_name in _ELSEWHERE:
            module = importlib.import_module(f"aiida_autopipe.cli.{_ELSEWHERE[cmd_name]}")
            command: click.Command = getattr(module, cmd_name)
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=DataGroup)
def data() -> None:
    """Look into, convert, merge and split files of structures of any size.

    Files are read and written in blocks, so they may be far larger than the memory. Formats go by
    the ending: .h5 and .hdf5 (ours, or with --key a group that another program wrote), .extxyz and
    .xyz (also .gz), .traj and .db and .json (ASE), .dump and .lammpstrj (LAMMPS); what else ASE
    knows is read as a whole. Results appear when they are complete.

    \b
    Examples:
        mlip-auto data info frames.h5
        mlip-auto data convert md.dump md.h5 --elements Si,O --every 10
        mlip-auto data convert run.h5 run.extxyz --key md/run1 --positions coord --numbers z
        mlip-auto data merge a.h5 b.extxyz -o all.h5
        mlip-auto data split all.h5 --fraction 0.1 -o train.h5 test.h5
    """


@data.command()
@click.argument("file", type=options.FILE)
@reading
@options.JSON_FLAG
def info(file: Path, as_json: bool, **given: Any) -> None:
    """Count what is in FILE: structures, elements, labels, columns.

    Energies are per atom; units are eV and Å.

    \b
    Example:
        mlip-auto data info frames.h5 --json
    """
    from aiida_autopipe.core.data_summary import Summary

    source = open_source(file, None, 1, given)
    summary = Summary()
    with followed(source, "Reading") as blocks:
        for block in blocks:
            summary.add(block)
    content = {**_about(source), **summary.as_dict(), "left_out": sorted(source.left_out)}
    if as_json:
        options.write_json(Path("-"), content)
    else:
        _print(content)


def _about(source: Any) -> dict[str, Any]:
    from aiida_autopipe.core.columns import fingerprint
    from aiida_autopipe.core.hdf5 import layout_of

    about: dict[str, Any] = {
        "file": str(source.path),
        "format": source.format,
        "bytes": source.path.stat().st_size,
        "layout_version": None,
    }
    if source.is_dataset:
        about |= layout_of(source.path)
    about["attributes"] = source.attributes
    about["method_fingerprint"] = fingerprint(source.attributes)
    return about


def _print(content: dict[str, Any]) -> None:
    layout = content["layout_version"]
    kind = content["format"] if layout is None else f"dataset, layout version {layout}"
    low, high = content["atoms_per_structure"]
    click.echo(f"{content['file']}: {kind}, {content['bytes'] / 1e6:.1f} MB")
    click.echo(f"structures   {content['n_structures']}, {content['periodic']} of them periodic")
    click.echo(f"atoms        {content['n_atoms']}, {low} to {high} in a structure")
    composition = (f"{element} {count}" for element, count in content["composition"].items())
    click.echo(f"elements     {', '.join(composition)}")
    for name, count in content["labels"].items():
        click.echo(f"{name:12s} {count} structures" if count else f"{name:12s} none")
    units = {
        "energy_per_atom": "eV", "max_force": "eV/Å", "max_stress": "eV/Å³", "volume_per_atom": "Å³"
    }  # fmt: skip
    for name, (first, last) in content["ranges"].items():
        click.echo(f"  {name:16s} {first:.6g} to {last:.6g} {units[name]}")
    for name, column in content["columns"].items():
        click.echo(f"column {name} ({column['type']}): {_column(column)}")
    if content["method_fingerprint"]:
        click.echo(f"method       {content['method_fingerprint']}")
    for element, energy in content["attributes"].get("reference_energies", {}).items():
        click.echo(f"reference energy of {element}: {energy:.6f} eV")
    for name, shape in content.get("other_objects", {}).items():
        click.echo(f"also in the file: {name} {shape}")
    if content["left_out"]:
        click.echo(f"not read: {', '.join(content['left_out'])}")


def _column(column: dict[str, Any]) -> str:
    if "values" in column:
        counts = ", ".join(f"{text or '(none)'} {n}" for text, n in column["values"].items())
        return counts + (", and more" if column.get("more") else "")
    if "range" in column:
        return f"{column['range'][0]:.6g} to {column['range'][1]:.6g}"
    return "no values"
