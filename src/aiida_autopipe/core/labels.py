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

from aiida_autopipe.core.errors import DataError, InputError

ENERGY_KEYS = ("energy", "REF_energy")
FORCES_KEYS = ("forces", "REF_forces")
STRESS_KEYS = ("stress", "REF_stress", "virial", "REF_virial")
LABEL_INFO: set[str | None] = {*ENERGY_KEYS, *STRESS_KEYS, "free_energy", "weight"}


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
    """Labels of one structure from its info, arrays or single-point calculator.

    Args:
        index: number of the structure, for error messages.
        atoms: the structure.
        keys: under which names the labels are.

    Raises:
        DataError: no atoms, or a label that is not numeric, not finite or of the wrong shape.
            Forces may be NaN where the array `force_mask` is 0.
    """
    if len(atoms) == 0:
        raise DataError(f"Structure {index} has no atoms.")
    size = len(atoms)
    energy = _first(atoms, atoms.info, ENERGY_KEYS, keys.energy)
    forces = _first(atoms, atoms.arrays, FORCES_KEYS, keys.forces)
    mask = atoms.arrays.get("force_mask")
    labels = Labels(
        energy=None if energy is None else float(_checked(index, "energy", energy, ())),
        forces=None if forces is None else _checked(index, "forces", forces, (size, 3)),
        stress=_read_stress(index, atoms, keys.stress),
        force_mask=None if mask is None else _checked(index, "force_mask", mask, (size,)),
        weight=float(_checked(index, "weight", atoms.info.get("weight", 1.0), ())),
    )
    check_labels(index, labels)
    return labels


def check_keys(found: Sequence[Labels], keys: LabelKeys) -> None:
    """Refuse names that the user gave and no structure has.

    Raises:
        InputError: with the name.
    """
    for name in ("energy", "forces", "stress"):
        key = getattr(keys, name)
        if key is not None and found and all(getattr(labels, name) is None for labels in found):
            raise InputError(f"The set of structures has no {name} under the key '{key}'.")


def is_missing(value: float | NDArray[np.float64] | None) -> bool:
    """True for None and for a label that is NaN altogether."""
    return value is None or bool(np.all(np.isnan(value)))


def check_labels(index: int, labels: Labels) -> None:
    """Refuse NaN and infinity; in forces only where the mask is not 0.

    Raises:
        DataError: with the structure's index and the name of the label.
    """
    for name in ("energy", "forces", "stress", "force_mask", "weight"):
        value = getattr(labels, name)
        if name == "forces" and value is not None and labels.force_mask is not None:
            value = value[labels.force_mask > 0]
        if value is not None and not np.all(np.isfinite(value)):
            article = "" if name == "forces" else "a "
            raise DataError(f"Structure {index} has {article}NaN or infinite {name}.")


def _checked(index: int, name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"Structure {index}: {name} {value!r} is not numeric.") from error
    if shape == () and array.size == 1:
        return array.reshape(())
    if array.shape != shape:
        expected = "one number" if shape == () else f"shape {shape}"
        raise DataError(f"Structure {index}: {name} of shape {array.shape}; expected {expected}.")
    return array


def _first(atoms: Atoms, store: Mapping[str, Any], usual: Sequence[str], chosen: str | None) -> Any:
    names = usual if chosen is None else (chosen,)
    found = next((store[name] for name in names if name in store), None)
    # ASE's readers move what is called 'energy', 'forces' or 'stress' into a calculator.
    if found is None and usual[0] in names:
        return _from_calculator(atoms, usual[0])
    return found


def _read_stress(index: int, atoms: Atoms, chosen: str | None) -> NDArray[np.float64] | None:
    """Stress in Voigt order; 3x3 tensors are converted, virials divided by minus the volume."""
    names = STRESS_KEYS if chosen is None else (chosen,)
    name = next((n for n in names if n in atoms.info), "stress")
    value = _first(atoms, atoms.info, STRESS_KEYS, chosen)
    if value is None:
        return None
    if np.size(value) == 9:
        tensor = _checked(index, name, np.reshape(value, (3, 3)), (3, 3))
        if not np.abs(tensor - tensor.T).max() <= 1e-3 * np.abs(tensor).max():
            raise DataError(f"Structure {index}: {name} {tensor.tolist()} is not symmetric.")
        value = full_3x3_to_voigt_6_stress(tensor)
    stress = _checked(index, name, value, (6,))
    if "virial" not in name.lower():
        return stress
    if not np.all(atoms.pbc) or abs(np.linalg.det(atoms.cell.array)) < 1e-6:
        raise DataError(
            f"Structure {index}: {name} needs a periodic cell with a volume to become a stress."
        )
    # A virial is -stress * volume in the convention of extxyz files.
    return -stress / abs(float(np.linalg.det(atoms.cell.array)))


def _from_calculator(atoms: Atoms, name: str) -> Any:
    if atoms.calc is None:
        return None
    try:
        return atoms.calc.get_property(name, atoms, allow_calculation=False)
    except PropertyNotImplementedError:
        return None


def common_info(structures: Sequence[Atoms], keys: LabelKeys) -> dict[str, list[Any]]:
    """Scalar info entries of one kind that all structures have; text may be missing ('')."""
    skip = LABEL_INFO | {keys.energy, keys.forces, keys.stress}
    names = {str(name) for atoms in structures for name in atoms.info} - skip
    columns = {}
    for name in sorted(n for n in names if n not in ("", ".") and not set("/\0") & set(n)):
        values = [atoms.info.get(name) for atoms in structures]
        if any(isinstance(value, str) for value in values):
            values = ["" if value is None else value for value in values]
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
    """Per-atom arrays one behind the other; `shape` is that of one atom's entry."""
    if not blocks:
        return np.zeros((0, *shape), dtype=dtype)
    return np.concatenate(blocks).astype(dtype)


def stack_labels(
    structures: Sequence[Atoms], found: Sequence[Labels]
) -> dict[str, NDArray[np.float64] | None]:
    """Labels of many structures as the arrays of a dataset, by name.

    Missing labels are NaN, missing masks and weights 1; an array that all structures lack is None.
    """
    sizes = [len(atoms) for atoms in structures]
    weighted = any("weight" in atoms.info for atoms in structures)
    return {
        "energy": _filled([f.energy for f in found], [(1,)] * len(found), np.nan),
        "forces": _filled([f.forces for f in found], [(n, 3) for n in sizes], np.nan),
        "stress": _filled([f.stress for f in found], [(1, 6)] * len(found), np.nan),
        "force_mask": _filled([f.force_mask for f in found], [(n,) for n in sizes], 1.0),
        "weight": np.array([f.weight for f in found]) if weighted else None,
    }


def flat_arrays(structures: Sequence[Atoms], found: Sequence[Labels]) -> dict[str, Any]:
    """Structures and their labels as the arrays of a dataset, by name."""
    sizes = [len(atoms) for atoms in structures]
    cells = np.array([atoms.cell.array for atoms in structures], dtype=np.float64)
    return {
        "offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        "numbers": stack([atoms.numbers for atoms in structures], np.int32, ()),
        "positions": stack([atoms.positions for atoms in structures], np.float64, (3,)),
        "cell": cells.reshape(-1, 3, 3),
        "pbc": np.array([atoms.pbc for atoms in structures], dtype=bool).reshape(-1, 3),
        **stack_labels(structures, found),
    }


def _filled(
    values: list[Any], shapes: list[tuple[int, ...]], fill: float
) -> NDArray[np.float64] | None:
    if all(value is None for value in values):
        return None
    return np.concatenate(
        [
            np.full(shape, fill) if value is None else np.reshape(value, shape)
            for value, shape in zip(values, shapes, strict=True)
        ]
    )
