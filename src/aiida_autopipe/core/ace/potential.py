"""ACEPotential: basis, coefficients, reference energies and active set; evaluation and files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.ace import evaluate_kernels
from aiida_autopipe.core.ace.active_set_file import is_linear_grade, read_asi, write_asi
from aiida_autopipe.core.ace.basis import Basis, by_type, sum_of_parts
from aiida_autopipe.core.ace.bbasis import read_bbasis, write_bbasis
from aiida_autopipe.core.ace.coupling import canonical_ms
from aiida_autopipe.core.ace.embedding import Embedding, Embeddings, compile_embeddings
from aiida_autopipe.core.ace.grades import Grader
from aiida_autopipe.core.ace.kernels import SortedPairs
from aiida_autopipe.core.ace.lammps_text import include_path, include_text
from aiida_autopipe.core.ace.lanes import LANES
from aiida_autopipe.core.ace.parallel import one_blas_thread
from aiida_autopipe.core.ace.yace import ctilde_functions, read_yace, write_yace
from aiida_autopipe.core.ace.zbl import ZBL
from aiida_autopipe.core.errors import DataError, InputError, PotentialFileError
from aiida_autopipe.core.files import complete_file

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Atoms whose B and whose products with the inverse active set are in memory together.
_GRADED_TOGETHER = 256


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
    """An ACE potential: E_i is a function of the densities rho_p = sum_f c_fp B_f, p = 1 .. P, and
    of the core repulsion where the bonds of the basis have one (see `Embedding`).

    basis: its functions; coefficients (F, P): of each function for each density, P the largest
    number of densities of an element, zero where an element has fewer; (F,) stands for (F, 1);
    reference_energies: {symbol: eV} added to each atom, empty for none; inverse_active_set:
    {symbol: matrix} the matrix M of the extrapolation grade, columns of B in the order of the
    basis, or None: (N, N) for gamma_i = max |B_i M|, (N P, N P) for the same with the vectors
    dE/drho_p B_i, p outer, in place of B_i; embeddings: by symbol, linear with one density where an
    element is not named; zbl: a repulsion of pairs added to all this, no part of the grade.

    Raises PotentialFileError when shapes do not fit together.
    """

    basis: Basis
    coefficients: Floats
    reference_energies: Mapping[str, float] = field(default_factory=dict)
    inverse_active_set: Mapping[str, Floats] | None = None
    embeddings: Mapping[str, Embedding] = field(default_factory=dict)
    zbl: ZBL | None = None

    def __post_init__(self) -> None:
        embeddings = {e: self.embeddings.get(e, Embedding()) for e in self.basis.elements}
        if unknown := sorted(set(self.embeddings) - set(embeddings)):
            raise PotentialFileError(f"Embedding of {unknown[0]}, which the basis does not know.")
        object.__setattr__(self, "embeddings", embeddings)
        coefficients = np.asarray(self.coefficients, dtype=np.float64)
        if coefficients.ndim == 1:
            coefficients = coefficients[:, None]
        object.__setattr__(self, "coefficients", coefficients)
        n_densities = max(embedding.n_densities for embedding in embeddings.values())
        if coefficients.shape != (self.basis.n_functions, n_densities):
            raise PotentialFileError(
                f"{coefficients.shape} coefficients do not fit {self.basis.n_functions} functions "
                f"and {n_densities} densities."
            )
        if not np.isfinite(coefficients).all():
            raise PotentialFileError("The coefficients contain numbers that are not finite.")
        for element, embedding in embeddings.items():
            if coefficients[self.basis.columns(element), embedding.n_densities :].any():
                raise PotentialFileError(
                    f"{element} has {embedding.n_densities} densities, but coefficients for more."
                )
        is_linear_grade(self.basis, embeddings, self.inverse_active_set or {})
        shortest = min(bond.radial.cutoff for bond in self.basis.bonds.values())
        if self.zbl is not None and self.zbl.outer > shortest:
            raise PotentialFileError(
                f"The ZBL repulsion reaches {self.zbl.outer} Å, but a pair of elements has the "
                f"cutoff {shortest} Å; it must not reach further."
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
    def _couplings(self) -> evaluate_kernels.Weights:
        """Weights of the couplings for each density: sums over functions that share a product.
        Where the energy is linear, the weights of the densities are multiplied in."""
        tables = self.basis.tables
        terms = tables.terms
        rows = self.coefficients.copy()
        for element, embedding in self.embeddings.items():
            if embedding.is_linear:
                mine = self.basis.columns(element)
                rows[mine, 0] = rows[mine, : embedding.n_densities] @ embedding.weights
                rows[mine, 1:] = 0.0
        rows = np.repeat(rows, np.diff(terms.term_offset), axis=0)
        re, im = np.empty((2, rows.shape[1], len(tables.graph.product)))
        for p, c in enumerate(rows.T):
            for out, weight in ((re, terms.re), (im, terms.im)):
                sums = np.bincount(terms.product, weights=weight * c, minlength=tables.n_products)
                out[p] = sums[tables.graph.product]
        return evaluate_kernels.Weights(re, im)

    @cached_property
    def _embedding_tables(self) -> Embeddings:
        return compile_embeddings(self.basis.elements, self.embeddings, self.basis.bonds)

    def evaluate(self, atoms: Atoms, gamma: bool = False, threads: int = 1) -> Evaluation:
        """Energy, forces, stress and, with `gamma`, the extrapolation grade of a structure.

        threads: how many share the atoms; sums over atoms depend on it in the last digits.

        Raises DataError for unknown elements or unusable geometry, InputError when gamma is asked
        of a potential without active set.
        """
        types, pairs = self.basis.neighbours(atoms)
        ace = self._evaluate(types, pairs, len(atoms), gamma, threads)
        result = self._with_zbl(ace, types, pairs)
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
        threads: int = 1,
    ) -> PairEvaluation:
        """Same for a full neighbour list made elsewhere (LAMMPS); reference energies excluded.

        types (n_all,): index into `elements` of local atoms, then ghosts; centre, neighbour (P,):
        indices, centre < n_atoms; vectors (P, 3) from centre to neighbour in Å, pairs beyond the
        cutoff are ignored; n_atoms: number of local atoms; threads: as for `evaluate`.

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
        ace = self._evaluate(types, pairs, n_atoms, gamma, threads)
        return self._with_zbl(ace, types, pairs)

    def descriptors(self, atoms: Atoms) -> Floats:
        """B function values (n, F); columns of functions of other centre elements are zero."""
        return self.basis.values(atoms)

    @property
    def has_active_set(self) -> bool:
        """Whether gamma can be computed."""
        return self.inverse_active_set is not None

    def _with_zbl(self, ace: PairEvaluation, types: Ints, pairs: SortedPairs) -> PairEvaluation:
        if self.zbl is None:
            return ace
        numbers = [atomic_numbers[element] for element in self.elements]
        core = self.zbl.evaluate_sorted(types, numbers, pairs, len(ace.energies))
        return PairEvaluation(
            ace.energies + core.energies,
            ace.forces + core.forces,
            ace.virial + core.virial,
            ace.gamma,
        )

    @cached_property
    def _references(self) -> Floats:
        return np.array([self.reference_energies.get(e, 0.0) for e in self.elements])

    def _evaluate(
        self, types: Ints, pairs: SortedPairs, n_local: int, gamma: bool, threads: int
    ) -> PairEvaluation:
        if gamma and not self.has_active_set:
            raise InputError(
                "This potential has no active set, so gamma is unknown; load its .yaml with the "
                ".asi beside it, or evaluate with gamma off."
            )
        energies, grades = np.zeros(n_local), np.zeros(n_local)
        arrays = (self.basis.tables, self._embedding_tables, self._couplings)
        graders = self._graders if gamma else []

        def forces_and_virial(atoms: Ints) -> tuple[Floats, Floats]:
            forces, virial = np.zeros((len(types), LANES)), np.zeros((6, LANES))
            size = min(_GRADED_TOGETHER, len(atoms)) if graders else len(atoms)
            n_places = len(self.basis.tables.sums.function)
            values = np.empty((size if graders else 0, n_places))
            for begin in range(0, len(atoms), max(size, 1)):
                mine = atoms[begin : begin + size]
                evaluate_kernels.evaluate(
                    types,
                    mine,
                    pairs.first,
                    pairs.neighbour,
                    pairs.vectors,
                    *arrays,
                    energies,
                    values,
                    forces,
                    virial,
                )
                for k, grader in enumerate(graders):
                    rows = np.flatnonzero(types[mine] == k)
                    if len(rows):
                        grades[mine[rows]] = grader.grades(values, rows)
            return forces, virial

        with one_blas_thread() if gamma else nullcontext():
            forces, virial = sum_of_parts(forces_and_virial, by_type(types[:n_local]), threads)
        return PairEvaluation(
            energies, forces[:, :3].copy(), virial.sum(axis=1), grades if gamma else None
        )

    @cached_property
    def _graders(self) -> list[Grader]:
        """By element type."""
        inverses, sums = self.inverse_active_set or {}, self.basis.tables.sums
        graders = []
        for k, element in enumerate(self.elements):
            if element not in inverses:
                raise InputError(f"The potential has no active set for {element}.")
            columns, embedding = self.basis.columns(element), self.embeddings[element]
            coefficients = self.coefficients[columns, : embedding.n_densities]
            begin, end = LANES * sums.group_offset[k : k + 2]
            functions = sums.function[begin:end]
            places = np.where(functions >= 0, functions - columns.start, -1)
            graders.append(Grader(inverses[element], coefficients, embedding, int(begin), places))
        return graders

    def save(self, prefix: str | Path) -> list[Path]:
        """Write PREFIX.yace, PREFIX.yaml (B-basis), with an active set PREFIX.asi, and PREFIX.in.

        PREFIX.in has the LAMMPS commands that use the others, with the ZBL repulsion if there is
        one, which LAMMPS cannot know from them; it is PREFIX.lammps.in where PREFIX.in is another
        program's. All appear together, when all are complete. Returns the paths written, that one
        last. A potential read from a .yace alone has
        no B-basis coefficients: no .yaml and .asi are written then. Reference energies are stored
        in the .yace alone (E0).
        """
        prefix = Path(prefix)
        suffixes = [".yace"]
        if self.basis.coupled:
            suffixes += [".yaml"] if self.inverse_active_set is None else [".yaml", ".asi"]
        paths = [prefix.with_name(prefix.name + suffix) for suffix in suffixes]
        commands = include_text([path.name for path in paths], self.elements, self.zbl)
        paths.append(include_path(prefix))
        model = (self.basis, self.coefficients, self.embeddings)
        with ExitStack() as stack:
            yace, *others, include = [stack.enter_context(complete_file(path)) for path in paths]
            write_yace(yace, *model, self.reference_energies, self.zbl)
            if others:
                write_bbasis(others[0], *model, self.zbl)
            if self.inverse_active_set is not None and len(others) > 1:
                write_asi(others[1], self.inverse_active_set)
            include.write_text(commands, encoding="utf-8")
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
            basis, coefficients, embeddings, zbl = read_bbasis(path)
            inverse = read_asi(active_set, basis, embeddings) if active_set.is_file() else None
            return cls(basis, coefficients, {}, inverse, embeddings, zbl)
        if path.suffix != ".yace":
            raise PotentialFileError(f"{path}: a potential file ends in .yace or .yaml.")
        basis, coefficients, embeddings, energies, zbl = read_yace(path)
        references = energies if any(energies.values()) else {}
        alone = cls(basis, coefficients, references, None, embeddings, zbl)
        if not (active_set.is_file() and b_file.is_file()):
            return alone
        basis, coefficients, embeddings, zbl = read_bbasis(b_file)
        inverse = read_asi(active_set, basis, embeddings)
        coupled = cls(basis, coefficients, references, inverse, embeddings, zbl)
        if not _same_potential(alone, coupled):
            raise PotentialFileError(
                f"{path} and {b_file} describe different potentials; keep the files of one fit "
                "together."
            )
        return coupled


def _same_potential(first: ACEPotential, second: ACEPotential) -> bool:
    """Whether C-tilde functions equal those made from B functions, up to rounding, and the rest."""
    if first.elements != second.elements or first.embeddings != second.embeddings:
        return False
    if first.zbl != second.zbl:
        return False
    bonds = second.basis.bonds
    if not all(bond.equals(bonds[pair]) for pair, bond in first.basis.bonds.items()):
        return False
    difference: dict[object, Floats] = {}
    for potential, sign in ((first, 1.0), (second, -1.0)):
        for function, terms in ctilde_functions(potential.basis, potential.coefficients):
            # Programs order and merge the products of one function in different ways.
            factors = tuple(sorted(function.factors))
            for ms, values in terms:
                key = (function.mu0, factors, canonical_ms(function.factors, ms))
                difference[key] = difference.get(key, 0.0) + sign * values
    scale = float(np.abs(second.coefficients).max(initial=1.0))
    return all(np.abs(values).max() < 1e-8 * scale for values in difference.values())
