"""Many structures of different sizes as flat arrays plus offsets.

A `Dataset` either holds its arrays in memory or, opened with `Dataset.open`, reads slices of an HDF5 file
when asked, so a file larger than memory can be iterated and sliced. The layout on disk is described in
`aiida_autopipe.core.hdf5`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import read as ase_read
from ase.io import write as ase_write
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.hdf5 import PER_ATOM, PER_STRUCTURE, open_hdf5, write_hdf5
from aiida_autopipe.core.labels import (
    LabelKeys,
    Labels,
    common_info,
    read_labels,
    stack,
    stack_labels,
    stack_mask,
    stack_weight,
)

HDF5_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Structures, optional labels, named per-structure columns and attributes.

    Attributes:
        offsets: (n+1,) int64; the atoms of structure i are rows offsets[i] to offsets[i+1].
        numbers: (N,) atomic numbers.
        positions: (N, 3) in Å.
        cell: (n, 3, 3) in Å, rows are lattice vectors.
        pbc: (n, 3) bool.
        energy: (n,) total energies in eV, NaN where missing, or None.
        forces: (N, 3) in eV/Å, NaN where missing, or None.
        stress: (n, 6) in eV/Å^3 (ASE sign, xx yy zz yz xz xy), NaN where missing, or None.
        force_mask: (N,) 1 = learn from this force, 0 = buffer atom, or None (all 1).
        weight: (n,) or None (all 1).
        columns: name -> (n,) float, int, bool or str.
        attributes: JSON-able values about the whole set, such as 'method' and 'reference_energies'.
    """

    offsets: NDArray[np.int64]
    numbers: NDArray[np.int32]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    energy: NDArray[np.float64] | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    force_mask: NDArray[np.float64] | None = None
    weight: NDArray[np.float64] | None = None
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    # ------------------------------------------------------------------ reading

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_atoms(self) -> int:
        """Number of atoms in all structures together."""
        return int(self.offsets[-1])

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(n,) atoms per structure."""
        return np.diff(self.offsets)

    @property
    def elements(self) -> list[str]:
        """Chemical symbols that occur, sorted alphabetically."""
        return sorted(chemical_symbols[z] for z in np.unique(self.numbers[:]))

    @property
    def labelled(self) -> bool:
        """True when every structure has an energy and forces."""
        if self.energy is None or self.forces is None or len(self) == 0:
            return False
        return bool(np.all(np.isfinite(self.energy[:])) and np.all(np.isfinite(self.forces[:])))

    @property
    def reference_energies(self) -> dict[str, float]:
        """Isolated-atom energies in eV by element, as stored in the attributes; empty when unknown."""
        return {k: float(v) for k, v in self.attributes.get("reference_energies", {}).items()}

    def atoms(self, index: int) -> Atoms:
        """Structure `index` as ASE Atoms; columns and labels are in `info` and `arrays`."""
        rows = self._rows(index)
        atoms = Atoms(
            numbers=self.numbers[rows],
            positions=self.positions[rows],
            cell=self.cell[index],
            pbc=self.pbc[index],
        )
        for name, values in self.columns.items():
            atoms.info[name] = _plain(values[index])
        labels = self.labels(index)
        if labels.energy is not None:
            atoms.info["energy"] = labels.energy
        if labels.forces is not None:
            atoms.arrays["forces"] = labels.forces
        if labels.stress is not None:
            atoms.info["stress"] = labels.stress
        if labels.force_mask is not None:
            atoms.arrays["force_mask"] = labels.force_mask
        if self.weight is not None:
            atoms.info["weight"] = labels.weight
        return atoms

    def labels(self, index: int) -> Labels:
        """Labels of structure `index`; a label with a NaN counts as missing."""
        rows = self._rows(index)
        energy = None if self.energy is None else float(self.energy[index])
        forces = None if self.forces is None else np.asarray(self.forces[rows])
        stress = None if self.stress is None else np.asarray(self.stress[index])
        return Labels(
            energy=energy if energy is not None and np.isfinite(energy) else None,
            forces=forces if forces is not None and np.all(np.isfinite(forces)) else None,
            stress=stress if stress is not None and np.all(np.isfinite(stress)) else None,
            force_mask=None if self.force_mask is None else np.asarray(self.force_mask[rows]),
            weight=1.0 if self.weight is None else float(self.weight[index]),
        )

    def iter_atoms(self) -> Iterator[Atoms]:
        """Structures one after the other; only one is in memory when the dataset is an open file."""
        return (self.atoms(i) for i in range(len(self)))

    def __getitem__(self, selection: slice | Sequence[int] | NDArray[Any]) -> Dataset:
        """A new in-memory dataset with the chosen structures in the chosen order."""
        chosen = np.arange(len(self))[selection]
        if chosen.ndim != 1:
            raise InputError(
                f"A dataset is indexed with a slice, a mask or a list, not {selection!r}."
            )
        row_blocks = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in chosen]
        rows = np.concatenate(row_blocks) if row_blocks else np.zeros(0, dtype=np.int64)
        arrays = {n: _take(getattr(self, n), rows) for n in PER_ATOM}
        arrays |= {n: _take(getattr(self, n), chosen) for n in PER_STRUCTURE}
        offsets = np.concatenate([[0], np.cumsum([len(block) for block in row_blocks])]).astype(
            np.int64
        )
        columns = {name: _take(values, chosen) for name, values in self.columns.items()}
        return Dataset(offsets=offsets, **arrays, columns=columns, attributes=dict(self.attributes))

    def _rows(self, index: int) -> slice:
        if not 0 <= index < len(self):
            raise IndexError(f"structure {index} of a dataset with {len(self)}")
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    # ------------------------------------------------------------------ making

    @classmethod
    def from_atoms(
        cls,
        structures: Sequence[Atoms],
        columns: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
        keys: LabelKeys | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Collect ASE structures; labels come from their info, arrays or single-point calculator.

        Args:
            structures: any number of structures, none of them empty.
            columns: per-structure values; without it, the scalar entries common to every `info`.
            keys: under which names the labels are stored.
            attributes: values about the whole set.

        Raises:
            DataError: a structure has no atoms or a label has the wrong shape (with its index).
        """
        keys = keys or LabelKeys()
        found = [read_labels(i, atoms, keys) for i, atoms in enumerate(structures)]
        sizes = [len(atoms) for atoms in structures]
        if columns is None:
            columns = common_info(structures, keys)
        return cls(
            offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            numbers=stack([a.numbers for a in structures], np.int32, ()),
            positions=stack([a.positions for a in structures], np.float64, (3,)),
            cell=np.array([a.cell.array for a in structures], dtype=np.float64).reshape(-1, 3, 3),
            pbc=np.array([a.pbc for a in structures], dtype=bool).reshape(-1, 3),
            energy=stack_labels([f.energy for f in found], [()] * len(found)),
            forces=stack_labels([f.forces for f in found], [(n, 3) for n in sizes]),
            stress=stack_labels([f.stress for f in found], [(1, 6)] * len(found)),
            force_mask=stack_mask(found, sizes),
            weight=stack_weight(structures),
            columns={name: column_array(name, values) for name, values in columns.items()},
            attributes=dict(attributes or {}),
        )

    @staticmethod
    def concatenate(parts: Sequence[Dataset]) -> Dataset:
        """All structures of all parts; a label, mask or column that one part lacks is filled.

        Missing labels become NaN, missing masks and weights 1, missing columns NaN, 0, False or ''.

        Raises:
            InputError: labelled parts whose label methods (attribute 'method') differ, or no parts.
        """
        if not parts:
            raise InputError("Nothing to concatenate: the list of datasets is empty.")
        methods = {_fingerprint(p) for p in parts if p.energy is not None and len(p)} - {None}
        if len(methods) > 1:
            names = ", ".join(sorted(str(m) for m in methods))
            raise InputError(
                f"Datasets labelled with different methods ({names}) cannot be merged: their energies "
                "are not comparable; relabel one of them."
            )
        arrays: dict[str, Any] = {}
        for name, shape in (PER_ATOM | PER_STRUCTURE).items():
            fill = 1.0 if name in ("force_mask", "weight") else np.nan
            counts = [p.n_atoms if name in PER_ATOM else len(p) for p in parts]
            arrays[name] = _concatenate([getattr(p, name) for p in parts], counts, shape, fill)
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([p.sizes for p in parts]))])
        names = sorted({name for p in parts for name in p.columns})
        columns = {name: _concatenate_column(name, parts) for name in names}
        attributes: dict[str, Any] = {}
        for part in parts:
            attributes |= part.attributes
        return Dataset(
            offsets=offsets.astype(np.int64), **arrays, columns=columns, attributes=attributes
        )

    def with_columns(self, **columns: Sequence[Any] | NDArray[Any]) -> Dataset:
        """The same structures with columns added or replaced."""
        new = {name: column_array(name, values) for name, values in columns.items()}
        for name, values in new.items():
            if len(values) != len(self):
                raise InputError(
                    f"Column '{name}' has {len(values)} values for {len(self)} structures."
                )
        return replace(self, columns={**self.columns, **new})

    def with_attributes(self, **attributes: Any) -> Dataset:
        """The same structures with attributes added or replaced."""
        return replace(self, attributes={**self.attributes, **attributes})

    # ------------------------------------------------------------------ checking

    def validate(self) -> None:
        """Raise DataError, with the structure's index, for anything no later stage can use."""
        if len(self) == 0:
            raise DataError("The dataset contains no structures.")
        empty = np.flatnonzero(self.sizes == 0)
        if len(empty):
            raise DataError(f"Structure {empty[0]} has no atoms.")
        for index in range(len(self)):
            rows = self._rows(index)
            for name in ("positions", "forces"):
                array = getattr(self, name)
                if array is not None and not np.all(np.isfinite(array[rows])):
                    raise DataError(f"Structure {index} has NaN or infinite {name}.")
            for name in ("cell", "energy", "stress"):
                array = getattr(self, name)
                if array is not None and not np.all(np.isfinite(array[index])):
                    raise DataError(f"Structure {index} has a NaN or infinite {name}.")
            if np.all(self.pbc[index]) and abs(np.linalg.det(self.cell[index])) < 1e-6:
                raise DataError(f"Structure {index} is periodic but its cell has no volume.")

    # ------------------------------------------------------------------ files

    @classmethod
    @contextmanager
    def open(cls, path: str | Path) -> Iterator[Dataset]:
        """A dataset whose big arrays stay in the HDF5 file until they are sliced."""
        with open_hdf5(Path(path)) as handle:
            arrays = {n: handle[n] for n in (*PER_ATOM, *PER_STRUCTURE) if n in handle}
            columns = {name: _read_column(data) for name, data in handle.get("columns", {}).items()}
            attributes = json.loads(handle.attrs["attributes"])
            yield cls(
                offsets=handle["offsets"][...], **arrays, columns=columns, attributes=attributes
            )

    @classmethod
    def read_hdf5(cls, path: str | Path) -> Dataset:
        """The whole file in memory."""
        with cls.open(path) as lazy:
            arrays = {n: getattr(lazy, n) for n in (*PER_ATOM, *PER_STRUCTURE)}
            loaded = {n: None if a is None else a[...] for n, a in arrays.items()}
            return replace(lazy, **loaded)

    def write_hdf5(self, path: str | Path) -> None:
        """Write the layout of `aiida_autopipe.core.hdf5`; the file appears only when complete."""
        names = ("offsets", *PER_ATOM, *PER_STRUCTURE)
        arrays = {n: getattr(self, n)[:] for n in names if getattr(self, n) is not None}
        write_hdf5(Path(path), arrays, self.columns, self.attributes)

    def content_hash(self) -> str:
        """SHA-256 over all arrays, columns and attributes: the fingerprint potentials refer to."""
        digest = hashlib.sha256()
        for name in ("offsets", *sorted(PER_ATOM), *sorted(PER_STRUCTURE)):
            array = getattr(self, name)
            if array is not None:
                digest.update(name.encode() + np.ascontiguousarray(array[:]).tobytes())
        for name in sorted(self.columns):
            digest.update(name.encode() + json.dumps(self.columns[name].tolist()).encode())
        digest.update(json.dumps(self.attributes, sort_keys=True).encode())
        return digest.hexdigest()


def read_dataset(
    path: str | Path,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
) -> Dataset:
    """Read a dataset from .h5/.hdf5 (our layout) or any format ASE reads (extxyz, CIF, POSCAR, ...).

    Raises:
        DataError: missing, empty or unreadable file; NaN, empty structures or wrong shapes (with index).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file '{path}'.")
    if path.suffix.lower() in HDF5_SUFFIXES:
        dataset = Dataset.read_hdf5(path)
    else:
        dataset = _read_with_ase(path, LabelKeys(energy_key, forces_key, stress_key))
    try:
        dataset.validate()
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error
    return dataset


def _read_with_ase(path: Path, keys: LabelKeys) -> Dataset:
    if path.stat().st_size == 0:
        raise DataError(f"'{path}' is empty.")
    try:
        frames = ase_read(path, index=":")
    # ASE's readers raise whatever their format parser happens to raise: all of it means "unreadable".
    except Exception as error:
        raise DataError(f"'{path}' cannot be read as structures: {error}") from error
    structures = frames if isinstance(frames, list) else [frames]
    if not structures:
        raise DataError(f"'{path}' contains no structures.")
    try:
        return Dataset.from_atoms(structures, keys=keys)
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error


def write_dataset(dataset: Dataset, path: str | Path) -> None:
    """Write .h5/.hdf5 in our layout, or .extxyz/.xyz with labels under energy, forces and stress."""
    path = Path(path)
    if path.suffix.lower() in HDF5_SUFFIXES:
        dataset.write_hdf5(path)
    elif path.suffix.lower() in (".extxyz", ".xyz"):
        partial = path.with_name(path.name + ".partial")
        ase_write(partial, list(dataset.iter_atoms()), format="extxyz")
        partial.replace(path)
    else:
        raise InputError(
            f"Cannot write '{path}': use one of the endings .h5, .hdf5, .extxyz, .xyz."
        )


# ---------------------------------------------------------------------- array work


def column_array(name: str, values: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """A column as a float64, int64, bool or str array.

    Raises:
        InputError: values that fit none of these, or not one value per structure.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(
            f"Column '{name}' must hold one value per structure, not shape {array.shape}."
        )
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    if array.dtype.kind in "bU":
        return array
    if array.dtype.kind == "O" and all(isinstance(v, str) for v in array):
        return array.astype(str)
    raise InputError(
        f"Column '{name}' holds {array.dtype}; only float, int, bool and str are stored."
    )


def _take(array: Any, rows: NDArray[Any]) -> Any:
    if array is None:
        return None
    if isinstance(array, np.ndarray):
        return array[rows]
    # h5py wants increasing, unique indices: read those, then put them in the order asked for.
    unique, inverse = np.unique(rows, return_inverse=True)
    return array[unique][inverse] if len(unique) else array[0:0]


def _concatenate(arrays: list[Any], counts: list[int], shape: tuple[int, ...], fill: float) -> Any:
    if all(array is None for array in arrays):
        return None
    return np.concatenate(
        [
            np.full((count, *shape), fill) if array is None else array[:]
            for array, count in zip(arrays, counts, strict=True)
        ]
    )


def _concatenate_column(name: str, parts: Sequence[Dataset]) -> NDArray[Any]:
    present = next(p.columns[name] for p in parts if name in p.columns)
    kind = present.dtype.kind
    fill: Any = {"f": np.nan, "i": 0, "b": False}.get(kind, "")
    blocks = [p.columns.get(name, np.full(len(p), fill)) for p in parts]
    return np.concatenate(blocks)


def _fingerprint(dataset: Dataset) -> str | None:
    method = dataset.attributes.get("method")
    return None if not method else str(method.get("fingerprint", method))


def _read_column(data: Any) -> NDArray[Any]:
    return data.asstr()[...].astype(str) if data.dtype.kind == "O" else data[...]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
