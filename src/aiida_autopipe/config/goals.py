"""Goals: which materials they fit, and what they add to a protocol (see goals.yaml)."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from aiida_autopipe.config.heuristics import read_table
from aiida_autopipe.config.models import Goal
from aiida_autopipe.core.material import Material

GOALS: tuple[str, ...] = get_args(Goal)
MOLECULAR = frozenset({"molecule", "reaction"})
"""Goals for which a name means a molecule before it means a crystal."""

_ARTICLES = {
    "element": "an element",
    "compound": "a compound",
    "crystal": "a crystal",
    "alloy": "an alloy",
    "molecule": "a molecule",
    "reaction": "a reaction",
}


@cache
def goal_table() -> dict[str, dict[str, Any]]:
    """The content of goals.yaml, by goal."""
    return read_table("goals.yaml")


def kinds(material: Material) -> tuple[str, ...]:
    """What a material is, the general word first: ('crystal', 'element'), ('alloy',), ..."""
    if material.kind != "crystal":
        return (material.kind,)
    return ("crystal", "element" if len(material.elements) == 1 else "compound")


def misfit(goal: str, material: Material) -> str | None:
    """Why a goal does not fit a material, in a sentence; None where it does."""
    fitting = goal_table()[goal]["materials"]
    own = kinds(material)
    if set(fitting) & set(own):
        return None
    wanted = " or ".join(_ARTICLES[kind] for kind in fitting)
    others = [name for name, table in goal_table().items() if set(table["materials"]) & set(own)]
    return (
        f"goal: '{goal}' is for {wanted}, and '{material.label}' is {_ARTICLES[own[-1]]}; "
        f"valid for it: {', '.join(others)}"
    )


def goal_sections(goal: str, material: Material, protocol: str) -> list[dict[str, Any]]:
    """What a goal adds to the defaults, in the order in which later ones win."""
    table = goal_table()[goal]
    names = ["all", *kinds(material), protocol]
    return [table[name] for name in names if name in table]
