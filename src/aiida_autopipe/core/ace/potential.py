"""ACEPotential: basis, coefficients, reference energies and active set; evaluation and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.ace import evaluate_kernels
from aiida_autopipe.core.ace.basis import Basis
from aiida_autopipe.core.ace.bbasis import read_asi, read_bbasis, write_asi, write_bbasis
from aiida_autopipe.core.ace.coupling import canonical_monomials
from aiida_autopipe.core.ace.kernels import SortedPairs
from aiida_autopipe.core.ace.yace import ctilde_functions, read_yace, write_yace
from aiida_autopipe.core.errors import DataError, InputError, PotentialFileError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Evaluation(NamedTuple):
    """Result for one structure, in eV, eV/Å, eV/Å^3 (ASE's sign and Voigt order).

    energy and energies (n,) contain the reference energies; stress (6,) is None unless periodic in
    three directions; gamma (n,) is the extrapolation grade, None unless asked for.
    """

    energy: float
    energies: Floats
    forces: Floats
    stress: Floats | None
    gamma: Floats | None


class PairEvaluation(NamedTuple):
    """Result for a neighbour list made elsewhere: energies (n_local,) without reference energies;
    forces (n_all, 3) including ghosts; virial (6,) in eV, Voigt xx yy zz yz xz xy, equal to
    sum r_a dE/dr_b over pairs = -sum r_a f_b (stress in ASE's sign = virial / volume; LAMMPS's
    virial is its negative); gamma (n_local,) or None."""

    energies: Floats
    forces: Floats
    virial: Floats
    gamma: Floats | None


@dataclass(frozen=True, eq=False)
class ACEPotential:
    """A linear ACE potential.

    basis: its functions; coefficients (F,): eV per function; reference_energies: {symbol: eV} added
    to each atom, empty for none; inverse_active_set: {symbol: (N, N)} the matrix M of the
    extrapolation grade gamma_i = max |B_i M|, columns of B in the order of the basis, or None.

    Raises PotentialFileError when shapes do not fit together.
    """

    basis: Basis
    coefficients: Floats
    reference_energies: Mapping[str, float] = field(default_factory=dict)
    inverse_active_set: Mapping[str, Floats] | None = None

    def __post_init__(self) -> None:
        coefficients = np.asarray(self.coefficients, dtype=np.float64)
        object.__setattr__(self, "coefficients", coefficients)
        if coefficients.shape != (self.basis.n_functions,):
            raise PotentialFileError(
                f"{coefficients.shape} coefficients do not fit {self.basis.n_functions} functions."
            )
        if not np.isfinite(coefficients).all():
            raise PotentialFileError("The coefficients contain numbers that are not finite.")
        for element, matrix in (self.inverse_active_set or {}).items():
            columns = self.basis.columns(element)
            n = columns.stop - columns.start
            if matrix.shape != (n, n):
                raise PotentialFileError(
                    f"The active set of {element} has the shape {matrix.shape}, expected {(n, n)}."
                )

    @property
    def elements(self) -> list[str]:
        """Chemical symbols in alphabetical order."""
        return list(self.basis.elements)

    @property
    def cutoff(self) -> float:
        """Largest cutoff in Å."""
        return self.basis.cutoff

    @cached_property
    def _value_coefficients(self) -> Floats:
        """Coefficient of every value of the product graph: sums over functions that share it."""
        tables = self.basis.tables
        terms = tables.terms
        result = np.zeros(tables.value_offset[-1])
        mu0 = np.array([f.mu0 for f in self.basis.functions], dtype=np.int64)
        counts = np.diff(terms.term_offset)
        at = np.repeat(tables.value_offset[mu0], counts) + terms.value
        np.add.at(result, at, terms.weight * np.repeat(self.coefficients, counts))
        return result

    def evaluate(self, atoms: Atoms, gamma: bool = False) -> Evaluation:
        """Energy, forces, stress and, with `gamma`, the extrapolation grade of a structure.

        Raises DataError for unknown elements or unusable geometry, InputError when gamma is asked
        of a potential without active set.
        """
        types, pairs = self.basis.neighbours(atoms)
        result = self._evaluate(types, pairs, len(atoms), gamma)
        energies = result.energies + self._references[types]
        stress = result.virial / float(atoms.cell.volume) if atoms.pbc.all() else None
        return Evaluation(float(energies.sum()), energies, result.forces, stress, result.gamma)

    def evaluate_pairs(
        self,
        types: NDArray[Any],
        centre: NDArray[Any],
        neighbour: NDArray[Any],
        vectors: Floats,
        n_atoms: int,
        gamma: bool = False,
    ) -> PairEvaluation:
        """Same for a full neighbour list made elsewhere (LAMMPS); reference energies excluded.

        types (n_all,): index into `elements` of local atoms, then ghosts; centre, neighbour (P,):
        indices, centre < n_atoms; vectors (P, 3) from centre to neighbour in Å, pairs beyond the
        cutoff are ignored; n_atoms: number of local atoms.

        Raises DataError for indices out of range.
        """
        types = np.ascontiguousarray(types, dtype=np.int64)
        centre = np.ascontiguousarray(centre, dtype=np.int64)
        neighbour = np.ascontiguousarray(neighbour, dtype=np.int64)
        vectors = np.ascontiguousarray(vectors, dtype=np.float64).reshape(-1, 3)
        for name, values, limit in (
            ("types", types, len(self.elements)),
            ("centre", centre, n_atoms),
            ("neighbour", neighbour, len(types)),
        ):
            if len(values) and not (values.min() >= 0 and values.max() < limit):
                raise DataError(f"{name} must be indices from 0 to {limit - 1}.")
        if not len(centre) == len(neighbour) == len(vectors) or n_atoms > len(types):
            raise DataError("centre, neighbour and vectors must have one entry per pair.")
        pairs = self.basis.sort_pairs(types, centre, neighbour, vectors, n_atoms)
        return self._evaluate(types, pairs, n_atoms, gamma)

    def descriptors(self, atoms: Atoms) -> Floats:
        """B function values (n, F); columns of functions of other centre elements are zero."""
        return self.basis.values(atoms)

    @property
    def has_active_set(self) -> bool:
        """Whether gamma can be computed."""
        return self.inverse_active_set is not None

    @cached_property
    def _references(self) -> Floats:
        return np.array([self.reference_energies.get(e, 0.0) for e in self.elements])

    def _evaluate(
        self, types: Ints, pairs: SortedPairs, n_local: int, gamma: bool
    ) -> PairEvaluation:
        if gamma and not self.has_active_set:
            raise InputError(
                "This potential has no active set, so gamma is unknown; load its .yaml with the "
                ".asi beside it, or evaluate with gamma off."
            )
        t = self.basis.tables
        energies, forces, virial, values = evaluate_kernels.evaluate(
            types,
            n_local,
            len(self.elements),
            pairs.first,
            pairs.neighbour,
            pairs.vectors,
            t.radial,
            t.lmax,
            t.norm,
            t.runs,
            t.graph,
            t.terms,
            self._value_coefficients,
            t.value_offset,
            gamma,
        )
        grades = self.gamma_of_values(types[:n_local], values) if gamma else None
        return PairEvaluation(energies, forces, virial, grades)

    def gamma_of_values(self, types: Ints, values: Floats) -> Floats:
        """Extrapolation grade (n,) from element types (n,) and B values (n, F)."""
        grades = np.zeros(len(types))
        for k, element in enumerate(self.elements):
            mine = types == k
            if self.inverse_active_set is None or element not in self.inverse_active_set:
                raise InputError(f"The potential has no active set for {element}.")
            if mine.any() and self.basis.columns(element) != slice(0, 0):
                block = values[mine, self.basis.columns(element)]
                if block.shape[1]:
                    grades[mine] = np.abs(block @ self.inverse_active_set[element]).max(axis=1)
        return grades

    def save(self, prefix: str | Path) -> list[Path]:
        """Write PREFIX.yace, PREFIX.yaml (B-basis) and, with an active set, PREFIX.asi.

        Returns the paths written. A potential read from a .yace alone has no B-basis coefficients:
        only the .yace is written then. Reference energies are stored in the .yace alone (E0).
        """
        prefix = Path(prefix)
        paths = [prefix.with_name(prefix.name + ".yace")]
        write_yace(paths[0], self.basis, self.coefficients, self.reference_energies)
        if self.basis.coupled:
            paths.append(prefix.with_name(prefix.name + ".yaml"))
            write_bbasis(paths[-1], self.basis, self.coefficients)
            if self.inverse_active_set is not None:
                paths.append(prefix.with_name(prefix.name + ".asi"))
                write_asi(paths[-1], self.inverse_active_set)
        return paths

    @classmethod
    def load(cls, path: str | Path) -> ACEPotential:
        """Read a .yace or a B-basis .yaml, with NAME.asi beside it when there is one.

        A .yace holds no B functions. When NAME.yaml and NAME.asi stand beside it, the functions
        come from NAME.yaml, after checking that both describe the same potential, and gamma is
        known; the reference energies come from the .yace. A .yaml alone has none: zero.

        Raises PotentialFileError for anything that cannot be read or is not supported.
        """
        path = Path(path)
        active_set, b_file = path.with_suffix(".asi"), path.with_suffix(".yaml")
        if path.suffix in (".yaml", ".yml"):
            basis, coefficients = read_bbasis(path)
            inverse = read_asi(active_set, basis) if active_set.is_file() else None
            return cls(basis, coefficients, {}, inverse)
        if path.suffix != ".yace":
            raise PotentialFileError(f"{path}: a potential file ends in .yace or .yaml.")
        basis, energies = read_yace(path)
        references = energies if any(energies.values()) else {}
        if not (active_set.is_file() and b_file.is_file()):
            return cls(basis, np.ones(basis.n_functions), references)
        coupled, coefficients = read_bbasis(b_file)
        if not _same_potential(basis, coupled, coefficients):
            raise PotentialFileError(
                f"{path} and {b_file} describe different potentials; keep the files of one fit "
                "together."
            )
        return cls(coupled, coefficients, references, read_asi(active_set, coupled))


def _same_potential(yace: Basis, coupled: Basis, coefficients: Floats) -> bool:
    """Whether C-tilde functions equal those made from B functions, up to rounding."""
    if yace.elements != coupled.elements:
        return False
    for pair, bond in yace.bonds.items():
        other = coupled.bonds[pair]
        if bond.radial != other.radial or not np.array_equal(bond.coefficients, other.coefficients):
            return False
    difference: dict[object, float] = {}
    for basis, c, sign in ((yace, np.ones(yace.n_functions), 1.0), (coupled, coefficients, -1.0)):
        for function, terms in ctilde_functions(basis, c):
            # Programs order and merge the products of one function in different ways.
            for ms, value in canonical_monomials(function.factors, terms).items():
                key = (function.mu0, tuple(sorted(function.factors)), ms)
                difference[key] = difference.get(key, 0.0) + sign * value
    scale = float(np.abs(coefficients).max(initial=1.0))
    return all(abs(value) < 1e-8 * scale for value in difference.values())
