"""The ASE calculator of generators that need forces: an object, or a surrogate by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ase.calculators.calculator import BaseCalculator

from aiida_autopipe.core.errors import EngineError, InputError
from aiida_autopipe.core.surrogates.registry import SurrogateSpec, load_surrogate


def make_calculator(
    calculator: BaseCalculator | str,
    keywords: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> BaseCalculator:
    """The object itself, or the calculator of a surrogate.

    Args:
        calculator: an ASE calculator, or what names a surrogate: see `surrogates.SurrogateSpec`,
            for example 'ase.calculators.emt.EMT' or a model file.
        keywords: for the surrogate.
        trust: open files that can run code, such as a `.model` of MACE.

    Raises:
        InputError: no such surrogate, keywords it does not take, or keywords beside an object.
        PotentialFileError: its file cannot be used.
        EngineError: its package is not installed.
    """
    if not isinstance(calculator, str):
        if keywords:
            raise InputError("keywords belong to a calculator that is given by its name.")
        return calculator
    spec = SurrogateSpec(surrogate=calculator, keywords=dict(keywords or {}), trust=trust)
    made: BaseCalculator = load_surrogate(spec).calculator
    return made


def forces_of(atoms: Any, calculator: BaseCalculator) -> Any:
    """Forces (n, 3) in eV/Å.

    Raises:
        EngineError: the calculator fails.
    """
    atoms.calc = calculator
    try:
        return atoms.get_forces()
    # Calculators raise whatever their programs happen to raise; all of it means "no forces".
    except Exception as error:
        raise EngineError(
            f"The calculator {type(calculator).__name__} gives no forces of "
            f"{atoms.get_chemical_formula()} ({type(error).__name__}: {error})."
        ) from error
