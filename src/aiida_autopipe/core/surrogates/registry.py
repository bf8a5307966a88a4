"""Surrogates by name: plain functions that packages register as entry points.

A surrogate is a function ::

    def name(*, device: str = "auto", **keywords) -> ase.calculators.calculator.Calculator

It may take `trust` too, when it opens files that can run code. The calculator gives energies (eV),
forces (eV/Å) and, for NPT, stresses (eV/Å^3), which depend on the structure alone and not on what
was computed before. It may carry `surrogate_elements`, the chemical symbols it knows, and
`surrogate_periodic_only`, True where it needs a cell. A package registers it in its
`pyproject.toml`::

    [project.entry-points."autopipe.surrogates"]
    my_surrogate = "my_package.module:function"
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from aiida_autopipe.core.errors import AutopipeError, EngineError, InputError, PotentialFileError
from aiida_autopipe.core.files import file_sha256

GROUP = "autopipe.surrogates"
"""Entry-point group of the surrogates."""
AUTO = "auto"
"""Stands for the first universal model of `UNIVERSAL` that is installed."""
UNIVERSAL = {"chgnet": "chgnet", "sevennet": "sevenn"}
"""Surrogates whose weights are in their packages, and these packages."""
DEVICES = ("auto", "cpu", "cuda")
MACE_PREFIX, MACE_OFF_PREFIX = "mace:", "mace-off:"
FILES = {".model": "mace", ".yace": "ace", ".yaml": "ace"}
"""Suffixes of model files, and the surrogates that open them."""

SurrogateFunction = Callable[..., Any]


@dataclass(frozen=True)
class SurrogateSpec:
    """Which surrogate, as plain values that can be sent to another process.

    Attributes:
        surrogate: a registered name; 'auto'; 'mace:NAME' or 'mace-off:NAME', a foundation model of
            MACE; a file (.model of MACE, .yace or .yaml of an ACE); or the import path of the class
            of an ASE calculator, such as 'ase.calculators.emt.EMT'.
        keywords: for the surrogate or the class; JSON values.
        device: 'auto' takes a GPU where there is one.
        trust: open files that can run code, such as a `.model` of MACE.
    """

    surrogate: str
    keywords: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    trust: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.surrogate, str) or not self.surrogate:
            raise InputError(f"The surrogate must be a name or a file, not {self.surrogate!r}.")
        if not isinstance(self.keywords, Mapping):
            raise InputError(
                f"keywords of the surrogate must be a mapping of names to values, not "
                f"{self.keywords!r}."
            )
        if self.device not in DEVICES:
            raise InputError(f"device is '{self.device}'; it can be {', '.join(DEVICES)}.")
        if not isinstance(self.trust, bool):
            raise InputError(f"trust must be true or false, not {self.trust!r}.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SurrogateSpec:
        """A specification from a plain dictionary.

        Raises:
            InputError: a key that is unknown or missing, or a value that cannot be used.
        """
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise InputError(f"Unknown key '{key}' of a surrogate; {_hint(str(key), known)}")
        if "surrogate" not in values:
            raise InputError("A surrogate needs the key 'surrogate', its name or file.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def resolved(self) -> tuple[str, dict[str, Any]]:
        """The registered name and the keywords that this stands for; no model is opened.

        Raises:
            InputError: nothing of that name, no such file, or the name of a file of another kind.
        """
        text, keywords = self.surrogate, dict(self.keywords)
        names = surrogate_names()
        if text == AUTO:
            return default_surrogate(), keywords
        if text in names:
            return text, keywords
        for prefix in (MACE_PREFIX, MACE_OFF_PREFIX):
            if text.startswith(prefix):
                return "mace", {**keywords, "model": text}
        path = Path(text).expanduser()
        if path.suffix.lower() in FILES or path.is_file() or "/" in text:
            return _kind_of_file(path), {**keywords, "model": str(path)}
        if _is_import_path(text):
            return "ase", {"calculator": text, "keywords": keywords}
        near = get_close_matches(text, [*names, AUTO], n=1)
        hint = (
            f"did you mean '{near[0]}'?"
            if near
            else (
                f"there are {', '.join([*names, AUTO])}, model files (.model of MACE, .yace of "
                "an ACE) and calculators by import path, such as ase.calculators.emt.EMT."
            )
        )
        raise InputError(f"There is no surrogate '{text}'; {hint}")


@dataclass
class Surrogate:
    """A surrogate that is loaded.

    Attributes:
        name: as registered.
        calculator: an ASE calculator.
        elements: chemical symbols it knows, None where that is not known.
        periodic_only: it needs a cell in three directions.
        method: what its energies are comparable with: `program`, `settings`, `versions` and a
            `fingerprint` over the first two.
    """

    name: str
    calculator: Any
    elements: tuple[str, ...] | None
    periodic_only: bool
    method: dict[str, Any]
    _make: Callable[[], Any] = field(repr=False)

    def renew(self) -> None:
        """Forget what was computed: classes by import path, which may keep lists, are made anew."""
        if self.name == "ase":
            self.calculator = self._make()
        elif hasattr(self.calculator, "reset"):
            self.calculator.reset()


def load_surrogate(spec: SurrogateSpec) -> Surrogate:
    """Make the calculator of a surrogate.

    Raises:
        InputError: nothing of that name, keywords it does not take, no trust, or no GPU.
        PotentialFileError: its file cannot be used.
        EngineError: its package is not installed, or its weights cannot be downloaded.
    """
    name, keywords = spec.resolved()
    function = _load_function(name)
    taken = inspect.signature(function).parameters
    extra = {"device": spec.device, "trust": spec.trust}
    given = {key: value for key, value in extra.items() if key in taken}
    _check_keywords(name, function, keywords)

    def make() -> Any:
        try:
            return function(**keywords, **given)
        except AutopipeError:
            raise
        except ImportError as error:
            raise EngineError(
                f"The surrogate '{name}' needs a package that is not installed ({error})."
            ) from error
        except Exception as error:
            # A function of another package may fail in any way.
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise InputError(f"The surrogate '{name}' cannot be made: {reason}.") from error

    calculator = make()
    elements = getattr(calculator, "surrogate_elements", None)
    return Surrogate(
        name=name,
        calculator=calculator,
        elements=None if elements is None else tuple(elements),
        periodic_only=bool(getattr(calculator, "surrogate_periodic_only", False)),
        method=_method(name, keywords),
        _make=make,
    )


def surrogate_names() -> list[str]:
    """Names of all surrogates that are registered, alphabetical."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def default_surrogate() -> str:
    """The universal model that is installed with its weights.

    Raises:
        EngineError: there is none.
    """
    found = installed_universal()
    if found is None:
        raise EngineError(
            "No universal model with its weights is installed: type pip install "
            "'aiida-autopipe[surrogates]', or name a file of a MACE model."
        )
    return found


def installed_universal() -> str | None:
    """Name of the first installed surrogate of `UNIVERSAL`; None when there is none."""
    for name, package in UNIVERSAL.items():
        if importlib.util.find_spec(package) is not None:
            return name
    return None


def _kind_of_file(path: Path) -> str:
    if not path.is_file():
        raise PotentialFileError(f"There is no model file '{path}'.")
    kind = FILES.get(path.suffix.lower())
    if kind is None:
        raise PotentialFileError(
            f"'{path}' is no model file that is known by its name: MACE models end in .model, ACE "
            "potentials in .yace or .yaml."
        )
    return kind


def _is_import_path(text: str) -> bool:
    words = text.split(".")
    return len(words) > 1 and all(w.isidentifier() and not keyword.iskeyword(w) for w in words)


def _load_function(name: str) -> SurrogateFunction:
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        raise InputError(f"There is no surrogate '{name}'; {_hint(name, surrogate_names())}")
    try:
        return points[0].load()  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise EngineError(
            f"The surrogate '{name}' cannot be loaded from '{points[0].value}' ({error}): "
            "reinstall the package that brings it."
        ) from error


def _check_keywords(name: str, function: SurrogateFunction, keywords: Mapping[str, Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.name not in ("device", "trust")]
    for key in keywords:
        if key not in known:
            raise InputError(
                f"'{key}' is no keyword of the surrogate '{name}'; {_hint(key, known)}"
            )


def _method(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """What makes energies comparable; a file counts by its content, not by where it is."""
    settings = dict(keywords)
    model = settings.get("model")
    if isinstance(model, str) and Path(model).is_file():
        settings["model"] = {"sha256": file_sha256(Path(model))}
    content = {"program": f"surrogate {name}", "settings": settings}
    text = json.dumps(content, sort_keys=True, default=str)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {**content, "versions": _versions(name), "fingerprint": fingerprint}


def _versions(name: str) -> dict[str, str]:
    packages = {**UNIVERSAL, "mace": "mace-torch"}
    found = {}
    for package in ("ase", "torch", packages.get(name, "")):
        try:
            found[package] = version(package) if package else ""
        except PackageNotFoundError:
            continue
    return {package: number for package, number in found.items() if number}


def _hint(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known are {', '.join(known)}."
