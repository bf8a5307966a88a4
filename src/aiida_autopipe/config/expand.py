"""From the few lines a user writes to a complete configuration.

Later ones win: protocol, material (through its heuristics), goal, user. A user file with every key
is therefore its own expansion, and the expanded file of a run gives the same run again.
"""

from __future__ import annotations

import math
import re
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from aiida_autopipe.config.errors import explain, unknown_choice
from aiida_autopipe.config.heuristics import material_defaults
from aiida_autopipe.config.loading import load_input, parse_input
from aiida_autopipe.config.models import Config, Protocol, Section
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.material import Material, read_material

BASE_PROTOCOL = "balanced"
FEWEST_STRUCTURES = 4
"""Labels below which a training and a test set make no sense."""
_ELASTIC_PROPERTIES = ["lattice_constant", "bulk_modulus", "C11", "C12", "C44"]


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
    material, problem = _read_material(user.get("material"), base_dir)
    problems += [problem] if problem else []
    # With an unusable material the other keys are still checked, on silicon's defaults.
    crystal = material or read_material("Si", base_dir)
    merged = merge(defaults(crystal, protocol), {"name": _run_name(name), "protocol": protocol})
    merged = merge(merged, {**user, "protocol": protocol})
    if problem:
        merged["material"] = "Si"
    _make_folder_absolute(merged, base_dir)
    config: Config | None = None
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        problems += explain(error, Config)
    if config is not None and material is not None:
        problems += _check_with_material(config, material)
    if problems or config is None or material is None:
        raise InputError("\n".join(problems))
    return config, material


def defaults(material: Material, protocol: str = BASE_PROTOCOL) -> dict[str, Any]:
    """Default values of every key but name, material and goal."""
    values = merge(_protocol_file(BASE_PROTOCOL), {"protocol": protocol})
    if protocol != BASE_PROTOCOL:
        values = merge(values, _protocol_file(protocol))
    rules = values.pop("heuristics")
    values = merge(values, material_defaults(material, rules))
    properties = list(_ELASTIC_PROPERTIES)
    if len(material.elements) == 1:
        properties.append("vacancy_formation_energy")
    return merge(values, {"validate": {"properties": properties}})


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
            kept[key] = value
        elif value is not None:
            kept[key] = (
                _without_empty_sections(value, section) if isinstance(value, dict) else value
            )
    return kept


def _read_material(spec: Any, base_dir: Path) -> tuple[Material | None, str | None]:
    if spec is None:
        return (
            None,
            "material: this key is missing; give an element such as 'Si' or a structure file",
        )
    if isinstance(spec, dict):
        return None, (
            "material: compositions are not supported yet; give an element such as 'Si' or a "
            "structure file"
        )
    if not isinstance(spec, str):
        return None, f"material: {spec!r} must be an element such as 'Si' or a structure file"
    try:
        return read_material(spec, base_dir), None
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
    for key, repeats in (
        ("md.supercell", config.md.supercell),
        ("validate.vacancy_supercell", config.validation.vacancy_supercell),
    ):
        if len(material.primitive) * math.prod(repeats) < 2:
            problems.append(f"{key}: {list(repeats)} holds a single atom; give a larger supercell")
    if isolated > 1 and "vacancy_formation_energy" in config.validation.properties:
        problems.append(
            "validate.properties: 'vacancy_formation_energy' is only defined for materials of one "
            f"element, not for {'-'.join(material.elements)}"
        )
    return problems


def _protocol_file(name: str) -> dict[str, Any]:
    file = resources.files("aiida_autopipe.config") / "protocols" / f"{name}.yaml"
    return parse_input(file.read_text(encoding="utf-8"), f"{name}.yaml")


def _run_name(stem: str) -> str:
    """A file stem as the name of a run: it becomes a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:100] or "run"
