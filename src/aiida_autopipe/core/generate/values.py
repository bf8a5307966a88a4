"""Plain values, of a configuration or a command line, in the types a function declares."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from aiida_autopipe.core.errors import InputError

_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}


def as_type(value: Any, annotation: Any, what: str) -> Any:
    """The value as the annotation has it: 1 becomes 1.0 where a float is asked for.

    Args:
        value: anything YAML or JSON can hold, or an object of a declared class.
        annotation: float, int, bool, str, None, Literal, Sequence, list, tuple, Mapping, dict, a
            class, Any, or a union of them.
        what: how errors call the value.

    Raises:
        InputError: another type, or a number that is not finite.
    """
    try:
        return _converted(value, annotation)
    except _OtherTypeError:
        raise InputError(f"{what} must be {_told(annotation)}, not {value!r}.") from None


class _OtherTypeError(Exception):
    """The value is not of the type."""


def _converted(value: Any, annotation: Any) -> Any:
    origin = get_origin(annotation)
    if annotation is Any:
        return value
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, get_args(annotation))
    if origin is Literal:
        return _checked(value, any(value == choice for choice in get_args(annotation)))
    if annotation is None or annotation is type(None):
        return _checked(value, value is None)
    if annotation in _WORDS:
        return _scalar(value, annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(value, get_args(annotation))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _sequence(value, origin, get_args(annotation))
    kind = origin or annotation
    return _checked(value, isinstance(kind, type) and isinstance(value, kind))


def _checked(value: Any, fits: bool) -> Any:
    if not fits:
        raise _OtherTypeError
    return value


def _first_that_fits(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        try:
            return _converted(value, choice)
        except _OtherTypeError:
            continue
    raise _OtherTypeError


def _scalar(value: Any, kind: type) -> Any:
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _checked(value, number and math.isfinite(value))
        return float(value)
    if kind is int:
        return _checked(value, isinstance(value, int) and not isinstance(value, bool))
    return _checked(value, isinstance(value, kind))


def _mapping(value: Any, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    _checked(value, isinstance(value, Mapping))
    key_type, value_type = arguments
    return {_converted(k, key_type): _converted(v, value_type) for k, v in value.items()}


def _sequence(value: Any, origin: type, arguments: tuple[Any, ...]) -> Any:
    _checked(value, isinstance(value, Sequence) and not isinstance(value, str | bytes))
    if origin is tuple and arguments[-1] is not Ellipsis:
        _checked(value, len(value) == len(arguments))
        return tuple(_converted(v, kind) for v, kind in zip(value, arguments, strict=True))
    converted = [_converted(entry, arguments[0]) for entry in value]
    return tuple(converted) if origin is tuple else converted


def _told(annotation: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_told(choice) for choice in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if annotation is None or annotation is type(None):
        return "null"
    if annotation in _WORDS:
        return _WORDS[annotation]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping of {_told(arguments[0])} to {_told(arguments[1])}"
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}, each {_told(arguments[0])}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each {_told(arguments[0])}"
    return f"an object of the class {getattr(annotation, '__name__', annotation)}"
