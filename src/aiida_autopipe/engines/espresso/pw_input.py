"""An existing input of pw.x: its text to structure, parameters, k-points and pseudopotentials.

Everything in the input is kept. What cannot be kept is refused by name; only where files are
(`outdir`, `wfcdir`, `prefix`, `pseudo_dir`, `disk_io`) is left to whoever runs the calculation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.engines.espresso.pw_lattice import BOHR, lattice
from aiida_autopipe.engines.espresso.pw_namelists import (
    Assignment,
    Card,
    PwText,
    coordinate,
    fortran_float,
    split_pw_input,
)

CALCULATIONS = ("scf", "relax")
PLACES = ("outdir", "wfcdir", "prefix", "pseudo_dir", "disk_io")
"""Keys of &CONTROL that say where files go and which are kept, not what is calculated."""
NEEDED_FILES = {"restart_mode": "restart", "startingpot": "file", "startingwfc": "file"}
LATTICE = ("celldm", "a", "b", "c", "cosab", "cosac", "cosbc")
SPACE_GROUP = ("space_group", "uniqueb", "origin_choice", "rhombohedral")
BY_SPECIES = {
    "starting_magnetization": 0,
    "starting_charge": 0,
    "hubbard_u": 0,
    "hubbard_u_back": 0,
    "hubbard_j0": 0,
    "hubbard_alpha": 0,
    "hubbard_alpha_back": 0,
    "hubbard_beta": 0,
    "hubbard_l": 0,
    "hubbard_n": 0,
    "angle1": 0,
    "angle2": 0,
    "london_c6": 0,
    "london_rvdw": 0,
    "backall": 0,
    "lback": 0,
    "l1back": 0,
    "reserv": 0,
    "reserv_back": 0,
    "hubbard_occ": 0,
    "hubbard_j": 1,
    "starting_ns_eigenvalue": 2,
}
"""Which index of a key counts the species: their order in the input need not be kept."""
SHAPES = {"starting_ns_eigenvalue": 3, "hubbard_j": 2, "hubbard_occ": 2}


@dataclass(frozen=True)
class Species:
    """A line of ATOMIC_SPECIES; the mass is None where pw.x would look it up."""

    name: str
    symbol: str
    mass: float | None
    pseudo: str


@dataclass(frozen=True)
class KPoints:
    """A mesh with its offset (0 or 0.5 steps), or points in crystal coordinates with weights."""

    mesh: tuple[int, int, int] | None = None
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    points: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class PwInput:
    """A pw.x input.

    Attributes:
        parameters: namelists (upper case) of keys (lower case); arrays over species by their name.
        species: the kinds of atoms.
        atoms: structure in Å.
        kinds: name of the species of each atom.
        kpoints: k-points.
        gamma_only: K_POINTS gamma, pw.x's own algorithms for real wavefunctions.
        fixed: components of each atom's force that are kept at zero, (n, 3), None for none.
        forces: external forces of ATOMIC_FORCES, Ry/bohr.
        pseudo_dir: where the input looks for pseudopotentials, None where it does not say.
    """

    parameters: dict[str, dict[str, Any]]
    species: tuple[Species, ...]
    atoms: Atoms
    kinds: tuple[str, ...]
    kpoints: KPoints
    gamma_only: bool = False
    fixed: NDArray[np.bool_] | None = None
    forces: NDArray[np.float64] | None = None
    pseudo_dir: str | None = None
    settings: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        settings: dict[str, Any] = {}
        if self.gamma_only:
            settings["gamma_only"] = True
        if self.fixed is not None:
            settings["fixed_coords"] = self.fixed.tolist()
        if self.forces is not None:
            settings["atomic_forces"] = self.forces.tolist()
        object.__setattr__(self, "settings", settings)


def read_pw_input(text: str) -> PwInput:
    """Read the text of a pw.x input.

    Raises:
        InputError: one sentence on the first thing that is wrong or cannot be kept.
    """
    parts = split_pw_input(text)
    for name in ("CONTROL", "SYSTEM", "ELECTRONS"):
        if name not in parts.namelists:
            raise InputError(f"the namelist &{name} is missing")
    for name in ("ATOMIC_SPECIES", "ATOMIC_POSITIONS", "K_POINTS"):
        if name not in parts.cards:
            raise InputError(f"the card {name} is missing")
    species = _species(parts)
    parameters = _parameters(parts, species)
    system, control = parameters["SYSTEM"], parameters["CONTROL"]
    places = {key: control.pop(key, None) for key in PLACES}
    alat, cell = lattice(system, parts.cards.get("CELL_PARAMETERS"))
    kinds, positions, fixed = _positions(parts, species, alat, cell)
    _check_count(system, "nat", len(kinds), "atoms in ATOMIC_POSITIONS")
    for key in ("nat", "ntyp", *LATTICE):
        system.pop(key, None)
    system["ibrav"] = 0
    symbols = {one.name: one.symbol for one in species}
    atoms = Atoms([symbols[kind] for kind in kinds], positions=positions, cell=cell, pbc=True)
    kpoints, gamma_only = _kpoints(parts.cards["K_POINTS"], alat, cell)
    forces = _forces(parts.cards.get("ATOMIC_FORCES"), kinds)
    folder = None if places["pseudo_dir"] is None else str(places["pseudo_dir"])
    return PwInput(parameters, species, atoms, kinds, kpoints, gamma_only, fixed, forces, folder)


def find_pseudos(
    parsed: PwInput, folder: Path, environment: Mapping[str, str] = os.environ
) -> dict[str, Path]:
    """The pseudopotential file of each species.

    They are looked for in the input's `pseudo_dir` (relative to `folder`, where the input is, or to
    the current folder), then in `$ESPRESSO_PSEUDO`, as pw.x does without `pseudo_dir`.

    Raises:
        InputError: a file is in none of them.
    """
    places = []
    if parsed.pseudo_dir is not None:
        given = Path(parsed.pseudo_dir).expanduser()
        places += [folder / given, given] if not given.is_absolute() else [given]
    if environment.get("ESPRESSO_PSEUDO"):
        places.append(Path(environment["ESPRESSO_PSEUDO"]))
    elif parsed.pseudo_dir is None:
        places.append(Path(environment.get("HOME", "~")) / "espresso" / "pseudo")
    found = {}
    for one in parsed.species:
        files = [place / one.pseudo for place in places if (place / one.pseudo).is_file()]
        if not files:
            listed = " or ".join(dict.fromkeys(str(place) for place in places))
            raise InputError(
                f"the pseudopotential {one.pseudo} of {one.name} is not in {listed}; "
                "correct pseudo_dir or set ESPRESSO_PSEUDO"
            )
        found[one.name] = files[0]
    return found


def _species(parts: PwText) -> tuple[Species, ...]:
    found: dict[str, Species] = {}
    for number, words in parts.cards["ATOMIC_SPECIES"].lines:
        mass = fortran_float(words[1]) if len(words) == 3 else None
        if mass is None:
            raise InputError(
                f"line {number}: '{' '.join(words)}' in ATOMIC_SPECIES is not of the form "
                "name mass pseudopotential"
            )
        name, pseudo = words[0], words[2]
        if name in found:
            raise InputError(f"line {number}: ATOMIC_SPECIES has {name} twice")
        if len(name) > 3:
            raise InputError(f"line {number}: the name {name} is longer than pw.x's 3 letters")
        found[name] = Species(name, _element(name, number), mass if mass > 0 else None, pseudo)
    if not found:
        raise InputError("the card ATOMIC_SPECIES is empty")
    return tuple(found.values())


def _element(name: str, number: int) -> str:
    """Fe of Fe, Fe1, FE, Fe_a; O of OA, where that is no element itself."""
    stem = re.match(r"[A-Za-z]*", name)
    letters = stem[0] if stem else ""
    guesses = [letters.capitalize()]
    if letters[1:2].isupper():
        guesses.append(letters[:1])
    elif letters[2:3].isupper():
        guesses.append(letters[:2])
    for guess in guesses:
        if atomic_numbers.get(guess, 0) > 0:
            return guess
    raise InputError(f"line {number}: ATOMIC_SPECIES has the unknown element '{name}'")


def _parameters(parts: PwText, species: tuple[Species, ...]) -> dict[str, dict[str, Any]]:
    """Namelists as plain values; `ntyp`, the calculation and what cannot be kept are checked."""
    parameters = {
        name: {key: _value(key, given, species) for key, given in keys.items()}
        for name, keys in parts.namelists.items()
    }
    control, system = parameters["CONTROL"], parameters["SYSTEM"]
    for key in ("ibrav", "ecutwfc", "nat", "ntyp"):
        if key not in system:
            raise InputError(f"{key} is missing in the namelist &SYSTEM")
    _check_count(system, "ntyp", len(species), "lines in ATOMIC_SPECIES")
    calculation = control.setdefault("calculation", "scf")
    if calculation not in CALCULATIONS:
        raise InputError(
            f"calculation = '{calculation}' cannot be labelled, only {' and '.join(CALCULATIONS)}"
        )
    for key, value in NEEDED_FILES.items():
        given = control.get(key, parameters["ELECTRONS"].get(key))
        if isinstance(given, str) and given.strip().lower() == value:
            raise InputError(f"{key} = '{value}' needs files of an earlier run, which are not here")
    for key in SPACE_GROUP:
        if key in system:
            raise InputError(f"{key} in &SYSTEM cannot be kept; list all atoms of the cell")
    # pw.x reads these two only where the ions or the cell move.
    if calculation == "scf":
        parameters.pop("IONS", None)
    parameters.pop("CELL", None)
    for name in ("FCP", "RISM"):
        if parameters.pop(name, None):
            raise InputError(f"the namelist &{name} cannot be kept")
    kept = ("ATOMIC_SPECIES", "ATOMIC_POSITIONS", "K_POINTS", "CELL_PARAMETERS", "ATOMIC_FORCES")
    for name in parts.cards:
        if name not in kept:
            raise InputError(f"the card {name} cannot be kept")
    return parameters


def _value(key: str, given: list[Assignment], species: tuple[Species, ...]) -> Any:
    """One value, {species: value}, or [[index, ..., value], ...] for other arrays."""
    shape = SHAPES.get(key, 1)
    place = BY_SPECIES.get(key)
    if place is None and len(given) == 1 and not given[0].index and len(given[0].values) == 1:
        return given[0].values[0]
    entries: dict[tuple[int, ...], Any] = {}
    plain = place is None and not any(one.index for one in given)
    if plain and key != "celldm" and all(len(one.values) == 1 for one in given):
        return given[-1].values[0]
    for one in given:
        index = one.index or (1,) * shape
        if len(one.values) > 1 and len(index) > 1:
            raise InputError(f"{key}: give each element of it on its own")
        for step, value in enumerate(one.values):
            entries[(index[0] + step, *index[1:])] = value
    if place is None:
        return [[*index, value] for index, value in sorted(entries.items())]
    return _by_species(key, entries, place, shape, species)


def _by_species(
    key: str,
    entries: dict[tuple[int, ...], Any],
    place: int,
    shape: int,
    species: tuple[Species, ...],
) -> Any:
    named: list[list[Any]] = []
    for index, value in entries.items():
        text = ",".join(map(str, index))
        if len(index) != shape:
            raise InputError(f"{key}({text}) needs {shape} {'index' if shape == 1 else 'indices'}")
        if not 1 <= index[place] <= len(species):
            raise InputError(
                f"{key}({text}) is for species {index[place]}, but there are {len(species)}"
            )
        words: list[Any] = list(index)
        words[place] = species[index[place] - 1].name
        named.append([*words, value])
    return dict(named) if shape == 1 else named


def _check_count(system: dict[str, Any], key: str, found: int, what: str) -> None:
    asked = system[key]
    if asked != found or isinstance(asked, bool):
        raise InputError(f"{key} is {asked} in &SYSTEM, but there are {found} {what}")


def _positions(
    parts: PwText, species: tuple[Species, ...], alat: float, cell: NDArray[np.float64]
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.bool_] | None]:
    card = parts.cards["ATOMIC_POSITIONS"]
    names = [one.name for one in species]
    kinds: list[str] = []
    rows: list[list[float]] = []
    fixed: list[list[bool]] = []
    for number, words in card.lines:
        numbers = [coordinate(word) for word in words[1:4]]
        if len(words) not in (4, 7):
            raise InputError(
                f"line {number}: '{' '.join(words)}' in ATOMIC_POSITIONS is not of the form "
                "name x y z, or name x y z 1 1 0"
            )
        if words[0] not in names:
            raise InputError(
                f"line {number}: {words[0]} of ATOMIC_POSITIONS is not in ATOMIC_SPECIES "
                f"({', '.join(names)})"
            )
        for word, value in zip(words[1:4], numbers, strict=True):
            if value is None:
                raise InputError(f"line {number}: the coordinate {word} is no finite number")
        if not set(words[4:]) <= {"0", "1"}:
            raise InputError(f"line {number}: {' '.join(words[4:])} are not three of 0 and 1")
        kinds.append(words[0])
        rows.append([value for value in numbers if value is not None])
        fixed.append([word == "0" for word in words[4:]] or [False] * 3)
    unused = [name for name in names if name not in kinds]
    if unused and kinds:
        raise InputError(f"ATOMIC_SPECIES has {unused[0]}, but no atom is of it; take it out")
    positions = np.array(rows, dtype=float).reshape(-1, 3)
    if card.option == "crystal":
        positions = positions @ cell
    elif card.option in ("", "alat", "bohr", "angstrom"):
        positions *= {"bohr": BOHR, "angstrom": 1.0}.get(card.option, alat)
    else:
        raise InputError(f"ATOMIC_POSITIONS {card.option} cannot be kept")
    mask = np.array(fixed, dtype=bool).reshape(-1, 3)
    return tuple(kinds), positions, mask if mask.any() else None


def _forces(card: Card | None, kinds: tuple[str, ...]) -> NDArray[np.float64] | None:
    if card is None:
        return None
    rows = [[fortran_float(word) for word in words[1:]] for _, words in card.lines]
    named = tuple(words[0] for _, words in card.lines)
    if named != kinds or any(len(row) != 3 or None in row for row in rows):
        raise InputError("ATOMIC_FORCES must have a line 'name fx fy fz' for each atom in order")
    return np.array(rows, dtype=float)


def _kpoints(card: Card, alat: float, cell: NDArray[np.float64]) -> tuple[KPoints, bool]:
    """The k-points, and whether they are K_POINTS gamma."""
    option = card.option or "tpiba"
    words = [[coordinate(word) for word in line] for _, line in card.lines]
    shown = " ".join(" ".join(line) for _, line in card.lines[:1])
    if option == "gamma":
        if words:
            raise InputError(f"K_POINTS gamma takes no lines, but '{shown}' follows")
        return KPoints((1, 1, 1)), True
    if option == "automatic":
        good = len(words) == 1 and len(words[0]) == 6 and all(v == int(v or 0) for v in words[0])
        numbers = [int(value or 0) for value in words[0]] if good else []
        if not good or min(numbers[:3]) < 1 or not set(numbers[3:]) <= {0, 1}:
            raise InputError(
                f"K_POINTS automatic needs one line such as 4 4 4 0 0 0, not '{shown}'"
            )
        n1, n2, n3, s1, s2, s3 = numbers
        return KPoints((n1, n2, n3), (s1 / 2, s2 / 2, s3 / 2)), False
    if option not in ("tpiba", "crystal"):
        raise InputError(f"K_POINTS {option} cannot be kept, only automatic, gamma, tpiba, crystal")
    if (
        not words
        or words[0] != [len(words) - 1]
        or any(len(row) != 4 or None in row for row in words[1:])
        or len(words) == 1
    ):
        raise InputError(
            f"K_POINTS {option} needs the number of points and as many lines of three coordinates "
            "and a weight"
        )
    table = np.array(words[1:], dtype=float)
    points = table[:, :3] if option == "crystal" else table[:, :3] / alat @ cell.T
    return KPoints(points=points, weights=table[:, 3]), False
