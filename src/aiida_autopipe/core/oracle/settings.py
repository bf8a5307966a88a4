"""Settings of an ASE calculator as an oracle, and the method they stand for."""

from __future__ import annotations

import hashlib
import json
import keyword
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from ase.data import atomic_numbers

from aiida_autopipe.core.errors import InputError


@dataclass(frozen=True)
class AseSettings:
    """One calculator with its keywords is one method; the rest says how it is run.

    Attributes:
        calculator: import path of the calculator's class, such as 'ase.calculators.emt.EMT'.
        keywords: passed to the class; JSON values only.
        initial_magmoms: initial magnetic moment by element, Bohr magnetons; part of the method.
        force_threshold: largest force on an atom of a relaxed structure, eV/Å.
        relax_steps: most steps of a relaxation.
        seconds_per_structure: a structure that takes longer is stopped; None is no limit.
        reuse_calculator: keep one calculator per process instead of a new one for each structure;
            for models that take long to load, whose results do not depend on what came before.
    """

    calculator: str
    keywords: dict[str, Any] = field(default_factory=dict)
    initial_magmoms: dict[str, float] = field(default_factory=dict)
    force_threshold: float = 0.01
    relax_steps: int = 200
    seconds_per_structure: float | None = None
    reuse_calculator: bool = False

    def __post_init__(self) -> None:
        _check_path(self.calculator)
        _check_keywords(self.keywords)
        _check_magmoms(self.initial_magmoms)
        _check_positive("force_threshold", self.force_threshold)
        if isinstance(self.relax_steps, bool) or not isinstance(self.relax_steps, int):
            raise InputError(f"relax_steps must be a whole number, not {self.relax_steps!r}.")
        _check_positive("relax_steps", self.relax_steps)
        if self.seconds_per_structure is not None:
            _check_positive("seconds_per_structure", self.seconds_per_structure)
        if not isinstance(self.reuse_calculator, bool):
            raise InputError(
                f"reuse_calculator must be true or false, not {self.reuse_calculator!r}."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AseSettings:
        """Settings from a plain dictionary.

        Raises:
            InputError: a key that is unknown or missing, or a value that cannot be used.
        """
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                near = get_close_matches(str(key), known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
                raise InputError(f"Unknown setting '{key}' of an ASE oracle; {hint}")
        if "calculator" not in values:
            raise InputError(
                "The settings of an ASE oracle need 'calculator', the import path of a class such "
                "as 'ase.calculators.emt.EMT'."
            )
        return cls(**values)

    def method(self, versions: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What makes energies comparable, with a fingerprint over all of it.

        Args:
            versions: of the calculator's package and of ASE; told, but not in the fingerprint,
                which is known before anything has run.
        """
        content = {
            "program": self.calculator,
            "settings": {
                "keywords": _same_numbers(self.keywords),
                "initial_magmoms": _same_numbers(self.initial_magmoms),
            },
        }
        text = json.dumps(content, sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        return {**content, "versions": dict(versions or {}), "fingerprint": fingerprint}


def _check_path(path: Any) -> None:
    """An import path is code: nothing but names with dots between them."""
    words = path.split(".") if isinstance(path, str) else []
    named = all(word.isidentifier() and not keyword.iskeyword(word) for word in words)
    if len(words) < 2 or not named or not path.isascii():
        raise InputError(
            f"The calculator {path!r} must be the import path of a class, names with dots between "
            "them, such as 'ase.calculators.emt.EMT'."
        )


def _check_keywords(keywords: Any) -> None:
    if not isinstance(keywords, Mapping):
        raise InputError(f"keywords must be a mapping of names to values, not {keywords!r}.")
    for name, value in keywords.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"The keyword {name!r} is not a name that a class can take.")
        if not _is_json(value):
            raise InputError(
                f"The keyword {name} is {value!r}; only finite numbers, text, true, false, null, "
                "and lists and mappings of them can be passed to a calculator."
            )


def _is_json(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(entry) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return all(_is_json(entry) for entry in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)


def _check_magmoms(moments: Any) -> None:
    if not isinstance(moments, Mapping):
        raise InputError(f"initial_magmoms must map elements to numbers, not {moments!r}.")
    for element, moment in moments.items():
        if element not in atomic_numbers:
            raise InputError(f"initial_magmoms names '{element}', which is no element.")
        if not _is_number(moment):
            raise InputError(f"initial_magmoms of {element} is {moment!r}; it must be a number.")


def _check_positive(name: str, value: Any) -> None:
    if not _is_number(value) or value <= 0:
        raise InputError(f"{name} must be a positive number, not {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _same_numbers(value: Any) -> Any:
    """Written 10 or 10.0, it is the same method and must give the same fingerprint."""
    if isinstance(value, Mapping):
        return {key: _same_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_same_numbers(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
