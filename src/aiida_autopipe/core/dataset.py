"""Many structures of different sizes as flat arrays plus offsets.

A `Dataset` either holds its arrays in memory or, opened with `Dataset.open`, reads slices of an
HDF5 file when asked, so a file larger than memory can be iterated and sliced. The layout on disk is
described in `aiida_autopipe.core.hdf5`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
)
from aiida_autopipe.core.dataset_checks import check_block, filtered
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.hdf5 import (
    PER_ATOM,
    PER_STRUCTURE,
    open_hdf5,
    read_attributes,
    stored_arrays,
    stored_columns,
    write_hdf5,
)
from aiida_autopipe.core.joining import join_datasets
from aiida_autopipe.core.labels import (
    LabelKeys,
    Labels,
    check_keys,
    common_info,
    flat_arrays,
    is_missing,
    read_labels,
)
from aiida_autopipe.core.stored_arrays import reading, row_blocks
from aiida_autopipe.core.structure_files import read_structures, write_extxyz

HDF5_SUFFIXES = (".h5", ".hdf5")

BLOCK_ATOMS = 65_536
"""Atoms that are read from a file at one time."""


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
        found = {int(z) for block in row_blocks(self.numbers) for z in np.unique(block)}
        return sorted(chemical_symbols[z] for z in found)

    @property
    def labelled(self) -> bool:
        """True when every structure has an energy and forces."""
        if self.energy is None or self.forces is None or len(self) == 0:
            return False
        return all(
            np.all(np.isfinite(block))
            for array in (self.energy, self.forces)
            for block in row_blocks(array)
        )

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
        """Structures one after the other; of an open file only a block is in memory."""
        return (block.atoms(i) for block in self.iter_blocks() for i in range(len(block)))

    def iter_blocks(self, n_atoms: int = BLOCK_ATOMS) -> Iterator[Dataset]:
        """Consecutive structures in memory, as many as have at most `n_atoms` atoms together.

        A block has at least one structure. What it takes is O(block) memory for an open file.
        """
        start = 0
        while start < len(self):
            fitting = np.searchsorted(self.offsets, self.offsets[start] + n_atoms, "right") - 1
            stop = max(start + 1, int(fitting))
            yield self[start:stop]
            start = stop

    def filter(
        self,
        block: Callable[[Dataset], NDArray[np.bool_]] | None = None,
        structure: Callable[[Atoms], bool] | None = None,
        n_atoms: int = BLOCK_ATOMS,
    ) -> Iterator[Dataset]:
        """Blocks of the structures that pass; give them to a `DatasetWriter`, or concatenate them.

        Args:
            block: gets a block in memory and returns a mask over its structures, such as
                ``lambda d: d.columns["gamma_max"][:] > 3``.
            structure: gets one structure with its labels and columns.
            n_atoms: atoms in memory at one time.

        Raises:
            InputError: a mask of another length than the block.
        """
        return filtered(self.iter_blocks(n_atoms), block, structure)

    def __getitem__(self, selection: slice | Sequence[int] | NDArray[Any]) -> Dataset:
        """A new in-memory dataset with the chosen structures in the chosen order."""
        chosen = np.arange(len(self))[selection]
        if chosen.ndim != 1:
            raise InputError(
                f"A dataset is indexed with a slice, a mask or a list, not {selection!r}."
            )
        structures, rows, offsets = self._chosen(chosen)
        arrays: dict[str, Any] = {}
        for name in (*PER_ATOM, *PER_STRUCTURE):
            array = getattr(self, name)
            arrays[name] = (
                None if array is None else array[rows if name in PER_ATOM else structures]
            )
        return Dataset(
            offsets=offsets,
            **arrays,
            columns={name: values[structures] for name, values in self.columns.items()},
            attributes=dict(self.attributes),
        )

    def _chosen(self, chosen: NDArray[Any]) -> tuple[Any, Any, NDArray[np.int64]]:
        """Structures and rows to index arrays with, and the offsets of what they give."""
        if len(chosen) and np.all(np.diff(chosen) == 1):  # one range is read at once
            first, last = int(chosen[0]), int(chosen[-1]) + 1
            rows = slice(int(self.offsets[first]), int(self.offsets[last]))
            return slice(first, last), rows, self.offsets[first : last + 1] - rows.start
        offsets = _offsets(self.sizes[chosen])
        starts = np.repeat(self.offsets[:-1][chosen] - offsets[:-1], np.diff(offsets))
        return chosen, starts + np.arange(offsets[-1]), offsets

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
        if columns is None:
            columns = common_info(structures, keys)
        return cls(
            **flat_arrays(structures, found),
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
        return Dataset(**join_datasets(parts))

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
        first = 0
        for block in self.iter_blocks():
            check_block(block, first)
            first += len(block)

    # ------------------------------------------------------------------ files

    @classmethod
    @contextmanager
    def open(cls, path: str | Path) -> Iterator[Dataset]:
        """A dataset whose big arrays stay in the HDF5 file until they are sliced."""
        with open_hdf5(Path(path)) as handle:
            with reading(path):
                offsets = handle["offsets"][...].astype(np.int64)
            arrays: dict[str, Any] = stored_arrays(path, handle)
            columns: dict[str, Any] = stored_columns(path, handle)
            attributes = read_attributes(path, handle)
            yield cls(offsets=offsets, **arrays, columns=columns, attributes=attributes)

    @classmethod
    def read_hdf5(cls, path: str | Path) -> Dataset:
        """The whole file in memory.

        Raises:
            DataError: as `aiida_autopipe.core.hdf5.open_hdf5`, or data that cannot be read.
        """
        with cls.open(path) as lazy:
            return lazy[:]

    def write_hdf5(self, path: str | Path) -> None:
        """Write the layout of `aiida_autopipe.core.hdf5`; the file appears only when complete."""
        names = ("offsets", *PER_ATOM, *PER_STRUCTURE)
        arrays = {n: getattr(self, n)[:] for n in names if getattr(self, n) is not None}
        columns = {name: values[:] for name, values in self.columns.items()}
        write_hdf5(Path(path), arrays, columns, self.attributes)

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
