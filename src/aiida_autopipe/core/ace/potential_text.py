"""Reading and writing the YAML text of potential files: safe, exact, and with clear refusals."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import copysign
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from aiida_autopipe.core.errors import PotentialFileError

try:
    from yaml import CSafeLoader as _Parser
except ImportError:  # PyYAML built without libyaml: same events, ten times slower
    from yaml import SafeLoader as _Parser

# Potential files nest five levels; a hostile one nests until the stack overflows.
_DEEPEST = 32
_SPECIAL = {".nan": "nan", ".inf": "inf"}
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


class Section:
    """A mapping of a potential file that knows where it stands, so that errors can say it."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, Mapping):
            raise PotentialFileError(f"{where} must be a mapping of keys to values.")
        self.data, self.where = data, where

    def __contains__(self, key: object) -> bool:
        return key in self.data

    def get(self, key: Any) -> Any:
        """Value of a key that must be there."""
        if key not in self.data:
            raise PotentialFileError(f"{self.where}: key {_key_text(key)} is missing.")
        return self.data[key]

    def only(self, known: Container[Any]) -> Section:
        """Itself, when no key stands here that this reader does not know."""
        for key in self.data:
            if key not in known:
                raise PotentialFileError(
                    f"{self.where}: key {_key_text(key)} is unknown here and cannot be honoured."
                )
        return self

    def section(self, key: Any) -> Section:
        shown = list(key) if isinstance(key, tuple) else key
        return Section(self.get(key), f"{self.where}, {shown}")

    def sections(self, key: Any) -> list[Section]:
        items = self.get(key) or []
        if not isinstance(items, list):
            raise PotentialFileError(f"{self.where}: '{key}' must be a list.")
        return [Section(item, f"{self.where}, {key} entry {k + 1}") for k, item in enumerate(items)]

    def text(self, key: str, default: str | None = None) -> str:
        if default is not None and key not in self.data:
            return default
        value = self.get(key)
        if not isinstance(value, str):
            raise PotentialFileError(f"{self.where}: '{key}' = {value!r} must be text.")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        if default is not None and key not in self.data:
            return default
        return float(self.numbers(key, ndim=0))

    def integer(self, key: str) -> int:
        return int(self.integers(key, ndim=0))

    def numbers(self, key: str, ndim: int = 1) -> NDArray[np.float64]:
        """Finite floats as an array of `ndim` dimensions."""
        value = self.get(key)
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise PotentialFileError(f"{self.where}: '{key}' must hold numbers.") from error
        if array.ndim != ndim or not np.isfinite(array).all():
            raise PotentialFileError(
                f"{self.where}: '{key}' must hold finite numbers in {ndim} nested list(s)."
            )
        return array

    def vector(self, key: str) -> NDArray[np.float64]:
        """Finite floats, also from a single number."""
        return self.numbers(key) if isinstance(self.get(key), list) else self.numbers(key, 0)[None]

    def flag(self, key: str) -> bool:
        """A truth value, false when the key is not there."""
        value = self.data.get(key, False)
        if not isinstance(value, bool):
            raise PotentialFileError(f"{self.where}: '{key}' = {value!r} must be true or false.")
        return value

    def integers(self, key: str, ndim: int = 1) -> NDArray[np.int64]:
        array = self.numbers(key, ndim)
        if not (array == np.rint(array)).all() or (np.abs(array) > 1e9).any():
            raise PotentialFileError(f"{self.where}: '{key}' must hold whole numbers.")
        return array.astype(np.int64)

    def integer_tuple(self, key: str) -> tuple[int, ...]:
        return tuple(self.integers(key).tolist())


def _key_text(key: object) -> str:
    return str(list(key)) if isinstance(key, tuple) else f"'{key}'"


@contextmanager
def located(where: str) -> Iterator[None]:
    """Say where in a file a value stands that something else refuses."""
    try:
        yield
    except PotentialFileError as error:
        raise PotentialFileError(f"{where}: {error}") from error


def read_yaml(path: Path) -> Section:
    """The top mapping of a YAML file; PotentialFileError when it cannot be read or parsed."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PotentialFileError(f"{path}: the file cannot be read ({error}).") from error
    try:
        data = _build(yaml.parse(text, Loader=_Parser))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:200]
        raise PotentialFileError(
            f"{path}: not valid YAML, truncated or damaged ({reason})."
        ) from error
    return Section(data, str(path))


def _build(events: Iterable[yaml.Event]) -> object:
    """Data from YAML events: mappings, lists and plain values, lists as keys become tuples.

    Tags, anchors and deep nesting are refused, so a file can neither make objects nor blow up.
    Numbers follow YAML 1.2 (1e-5 is one). Raises yaml.YAMLError.
    """
    stack: list[list[Any]] = [[]]
    for event in events:
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and (
            event.anchor is not None or event.tag is not None or len(stack) > _DEEPEST
        ):
            raise yaml.YAMLError(f"an anchor, a tag or deep nesting {event.start_mark}")
        if isinstance(event, yaml.ScalarEvent):
            unquoted = event.implicit[0]
            stack[-1].append(_scalar(event.value) if unquoted else event.value)
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append([])
        elif isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"alias {event.start_mark}")
        elif isinstance(event, yaml.SequenceEndEvent):
            items = stack.pop()
            stack[-1].append(items)
        elif isinstance(event, yaml.MappingEndEvent):
            items = stack.pop()
            stack[-1].append(_mapping(items, event))
    return stack[0][0] if stack[0] else None


def _mapping(items: list[Any], event: yaml.Event) -> dict[Any, Any]:
    keys = [tuple(key) if isinstance(key, list) else key for key in items[::2]]
    try:
        mapping = dict(zip(keys, items[1::2], strict=True))
    except TypeError as error:
        raise yaml.YAMLError(f"a mapping as key before {event.start_mark}") from error
    if len(mapping) != len(keys):
        raise yaml.YAMLError(f"a key occurs twice before {event.start_mark}")
    return mapping


def _scalar(text: str) -> object:
    """Number, truth value, nothing or text."""
    if text[:1] in "+-.0123456789" and text:
        try:
            return int(text)
        except ValueError:
            try:
                return float(_SPECIAL.get(text.lower().lstrip("+-"), text))
            except ValueError:
                return text
    return _WORDS.get(text, text)


def number_text(value: float) -> str:
    """Shortest text that reads back to the same double, with the dot YAML 1.1 wants before an e."""
    value = float(value)
    if value == 0 and copysign(1.0, value) < 0:
        return "-0.0"
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if exponent and "." not in mantissa:
        return f"{mantissa}.0e{exponent}"
    return text


def list_text(values: Iterable[Any]) -> str:
    """Nested lists of numbers, or of symbols, in flow style."""
    parts = []
    for value in values:
        if isinstance(value, str):
            parts.append(symbol_text(value))
        elif isinstance(value, Iterable):
            parts.append(list_text(value))
        else:
            parts.append(number_text(value))
    return "[" + ", ".join(parts) + "]"


def symbol_text(symbol: str) -> str:
    """A chemical symbol, quoted where YAML would read nobelium as 'false'."""
    return f'"{symbol}"' if symbol == "No" else symbol


def mapping_text(items: Mapping[str, str]) -> str:
    """A flow-style mapping of ready texts."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
