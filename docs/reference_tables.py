"""Reference pages that are read off the code: processes, configuration, commands.

Written by hand, such tables drift; these fail the build when the code they describe does not load.
"""

import inspect
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click

PREFIX = "autopipe."
PROCESS_GROUPS = ("aiida.calculations", "aiida.workflows")
PROTOCOLS = ("fast", "balanced", "stringent")


def write(folder: Path) -> None:
    """Write every generated page into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "commands.md": commands(),
        "configuration.md": configuration(),
        "dataset_file.md": dataset_file(),
        "entry_points.md": entry_point_table(),
        "processes.md": processes(),
    }
    for name, lines in pages.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def our_entry_points(group: str) -> list[EntryPoint]:
    """Return our entry points of one group, by name."""
    return sorted(
        (
            point
            for point in entry_points(group=group)
            if point.name.startswith(PREFIX) or point.value.startswith("aiida_autopipe.")
        ),
        key=lambda point: point.name,
    )


def first_sentence(thing: object) -> str:
    """Return the first paragraph of a docstring on one line."""
    text = inspect.getdoc(thing) or ""
    return " ".join(text.split("\n\n")[0].split())


def cell(text: object) -> str:
    """Return text that is safe inside a table cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


def entry_point_table() -> Iterator[str]:
    """Yield one table of all entry points."""
    yield "| group | entry point | what it is |"
    yield "| --- | --- | --- |"
    ours = ("autopipe.generators", "autopipe.surrogates")
    for group in (*PROCESS_GROUPS, "aiida.parsers", "aiida.data", *ours):
        for point in our_entry_points(group):
            yield f"| `{group}` | `{point.name}` | {cell(first_sentence(point.load()))} |"


def processes() -> Iterator[str]:
    """Yield, for each process, its ports and its exit codes."""
    for group in PROCESS_GROUPS:
        for point in our_entry_points(group):
            process = point.load()
            spec = process.spec()
            yield f"## `{point.name}`\n"
            yield first_sentence(process) + "\n"
            yield from ports("Inputs", spec.inputs)
            yield from ports("Outputs", spec.outputs)
            yield from exit_codes(spec)


def ports(title: str, namespace: Any) -> Iterator[str]:
    """Yield a table of the ports of our own; AiiDA's `metadata` is documented there."""
    rows = [(name, port) for name, port in namespace.items() if name != "metadata"]
    if not rows:
        return
    yield f"| {title.lower()} | type | required | |"
    yield "| --- | --- | --- | --- |"
    for name, port in rows:
        kinds = getattr(port, "valid_type", None) or ()
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        names = ", ".join(kind.__name__ for kind in kinds if kind is not type(None)) or "namespace"
        needed = "yes" if port.required else "no"
        yield f"| `{name}` | {names} | {needed} | {cell(port.help or '')} |"
    yield ""


def exit_codes(spec: Any) -> Iterator[str]:
    """Yield a table of the exit codes this package defines (AiiDA's own are below 200)."""
    codes = sorted(
        (code for code in spec.exit_codes.values() if code.status >= 200),
        key=lambda code: code.status,
    )
    if not codes:
        return
    yield "| exit code | name | message |"
    yield "| --- | --- | --- |"
    labels = {code.status: label for label, code in spec.exit_codes.items()}
    for code in codes:
        yield f"| {code.status} | `{labels[code.status]}` | {cell(code.message)} |"
    yield ""


def configuration() -> Iterator[str]:
    """Yield one table for each block of the input file, with the defaults of every protocol."""
    from aiida_autopipe.config.loading import dump_value
    from aiida_autopipe.config.template import Key, iter_keys

    defaults = {name: {key.path: key.default for key in iter_keys(name)} for name in PROTOCOLS}
    titles: dict[tuple[str, ...], str] = {(): "A complete run; every key has a value."}
    blocks: dict[tuple[str, ...], list[Key]] = {(): []}
    for key in iter_keys():
        if key.is_section:
            titles[key.path] = key.description
            blocks[key.path] = []
        else:
            blocks[key.path[:-1]].append(key)
    for path, keys in blocks.items():
        dotted = ".".join(path)
        yield f"## `{dotted}`\n" if path else "## the top level\n"
        yield titles[path] + "\n"
        if not keys:
            continue
        yield "| key | meaning | " + " | ".join(f"`{name}`" for name in PROTOCOLS) + " |"
        yield "| --- " * (2 + len(PROTOCOLS)) + "|"
        for key in keys:
            choices = f" One of: {', '.join(key.choices)}." if key.choices else ""
            values = " | ".join(f"`{dump_value(defaults[name][key.path])}`" for name in PROTOCOLS)
            yield f"| `{key.path[-1]}` | {cell(key.description + choices)} | {values} |"
        yield ""


def commands() -> Iterator[str]:
    """Yield the help of every subcommand as the terminal shows it."""
    from aiida_autopipe.cli.main import cli

    context = click.Context(cli, info_name="mlip-auto")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None, name
        yield from _command_help(command, name, context, "##")


def _command_help(
    command: click.Command, name: str, parent: click.Context, level: str
) -> Iterator[str]:
    """Yield the help of a command, and of its subcommands below it."""
    context = click.Context(command, info_name=name, parent=parent)
    yield f"{level} `{context.command_path}`\n"
    yield "```text"
    yield command.get_help(context)
    yield "```\n"
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            subcommand = command.get_command(context, below)
            assert subcommand is not None, below
            yield from _command_help(subcommand, below, context, level + "#")


def dataset_file() -> Iterator[str]:
    """Yield the description of the HDF5 layout as the code that writes it gives it."""
    from aiida_autopipe.core import hdf5

    yield "```text"
    yield inspect.getdoc(hdf5) or ""
    yield "```"
