"""SOAP: the power spectrum of the smooth density of atoms around each atom.

Bartók, Kondor, Csányi, Phys. Rev. B 87, 184115 (2013). The features are those of dscribe 2.1
without weighting and compression, in its order; the radial bases are in `soap_radial`, the kernels
in `kernels.soap`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_autopipe.core.ace.parallel import short_tasks
from aiida_autopipe.core.ace.tables import harmonics
from aiida_autopipe.core.descriptors.kernels.soap import (
    EACH,
    INNER,
    OUTER,
    Soap,
    describe_cells,
    describe_structures,
    fill_spectrum,
)
from aiida_autopipe.core.descriptors.kernels.surroundings import Grid, make_grid
from aiida_autopipe.core.descriptors.soap_radial import (
    breaks,
    gto,
    padding,
    polynomial,
    tabulate,
)
from aiida_autopipe.core.descriptors.structures import Batch, Known
from aiida_autopipe.core.errors import InputError

Array = NDArray[np.float64]
RadialBasis = Literal["gto", "polynomial"]
Average = Literal["inner", "outer"]

# As in dscribe; beyond it a table of l would be of no use to anyone.
_LARGEST_L = 20
_LARGEST_N = 100
# Å
_SHORTEST_GTO_CUTOFF = 1.0
# Atoms of a task for one thread: a small part of what is left, so that all threads end together,
# but many against the cost of a task.
_TASK_SHARE = 32
_TASK_ATOMS = (128, 1024)


class SoapDescriptor:
    """SOAP features p_nn'l^ZZ', in the order of pairs of elements, l, n, n'.

    Elements are sorted by atomic number; pairs are (Z, Z') with Z' >= Z in the order (1, 1),
    (1, 2), ..., (2, 2), ...; a pair of equal elements has n' >= n only. `location` finds the
    columns of a pair. The Gaussians of all atoms up to r_cut + 3.72 sigma are counted, that of the
    central one too.
    """

    kind = "soap"

    def __init__(
        self,
        elements: Sequence[str],
        r_cut: float = 5.0,
        n_max: int = 8,
        l_max: int = 6,
        sigma: float = 0.5,
        rbf: RadialBasis = "gto",
    ) -> None:
        """Make the tables.

        Args:
            elements: chemical symbols.
            r_cut: extent of the radial basis in Å; more than 1 for 'gto'.
            n_max: number of radial functions.
            l_max: largest angular momentum, 0 to 20.
            sigma: width of the Gaussian of a neighbour, Å.
            rbf: radial basis, Gaussian type orbitals 'gto' or 'polynomial'.

        Raises:
            InputError: an unknown element, a number out of range, or radial functions that cannot
                be made orthonormal.
        """
        self.elements = _sorted_elements(elements)
        self._settings = _checked(r_cut, n_max, l_max, sigma, rbf)
        self.r_cut, self.n_max, self.l_max, self.sigma, self.rbf = self._settings
        reach = self.r_cut + padding(self.sigma)
        if rbf == "gto":
            table = tabulate(gto(*self._settings[:4]), reach, np.zeros(0))
        else:
            edges = breaks(self.r_cut, self.l_max, self.sigma, reach)
            table = tabulate(polynomial(*self._settings[:4]), reach, edges)
        real = harmonics(self.l_max)
        # Real and imaginary part are functions of their own, for m and -m.
        real.diagonal[1:] *= np.sqrt(2.0)
        self._soap = Soap(len(self.elements), self.n_max, table, real)
        self._known = Known(self.elements, reach)

    @property
    def n_features(self) -> int:
        """F = k (k + 1) / 2 (l_max + 1) with k = n_max times the number of elements."""
        k = self.n_max * len(self.elements)
        return k * (k + 1) // 2 * (self.l_max + 1)

    def settings(self) -> dict[str, Any]:
        """What decides the features; see `Descriptor`."""
        return {
            "descriptor": self.kind,
            "elements": list(self.elements),
            **dict(zip(("r_cut", "n_max", "l_max", "sigma", "rbf"), self._settings, strict=True)),
        }

    def location(self, first: str, second: str) -> slice:
        """Columns of a pair of elements, in either order.

        Raises:
            InputError: an element that is not described.
        """
        for symbol in (first, second):
            if symbol not in self.elements:
                raise InputError(
                    f"'{symbol}' is none of the elements described: {', '.join(self.elements)}."
                )
        wanted = tuple(sorted((self.elements.index(first), self.elements.index(second))))
        begin, count = 0, len(self.elements)
        for pair in ((i, j) for i in range(count) for j in range(i, count)):
            equal = pair[0] == pair[1]
            size = self.n_max * (self.n_max + 1) // 2 if equal else self.n_max**2
            end = begin + size * (self.l_max + 1)
            if pair == wanted:
                break
            begin = end
        return slice(begin, end)

    def compute(self, structures: Sequence[Atoms], *, threads: int = 1) -> Array:
        """Features (sum of atoms, F); structures, and parts of large ones, are shared by threads.

        Raises:
            DataError: an element that is not described, no atoms, NaN, or an unusable cell; the
                index of the structure is named.
        """
        sizes = np.array([len(atoms) for atoms in structures], dtype=np.int64)
        out = np.empty((int(sizes.sum()), self.n_features))
        rows = np.concatenate([[0], np.cumsum(sizes)])
        for batch in self._known.batches(structures, sizes):
            self._run(batch, EACH, out, int(rows[batch.start]), threads)
        return out

    def averages(
        self, structures: Sequence[Atoms], mode: Average = "outer", *, threads: int = 1
    ) -> Array:
        """Features (S, F) of whole structures.

        Args:
            structures: what to describe.
            mode: 'outer', the mean of the features of the atoms, or 'inner', the power spectrum of
                the mean of their coefficients c_nlm.
            threads: threads.

        Raises:
            InputError: another mode.
            DataError: as `compute`.
        """
        if mode not in ("inner", "outer"):
            raise InputError(f"An average is 'inner' or 'outer', not '{mode}'.")
        sizes = np.array([len(atoms) for atoms in structures], dtype=np.int64)
        out = np.empty((len(structures), self.n_features))
        table = self._soap.radial.coefficients
        n_coefficients = len(self.elements) * (self.l_max + 1) ** 2 * table.shape[3]
        square = np.zeros(table.shape[3] ** 2)
        for batch in self._known.batches(structures, sizes):
            end = batch.start + len(batch.first) - 1
            scale = 1.0 / sizes[batch.start : end, None]
            if mode == "outer":
                totals = np.zeros((end - batch.start, self.n_features))
                self._run(batch, OUTER, totals, 0, threads)
                out[batch.start : end] = scale * totals
            else:
                totals = np.zeros((end - batch.start, n_coefficients))
                self._run(batch, INNER, totals, 0, threads)
                for row, mean in enumerate(scale * totals, batch.start):
                    fill_spectrum(self._soap, mean, square, out[row])
        return out

    # ------------------------------------------------------------------ sharing out the work

    def _run(self, batch: Batch, average: int, out: Array, row: int, threads: int) -> None:
        """Describe the structures of a batch; rows begin at out[row].

        What the tasks are, and the order in which sums are added, does not depend on `threads`.
        """
        tasks = list(self._tasks(batch, average, out, row))
        for finish in short_tasks(lambda task: task(), tasks, max(1, threads)):
            finish()

    def _tasks(
        self, batch: Batch, average: int, out: Array, row: int
    ) -> Iterator[Callable[[], Callable[[], None]]]:
        """Work for one thread each. It returns what is left to do in the order of the tasks."""
        begin, n = 0, len(batch.first) - 1
        while begin < n:
            limit = batch.first[begin] + _task_atoms(batch.first[-1] - batch.first[begin])
            end = int(np.searchsorted(batch.first, limit, side="right")) - 1
            at = row + (int(batch.first[begin]) if average == EACH else begin)
            if end > begin:
                yield partial(self._describe_some, batch, begin, end, average, out, at)
            else:
                end = begin + 1
                yield from self._parts(batch, begin, average, out, at)
            begin = end

    def _describe_some(
        self, batch: Batch, begin: int, end: int, average: int, out: Array, row: int
    ) -> Callable[[], None]:
        """Describe structures begin:end of a batch."""
        crowded = describe_structures(
            self._soap,
            batch.first[begin : end + 1],
            batch.types,
            batch.points,
            batch.boxes[begin:end],
            batch.inverses[begin:end],
            batch.periodic[begin:end],
            average,
            row,
            out,
        )
        return partial(self._known.check_crowd, batch, batch.first[begin] + crowded, crowded < 0)

    def _parts(
        self, batch: Batch, s: int, average: int, out: Array, row: int
    ) -> Iterator[Callable[[], Callable[[], None]]]:
        """Tasks for the parts of one large structure."""
        atoms = slice(batch.first[s], batch.first[s + 1])
        grid = make_grid(
            batch.points[atoms],
            batch.types[atoms],
            len(self.elements),
            batch.boxes[s],
            batch.inverses[s],
            batch.periodic[s],
            self._soap.radial.cutoff,
        )
        begins = grid.first[:: len(self.elements)]
        cell, n_cells = 0, len(begins) - 1
        while cell < n_cells:
            limit = begins[cell] + _task_atoms(begins[-1] - begins[cell])
            end = int(np.searchsorted(begins, limit, side="right")) - 1
            end = min(max(end, cell + 1), n_cells)
            yield partial(self._describe_part, batch, s, grid, cell, end, average, out, row)
            cell = end

    def _describe_part(
        self,
        batch: Batch,
        s: int,
        grid: Grid,
        begin: int,
        end: int,
        average: int,
        out: Array,
        row: int,
    ) -> Callable[[], None]:
        """Describe the atoms in cells begin:end of structure s."""
        if average == EACH:
            crowded = describe_cells(self._soap, grid, begin, end, average, row, out)
            return partial(self._known.check_crowd, batch, batch.first[s] + crowded, crowded < 0)
        part = np.zeros((1, out.shape[1]))
        crowded = describe_cells(self._soap, grid, begin, end, average, 0, part)

        def finish() -> None:
            self._known.check_crowd(batch, batch.first[s] + crowded, crowded < 0)
            out[row] += part[0]

        return finish


def _task_atoms(left: int) -> int:
    """Atoms of the next task when `left` are still to be described."""
    fewest, most = _TASK_ATOMS
    return min(max(int(left) // _TASK_SHARE, fewest), most)


def _sorted_elements(elements: Sequence[str]) -> tuple[str, ...]:
    """Chemical symbols by atomic number."""
    if isinstance(elements, str) or not elements:
        raise InputError(f"elements = {elements!r}: give a list of one or more chemical symbols.")
    for symbol in elements:
        if symbol not in chemical_symbols[1:]:
            raise InputError(f"elements: '{symbol}' is no chemical symbol.")
    if len(set(elements)) < len(elements):
        raise InputError(f"elements = {', '.join(elements)}: give each element once.")
    return tuple(sorted(elements, key=chemical_symbols.index))


def _checked(
    r_cut: float, n_max: int, l_max: int, sigma: float, rbf: str
) -> tuple[float, int, int, float, RadialBasis]:
    """The settings, as Python's own types, in their ranges."""
    if rbf not in ("gto", "polynomial"):
        raise InputError(f"rbf = '{rbf}': the radial basis is 'gto' or 'polynomial'.")
    for name, value in (("r_cut", r_cut), ("n_max", n_max), ("l_max", l_max), ("sigma", sigma)):
        if not isinstance(value, int | float | np.integer | np.floating):
            raise InputError(f"{name} = {value!r}: it must be a number.")
    least = _SHORTEST_GTO_CUTOFF if rbf == "gto" else 0.0
    if not least < r_cut < np.inf:
        raise InputError(
            f"r_cut = {r_cut:g} Å: for rbf '{rbf}' it must be larger than {least:g} Å."
        )
    if not 0.0 < sigma < np.inf:
        raise InputError(f"sigma = {sigma:g} Å: the width of a Gaussian must be larger than 0.")
    if not 1 <= n_max <= _LARGEST_N or n_max != int(n_max):
        raise InputError(f"n_max = {n_max}: it must be a whole number from 1 to {_LARGEST_N}.")
    if not 0 <= l_max <= _LARGEST_L or l_max != int(l_max):
        raise InputError(f"l_max = {l_max}: it must be a whole number from 0 to {_LARGEST_L}.")
    basis: RadialBasis = "gto" if rbf == "gto" else "polynomial"
    return float(r_cut), int(n_max), int(l_max), float(sigma), basis
