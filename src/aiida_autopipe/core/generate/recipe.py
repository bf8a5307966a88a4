"""The first pool of a run: a recipe of generators applied to one material, mixed, each once.

A recipe is a mapping of names to settings of generators. The name is that of the generator, or any
other with the generator in the key ``generator``, for a generator that is used twice. The key
``of`` names what the generator starts from: a structure of the material (``primitive``,
``lattice``, ``molecule``, ...), or an entry above, each of whose structures is then a start.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from ase import Atoms

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.registry import (
    call_generator,
    check_generator_settings,
    generator_names,
    generator_settings,
)
from aiida_autopipe.core.generate.unique import unique_structures

Recipe = Mapping[str, Mapping[str, Any] | None]

PATH = "path"
"""The setting of a generator that takes the frames of a reaction."""
GENERATOR, OF = "generator", "of"
"""Keys of an entry that are not settings of its generator."""
MATERIAL_STRUCTURES = ("primitive", "conventional", "lattice", "molecule", "path")
"""What ``of`` may name, beside entries; a material has some of them."""


def check_recipe(recipe: Recipe) -> None:
    """Check a recipe without making anything.

    Raises:
        InputError: an unknown generator or setting, a value of the wrong type, an ``of`` that names
            nothing; the sentence begins with the name of the entry.
    """
    above: list[str] = []
    for name, entry in recipe.items():
        if entry is not None:
            _check_entry(name, entry, above)
            above.append(name)


def complete_recipe(recipe: Recipe) -> dict[str, dict[str, Any] | None]:
    """The recipe with every setting of every generator; entries that cannot be read stay as are."""
    complete: dict[str, dict[str, Any] | None] = {}
    for name, entry in recipe.items():
        if not isinstance(entry, Mapping):
            complete[name] = entry
            continue
        try:
            known = generator_settings(str(entry.get(GENERATOR, name)))
        except InputError:
            complete[name] = dict(entry)
            continue
        defaults = {key: _plain(parameter.default) for key, parameter in known.items()}
        # What is used and what for comes first, then the settings in the generator's order.
        order = [key for key in (GENERATOR, OF) if key in entry]
        merged = {**{key: entry[key] for key in order}, **defaults, **entry}
        complete[name] = merged
    return complete


def generate_pool(
    material: Atoms | Mapping[str, Atoms], settings: Mapping[str, Any], rng: np.random.Generator
) -> Dataset:
    """The structures of a recipe, unlabelled.

    The entries are interleaved in proportion to their numbers, so the first k structures are a mix
    for every k. Each entry has its own random numbers: what one makes does not depend on the
    others. Structures that are the same up to the choice of their cell are made once
    (see `unique`). Columns: origin (str), parameters (JSON text), generation (0), and charge where
    there is any.

    Args:
        material: the primitive cell, or named structures, the first of which is the usual start.
        settings: ``recipe`` and ``max_atoms``.
        rng: source of randomness.

    Raises:
        InputError: see `check_recipe`; a structure above ``max_atoms``, what a generator refuses,
            or nothing to generate.
    """
    structures = {"primitive": material} if isinstance(material, Atoms) else dict(material)
    if unknown := sorted(set(settings) - {"recipe", "max_atoms"}):
        raise InputError(f"'{unknown[0]}' is no key of generate: use recipe and max_atoms.")
    recipe: Recipe = settings.get("recipe", {})
    check_recipe(recipe)
    seed = int(rng.integers(2**62))
    made: dict[str, list[Atoms]] = {}
    for name, entry in recipe.items():
        if entry is not None:
            own = np.random.default_rng([seed, zlib.crc32(name.encode())])
            made[name] = _make(name, entry, structures, made, own)
            _check_sizes(name, made[name], int(settings["max_atoms"]))
    pool = unique_structures(_interleave(list(made.values())))
    if not pool:
        raise InputError(
            "generate.recipe makes no structures: give a generator such as strain or rattle."
        )
    columns = {
        "origin": [atoms.info["origin"] for atoms in pool],
        "parameters": [atoms.info["parameters"] for atoms in pool],
        "generation": [0] * len(pool),
    }
    if any("charge" in atoms.info for atoms in pool):
        columns["charge"] = [int(atoms.info.get("charge", 0)) for atoms in pool]
    return Dataset.from_atoms(pool, columns=columns)


def _check_entry(name: str, entry: Any, above: Sequence[str]) -> None:
    if not isinstance(entry, Mapping):
        raise InputError(f"{name}: {entry!r} must be a block of settings, or null for none")
    generator = entry.get(GENERATOR, name)
    if generator not in generator_names():
        near = get_close_matches(str(generator), generator_names(), n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InputError(
            f"{name}: there is no generator {generator!r}; {hint}valid: "
            f"{', '.join(generator_names())}"
        )
    start = entry.get(OF)
    choices = [*MATERIAL_STRUCTURES, *above]
    if start is not None and start not in choices:
        raise InputError(
            f"{name}.{OF}: {start!r} is not a valid choice; valid: {', '.join(choices)}"
        )
    try:
        check_generator_settings(str(generator), _settings(entry))
    except InputError as error:
        raise InputError(f"{name}: {str(error).removesuffix('.')}") from error


def _settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in (GENERATOR, OF)}


def _make(
    name: str,
    entry: Mapping[str, Any],
    structures: Mapping[str, Atoms],
    made: Mapping[str, list[Atoms]],
    rng: np.random.Generator,
) -> list[Atoms]:
    start = entry.get(OF)
    if start is None:
        starts = [next(iter(structures.values()))]
    elif start in made:
        starts = made[start]
    elif start == "path":
        starts = list(structures.values())
    elif start in structures:
        starts = [structures[start]]
    else:
        raise InputError(
            f"generate.recipe.{name}.{OF}: this material has no '{start}'; it has "
            f"{', '.join([*structures, *made])}"
        )
    generator = str(entry.get(GENERATOR, name))
    settings = _settings(entry)
    frames = [atoms for key, atoms in structures.items() if key.startswith("path_")]
    if frames and settings.get(PATH) is None and PATH in generator_settings(generator):
        # Structures are no plain values, which a recipe could hold.
        settings[PATH] = frames if len(frames) > 2 else frames[1:]
    try:
        return [a for atoms in starts for a in call_generator(generator, atoms, rng, settings)]
    except InputError as error:
        raise InputError(f"generate.recipe.{name}: {error}") from error


def _check_sizes(name: str, made: Sequence[Atoms], max_atoms: int) -> None:
    largest = max((len(atoms) for atoms in made), default=0)
    if largest > max_atoms:
        raise InputError(
            f"generate.recipe.{name} makes structures of {largest} atoms, more than max_atoms = "
            f"{max_atoms}: make its supercell smaller or raise max_atoms."
        )


def _plain(value: Any) -> Any:
    """A default as YAML and JSON hold it."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _interleave(groups: Sequence[Sequence[Atoms]]) -> list[Atoms]:
    """Merge the groups evenly, each in the order of `_spread_order`."""
    placed = []
    for number, group in enumerate(groups):
        for rank, index in enumerate(_spread_order(len(group))):
            placed.append(((rank + 0.5) / len(group), number, group[index]))
    placed.sort(key=lambda item: item[:2])
    return [atoms for _, _, atoms in placed]


def _spread_order(n: int) -> list[int]:
    """0..n-1 in the order of their bit-reversed values (the van der Corput sequence)."""
    bits = max(1, (n - 1).bit_length())
    return sorted(range(n), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))
