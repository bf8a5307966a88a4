"""Labels of structures as they are found on ASE Atoms, and their stacking into flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError

ENERGY_KEYS = ("energy", "REF_energy")
FORCES_KEYS = ("forces", "REF_forces")
STRESS_KEYS = ("stress", "REF_stress", "virial", "REF_virial")
_LABEL_INFO = {*ENERGY_KEYS, *STRESS_KEYS, "free_energy", "weight"}


@dataclass(frozen=True)
class Labels:
    """Reference values of one structure; None where there are none.

    Attributes:
        energy: total energy in eV.
        forces: (n, 3) in eV/Å.
        stress: (6,) in eV/Å^3, ASE sign and Voigt order.
        force_mask: (n,) weights 0..1 of the force rows.
        weight: weight of the whole structure.
    """

    energy: float | None
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None
    force_mask: NDArray[np.float64] | None
    weight: float


@dataclass(frozen=True)
class LabelKeys:
    """Names under which labels are found in an extxyz file; None tries the usual ones."""

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None


def read_labels(index: int, atoms: Atoms, keys: LabelKeys) -> Labels:
    if len(atoms) == 0:
        raise DataError(f"Structure {index} has no atoms.")
    energy = _first(atoms.info, ENERGY_KEYS, keys.energy)
    forces = _first(atoms.arrays, FORCES_KEYS, keys.forces)
    stress = _read_stress(atoms, keys.stress)
    if keys.energy is None and energy is None:
        energy = _from_calculator(atoms, "energy")
    if keys.forces is None and forces is None:
        forces = _from_calculator(atoms, "forces")
    if keys.stress is None and stress is None:
        stress = _from_calculator(atoms, "stress")
    if energy is not None and np.size(energy) != 1:
        raise DataError(
            f"Structure {index} has an energy of shape {np.shape(energy)}, not one number."
        )
    if forces is not None and np.shape(forces) != (len(atoms), 3):
        raise DataError(
            f"Structure {index} has forces of shape {np.shape(forces)}; expected ({len(atoms)}, 3)."
        )
    if stress is not None and np.shape(stress) != (6,):
        raise DataError(
            f"Structure {index} has a stress of shape {np.shape(stress)}; expected (6,)."
        )
    mask = atoms.arrays.get("force_mask")
    return Labels(
        energy=None if energy is None else float(np.asarray(energy).item()),
        forces=None if forces is None else np.asarray(forces, dtype=np.float64),
        stress=None if stress is None else np.asarray(stress, dtype=np.float64),
        force_mask=None if mask is None else np.asarray(mask, dtype=np.float64),
        weight=float(atoms.info.get("weight", 1.0)),
    )


def _first(store: Mapping[str, Any], usual: Sequence[str], chosen: str | None) -> Any:
    names = usual if chosen is None else (chosen,)
    return next((store[name] for name in names if name in store), None)


def _read_stress(atoms: Atoms, chosen: str | None) -> Any:
    names = STRESS_KEYS if chosen is None else (chosen,)
    name = next((n for n in names if n in atoms.info), None)
    if name is None:
        return None
    value = np.asarray(atoms.info[name], dtype=np.float64)
    if value.size == 9:
        value = full_3x3_to_voigt_6_stress(value.reshape(3, 3))
    # A virial is -stress * volume in the convention of extxyz files.
    return -value / atoms.get_volume() if "virial" in name.lower() else value


def _from_calculator(atoms: Atoms, name: str) -> Any:
    if atoms.calc is None:
        return None
    try:
        return atoms.calc.get_property(name, atoms, allow_calculation=False)
    except PropertyNotImplementedError:
        return None


def common_info(structures: Sequence[Atoms], keys: LabelKeys) -> dict[str, list[Any]]:
    if not structures:
        return {}
    skip = _LABEL_INFO | {keys.energy, keys.forces, keys.stress}
    names = set.intersection(*(set(atoms.info) for atoms in structures)) - skip
    columns = {}
    for name in sorted(str(n) for n in names):
        values = [atoms.info[name] for atoms in structures]
        kinds = {_kind(v) for v in values}
        if len(kinds) == 1 and kinds != {None}:
            columns[name] = values
    return columns


def _kind(value: Any) -> str | None:
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | float | np.integer | np.floating):
        return "number"
    return "str" if isinstance(value, str) else None


def stack(blocks: list[NDArray[Any]], dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    if not blocks:
        return np.zeros((0, *shape), dtype=dtype)
    return np.concatenate(blocks).astype(dtype)


def stack_labels(values: list[Any], shapes: list[tuple[int, ...]]) -> NDArray[np.float64] | None:
    if all(value is None for value in values):
        return None
    blocks = [
        np.full(shape, np.nan)
        if value is None
        else np.asarray(value, dtype=np.float64).reshape(shape)
        for value, shape in zip(values, shapes, strict=True)
    ]
    return np.array(blocks) if shapes[0] == () else np.concatenate(blocks)


def stack_mask(found: list[Labels], sizes: list[int]) -> NDArray[np.float64] | None:
    if all(f.force_mask is None for f in found):
        return None
    blocks = [
        np.ones(n) if f.force_mask is None else f.force_mask
        for f, n in zip(found, sizes, strict=True)
    ]
    return np.concatenate(blocks)


def stack_weight(structures: Sequence[Atoms]) -> NDArray[np.float64] | None:
    if not any("weight" in atoms.info for atoms in structures):
        return None
    return np.array([float(atoms.info.get("weight", 1.0)) for atoms in structures])
