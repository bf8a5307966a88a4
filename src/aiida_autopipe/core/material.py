"""The material of a run, from what the user wrote to a crystal, an alloy, a molecule or a reaction.

Text is, in this order: an element (its own crystal), an existing file, a tabulated compound, the
name of a molecule, the formula of an alloy of metals or of a compound with a usual prototype. Goals
for molecules look for a molecule first, so that ``NaCl`` means the right thing for both. A block of
keys says it without a choice; see `read_material`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import atomic_names, atomic_numbers, chemical_symbols, reference_states

from aiida_autopipe.core.composition import alloy, check_fractions
from aiida_autopipe.core.crystal import (
    Material,
    element_crystal,
    material_from_atoms,
    read_structure,
)
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.molecule import (
    check_molecule,
    is_molecule_name,
    read_molecule,
    read_path,
    read_reaction,
)
from aiida_autopipe.core.prototypes import (
    NONMETALS,
    PROTOTYPES,
    KnownCrystal,
    from_prototype,
    guess,
    parse_formula,
    reduced,
    tabulated,
)

__all__ = ["FORMS", "Material", "material_from_atoms", "read_material"]

FORMS = {
    "composition": ("composition", "lattice", "a_A", "atoms"),
    "formula": ("formula", "prototype", "a_A", "c_A"),
    "molecule": ("molecule",),
    "reactants": ("reactants", "products"),
    "path": ("path",),
}
"""Blocks of keys a material may be, each by the key that it must have. A block whose keys are
elements is a composition."""

_WORD = re.compile(r"[A-Za-z]+")
_ELEMENTS = tuple(chemical_symbols[1:])
_WANTED = (
    "give an element (Si), a formula (NaCl), a composition ({Fe: 0.5, Ni: 0.5}), a molecule (H2O) "
    "or a structure file (CIF, POSCAR, extxyz)"
)


def read_material(
    spec: str | Mapping[str, Any], base_dir: Path, prefer_molecule: bool = False
) -> Material:
    """Turn the ``material`` of an input file into structures.

    :param spec: text, or a block: fractions by element, or one of `FORMS`.
    :param base_dir: folder that files are relative to.
    :param prefer_molecule: a name that is a crystal and a molecule means the molecule.
    :raises InputError: one sentence that names the key, the value and what would be valid.
    """
    if isinstance(spec, Mapping):
        return _from_block(spec, base_dir)
    text = spec.strip()
    if not text:
        raise InputError(f"material is empty; {_WANTED}")
    if prefer_molecule and is_molecule_name(text) and text not in atomic_numbers:
        return _molecule(read_molecule(text, base_dir), text)
    if text in atomic_numbers and text != "X":
        return material_from_atoms(element_crystal(text), label=text)
    path = Path(text).expanduser()
    path = path if path.is_absolute() else base_dir / path
    if path.exists() or (_looks_like_a_path(text) and not set(text) & set("{}:,")):
        atoms = read_structure(path, text)
        if not atoms.pbc.any() and len(atoms):
            return _molecule(check_molecule(atoms, f"material '{text}'"), text)
        return material_from_atoms(atoms, label=atoms.get_chemical_formula(), source=text)
    return _from_formula(text, base_dir)


def _from_formula(text: str, base_dir: Path) -> Material:
    counts = parse_formula(text)
    known = tabulated(counts) if counts else None
    if known is not None:
        return _compound(known, text)
    if is_molecule_name(text):
        return _molecule(read_molecule(text, base_dir), text)
    if counts is None:
        raise InputError(_explain_name(text))
    if len(counts) == 1:
        symbol = next(iter(counts))
        raise InputError(f"material '{text}': write 'material: {symbol}' for the element")
    if _is_alloy(counts):
        total = sum(counts.values())
        return _alloy(check_fractions({s: n / total for s, n in counts.items()}), text)
    usual = guess(counts)
    if usual is None:
        raise InputError(
            f"material '{text}': no crystal structure is known for this formula; give a structure "
            f"file, or {{formula: {text}, prototype: ..., a_A: ...}} with a prototype of "
            f"{', '.join(PROTOTYPES)}"
        )
    return _compound(usual, text)


def _is_alloy(counts: Mapping[str, float]) -> bool:
    """Metals mix on one lattice, and so do elements that all have the diamond structure."""
    kinds = {(reference_states[atomic_numbers[s]] or {}).get("symmetry") for s in counts}
    return not set(counts) & NONMETALS or kinds == {"diamond"}


def _from_block(spec: Mapping[str, Any], base_dir: Path) -> Material:
    if not spec:
        raise InputError(f"material is empty; {_WANTED}")
    if all(key in atomic_numbers for key in spec):
        return _alloy(check_fractions(spec))
    form = next((FORMS[key] for key in FORMS if key in spec), None)
    if form is None and "products" in spec:
        raise InputError("material.reactants: this key is missing; a reaction has both ends")
    if form is None:
        raise InputError(_explain_key(str(next(k for k in spec if k not in atomic_numbers))))
    unknown = [str(key) for key in spec if key not in form]
    if unknown:
        near = get_close_matches(unknown[0], form, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"valid: {', '.join(form)}"
        raise InputError(f"material.{unknown[0]}: unknown key; {hint}")
    for key in spec:
        _check_type(str(key), spec[key])
    if "composition" in spec:
        given = check_fractions(spec["composition"])
        return _alloy(given, None, spec.get("lattice"), spec.get("a_A"), spec.get("atoms"))
    if "formula" in spec:
        return _chosen_prototype(spec)
    if "molecule" in spec:
        return _molecule(read_molecule(spec["molecule"], base_dir), str(spec["molecule"]))
    if "path" in spec:
        return _reaction(read_path(spec["path"], base_dir), Path(spec["path"]).stem)
    if "products" not in spec:
        raise InputError("material.products: this key is missing; a reaction has both ends")
    ends = read_reaction(spec["reactants"], spec["products"], base_dir)
    label = f"{Path(spec['reactants']).stem} to {Path(spec['products']).stem}"
    return _reaction(ends, label)


def _check_type(key: str, value: Any) -> None:
    if key == "composition":
        if not isinstance(value, Mapping):
            raise InputError(f"material.{key}: {value!r} must be a block such as {{Fe: 0.5, ...}}")
    elif key in ("a_A", "c_A"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 1 < value < 100:
            raise InputError(f"material.{key}: {value!r} must be a number of Å, from 1 to 100")
    elif key == "atoms":
        if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 200:
            raise InputError(f"material.{key}: {value!r} must be a whole number from 2 to 200")
    elif not isinstance(value, str) or not value.strip():
        raise InputError(f"material.{key}: {value!r} must be text")


def _chosen_prototype(spec: Mapping[str, Any]) -> Material:
    text = spec["formula"]
    counts = parse_formula(text)
    if counts is None:
        raise InputError(f"material.formula: {text!r} is no formula of known elements")
    known = tabulated(counts) or guess(counts)
    name = spec.get("prototype") or (known.prototype if known else None)
    if name is None:
        raise InputError(
            f"material.prototype: this key is missing; no structure is known for {text}; valid: "
            f"{', '.join(PROTOTYPES)}"
        )
    name = "cesiumchloride" if name == "B2" else name
    a, c = spec.get("a_A"), spec.get("c_A")
    if known is not None and known.prototype == name and a is None and c is None:
        return _compound(known, text)
    ratio = reduced(counts)
    wanted = PROTOTYPES[name].counts if name in PROTOTYPES else tuple(ratio.values())
    # In the order of the formula, or turned round where only that fits the prototype.
    orders = [list(ratio), list(ratio)[::-1]]
    fitting = [order for order in orders if tuple(ratio[s] for s in order) == wanted]
    if len(ratio) != 2 or not fitting:
        raise InputError(
            f"material.prototype: {name} has {wanted[0]:g} atoms of one element for {wanted[1]:g} "
            f"of another, {text} does not"
        )
    first, second = fitting[0]
    return _compound(from_prototype(name, first, second, a, c), text)


def _compound(known: KnownCrystal, label: str) -> Material:
    return replace(material_from_atoms(known.atoms(), label=label), note=known.describe())


def _alloy(
    fractions: Mapping[str, float],
    label: str | None = None,
    lattice: str | None = None,
    a: float | None = None,
    atoms: int | None = None,
) -> Material:
    made = alloy(fractions, lattice, a, atoms)
    if label is None:
        label = "-".join(f"{s}{x:.3g}" for s, x in made.composition.items())
    return replace(
        material_from_atoms(made.cell, label=label),
        kind="alloy",
        note=made.describe(),
        composition=made.composition,
        lattice=made.lattice.primitive(max(made.composition, key=lambda s: made.composition[s])),
    )


def _molecule(atoms: Atoms, label: str) -> Material:
    return Material(label, atoms, atoms, "", 0, kind="molecule")


def _reaction(path: list[Atoms], label: str) -> Material:
    return Material(label, path[0], path[0], "", 0, kind="reaction", path=tuple(path))


def _looks_like_a_path(text: str) -> bool:
    suffix = re.fullmatch(r"\.[A-Za-z]\w*", Path(text).suffix)
    return "/" in text or bool(suffix) or text.upper().startswith(("POSCAR", "CONTCAR"))


def _explain_key(key: str) -> str:
    if _WORD.fullmatch(key) and len(key) <= 2:
        return f"material: {key!r} is no chemical element; did you mean '{_nearest_element(key)}'?"
    near = get_close_matches(key, [k for form in FORMS.values() for k in form], n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"valid: {', '.join(FORMS)}, or elements"
    return f"material.{key}: unknown key; {hint}"


def _explain_name(text: str) -> str:
    if any(character in text for character in "{}:, "):
        return (
            f"material '{text}': a composition is a block and no text, without quotation marks: "
            "{Fe: 0.5, Ni: 0.5}"
        )
    tokens = re.findall(r"[A-Z][a-z]?", text)
    wrong = [token for token in tokens if token not in atomic_numbers]
    if len(tokens) > 1 and wrong and re.fullmatch(r"([A-Z][a-z]?[0-9.]*)+", text):
        return (
            f"material '{text}': {wrong[0]} is no chemical element; did you mean "
            f"'{_nearest_element(wrong[0])}'?"
        )
    if not _WORD.fullmatch(text):
        return f"material '{text}': neither an element nor a formula nor an existing structure file"
    return f"unknown element '{text}'; did you mean '{_nearest_element(text)}'?"


def _nearest_element(text: str) -> str:
    names = [name.lower() for name in atomic_names]
    if text.lower() in names:
        return chemical_symbols[names.index(text.lower())]

    def distance(symbol: str) -> tuple[int, int, int]:
        pairs = list(zip(text.lower(), symbol.lower(), strict=False))
        wrong = sum(a != b for a, b in pairs) + abs(len(text) - len(symbol))
        letters = sum(abs(ord(a) - ord(b)) for a, b in pairs)
        return wrong, abs(len(text) - len(symbol)), letters

    return min(_ELEMENTS, key=distance)
