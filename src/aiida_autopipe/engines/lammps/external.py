"""Forces of a pair-list potential for LAMMPS' `fix external`.

Each step costs one Python call. LAMMPS' full neighbour list (`pair_style zero RC full`) is copied
only when LAMMPS rebuilt it; in between, one compiled loop turns positions into the pairs within the
cutoff. Ghost atoms are replaced by the atom they are an image of (there is one process), so forces
need no folding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.errors import EngineError, InputError
from aiida_autopipe.engines.lammps.deck import EXTERNAL_FIX, GAMMA_PROPERTY

# LAMMPS orders a symmetric tensor xx yy zz xy xz yz; ASE xx yy zz yz xz xy.
_VOIGT_TO_LAMMPS = [0, 1, 2, 5, 4, 3]


class PairForces(Protocol):
    """What `PairPotential.evaluate_pairs` returns."""

    @property
    def energies(self) -> NDArray[np.float64]:
        """(n_atoms,) in eV, without reference energies."""

    @property
    def forces(self) -> NDArray[np.float64]:
        """(n_atoms, 3) in eV/Å."""

    @property
    def virial(self) -> NDArray[np.float64]:
        """(6,) volume times stress in eV, ASE's sign and Voigt order."""

    @property
    def gamma(self) -> NDArray[np.float64] | None:
        """(n_atoms,) extrapolation grades, or the spread of the forces in eV/Å where that is what
        watches the run; None unless asked for."""


class PairPotential(Protocol):
    """A potential evaluated on somebody else's neighbour list, such as `ACEPotential`."""

    @property
    def elements(self) -> list[str]:
        """Symbol of each type."""

    @property
    def cutoff(self) -> float:
        """Largest distance of an interaction in Å."""

    def evaluate_pairs(
        self,
        types: NDArray[np.int64],
        centre: NDArray[np.int64],
        neighbour: NDArray[np.int64],
        vectors: NDArray[np.float64],
        n_atoms: int,
        gamma: bool,
    ) -> PairForces:
        """Evaluate a full list of pairs; see `ACEPotential.evaluate_pairs`."""


@numba.njit(cache=True)
def pairs_within(
    positions: NDArray[np.float64],
    first: NDArray[np.int64],
    listed: NDArray[np.int32],
    owner: NDArray[np.int64],
    cutoff: float,
    centre: NDArray[np.int64],
    neighbour: NDArray[np.int64],
    vectors: NDArray[np.float64],
) -> int:
    """Pairs of the list that are closer than the cutoff; returns how many were written.

    Args:
        positions: (n_all, 3) of local and ghost atoms in Å.
        first: (n_local + 1,) start of each local atom's entries in `listed`.
        listed: (P,) neighbours as indices into `positions`.
        owner: (n_all,) the local atom each atom is an image of.
        cutoff: in Å.
        centre, neighbour, vectors: (P,), (P,), (P, 3) filled from the start; both indices are
            local, the vectors point from centre to neighbour.
    """
    count = 0
    limit = cutoff * cutoff
    for i in range(len(first) - 1):
        for p in range(first[i], first[i + 1]):
            j = listed[p]
            x = positions[j, 0] - positions[i, 0]
            y = positions[j, 1] - positions[i, 1]
            z = positions[j, 2] - positions[i, 2]
            if x * x + y * y + z * z < limit:
                centre[count] = i
                neighbour[count] = owner[j]
                vectors[count, 0] = x
                vectors[count, 1] = y
                vectors[count, 2] = z
                count += 1
    return count


class ExternalForces:
    """Registers itself with LAMMPS and is called at every force evaluation.

    Attributes:
        error: what went wrong inside a call. Exceptions cannot cross LAMMPS, so the run is
            ended at the next step and `raise_error` passes the exception on.
    """

    def __init__(
        self,
        instance: Any,
        potential: PairPotential,
        gamma_every: int,
        stopped: Callable[[], bool],
        elements: Sequence[str] | None = None,
    ) -> None:
        """Connect `potential` to the `fix external` of an open LAMMPS instance.

        Args:
            instance: object of the `lammps` package.
            potential: gives energies, forces, virial and gamma.
            gamma_every: gamma is asked for when the step is a multiple of it.
            stopped: asked at every step; when true the run ends with that step.
            elements: of each LAMMPS atom type; None for those of the potential, in its order.

        Raises:
            InputError: another number of types in LAMMPS, or an element the potential lacks.
        """
        self.error: BaseException | None = None
        self._instance = instance
        self._potential = potential
        self._index_of_type = _element_indices(instance, potential, elements)
        self._gamma_every = gamma_every
        self._stopped = stopped
        self._library = instance.lib
        self._handle = instance.lmp
        self._fix = EXTERNAL_FIX.encode()
        self._list_key = (-1.0, -1)
        self._gamma_known = False
        # LAMMPS keeps only the address: this object must keep the function alive.
        self._function = instance.FIX_EXTERNAL_CALLBACK_FUNC(self._call)
        instance.fix_external_set_vector_length(EXTERNAL_FIX, 1)
        self._library.lammps_set_fix_external_callback(
            self._handle, self._fix, self._function, instance
        )

    def raise_error(self) -> None:
        """Raise what was caught during the last run, if anything."""
        if self.error is not None:
            raise self.error

    def _call(self, _: Any, step: int, n_local: int, tags: Any, x: Any, forces: Any) -> None:
        # Whatever happens must not be lost in the C code that called us.
        try:
            if self._stopped():
                self._library.lammps_force_timeout(self._handle)
            if self.error is None:
                self._evaluate(step, n_local, tags, x, forces)
        except BaseException as error:  # noqa: BLE001 - re-raised once C has returned
            self.error = error
            self._library.lammps_force_timeout(self._handle)

    def _evaluate(self, step: int, n_local: int, tags: Any, x: Any, forces: Any) -> None:
        if n_local == 0:
            # All atoms flew away; LAMMPS notices when it next counts them.
            return
        # The number of list builds restarts at zero with every run, hence the second condition.
        builds = self._library.lammps_get_thermo(self._handle, b"nbuild")
        if builds != self._list_key[0] or step != self._list_key[1] + 1:
            self._copy_list(n_local, tags)
        self._list_key = (builds, step)

        positions = _view(x[0], (len(self._owner), 3))
        count = pairs_within(
            positions,
            self._first,
            self._listed,
            self._owner,
            self._potential.cutoff,
            self._centre,
            self._neighbour,
            self._vectors,
        )
        want_gamma = step % self._gamma_every == 0 or not self._gamma_known
        result = self._potential.evaluate_pairs(
            self._types,
            self._centre[:count],
            self._neighbour[:count],
            self._vectors[:count],
            n_local,
            want_gamma,
        )
        _view(forces[0], (n_local, 3))[:] = result.forces[:n_local]
        self._library.lammps_fix_external_set_energy_global(
            self._handle, self._fix, float(result.energies.sum())
        )
        # LAMMPS' virial is the pressure's, of the opposite sign.
        virial = (ctypes.c_double * 6)(*(-result.virial[_VOIGT_TO_LAMMPS]))
        self._library.lammps_fix_external_set_virial_global(self._handle, self._fix, virial)
        if want_gamma:
            self._set_gamma(result.gamma, n_local)

    def _set_gamma(self, gamma: NDArray[np.float64] | None, n_local: int) -> None:
        if gamma is None:
            raise EngineError(
                "The potential has no active set, so gamma is unknown; add its .asi file."
            )
        self._library.lammps_fix_external_set_vector(
            self._handle, self._fix, 1, float(gamma.max(initial=0.0))
        )
        _view(self._instance.extract_atom(GAMMA_PROPERTY), (n_local,))[:] = gamma[:n_local]
        self._gamma_known = True

    def _copy_list(self, n_local: int, tags: Any) -> None:
        """Take over the neighbour list, types and image owners after LAMMPS rebuilt the list."""
        instance = self._instance
        n_all = n_local + instance.extract_setting("nghost")
        tag = _view(tags, (n_all,))
        owner_of_tag = np.zeros(int(tag.max()) + 1, dtype=np.int64)
        owner_of_tag[tag[:n_local]] = np.arange(n_local)
        self._owner = owner_of_tag[tag]
        types = _view(instance.extract_atom("type"), (n_local,)).astype(np.int64)
        self._types = self._index_of_type[types - 1]

        index = instance.find_pair_neighlist("zero")
        if index < 0:
            raise EngineError("LAMMPS has no neighbour list of 'pair_style zero RC full'.")
        counts = np.zeros(n_local, dtype=np.int64)
        chunks: list[NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)] * n_local
        atom, size, pointer = ctypes.c_int(), ctypes.c_int(), ctypes.POINTER(ctypes.c_int)()
        for element in range(self._library.lammps_neighlist_num_elements(self._handle, index)):
            self._library.lammps_neighlist_element_neighbors(
                self._handle, index, element, atom, size, pointer
            )
            if size.value:
                counts[atom.value] = size.value
                chunks[atom.value] = _view(pointer, (size.value,))
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._listed = np.concatenate(chunks).astype(np.int32)
        n_listed = len(self._listed)
        self._centre = np.zeros(n_listed, dtype=np.int64)
        self._neighbour = np.zeros(n_listed, dtype=np.int64)
        self._vectors = np.zeros((n_listed, 3))


def _element_indices(
    instance: Any, potential: PairPotential, elements: Sequence[str] | None
) -> NDArray[np.int64]:
    """Index into the potential's elements of each LAMMPS atom type."""
    names = list(potential.elements if elements is None else elements)
    n_types, known = instance.extract_global("ntypes"), ", ".join(potential.elements)
    if n_types != len(names):
        raise InputError(
            f"The structure file has {n_types} atom types but the potential is for "
            f"{', '.join(names)}: they must be the same list."
        )
    if unknown := [name for name in names if name not in potential.elements]:
        raise InputError(
            f"An atom type stands for {unknown[0]}, but the potential knows only {known}."
        )
    return np.array([potential.elements.index(name) for name in names], dtype=np.int64)


def _view(pointer: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """The C array behind a ctypes pointer, not copied."""
    return np.ctypeslib.as_array(pointer, shape)
