"""pydantic's validation errors in plain English: key, value, what is valid."""

from __future__ import annotations

import difflib
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_TYPES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each problem, such as ``md.steps: 0 must be greater than 0``.

    :param model: the model whose validation failed; its fields are the suggestions.
    """
    return [_explain_one(detail, model) for detail in error.errors(include_url=False)]


def unknown_choice(key: str, value: Any, choices: Sequence[str]) -> str:
    """The line for a value that is none of ``choices``."""
    nearest = _nearest(str(value), choices)
    suggestion = f"did you mean '{nearest}'? " if nearest else ""
    listed = ", ".join(choices)
    return f"{key}: {value!r} is not a valid choice; {suggestion}valid: {listed}"


def _explain_one(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, loc, value = detail["type"], detail["loc"], detail["input"]
    context = detail.get("ctx", {})
    key = _key(loc)
    if kind == "extra_forbidden":
        return _unknown_key(key, str(loc[-1]), _model_at(model, loc[:-1]))
    if kind == "missing":
        choices = _choices(model, loc)
        return f"{key}: this key is missing" + (f"; valid: {', '.join(choices)}" if choices else "")
    if kind == "literal_error":
        return unknown_choice(key, value, _choices(model, loc))
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"{key}: {value!r} must be {words} {context[name]:g}"
    if kind in _TYPES:
        return f"{key}: {_show(value)} must be {_TYPES[kind]}"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        names = ", ".join(_names(_model_at(model, loc)))
        return f"{key}: {_show(value)} must be a block of keys ({names})"
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        words = "at least" if kind == "too_short" else "at most"
        unit = "value" if bound == 1 else "values"
        return f"{key}: {_show(value)} must have {words} {bound} {unit}"
    if kind == "string_too_short":
        return f"{key}: must not be empty"
    if kind == "string_pattern_mismatch":
        wanted = (
            "a code label such as pw@localhost"
            if "@" in context["pattern"]
            else "letters, digits, '.', '_' and '-' only, a letter or digit first"
        )
        return f"{key}: {value!r} must be {wanted}"
    if kind == "value_error":
        return f"{key}: {context['error']}" if key else str(context["error"])
    return f"{key}: {_show(value)} is not valid ({detail['msg'].lower()})"


def _unknown_key(key: str, name: str, model: type[BaseModel] | None) -> str:
    names = _names(model)
    nearest = _nearest(name, names)
    if nearest:
        return f"{key}: unknown key; did you mean '{nearest}'?"
    return f"{key}: unknown key; valid: {', '.join(names)}"


def _nearest(name: str, names: Sequence[str]) -> str | None:
    folded = {candidate.lower(): candidate for candidate in names}
    found = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    if found:
        return folded[found[0]]
    # A part of a key, such as 'temperature' for 'temperatures_K' or 'rho' for 'cutoff_rho_Ry'.
    part = [
        n for low, n in folded.items() if len(name) > 2 and (name.lower() in low or low in name)
    ]
    return part[0] if part else None


def _key(loc: Sequence[int | str]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _show(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _names(model: type[BaseModel] | None) -> list[str]:
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _annotation(model: type[BaseModel], loc: Sequence[int | str]) -> Any:
    """The type of the field at ``loc``; None where a part of ``loc`` is no field."""
    current: Any = model
    for part in loc:
        current = _plain(current)  # a section may be null
        if isinstance(part, int):
            arguments = get_args(current)
            current = arguments[0] if arguments else None
        elif isinstance(current, type) and issubclass(current, BaseModel):
            fields = {field.alias or name: field for name, field in current.model_fields.items()}
            current = fields[part].annotation if part in fields else None
        else:
            return None
    return _plain(current)


def _plain(annotation: Any) -> Any:
    """Without ``Annotated`` and ``| None``."""
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _plain(rest[0])
    return annotation


def _model_at(model: type[BaseModel], loc: Sequence[int | str]) -> type[BaseModel] | None:
    found = _annotation(model, loc)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _choices(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    annotation = _annotation(model, loc)
    return [str(c) for c in get_args(annotation)] if get_origin(annotation) is Literal else []
