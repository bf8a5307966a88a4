"""Phonon frequencies by finite displacements (phonopy), at the wave vectors of a supercell."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_autopipe.core.errors import DataError
from aiida_autopipe.core.generate.strain import mark
from aiida_autopipe.core.symmetry import has_internal_freedom
from aiida_autopipe.core.validate.family import Family, Planned
from aiida_autopipe.core.validate.labelled import Labelled, parameters_of, rows_of
from aiida_autopipe.core.validate.settings import ValidationSettings
from aiida_autopipe.core.validate.values import (
    Comparison,
    Plot,
    PropertyValue,
    Series,
    compare_curves,
)

if TYPE_CHECKING:
    from phonopy import Phonopy

IMAGINARY_THz = 0.1
"""Imaginary frequencies below this are noise of the acoustic modes."""
POINTS_PER_SEGMENT = 24
"""On the path; a multiple of 2, 3, 4, 6 and 8: wave vectors of usual supercells are on it."""


class PhononFamily(Family):
    """Frequencies at all wave vectors that fit into the supercell, where they are exact.

    The value is their mean; the error is the mean absolute difference of the frequencies, sorted at
    each wave vector, over the mean of the reference. Each side is measured at its own equilibrium.
    The splitting of optical modes at the zone centre of ionic crystals is left out on both sides.
    """

    key = "phonons"
    names = "phonon_frequencies"
    examples = ("phonon_frequencies",)

    def label(self, name: str) -> str:
        """What readers call the property."""
        return "Phonon frequencies, mean"

    def unit(self, name: str) -> str:
        """Unit of the value."""
        return "THz"

    def roles(self, name: str) -> tuple[str, ...]:
        """Supercells with one displaced atom, and the perfect one where its atoms are free."""
        return ("phonon",)

    def plan(
        self,
        names: Sequence[str],
        primitive: Atoms,
        equilibrium: Atoms,
        settings: ValidationSettings,
    ) -> list[Planned]:
        """The fewest displacements that symmetry leaves; nothing is relaxed."""
        phonons = _phonopy(equilibrium, settings)
        mesh_cell = primitive.repeat(tuple(settings.phonon_supercell))
        cells = [_as_atoms(cell) for cell in phonons.supercells_with_displacements or ()]
        n_displaced = len(cells)
        # Where symmetry does not hold the ions, forces of the perfect cell are taken off.
        if has_internal_freedom(equilibrium):
            cells.append(_as_atoms(phonons.supercell))
        return [
            Planned(
                mark(cell, "validate:phonon", displacement=k if k < n_displaced else -1),
                "phonon",
                mesh_cell,
                relax=False,
            )
            for k, cell in enumerate(cells)
        ]

    def measure(self, name: str, labelled: Labelled) -> PropertyValue:
        """Frequencies at the wave vectors of the supercell, and along the path."""
        cells = labelled.second_stage(name)
        forces = {}
        for i in rows_of(cells, "phonon"):
            found = cells.labels(i).forces
            if found is None:
                raise DataError(f"Structure {i} of the phonons has no forces.")
            forces[int(parameters_of(cells, i)["displacement"])] = found
        equilibrium = labelled.equilibrium_cell()
        phonons = _phonopy(equilibrium, labelled.settings)
        n_wanted = len(phonons.supercells_with_displacements or ())
        wanted = [*range(n_wanted), *([-1] if has_internal_freedom(equilibrium) else [])]
        if missing := [k for k in wanted if k not in forces]:
            raise DataError(
                f"{len(missing)} of the {len(wanted)} supercells of the phonons were not computed."
            )
        at_rest = forces.get(-1, 0.0)
        phonons.forces = np.array([forces[k] - at_rest for k in range(n_wanted)])
        phonons.produce_force_constants(show_drift=False)
        phonons.symmetrize_force_constants(show_drift=False)
        repeats = np.array(labelled.settings.phonon_supercell)
        return _value(phonons, labelled.primitive, repeats, self.unit(name))

    def compare(
        self, name: str, potential: PropertyValue, reference: PropertyValue, tolerance: float
    ) -> Comparison:
        """Mean absolute difference over the mean of the reference; the largest one is named."""
        error, notes = float("nan"), []
        if np.isfinite(potential.value) and np.isfinite(reference.value) and reference.value > 0:
            ours, theirs = potential.data["frequencies"], reference.data["frequencies"]
            differences = np.abs(ours - theirs)
            error = float(differences.mean() / reference.value)
            at = np.unravel_index(int(differences.argmax()), differences.shape)
            q = ", ".join(f"{x:.3g}" for x in reference.data["q"][at[0]])
            notes.append(
                f"mean difference {differences.mean():.3g} THz over {len(ours)} wave vectors, "
                f"largest {differences[at]:.3g} THz at q = ({q})"
            )
        return compare_curves(name, potential, reference, tolerance, error, notes)

    def plot(self, name: str, potential: PropertyValue, reference: PropertyValue) -> Plot | None:
        """Dispersion along the path; points of the reference where the supercell makes it exact."""
        series = []
        for side, found in (("reference", reference), ("potential", potential)):
            if found.data:
                x, bands = found.data["x"], found.data["bands"]
                # One series for all bands: a gap ends each.
                xs = [float(v) for _ in range(bands.shape[1]) for v in [*x, x[-1]]]
                ys: list[float | None] = []
                for band in bands.T:
                    ys += [*band.tolist(), None]
                series.append(Series(side, "lines", xs, ys))
        if not series:
            return None
        if reference.data:
            on = reference.data["exact"]
            points = reference.data["bands"][on]
            xs = np.repeat(reference.data["x"][on], points.shape[1]).tolist()
            series.append(Series("reference", "markers", xs, points.ravel().tolist()))
        ticks = (reference.data or potential.data)["ticks"]
        return Plot(
            name=name,
            title="Phonon dispersion",
            x_label="",
            y_label="frequency (THz)",
            series=tuple(series),
            ticks=ticks,
            note="Points are wave vectors of the supercell; between them both curves are "
            "interpolated. Negative frequencies stand for imaginary ones.",
        )


def _phonopy(equilibrium: Atoms, settings: ValidationSettings) -> Phonopy:
    from phonopy import Phonopy  # half a second, for those who ask for phonons only
    from phonopy.structure.atoms import PhonopyAtoms

    with warnings.catch_warnings():
        # Supercells that are longer one way were asked for; they only need more displacements.
        warnings.filterwarnings("ignore", message="Warning: Point group symmetries of supercell")
        phonons = Phonopy(
            PhonopyAtoms(
                symbols=equilibrium.get_chemical_symbols(),
                cell=equilibrium.cell.array,
                scaled_positions=equilibrium.get_scaled_positions(),
            ),
            supercell_matrix=np.diag(settings.phonon_supercell),
            primitive_matrix=np.eye(3),
        )
    phonons.generate_displacements(distance=settings.phonon_displacement)
    return phonons


def _as_atoms(cell: Any) -> Atoms:
    return Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)


def _value(
    phonons: Phonopy, primitive: Atoms, repeats: NDArray[np.int64], unit: str
) -> PropertyValue:
    q = np.array([[i, j, k] for i, j, k in np.ndindex(*repeats)]) / repeats
    frequencies = _frequencies(phonons, q)
    path, x, ticks = _path(primitive)
    remainder = path * repeats - np.round(path * repeats)
    data = {
        "q": q,
        "frequencies": frequencies,
        "x": x,
        "bands": _frequencies(phonons, path),
        "ticks": ticks,
        "exact": np.all(np.abs(remainder) < 1e-6, axis=1),
    }
    imaginary = int(np.sum(frequencies < -IMAGINARY_THz))
    note = f"{imaginary} imaginary modes, down to {frequencies.min():.3g} THz" if imaginary else ""
    return PropertyValue(float(frequencies.mean()), unit, note, data)


def _frequencies(phonons: Phonopy, q: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 3 atoms) in THz, sorted at each wave vector; imaginary ones are negative."""
    phonons.run_qpoints(q)
    assert phonons.qpoints is not None
    return np.sort(np.asarray(phonons.qpoints.frequencies, dtype=np.float64), axis=1)


def _path(
    primitive: Atoms,
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[tuple[float, str], ...]]:
    """Wave vectors (n, 3) along the high-symmetry path of the lattice, their places and labels.

    Places are distances in reciprocal space of the cell as it was given, for both sides the same.
    """
    band = primitive.cell.bandpath(npoints=0)
    points, reciprocal = band.special_points, np.asarray(primitive.cell.reciprocal().array)
    q, x, place = [], [], 0.0
    ticks: list[tuple[float, str]] = []
    for part in _parts(band.path):
        for k, (start, end) in enumerate(itertools.pairwise(part)):
            steps = np.linspace(0.0, 1.0, POINTS_PER_SEGMENT + 1)[:, None]
            segment = points[start] + steps * (points[end] - points[start])
            length = float(np.linalg.norm((points[end] - points[start]) @ reciprocal))
            q.append(segment)
            x.append(place + steps[:, 0] * length)
            if k == 0 and ticks:
                ticks[-1] = (place, f"{ticks[-1][1]}|{_greek(start)}")
            elif k == 0:
                ticks.append((place, _greek(start)))
            place += length
            ticks.append((place, _greek(end)))
    return np.concatenate(q), np.concatenate(x), tuple(ticks)


def _parts(path: str) -> list[list[str]]:
    from ase.dft.kpoints import parse_path_string

    return [part for part in parse_path_string(path) if len(part) > 1]


def _greek(label: str) -> str:
    return "Γ" if label == "G" else label
