"""Many structures of different sizes as flat arrays plus offsets.

A `Dataset` either holds its arrays in memory or, opened with `Dataset.open`, reads slices of an
HDF5 file when asked, so a file larger than memory can be iterated and sliced. The layout on disk is
described in `aiida_autopipe.core.hdf5`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.columns import (
    column_array,
    content_hash,
    fingerprint,
    join_arrays,
    join_attributes,
    join_columns,
    take,
)
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.hdf5 import (
    DTYPES,
    PER_ATOM,
    PER_STRUCTURE,
    open_hdf5,
    read_attributes,
    read_column,
    reading,
    write_hdf5,
)
from aiida_autopipe.core.labels import (
    LabelKeys,
    Labels,
    check_keys,
    check_labels,
    common_info,
    is_missing,
    read_labels,
    stack,
    stack_labels,
)
from aiida_autopipe.core.structure_files import read_structures, write_extxyz

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
        """Isolated-atom energies in eV by element from the attributes; empty when unknown."""
        return {k: float(v) for k, v in self.attributes.get("reference_energies", {}).items()}

    @property
    def method_fingerprint(self) -> str | None:
        """Hash of the label method, from the attribute 'method'; None when unknown."""
        return fingerprint(self.attributes)

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
        """Labels of structure `index`; a label of NaN counts as missing.

        Forces may be NaN where the mask is 0.
        """
        rows = self._rows(index)
        mask = None if self.force_mask is None else np.asarray(self.force_mask[rows])
        energy = None if self.energy is None else float(self.energy[index])
        forces = None if self.forces is None else np.asarray(self.forces[rows])
        stress = None if self.stress is None else np.asarray(self.stress[index])
        return Labels(
            energy=None if is_missing(energy) else energy,
            forces=None if is_missing(forces) else forces,
            stress=None if is_missing(stress) else stress,
            force_mask=mask,
            weight=1.0 if self.weight is None else float(self.weight[index]),
        )

    def iter_atoms(self) -> Iterator[Atoms]:
        """Structures one after the other; of an open file only one is in memory."""
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
        arrays = {n: take(getattr(self, n), rows) for n in PER_ATOM}
        arrays |= {n: take(getattr(self, n), chosen) for n in PER_STRUCTURE}
        offsets = _offsets([len(block) for block in row_blocks])
        columns = {name: take(values, chosen) for name, values in self.columns.items()}
        attributes = dict(self.attributes)
        return Dataset(offsets=offsets, **arrays, columns=columns, attributes=attributes)

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
        """Collect ASE structures; labels come from info, arrays or a single-point calculator.

        Args:
            structures: any number of structures, none of them empty.
            columns: per-structure values; without it, the scalar entries common to every `info`
                and all text entries, '' where a structure lacks one.
            keys: under which names the labels are stored.
            attributes: values about the whole set.

        Raises:
            DataError: a structure has no atoms, a label has the wrong shape or is NaN (with the
                structure's index).
            InputError: a key was given under which no structure has anything.
        """
        keys = keys or LabelKeys()
        found = [read_labels(i, atoms, keys) for i, atoms in enumerate(structures)]
        check_keys(found, keys)
        sizes = [len(atoms) for atoms in structures]
        if columns is None:
            columns = common_info(structures, keys)
        return cls(
            offsets=_offsets(sizes),
            numbers=stack([a.numbers for a in structures], np.int32, ()),
            positions=stack([a.positions for a in structures], np.float64, (3,)),
            cell=np.array([a.cell.array for a in structures], dtype=np.float64).reshape(-1, 3, 3),
            pbc=np.array([a.pbc for a in structures], dtype=bool).reshape(-1, 3),
            **stack_labels(structures, found),
            columns={name: column_array(name, values) for name, values in columns.items()},
            attributes=dict(attributes or {}),
        )

    @staticmethod
    def concatenate(parts: Sequence[Dataset]) -> Dataset:
        """All structures of all parts; a label, mask or column that one part lacks is filled.

        Missing labels become NaN, missing masks and weights 1, missing columns NaN, 0, False or ''.
        Attributes of later parts win, but the method is that of the labelled parts, and reference
        energies are merged element by element.

        Raises:
            InputError: no parts, labelled parts whose label methods (attribute 'method') differ,
                reference energies that differ, or a column of different types.
        """
        if not parts:
            raise InputError("Nothing to concatenate: the list of datasets is empty.")
        sources = {p.method_fingerprint: p for p in parts if p.energy is not None and len(p)}
        methods = sorted(name for name in sources if name is not None)
        if len(methods) > 1:
            raise InputError(
                f"Datasets labelled with different methods ({', '.join(methods)}) cannot be "
                "merged: their energies are not comparable; relabel one of them."
            )
        attributes = join_attributes([p.attributes for p in parts])
        if methods:
            attributes["method"] = sources[methods[0]].attributes["method"]
        arrays: dict[str, Any] = {}
        for name, shape in (PER_ATOM | PER_STRUCTURE).items():
            fill = 1.0 if name in ("force_mask", "weight") else np.nan
            counts = [p.n_atoms if name in PER_ATOM else len(p) for p in parts]
            arrays[name] = join_arrays([getattr(p, name) for p in parts], counts, shape, fill)
        names = sorted({name for p in parts for name in p.columns})
        stores, lengths = [p.columns for p in parts], [len(p) for p in parts]
        columns = {name: join_columns(name, stores, lengths) for name in names}
        offsets = _offsets(np.concatenate([p.sizes for p in parts]))
        return Dataset(offsets=offsets, **arrays, columns=columns, attributes=attributes)

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
        """Raise DataError, with the structure's index, for anything no later stage can use.

        A label that is NaN altogether is missing and no error; one that is so in part is.
        """
        if len(self) == 0:
            raise DataError("The dataset contains no structures.")
        empty = np.flatnonzero(self.sizes == 0)
        if len(empty):
            raise DataError(f"Structure {empty[0]} has no atoms.")
        for index in range(len(self)):
            self._validate_structure(index)

    def _validate_structure(self, index: int) -> None:
        rows = self._rows(index)
        if not np.all(np.isfinite(self.positions[rows])):
            raise DataError(f"Structure {index} has NaN or infinite positions.")
        if not np.all(np.isfinite(self.cell[index])):
            raise DataError(f"Structure {index} has a NaN or infinite cell.")
        if np.all(self.pbc[index]) and abs(np.linalg.det(self.cell[index])) < 1e-6:
            raise DataError(f"Structure {index} is periodic but its cell has no volume.")
        check_labels(index, self.labels(index))

    # ------------------------------------------------------------------ files

    @classmethod
    @contextmanager
    def open(cls, path: str | Path) -> Iterator[Dataset]:
        """A dataset whose big arrays stay in the HDF5 file until they are sliced."""
        with open_hdf5(Path(path)) as handle:
            arrays = {n: handle[n] for n in (*PER_ATOM, *PER_STRUCTURE) if n in handle}
            with reading(path):
                columns = {n: read_column(data) for n, data in handle.get("columns", {}).items()}
                offsets = handle["offsets"][...].astype(np.int64)
            attributes = read_attributes(path, handle)
            yield cls(offsets=offsets, **arrays, columns=columns, attributes=attributes)

    @classmethod
    def read_hdf5(cls, path: str | Path) -> Dataset:
        """The whole file in memory.

        Raises:
            DataError: as `aiida_autopipe.core.hdf5.open_hdf5`, or data that cannot be read.
        """
        with cls.open(path) as lazy, reading(path):
            names = (n for n in (*PER_ATOM, *PER_STRUCTURE) if getattr(lazy, n) is not None)
            loaded: dict[str, Any] = {
                n: getattr(lazy, n)[...].astype(DTYPES[n], copy=False) for n in names
            }
            return replace(lazy, **loaded)

    def write_hdf5(self, path: str | Path) -> None:
        """Write the layout of `aiida_autopipe.core.hdf5`; the file appears only when complete."""
        names = ("offsets", *PER_ATOM, *PER_STRUCTURE)
        arrays = {n: getattr(self, n)[:] for n in names if getattr(self, n) is not None}
        write_hdf5(Path(path), arrays, self.columns, self.attributes)

    def content_hash(self) -> str:
        """SHA-256 over all arrays, columns and attributes: the fingerprint potentials refer to."""
        names = ("offsets", *sorted(PER_ATOM), *sorted(PER_STRUCTURE))
        arrays = {name: getattr(self, name) for name in names}
        return content_hash(arrays, self.columns, self.attributes)


def read_dataset(
    path: str | Path,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
) -> Dataset:
    """Read a dataset: .h5/.hdf5 (our layout) or any format ASE reads (extxyz, CIF, POSCAR, ...).

    Args:
        path: the file.
        energy_key: name of the energies in an extxyz file; None tries the usual names.
        forces_key: the same for the forces.
        stress_key: the same for the stresses or, when the name contains 'virial', virials.

    Raises:
        DataError: missing, empty or unreadable file; NaN, empty structures or wrong shapes (with
            the structure's index).
        InputError: a key under which the file has nothing.
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
    structures = read_structures(path)
    try:
        return Dataset.from_atoms(structures, keys=keys)
    except (DataError, InputError) as error:
        raise type(error)(f"'{path}': {error}") from error


def write_dataset(dataset: Dataset, path: str | Path) -> None:
    """Write .h5/.hdf5 in our layout, or .extxyz/.xyz with labels under energy, forces and stress.

    HDF5 keeps everything. An extxyz file keeps 8 decimals of positions and forces and no
    attributes, and reading it turns text that looks like a number into one.

    Raises:
        InputError: another ending.
    """
    path = Path(path)
    if path.suffix.lower() in HDF5_SUFFIXES:
        dataset.write_hdf5(path)
    elif path.suffix.lower() in (".extxyz", ".xyz"):
        write_extxyz(list(dataset.iter_atoms()), path)
    else:
        raise InputError(
            f"Cannot write '{path}': use one of the endings .h5, .hdf5, .extxyz, .xyz."
        )


def _offsets(sizes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
