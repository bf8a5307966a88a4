"""Reading input files: YAML 1.2 scalars on top of PyYAML's safe loader, errors in one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from aiida_autopipe.core.errors import InputError


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Safe loader: reads ``1e-6`` as a number, ``No`` as text, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                continue  # the parent class says that it cannot be a key
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' appears twice", key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


# YAML 1.1 turns `No` (nobelium) into false, `1:30` into 90 and leaves `1e-6` a text.
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


_NEEDED = "'material: Si' and 'goal: elastic'"


def load_input(path: str | Path, needed: str = _NEEDED) -> dict[str, Any]:
    """Read an input file into a plain dictionary; nothing is expanded or checked yet.

    ``needed`` is what errors say that a file must hold.

    :raises InputError: missing or unreadable file, broken YAML (with the line), not a mapping.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"the input file {path} does not exist")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an input file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file (byte {error.start} is not UTF-8)") from error
    return parse_input(text, str(path), needed)


def parse_input(text: str, name: str, needed: str = _NEEDED) -> dict[str, Any]:
    """Parse the text of an input file; ``name`` is how errors call it. Errors as ``load_input``."""
    try:
        # A subclass of SafeLoader: only plain scalars, lists and mappings can come out.
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{name}{where}: not valid YAML, {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: not valid YAML, {' '.join(str(error).split())}") from error
    if data is None:
        raise InputError(f"{name} is empty; it needs at least {needed}")
    if not isinstance(data, dict):
        raise InputError(f"{name} must hold keys such as {needed}, not a {type(data).__name__}")
    return data


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes what the loader above would misread; keeps lists on one line, as in [2, 2, 2]."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def represent_sequence(
        self, tag: str, sequence: Any, flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        flat = not any(isinstance(item, dict) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=flat or flow_style)


def dump_config(config: dict[str, Any]) -> str:
    """YAML text of an expanded configuration; read again it gives the same dictionary."""
    text: str = yaml.dump(
        config,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=100,
    )
    return text


def dump_value(value: Any) -> str:
    """One value as it is written behind its key, on one line."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=10_000, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...").strip()


def material_words(material: str | dict[str, Any]) -> str:
    """The ``material`` of an input for people: ``Si``, ``Fe0.5 Ni0.5``, ``molecule H2O``."""
    if isinstance(material, str):
        return material
    if all(isinstance(value, int | float) for value in material.values()):
        return " ".join(f"{symbol}{fraction:g}" for symbol, fraction in material.items())
    values = [material_words(v) if isinstance(v, dict) else f"{v}" for v in material.values()]
    return ", ".join(f"{key} {value}" for key, value in zip(material, values, strict=True))
