"""Generators by name: plain functions that packages register as entry points.

A generator is a function ::

    def name(crystal: Atoms, rng: np.random.Generator, **settings) -> list[Atoms]

whose settings are keyword-only, each with a type and a default. Every structure it returns carries
`info['origin']` and `info['parameters']` (JSON text), which `strain.mark` writes. A package
registers it in its `pyproject.toml`::

    [project.entry-points."autopipe.generators"]
    my_generator = "my_package.module:function"
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np
from ase import Atoms

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.values import as_type

GROUP = "autopipe.generators"
"""Entry-point group of the generators."""

Generator = Callable[..., list[Atoms]]


@cache
def _points() -> dict[str, EntryPoint]:
    """The registered generators; reading what is installed takes a tenth of a second each time."""
    return {point.name: point for point in reversed(list(entry_points(group=GROUP)))}


def generator_names() -> list[str]:
    """Names of all generators that are installed, alphabetical."""
    return sorted(_points())


def load_generator(name: str) -> Generator:
    """The function that is registered under a name.

    Raises:
        InputError: no such generator, it cannot be imported, or it is not one.
    """
    point = _points().get(name)
    if point is None:
        raise InputError(f"There is no generator '{name}'; {_hint(name, generator_names())}")
    try:
        function = point.load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"The generator '{name}' cannot be loaded from '{point.value}' ({error}): "
            "reinstall the package that brings it."
        ) from error
    _settings_of(name, function)
    return function  # type: ignore[no-any-return]


def generator_settings(name: str) -> dict[str, inspect.Parameter]:
    """Settings of a generator: name -> parameter with its default and its type as an object.

    Raises:
        InputError: as `load_generator`.
    """
    return _settings_of(name, load_generator(name))


def generator_summary(name: str) -> str:
    """The first line of a generator's docstring.

    Raises:
        InputError: as `load_generator`.
    """
    return (inspect.getdoc(load_generator(name)) or "").partition("\n")[0]


def check_generator_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings in the types that the generator declares; nothing is generated.

    Args:
        name: of the generator.
        settings: plain values, as they come from a configuration or a command line; those that are
            missing keep their defaults and are missing in the result too.

    Raises:
        InputError: as `load_generator`; an unknown setting, or a value of another type.
    """
    known = generator_settings(name)
    chosen = {}
    for key, value in settings.items():
        if key not in known:
            raise InputError(
                f"'{key}' is no setting of the generator '{name}'; {_hint(str(key), list(known))}"
            )
        chosen[key] = as_type(value, known[key].annotation, f"'{key}' of the generator '{name}'")
    return chosen


def call_generator(
    name: str, crystal: Atoms, rng: np.random.Generator, settings: Mapping[str, Any]
) -> list[Atoms]:
    """The structures a generator makes of one crystal.

    Args:
        name: of the generator.
        crystal: the primitive cell, or the molecule.
        rng: source of all randomness.
        settings: what differs from the generator's defaults.

    Raises:
        InputError: as `check_generator_settings`, what the generator itself refuses, or a result
            without origin and parameters.
    """
    chosen = check_generator_settings(name, settings)
    if not len(crystal):
        raise InputError(f"The generator '{name}' cannot start from a structure without atoms.")
    made = load_generator(name)(crystal, rng, **chosen)
    for atoms in made:
        if not isinstance(atoms, Atoms) or not _is_marked(atoms):
            raise InputError(
                f"The generator '{name}' made a structure without info['origin'] and "
                "info['parameters'] (JSON text): its author has to add them."
            )
    return made


def _settings_of(name: str, function: Any) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function that keeps to the form of a generator."""
    try:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    except (TypeError, ValueError, NameError) as error:
        raise InputError(
            f"The generator '{name}' is no function with readable types ({error}): its author has "
            "to correct it."
        ) from error
    leading, settings = parameters[:2], parameters[2:]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    typed = all(
        setting.kind is inspect.Parameter.KEYWORD_ONLY
        and setting.default is not inspect.Parameter.empty
        and setting.annotation is not inspect.Parameter.empty
        for setting in settings
    )
    if len(leading) < 2 or any(p.kind not in positional for p in leading) or not typed:
        raise InputError(
            f"The generator '{name}' must take a crystal, an rng and keyword-only settings, each "
            "with a type and a default: its author has to correct it."
        )
    return {setting.name: setting for setting in settings}


def _is_marked(atoms: Atoms) -> bool:
    try:
        parameters = json.loads(atoms.info["parameters"])
    except (KeyError, TypeError, ValueError):
        return False
    origin = atoms.info.get("origin")
    return isinstance(parameters, dict) and isinstance(origin, str) and bool(origin)


def _hint(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known) or 'none'}."
