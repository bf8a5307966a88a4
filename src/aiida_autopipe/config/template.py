"""The commented input file of ``mlip-auto init`` and the reference table, both from the models."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from aiida_autopipe.config.expand import resolved_defaults
from aiida_autopipe.config.loading import dump_value
from aiida_autopipe.config.models import Config, Section
from aiida_autopipe.core.generate.registry import generator_summary
from aiida_autopipe.core.material import read_material

_WIDTH = 96
RECIPE = ("generate", "recipe")
_CHOSEN = {"goal": "elastic", "protocol": "balanced"}


@dataclass(frozen=True)
class Key:
    """A key of the input file: its place, its documentation, its default for silicon."""

    path: tuple[str, ...]
    description: str
    default: Any
    choices: tuple[str, ...] = ()
    is_section: bool = False


def iter_keys(protocol: str = "balanced") -> Iterator[Key]:
    """All keys in the order of the file, sections before their keys; defaults are those of Si."""
    values = resolved_defaults(read_material("Si", Path()), protocol)
    values.update(name="silicon", material="Si", goal="elastic")
    yield from _keys(Config, values, ())


def _keys(model: type[Section], values: dict[str, Any], parents: tuple[str, ...]) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        kind = field.annotation
        path = (*parents, key)
        text = field.description or ""
        if isinstance(kind, type) and issubclass(kind, Section):
            yield Key(path, text, None, is_section=True)
            yield from _keys(kind, values[key], path)
        elif path == RECIPE:
            yield Key(path, text, None, is_section=True)
            yield from _generators(values[key])
        else:
            yield Key(path, text, values[key], _choices(kind))


def _generators(recipe: dict[str, Any]) -> Iterator[Key]:
    for name, entry in recipe.items():
        summary = generator_summary(str(entry.get("generator", name)))
        yield Key((*RECIPE, name), summary, entry)


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return tuple(str(choice) for choice in get_args(annotation))
    return next((found for arg in get_args(annotation) if (found := _choices(arg))), ())


def template(name: str, material: str = "Si") -> str:
    """The text of a new input file: two lines to edit, everything else as commented defaults.

    :param name: shown in the first line, as the command to run the file.
    """
    lines = [
        f"## Look at it with `mlip-auto check {name}`, run it with `mlip-auto run {name}`.",
        "## `##` starts an explanation, `#` a key with its default (that of silicon): remove",
        "## the `#` and the space after it to set the key.",
        "",
    ]
    for key in iter_keys():
        depth = len(key.path) - 1
        if key.path == ("name",):
            continue
        if key.path == ("material",):
            lines += [f"## {key.description}", f"material: {dump_value(material)}"]
        elif key.is_section:
            lines += [
                "",
                *_comment(key.description, "  " * depth),
                f"{'  ' * depth}{key.path[-1]}:",
            ]
        else:
            text = key.description
            if key.choices:
                text += f" One of: {', '.join(key.choices)}."
            mark = "" if depth == 0 and key.path[0] in _CHOSEN else "# "
            value = _CHOSEN.get(key.path[0], key.default) if depth == 0 else key.default
            lines += _comment(text, "  " * depth)
            lines.append(f"{'  ' * depth}{mark}{key.path[-1]}: {dump_value(value)}")
    return "\n".join(lines) + "\n"


def reference_table(protocols: tuple[str, ...] = ("fast", "balanced", "stringent")) -> str:
    """Markdown table of every key with its meaning and its default (for silicon) per protocol."""
    columns = {
        protocol: {key.path: key.default for key in iter_keys(protocol)} for protocol in protocols
    }
    rows = [
        "| key | meaning | " + " | ".join(protocols) + " |",
        "| --- " * (2 + len(columns)) + "|",
    ]
    for key in iter_keys():
        if key.is_section:
            continue
        meaning = key.description + (f" One of: {', '.join(key.choices)}." if key.choices else "")
        defaults_ = " | ".join(f"`{dump_value(values[key.path])}`" for values in columns.values())
        rows.append(f"| `{'.'.join(key.path)}` | {meaning} | {defaults_} |")
    return "\n".join(rows) + "\n"


def _comment(text: str, indent: str) -> list[str]:
    joined = " ".join(text.split())
    return textwrap.wrap(
        joined, _WIDTH, initial_indent=f"{indent}## ", subsequent_indent=f"{indent}## "
    )
