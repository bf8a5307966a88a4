"""From the few lines a user writes to a complete configuration.

Later ones win: protocol, goal, elements, user; then values in the material's own units become
numbers. A user file with every key is therefore its own expansion, and the expanded file of a run
gives the same run again.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from aiida_autopipe.config.errors import explain, unknown_choice
from aiida_autopipe.config.explore import choose_surrogate
from aiida_autopipe.config.goals import GOALS, MOLECULAR, goal_sections, misfit
from aiida_autopipe.config.heuristics import element_defaults, read_table, resolve
from aiida_autopipe.config.loading import load_input
from aiida_autopipe.config.md import follow_uncertainty
from aiida_autopipe.config.models import Config, Generate, Protocol, Section
from aiida_autopipe.config.trainers import foreign_keys, make_paths_absolute
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.recipe import complete_recipe
from aiida_autopipe.core.material import Material, read_material
from aiida_autopipe.core.validate.families import undefined_because

BASE_PROTOCOL = "balanced"
FEWEST_STRUCTURES = 4
"""Labels below which a training and a test set make no sense."""
EXTRA_ATOMS = 1
"""An interstitial has one atom more than its supercell."""


def load_config(path: str | Path) -> tuple[Config, Material]:
    """Read and expand an input file.

    :returns: the complete configuration and its crystal.
    :raises InputError: all problems of the file at once, one line each.
    """
    path = Path(path)
    return expand_with_material(load_input(path), path.resolve().parent, path.stem)


def expand(user: dict[str, Any], base_dir: Path, name: str) -> Config:
    """Complete a user's input; see ``load_config``.

    :param base_dir: folder that a material file is relative to.
    :param name: name of the run where the input has none.
    """
    return expand_with_material(user, base_dir, name)[0]


def expand_with_material(
    user: dict[str, Any], base_dir: Path, name: str
) -> tuple[Config, Material]:
    """As ``expand``, and the crystal that was read for it."""
    user = _without_empty_sections(user)
    problems: list[str] = []
    protocol = user.get("protocol", BASE_PROTOCOL)
    if protocol not in get_args(Protocol):
        problems.append(unknown_choice("protocol", protocol, list(get_args(Protocol))))
        protocol = BASE_PROTOCOL
    goal = user.get("goal")
    material, problem = _read_material(user.get("material"), base_dir, goal in MOLECULAR)
    problems += [problem] if problem else []
    if material is not None and goal in GOALS and (unfit := misfit(goal, material)):
        raise InputError("\n".join([*problems, unfit]))
    # With an unusable material or goal the other keys are still checked, on silicon's defaults.
    valid_goal = goal if goal in GOALS and material is not None else _any_goal(material)
    crystal = material or read_material("Si", base_dir)
    own_defaults = defaults(crystal, protocol, valid_goal)
    merged = merge(own_defaults, {"name": _run_name(name)})
    merged = merge(merged, {**user, "protocol": protocol})
    merged["material"] = "Si" if problem else user.get("material")
    _make_folder_absolute(merged, base_dir)
    make_paths_absolute(merged, base_dir)
    choose_surrogate(merged, crystal, base_dir)
    follow_uncertainty(merged, user)
    problems += foreign_keys(user.get("train"), resolve(own_defaults["train"], crystal))
    config, found = _validated(merged, crystal)
    problems += found
    if config is not None and material is not None:
        problems += _check_with_material(config, material)
    if problems or config is None or material is None:
        raise InputError("\n".join(problems))
    return config, material


def defaults(
    material: Material, protocol: str = BASE_PROTOCOL, goal: str = "elastic"
) -> dict[str, Any]:
    """Default values of every key but name, material and goal.

    Some are in the material's own units; see `aiida_autopipe.config.heuristics.resolve`.
    """
    values = merge(read_table(f"protocols/{BASE_PROTOCOL}.yaml"), {"protocol": protocol})
    if protocol != BASE_PROTOCOL:
        values = merge(values, read_table(f"protocols/{protocol}.yaml"))
    for section in goal_sections(goal, material, protocol):
        values = merge(values, section)
    values = merge(values, element_defaults(material))
    values["generate"]["max_atoms"] = max(
        values["generate"]["max_atoms"], _largest_supercell(values, material)
    )
    return values


def resolved_defaults(
    material: Material, protocol: str = BASE_PROTOCOL, goal: str = "elastic"
) -> dict[str, Any]:
    """As `defaults`, in numbers and with all settings of the generators."""
    return _resolved(defaults(material, protocol, goal), material)


def _resolved(values: dict[str, Any], material: Material) -> dict[str, Any]:
    unresolved = {key: value for key, value in values.items() if key != "material"}
    found: dict[str, Any] = resolve(unresolved, material)
    if "material" in values:
        found["material"] = values["material"]
    generate = found.get("generate")
    if isinstance(generate, dict) and isinstance(generate.get("recipe"), dict):
        generate["recipe"] = complete_recipe(generate["recipe"])
    return found


def _validated(merged: dict[str, Any], material: Material) -> tuple[Config | None, list[str]]:
    try:
        return Config.model_validate(_resolved(merged, material)), []
    except InputError as error:
        return None, [str(error)]
    except ValidationError as error:
        return None, explain(error, Config)


def _largest_supercell(values: dict[str, Any], material: Material) -> int:
    """Atoms of the largest supercell that the defaults ask for."""
    if not material.periodic:
        return len(material.primitive)
    asked = [values["md"]["supercell"]]
    entries = values["generate"]["recipe"].values()
    asked += [entry["repeat"] for entry in entries if entry and entry.get("repeat")]
    repeats = [resolve(one, material) for one in asked]
    return int(max(len(material.primitive) * math.prod(one) for one in repeats)) + EXTRA_ATOMS


def _any_goal(material: Material | None) -> str:
    """A goal that fits, for checking what else is wrong."""
    if material is None:
        return "elastic"
    return next(goal for goal in GOALS if misfit(goal, material) is None)


def merge(base: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``update``: mappings are merged, everything else is replaced."""
    result = dict(base)
    for key, value in update.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def _without_empty_sections(
    values: dict[str, Any], model: type[Section] = Config
) -> dict[str, Any]:
    """Drop sections whose keys are all commented out, as in the template: YAML gives null."""
    sections = {
        field.alias or name: field.annotation
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }
    kept: dict[str, Any] = {}
    for key, value in values.items():
        section = sections.get(key)
        if section is None:
            if value is not None or (model, key) != (Generate, "recipe"):
                kept[key] = value
        elif value is not None:
            kept[key] = (
                _without_empty_sections(value, section) if isinstance(value, dict) else value
            )
    return kept


def _read_material(
    spec: Any, base_dir: Path, prefer_molecule: bool
) -> tuple[Material | None, str | None]:
    if spec is None:
        return None, (
            "material: this key is missing; give an element such as 'Si', a formula, a composition "
            "such as {Fe: 0.5, Ni: 0.5}, a molecule or a structure file"
        )
    if not isinstance(spec, str | dict):
        return None, f"material: {spec!r} must be an element, a formula, a block or a file"
    try:
        return read_material(spec, base_dir, prefer_molecule), None
    except InputError as error:
        message = str(error)
        return None, message if message.startswith("material") else f"material: {message}"


def _make_folder_absolute(values: dict[str, Any], base_dir: Path) -> None:
    """A folder of pseudopotentials must mean the same for processes that run elsewhere."""
    label = values.get("label")
    chosen = label.get("pseudopotentials") if isinstance(label, dict) else None
    if isinstance(chosen, str) and chosen:
        folder = base_dir / Path(chosen).expanduser()
        if folder.is_dir():
            values["label"] = {**values["label"], "pseudopotentials": str(folder.resolve())}


def _check_with_material(config: Config, material: Material) -> list[str]:
    problems = []
    isolated = len(material.elements)
    if config.budget.labels < isolated + FEWEST_STRUCTURES:
        problems.append(
            f"budget.labels: {config.budget.labels} is too few: {isolated} for the isolated atoms "
            f"and at least {FEWEST_STRUCTURES} structures to learn from make "
            f"{isolated + FEWEST_STRUCTURES}"
        )
    if not material.periodic:
        return problems + _check_with_molecule(config, material)
    for key, repeats in (
        ("md.supercell", config.md.supercell),
        ("validate.vacancy_supercell", config.validation.vacancy_supercell),
    ):
        if len(material.primitive) * math.prod(repeats) < 2:
            problems.append(f"{key}: {list(repeats)} holds a single atom; give a larger supercell")
    for name in config.validation.properties:
        if why := undefined_because(name, material.primitive):
            problems.append(f"validate.properties: {name!r} is {why}")
    return problems


def _check_with_molecule(config: Config, material: Material) -> list[str]:
    """What only crystals have."""
    problems = []
    what = f"'{material.label}' is a {material.kind} in vacuum"
    if config.validation.properties:
        problems.append(
            f"validate.properties: {config.validation.properties[0]!r} is a property of crystals, "
            f"and {what}; write [] for no validation"
        )
    if "npt" in config.md.ensembles:
        problems.append(f"md.ensembles: 'npt' needs a periodic crystal, and {what}; use nvt or nve")
    if list(config.md.supercell) != [1, 1, 1]:
        problems.append(f"md.supercell: must be [1, 1, 1], since {what}")
    if config.md.schedule_supercell is not None:
        problems.append(f"md.schedule_supercell: must be null, since {what}")
    if config.md.include_vacancy:
        problems.append(f"md.include_vacancy: must be false, since {what}")
    return problems


def _run_name(stem: str) -> str:
    """A file stem as the name of a run: it becomes a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:100] or "run"
