"""Materials: crystals, standardised and with their symmetry, and molecules.

Both cells share one Cartesian frame (spglib's standard orientation), so a strain or an elastic
constant means the same in either of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import spglib
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, chemical_symbols, reference_states
from ase.geometry import minkowski_reduce
from ase.io import read
from ase.io.formats import UnknownFileTypeError
from ase.neighborlist import neighbor_list

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.symmetry import TOLERANCE

OVERLAP_DISTANCE = 0.5
"""Two atoms closer than this, in Å, are a mistake in the file (H2 has 0.74 Å)."""

_CRYSTALS = ("fcc", "bcc", "hcp", "diamond", "sc", "bct", "rhombohedral")
"""ASE's reference states that are complete crystals; its others lack atomic positions."""

# What ASE's readers raise on files that are damaged or of another kind.
_READER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)


Kind = Literal["crystal", "alloy", "molecule", "reaction"]


@dataclass(frozen=True)
class Material:
    """What a potential is for: a crystal with its symmetry, an alloy, a molecule or a reaction.

    :param label: what the user wrote (an element, a formula) or the formula of the file.
    :param primitive: primitive cell in spglib's standard orientation; of an alloy the cell that
        stands for it; of a molecule or reaction the (first) molecule, not periodic.
    :param conventional: conventional cell, same Cartesian frame as ``primitive``.
    :param spacegroup: international symbol, e.g. ``Fd-3m``; empty for molecules.
    :param spacegroup_number: 1 to 230; 0 for molecules.
    :param kind: crystal, alloy, molecule or reaction.
    :param note: where the structure comes from, in words, where it was chosen and not given.
    :param composition: fractions of an alloy.
    :param lattice: the alloy's lattice, its primitive cell with one element on all sites.
    :param path: frames of a reaction, the reactants first and the products last.
    """

    label: str
    primitive: Atoms
    conventional: Atoms
    spacegroup: str
    spacegroup_number: int
    kind: Kind = "crystal"
    note: str = ""
    composition: Mapping[str, float] = field(default_factory=dict)
    lattice: Atoms | None = None
    path: tuple[Atoms, ...] = ()

    @property
    def periodic(self) -> bool:
        """True for crystals and alloys."""
        return self.kind in ("crystal", "alloy")

    def structures(self) -> dict[str, Atoms]:
        """The structures a run starts from, by name; generators and MD start from the first.

        A crystal has `primitive` and `conventional`, an alloy also `lattice`; a molecule is
        `molecule`; a reaction has its frames as `path_000`, `path_001`, ...
        """
        if self.kind == "molecule":
            return {"molecule": self.primitive}
        if self.kind == "reaction":
            return {f"path_{i:03d}": atoms for i, atoms in enumerate(self.path)}
        cells = {"primitive": self.primitive, "conventional": self.conventional}
        return cells if self.lattice is None else {**cells, "lattice": self.lattice}

    def describe(self) -> str:
        """The material in a few words, for people."""
        if not self.periodic:
            formula = self.primitive.get_chemical_formula()
            ends = f", {len(self.path)} frames of its path" if self.path else ""
            return f"{self.label}, a {self.kind} of {len(self.primitive)} atoms ({formula}){ends}"
        chosen = f"{self.note}; " if self.note else ""
        return (
            f"{self.label}, {chosen}{self.spacegroup} ({self.crystal_system}, "
            f"{len(self.primitive)} atoms in the primitive cell)"
        )

    @property
    def elements(self) -> list[str]:
        """Symbols of the elements, alphabetical."""
        return sorted(set(self.primitive.get_chemical_symbols()))

    @property
    def crystal_system(self) -> str:
        """One of triclinic ... cubic, from the space-group number; 'none' for molecules."""
        if not self.periodic:
            return "none"
        limits = (2, 15, 74, 142, 167, 194, 230)
        names = (
            "triclinic",
            "monoclinic",
            "orthorhombic",
            "tetragonal",
            "trigonal",
            "hexagonal",
            "cubic",
        )
        return next(
            name
            for limit, name in zip(limits, names, strict=True)
            if self.spacegroup_number <= limit
        )

    @cached_property
    def nearest_neighbour(self) -> float:
        """Shortest distance between two atoms, Å."""
        if not self.periodic:
            distances = self.primitive.get_all_distances()
            return float(distances[np.triu_indices(len(distances), 1)].min())
        return _shortest_distance(self.primitive)


def material_from_atoms(
    atoms: Atoms, label: str | None = None, source: str | None = None
) -> Material:
    """Check a periodic structure and standardise it.

    :param source: how errors name the structure; default ``label``.
    :raises InputError: NaN, no volume, overlapping atoms, partial occupancies, not periodic.
    """
    label = label or atoms.get_chemical_formula()
    _check_structure(atoms, source or label)
    symmetry = _types_and_moments(atoms)
    cell = (atoms.cell.array, atoms.get_scaled_positions(), symmetry.types)
    try:
        with warnings.catch_warnings():
            # spglib announces that its None for a failure becomes the error handled here.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            dataset = spglib.get_symmetry_dataset(cell, symprec=TOLERANCE)
            primitive = spglib.standardize_cell(cell, to_primitive=True, symprec=TOLERANCE)
            conventional = spglib.standardize_cell(cell, to_primitive=False, symprec=TOLERANCE)
    except spglib.SpglibError:
        dataset = primitive = conventional = None
    if dataset is None or primitive is None or conventional is None:
        raise InputError(f"material '{source or label}': spglib finds no space group for it")
    return Material(
        label=label,
        primitive=symmetry.atoms(primitive),
        conventional=symmetry.atoms(conventional),
        spacegroup=str(dataset.international),
        spacegroup_number=int(dataset.number),
    )


@dataclass(frozen=True)
class _Sites:
    """Site types for spglib: atoms of one element with different moments are not equivalent."""

    types: list[int]
    kinds: list[tuple[int, float]]

    def atoms(self, cell: Any) -> Atoms:
        lattice, scaled, types = cell
        kinds = [self.kinds[int(kind)] for kind in types]
        # spglib leaves -1e-17 in places, which would print as -0.0 in every file written later.
        lattice = np.where(np.abs(lattice) < 1e-12, 0.0, lattice)
        atoms = Atoms(
            numbers=[number for number, _ in kinds], cell=lattice, scaled_positions=scaled, pbc=True
        )
        moments = [moment for _, moment in kinds]
        if any(moments):
            atoms.set_initial_magnetic_moments(moments)
        return atoms


def _types_and_moments(atoms: Atoms) -> _Sites:
    moments = atoms.get_initial_magnetic_moments()
    if moments.ndim != 1:
        moments = np.linalg.norm(moments, axis=1)
    sites = [(int(z), round(float(m), 3)) for z, m in zip(atoms.numbers, moments, strict=True)]
    kinds = sorted(set(sites))
    return _Sites(types=[kinds.index(site) for site in sites], kinds=kinds)


def element_crystal(symbol: str) -> Atoms:
    """The crystal of an element as ASE knows it.

    :raises InputError: ASE has none, or none with atomic positions.
    """
    kind = (reference_states[atomic_numbers[symbol]] or {}).get("symmetry")
    cause: Exception | None = None
    if kind in _CRYSTALS:
        try:
            crystal: Atoms = bulk(symbol)
        except (ValueError, RuntimeError) as error:
            cause = error
        else:
            return crystal
    if kind in ("diatom", "atom"):
        reason = f"ASE knows {symbol} only as a {'molecule' if kind == 'diatom' else 'gas'}"
    elif kind is None:
        reason = f"ASE has no crystal structure for {symbol}"
    else:
        reason = f"ASE has no atomic positions for the {kind} crystal of {symbol}"
    raise InputError(
        f"material '{symbol}': {reason}; give a structure file (CIF, POSCAR, extxyz) instead"
    ) from cause


def read_structure(path: Path, spec: str) -> Atoms:
    """The one structure of a file; ``spec`` is how errors name it.

    :raises InputError: missing, empty or unreadable file, or one with several structures.
    """
    if not path.exists():
        raise InputError(f"material '{spec}': the file {path} does not exist")
    if path.is_dir():
        raise InputError(f"material '{spec}': {path} is a folder; give one structure file")
    if not path.read_bytes().strip():
        raise InputError(f"material '{spec}': the file {path} is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read(path, index=":")
    except UnknownFileTypeError as error:
        raise InputError(
            f"material '{spec}': {path} is of no kind ASE knows; use CIF, POSCAR or extxyz"
        ) from error
    except _READER_ERRORS as error:
        # Other errors speak of the reader's variables, not of the file.
        told = isinstance(error, OSError | ValueError)
        detail = f": {' '.join(str(error).split())[:200]}" if told and str(error).strip() else ""
        raise InputError(
            f"material '{spec}': {path} cannot be read as a structure{detail}"
        ) from error
    frames = found if isinstance(found, list) else [found]
    if not frames:
        raise InputError(f"material '{spec}': the file {path} holds no structure")
    if len(frames) > 1:
        raise InputError(
            f"material '{spec}': {path} holds {len(frames)} structures; give a file with one"
        )
    return frames[0]


def _check_structure(atoms: Atoms, name: str) -> None:
    where = f"material '{name}'"
    if len(atoms) == 0:
        raise InputError(f"{where}: the structure has no atoms")
    if np.any(atoms.numbers < 1) or np.any(atoms.numbers >= len(chemical_symbols)):
        raise InputError(f"{where}: the structure has an atom of no known element")
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if bad.size:
        raise InputError(f"{where}: the position of atom {bad[0]} is not a number")
    if not np.isfinite(atoms.cell.array).all():
        raise InputError(f"{where}: the cell holds a value that is not a number")
    if not atoms.pbc.all():
        raise InputError(f"{where}: the structure is not periodic in all three directions")
    if abs(atoms.cell.volume) < 1.0:
        raise InputError(f"{where}: the cell has no volume ({abs(atoms.cell.volume):.3g} Å^3)")
    occupancy = atoms.info.get("occupancy") or {}
    if any(len(site) > 1 or min(site.values()) < 0.999 for site in occupancy.values()):
        raise InputError(
            f"{where}: the file has partially occupied sites; give an ordered structure"
        )
    pairs = neighbor_list("ijd", atoms, OVERLAP_DISTANCE)
    if len(pairs[0]):
        i, j, distance = pairs[0][0], pairs[1][0], pairs[2][0]
        raise InputError(f"{where}: atoms {i} and {j} overlap, they are {distance:.3f} Å apart")


def _shortest_distance(atoms: Atoms) -> float:
    # The shortest lattice vector bounds the distance from above: an atom sees its own image there.
    reduced, _ = minkowski_reduce(atoms.cell.array)
    bound = float(np.linalg.norm(reduced, axis=1).min())
    return float(neighbor_list("d", atoms, bound + 1e-6).min())
