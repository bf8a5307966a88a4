"""The ACE basis: B functions of every atom, their derivatives, and the design matrix of a fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.ace import design_kernels, evaluate_kernels, kernels
from aiida_autopipe.core.ace.functions import (
    BasisFunction,
    BasisSettings,
    Bond,
    column_order,
    enumerate_functions,
)
from aiida_autopipe.core.ace.kernels import Derivatives, SortedPairs, Tables
from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.ace.radial import RadialSpec
from aiida_autopipe.core.ace.tables import (
    Expansion,
    Pair,
    compile_derivatives,
    compile_tables,
    expand,
)
from aiida_autopipe.core.errors import DataError, PotentialFileError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Spacing of the radial tables in Å; agrees with ML-PACE's default and is exact to 1e-12 of g.
SPLINE_BINS = 0.001
# A thread for fewer atoms costs more than it does.
_FEWEST_ATOMS = 32


class DesignBlock(NamedTuple):
    """Design-matrix rows of one structure of n atoms for F functions.

    values (n, F): B of each atom, in the columns of its own element, zero elsewhere;
    energy_row (F,): their sum over atoms, so E = energy_row @ c;
    force_rows (3 n, F): -dE_f/dr, atoms outer, x y z inner;
    virial_rows (6, F): dE_f/dstrain in ASE's Voigt order (xx yy zz yz xz xy), so
    stress = virial_rows @ c / volume with ASE's sign.
    """

    values: Floats
    energy_row: Floats
    force_rows: Floats
    virial_rows: Floats


@dataclass(frozen=True, eq=False)
class Basis:
    """An ACE basis.

    elements: symbols in alphabetical order; bonds: radial functions for all ordered pairs of
    element indices (centre, neighbour); functions: sorted by centre and, within, as the columns of
    an active set; spline_bins: table spacing in Å; settings: what it was built from, None when read
    from a file; coupled: False when the functions are the C-tilde sums of a .yace file, which hold
    coefficients.

    Raises PotentialFileError without any function or with several types of inner cutoff.
    """

    elements: tuple[str, ...]
    bonds: Mapping[Pair, Bond]
    functions: tuple[BasisFunction, ...]
    spline_bins: float = SPLINE_BINS
    settings: BasisSettings | None = None
    coupled: bool = True

    def __post_init__(self) -> None:
        if not self.functions:
            raise PotentialFileError("The basis has no functions; a potential needs at least one.")
        ordered = [self.functions[k] for k in column_order(self.functions)]
        object.__setattr__(self, "functions", tuple(ordered))
        inner_types = sorted({bond.radial.inner_type for bond in self.bonds.values()})
        if len(inner_types) > 1:
            raise PotentialFileError(
                f"inner_cutoff_type differs between pairs of elements ({', '.join(inner_types)}); "
                "all must have the same."
            )

    def part(self, functions: Ints) -> Basis:
        """The basis with some of the functions, given by their column in ascending order."""
        return replace(
            self, functions=tuple(self.functions[k] for k in functions.tolist()), settings=None
        )

    @property
    def n_functions(self) -> int:
        """F, the total number of functions over all elements."""
        return len(self.functions)

    @cached_property
    def offsets(self) -> Ints:
        """Columns of element k are offsets[k]:offsets[k + 1]; shape (elements + 1,)."""
        mu0 = [function.mu0 for function in self.functions]
        return np.searchsorted(mu0, np.arange(len(self.elements) + 1)).astype(np.int64)

    def columns(self, element: str) -> slice:
        """Columns of the functions centred on `element`."""
        k = self.elements.index(element)
        return slice(int(self.offsets[k]), int(self.offsets[k + 1]))

    @cached_property
    def cutoff(self) -> float:
        """Largest cutoff in Å."""
        return max(bond.radial.cutoff for bond in self.bonds.values())

    @cached_property
    def degrees(self) -> Floats:
        """Total degree sum(n + l) of every function (F,): a measure of roughness for priors."""
        return np.array([float(sum(f.ns) + sum(f.ls)) for f in self.functions])

    @cached_property
    def ranks(self) -> Ints:
        """Rank of every function (F,)."""
        return np.array([f.rank for f in self.functions], dtype=np.int64)

    @cached_property
    def _expansion(self) -> Expansion:
        return expand(len(self.elements), self.bonds, self.functions)

    @cached_property
    def tables(self) -> Tables:
        """Flat arrays for the kernels, compiled on first use."""
        return compile_tables(self.elements, self.bonds, self._expansion, self.spline_bins)

    @cached_property
    def _derivatives(self) -> Derivatives:
        return compile_derivatives(self._expansion)

    def types(self, atoms: Atoms) -> Ints:
        """Index of each atom's element; DataError for an element the basis does not know."""
        lookup = np.full(len(chemical_symbols), -1, dtype=np.int64)
        for k, element in enumerate(self.elements):
            lookup[chemical_symbols.index(element)] = k
        types: Ints = lookup[atoms.numbers]
        if (types < 0).any():
            unknown = sorted({chemical_symbols[z] for z in atoms.numbers[types < 0]})
            raise DataError(
                f"The structure contains {', '.join(unknown)}, but the potential knows only "
                f"{', '.join(self.elements)}."
            )
        return types

    def neighbours(self, atoms: Atoms) -> tuple[Ints, SortedPairs]:
        """Element types (n,) and the sorted neighbour pairs of a structure."""
        types = self.types(atoms)
        pairs = full_neighbour_list(atoms, self.cutoff)
        return types, self.sort_pairs(types, *pairs, len(atoms))

    def sort_pairs(
        self, types: Ints, centre: Ints, neighbour: Ints, vectors: Floats, n_local: int
    ) -> SortedPairs:
        """Group a full pair list by centre and neighbour element, dropping pairs beyond the cutoff.

        Raises DataError when two atoms sit on one spot or a vector is not finite.
        """
        pairs = SortedPairs(
            *kernels.sort_pairs(
                types, centre, neighbour, vectors, n_local, self.tables.radial.cutoff
            )
        )
        if pairs.too_close >= 0:
            i, j = int(centre[pairs.too_close]), int(neighbour[pairs.too_close])
            if not np.isfinite(vectors[pairs.too_close]).all():
                raise DataError(f"The vector between atoms {i} and {j} is not finite.")
            raise DataError(
                f"Atoms {i} and {j} are less than {kernels.SHORTEST_DISTANCE} Å apart; remove one."
            )
        return pairs

    def design_block(self, atoms: Atoms, threads: int = 1) -> DesignBlock:
        """Design-matrix rows of one structure (see DesignBlock), made in several threads."""
        return self.design_rows(*self.neighbours(atoms), threads)

    def design_rows(self, types: Ints, pairs: SortedPairs, threads: int = 1) -> DesignBlock:
        """The same from element types (n,) and sorted pairs without ghosts."""
        tables, derivatives = self.tables, self._derivatives
        n_atoms, width = len(types), len(derivatives.function)
        values = np.zeros((n_atoms, self.n_functions))

        def rows(mine: Ints) -> tuple[Floats, Floats]:
            forces, virial = np.zeros((3 * n_atoms, width)), np.zeros((6, width))
            design_kernels.design(
                types,
                mine,
                pairs.first,
                pairs.neighbour,
                pairs.vectors,
                tables,
                derivatives,
                values,
                forces,
                virial,
            )
            return forces, virial

        forces, virial = sum_of_parts(rows, by_type(types), threads)
        return DesignBlock(
            values, values.sum(axis=0), self._in_order(forces), self._in_order(virial)
        )

    def _in_order(self, rows: Floats) -> Floats:
        """Rows (k, F) from rows (k, places), which are used up."""
        place = np.argsort(self._derivatives.function, kind="stable")[-self.n_functions :]
        design_kernels.in_order(rows, place)
        return rows.reshape(-1)[: len(rows) * len(place)].reshape(len(rows), len(place))

    def values(self, atoms: Atoms) -> Floats:
        """B function values (n, F) of each atom; columns of other centre elements are zero."""
        types, pairs = self.neighbours(atoms)
        return self.pair_values(types, pairs, len(atoms))

    def pair_values(self, types: Ints, pairs: SortedPairs, n_local: int) -> Floats:
        """B function values (n_local, F) from sorted pairs."""
        result: Floats = evaluate_kernels.function_values(
            types, by_type(types[:n_local]), pairs.first, pairs.vectors, self.tables
        )
        return result


def by_type(types: Ints) -> Ints:
    """Indices of atoms sorted by type: the kernels take several of one type together."""
    return np.argsort(types, kind="stable").astype(np.int64)


def sum_of_parts(
    work: Callable[[Ints], tuple[Floats, Floats]], atoms: Ints, threads: int
) -> tuple[Floats, Floats]:
    """The sum of what `work` gives for parts of the atoms, done at the same time in threads.

    The parts are added in their order, so that the same number of threads gives the same digits.
    """
    parts = np.array_split(atoms, max(1, min(threads, len(atoms) // _FEWEST_ATOMS)))
    if len(parts) == 1:
        return work(atoms)
    with ThreadPoolExecutor(len(parts)) as pool:
        (first, second), *others = pool.map(work, parts)
    for one, other in others:
        first += one
        second += other
    return first, second


def build_basis(settings: BasisSettings) -> Basis:
    """Basis of `settings`: one radial basis for all pairs, functions by total degree."""
    functions = enumerate_functions(settings)
    n_rank_one = max((max(f.ns) for f in functions if f.rank == 1), default=1)
    many = [f for f in functions if f.rank > 1]
    nradmax = max((max(f.ns) for f in many), default=1)
    lmax = max((max(f.ls) for f in many), default=0)
    radial = RadialSpec(
        cutoff=settings.cutoff,
        n_functions=max(n_rank_one, nradmax),
        name=settings.radial,
        lambda_=settings.lambda_,
        outer_width=settings.outer_width,
        inner_cutoff=settings.inner_cutoff,
        inner_width=settings.inner_width,
    )
    bond = Bond(radial, identity_coefficients(nradmax, lmax, radial.n_functions))
    types = range(len(settings.elements))
    bonds = {(i, j): bond for i in types for j in types}
    return Basis(settings.elements, bonds, tuple(functions), settings=settings)


def identity_coefficients(nradmax: int, lmax: int, n_functions: int) -> Floats:
    """Coefficients (nradmax, lmax + 1, n_functions) that make R_nl = g_n."""
    identity = np.eye(nradmax, n_functions)
    return np.repeat(identity[:, None, :], lmax + 1, axis=1)


def coupled_basis(
    elements: Sequence[str],
    bonds: Mapping[Pair, Bond],
    functions: Sequence[BasisFunction],
    spline_bins: float,
) -> Basis:
    """Basis of B functions read from a file."""
    return Basis(tuple(elements), bonds, tuple(functions), spline_bins)
