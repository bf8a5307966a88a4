"""Opening MACE model files, and MACE and PyTorch themselves, which come with the extra `mace`."""

from __future__ import annotations

import importlib
import io
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from aiida_autopipe.core.errors import EngineError, InputError, PotentialFileError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "float64"]

MODEL_CLASSES = ("MACE", "ScaleShiftMACE")
_LOAD_ERRORS = (
    AttributeError, EOFError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError,
    pickle.UnpicklingError,
)  # fmt: skip


def require(name: str) -> ModuleType:
    """A module of MACE or PyTorch.

    Raises:
        EngineError: it is not installed.
    """
    try:
        with silent():
            return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(
            "MACE models need the packages mace-torch and torch: install them with "
            f"pip install 'aiida-autopipe[mace]' ({error})."
        ) from error


@contextmanager
def silent() -> Iterator[None]:
    """Without what MACE and its dependencies print and warn of, which no user can act upon."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def choose_device(torch: ModuleType, device: Device) -> str:
    """'cuda' or 'cpu'; 'auto' takes a GPU where PyTorch finds one.

    Raises:
        InputError: 'cuda' without a GPU.
    """
    has_gpu = bool(torch.cuda.is_available())
    if device == "cuda" and not has_gpu:
        raise InputError("PyTorch finds no GPU here; leave the device to 'auto', or take 'cpu'.")
    return "cuda" if has_gpu and device != "cpu" else "cpu"


def load_model(path: str | Path, *, trust: bool) -> Any:
    """The PyTorch module in a model file as MACE writes it (`NAME.model`), on the processor.

    Args:
        path: the file.
        trust: must be True. MACE saves its models as pickles, and opening a pickle runs whatever
            program its author put inside.

    Raises:
        InputError: no trust.
        PotentialFileError: no such file, or not a MACE model.
        EngineError: MACE is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise PotentialFileError(f"There is no model file '{path}'.")
    if not trust:
        raise InputError(
            f"'{path}' is a pickle, and opening it runs whatever its author put inside; if "
            "you know where it is from, allow it with --trust (trust=True in Python)."
        )
    require("mace")  # Before torch.load: e3nn reads its own constants at import.
    torch = require("torch")
    try:
        with silent():
            model = torch.load(path, map_location="cpu", weights_only=False)
    except _LOAD_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise PotentialFileError(
            f"'{path}' cannot be opened as a MACE model: {type(error).__name__}: {reason}."
        ) from error
    try:
        check_model(model)
    except PotentialFileError as error:
        raise PotentialFileError(f"'{path}': {error}") from error
    return model


def check_model(model: Any) -> None:
    """Refuse what is no MACE model, and one that wants more than a structure.

    Raises:
        PotentialFileError: with what it is.
    """
    if type(model).__name__ not in MODEL_CLASSES:
        raise PotentialFileError(
            f"it holds a {type(model).__name__}, not a {' or '.join(MODEL_CLASSES)} model."
        )
    if getattr(model, "embedding_specs", None):
        raise PotentialFileError(
            "the MACE model wants more than a structure (a charge, a spin or the like): "
            f"{', '.join(model.embedding_specs)}; take a model without."
        )
