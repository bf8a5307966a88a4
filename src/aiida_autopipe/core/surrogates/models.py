"""The surrogates of this package, each a function that returns an ASE calculator.

Their packages are large and optional; each is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ase.data import chemical_symbols

from aiida_autopipe.core.ace.calculator import ACECalculator
from aiida_autopipe.core.errors import EngineError, InputError
from aiida_autopipe.core.mace_model import Device, choose_device, load_model, require, silent
from aiida_autopipe.core.oracle.settings import AseSettings
from aiida_autopipe.core.oracle.worker import Refused, check_names, find_class, make
from aiida_autopipe.core.surrogates.registry import MACE_OFF_PREFIX, MACE_PREFIX

INSTALL = "install it with pip install 'aiida-autopipe[surrogates]'"
LAST_OF_CHGNET = 94
"""Plutonium, the last element in the embedding of CHGNet."""


def chgnet(*, device: Device = "auto", model: str | None = None) -> Any:
    """CHGNet (Deng et al., Nat. Mach. Intell. 5, 1031 (2023)); its weights are in its package.

    Args:
        device: where to compute.
        model: version of the weights, such as '0.3.0'; None takes that of the package.
    """
    torch = _torch("chgnet")
    dynamics = _import("chgnet.model.dynamics", "chgnet", "chgnet")
    networks = _import("chgnet.model", "chgnet", "chgnet")
    place = choose_device(torch, device)
    options = {} if model is None else {"model_name": model}
    with silent(), _single_precision(torch):
        network = networks.CHGNet.load(verbose=False, use_device=place, **options)
        calculator = dynamics.CHGNetCalculator(
            network, use_device=place, on_isolated_atoms="ignore"
        )
    _calculate_in_single_precision(calculator, torch)
    calculator.surrogate_elements = tuple(chemical_symbols[1 : LAST_OF_CHGNET + 1])
    calculator.surrogate_periodic_only = True
    return calculator


def sevennet(*, device: Device = "auto", model: str = "7net-0") -> Any:
    """SevenNet (Park et al., J. Chem. Theory Comput. 20, 4857 (2024)), with weights in its package.

    Args:
        device: where to compute.
        model: one of SevenNet's own names of models.
    """
    torch = _torch("sevennet")
    if _is_installed("mace"):
        require(
            "mace"
        )  # Before SevenNet: it makes e3nn read its constants in new versions of torch.
    calculators = _import("sevenn.calculator", "sevennet", "sevenn")
    place = choose_device(torch, device)
    with silent(), _single_precision(torch):
        calculator = calculators.SevenNetCalculator(model, device=torch.device(place))
    _calculate_in_single_precision(calculator, torch)
    calculator.surrogate_elements = tuple(chemical_symbols[z] for z in calculator.type_map)
    return calculator


def mace(
    *,
    model: str = f"{MACE_PREFIX}medium-mpa-0",
    device: Device = "auto",
    trust: bool = False,
    dtype: str = "float32",
    head: str | None = None,
) -> Any:
    """MACE (Batatia et al., NeurIPS 35, 11423 (2022)): a model file, or a foundation model by name.

    Args:
        model: a `.model` file, which is opened only with `trust`; or 'mace:NAME' or
            'mace-off:NAME', which MACE itself downloads from its authors once and keeps.
        device: where to compute.
        trust: open a file, which is a pickle and can run any program its author put inside.
        dtype: precision, 'float32' or 'float64'.
        head: of a model with several; None takes 'default' where there is one, else the last.
    """
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype of the surrogate 'mace' is '{dtype}'; take float32 or float64.")
    if model.startswith((MACE_PREFIX, MACE_OFF_PREFIX)):
        network = _foundation_model(model)
    else:
        network = load_model(Path(model).expanduser(), trust=trust)
    torch, calculators = require("torch"), require("mace.calculators")
    place = choose_device(torch, device)
    with silent():
        network = network.to(place)
        calculator = calculators.MACECalculator(
            models=[network], device=place, default_dtype=dtype, head=_head(network, head)
        )
    calculator.surrogate_elements = tuple(chemical_symbols[int(z)] for z in network.atomic_numbers)
    return calculator


def ace(*, model: str) -> Any:
    """An ACE potential of this package, a .yace or B-basis .yaml file."""
    calculator = ACECalculator(Path(model).expanduser(), gamma=False)
    calculator.surrogate_elements = tuple(calculator.potential.elements)  # type: ignore[attr-defined]
    return calculator


def ase(*, calculator: str, keywords: Mapping[str, Any] | None = None) -> Any:
    """Any ASE calculator.

    Args:
        calculator: import path of its class.
        keywords: passed to the class; JSON values.
    """
    settings = AseSettings(calculator, dict(keywords or {}))
    try:
        kind = find_class(settings.calculator)
        check_names(kind, settings.keywords)
        return make(kind, settings.keywords)
    except Refused as error:
        if error.kind == "import":
            raise EngineError(f"The calculator {calculator} cannot be used: {error}.") from error
        raise InputError(
            f"The calculator {calculator} cannot be made with its keywords: {error}."
        ) from error


@contextmanager
def _single_precision(torch: ModuleType) -> Iterator[None]:
    """PyTorch makes numbers of single precision; other models change that for the whole process."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _calculate_in_single_precision(calculator: Any, torch: ModuleType) -> None:
    calculate = calculator.calculate

    def in_single_precision(*arguments: Any, **keywords: Any) -> None:
        with _single_precision(torch):
            calculate(*arguments, **keywords)

    calculator.calculate = in_single_precision


def _foundation_model(text: str) -> Any:
    prefix, name = text.split(":", 1)
    foundations = require("mace.calculators.foundations_models")
    urls = foundations.mace_mp_urls if prefix + ":" == MACE_PREFIX else foundations.mace_off_urls
    if name not in urls:
        raise InputError(
            f"MACE has no foundation model '{name}'; after '{prefix}:' it can be {', '.join(urls)}."
        )
    loader = foundations.mace_mp if prefix + ":" == MACE_PREFIX else foundations.mace_off
    try:
        with silent():
            return loader(model=name, device="cpu", return_raw_model=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EngineError(
            f"The weights of '{text}' are not on this machine and cannot be downloaded ({reason}): "
            "fetch the .model file elsewhere and name it instead, or take chgnet, whose weights "
            "come with it."
        ) from error


def _head(network: Any, wanted: str | None) -> str | None:
    heads = [str(head) for head in getattr(network, "heads", None) or []]
    if wanted is not None and wanted not in heads:
        raise InputError(f"The MACE model has no head '{wanted}'; it has {', '.join(heads)}.")
    if wanted is not None or len(heads) < 2:
        return wanted
    return next((head for head in heads if head.lower() == "default"), heads[-1])


def _torch(surrogate: str) -> ModuleType:
    return _import("torch", surrogate, "torch")


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _import(module: str, surrogate: str, package: str) -> ModuleType:
    try:
        with silent():
            return importlib.import_module(module)
    except ImportError as error:
        raise EngineError(
            f"The surrogate '{surrogate}' needs the package {package}: {INSTALL} ({error})."
        ) from error
