"""Inputs that are refused before pw.x is started, and those that are not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from aiida_autopipe.engines.espresso.sanity import (
    Reason,
    check_parameters,
    check_pseudos,
    check_structure,
)
from aiida_autopipe.engines.espresso.upf_header import read_header


def left_handed() -> Atoms:
    atoms = bulk("Si")
    atoms.cell[[0, 1]] = atoms.cell[[1, 0]]
    return atoms


def at_distance(distance: float) -> Atoms:
    return Atoms("Si2", [[0, 0, 0], [distance, 0, 0]], cell=bulk("Si").cell, pbc=True)


def without_numbers() -> Atoms:
    atoms = bulk("Si")
    atoms.positions[1] = np.nan
    return atoms


def flat() -> Atoms:
    atoms = bulk("Si")
    atoms.cell[2] = atoms.cell[1]
    return atoms


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (left_handed(), Reason.LEFT_HANDED_CELL),
        (at_distance(0.0), Reason.OVERLAPPING_ATOMS),
        (at_distance(0.95), Reason.OVERLAPPING_ATOMS),
        (without_numbers(), Reason.UNUSABLE_STRUCTURE),
        (flat(), Reason.UNUSABLE_STRUCTURE),
        (bulk("Si", a=12.0), Reason.ABSURD_VOLUME),
        (bulk("Si", a=1.5), Reason.ABSURD_VOLUME),
        (bulk("Cu", cubic=True, a=1.8), Reason.ABSURD_VOLUME),
    ],
)
def test_refused_structures(atoms: Atoms, reason: Reason) -> None:
    refusal = check_structure(atoms, crystal=True)
    assert refusal is not None
    assert refusal.reason is reason


def slab() -> Atoms:
    atoms = fcc111("Al", (1, 1, 4), vacuum=20)
    atoms.pbc = True
    return atoms


@pytest.mark.parametrize(
    "atoms",
    [
        bulk("Si"),
        bulk("Si", a=4.6),
        bulk("Fe", "bcc", a=2.2),
        bulk("Ar", "fcc", a=5.3),
        bulk("Na"),
        bulk("Cs"),
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("C", a=3.2),
        slab(),
    ],
)
def test_strained_and_open_structures_are_no_mistakes(atoms: Atoms) -> None:
    assert check_structure(atoms, crystal=True) is None


@pytest.mark.parametrize("name", ["H2", "H2O", "C6H6", "O2"])
def test_molecules_may_have_all_the_space_they_want(name: str) -> None:
    atoms = molecule(name, vacuum=8, pbc=True)
    assert check_structure(atoms, crystal=False) is None
    single = Atoms("H", cell=np.eye(3) * 12, pbc=True)
    assert check_structure(single, crystal=False) is None
    lost = Atoms("H", cell=np.eye(3) * 60, pbc=True)
    refusal = check_structure(lost, crystal=False)
    assert refusal is not None
    assert refusal.reason is Reason.ABSURD_VOLUME


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ({"ecutwfc": float("nan")}, "nan"),
        ({"ecutwfc": 0.0}, "positive"),
        ({}, "None"),
        ({"ecutwfc": 30.0, "ecutrho": 20.0}, "below"),
    ],
)
def test_refused_parameters(system: dict[str, Any], words: str) -> None:
    refusal = check_parameters({"SYSTEM": system})
    assert refusal is not None
    assert words in refusal.values["reason"]
    assert check_parameters({"SYSTEM": {"ecutwfc": 30.0}}) is None


@pytest.mark.parametrize(
    ("file", "element", "functional", "ultrasoft", "valence"),
    [
        ("Si.pz-vbc.UPF", "Si", "PZ", False, 4.0),
        ("Cu.pz-d-rrkjus.UPF", "Cu", "PZ", True, 11.0),
        ("O.pbe-kjpaw.UPF", "O", "PBE", True, 6.0),
        ("O.pbe-rrkjus.UPF", "O", "PBE", True, 6.0),
        ("C.UPF", "C", "PZ", False, 4.0),
        ("Rh.pbe-rrkjus_lb.UPF", "Rh", "PBE", True, 9.0),
    ],
)
def test_headers(
    pseudo_folder: Path, file: str, element: str, functional: str, ultrasoft: bool, valence: float
) -> None:
    """Both versions of the format."""
    header = read_header((pseudo_folder / file).read_text(errors="replace"))
    assert header is not None
    assert (header.element, header.functional) == (element, functional)
    assert (header.ultrasoft, header.z_valence) == (ultrasoft, valence)
    assert read_header("nothing") is None


def test_pseudopotentials_that_do_not_fit(pseudo_folder: Path) -> None:
    names = {"Si": "Si.pz-vbc.UPF", "C": "C.pbe-rrkjus.UPF"}
    headers = {
        kind: read_header((pseudo_folder / file).read_text()) for kind, file in names.items()
    }
    both = {"Si": "Si", "C": "C"}
    mixed = check_pseudos(both, headers, overridden=False)
    assert mixed is not None
    assert mixed.reason is Reason.MIXED_FUNCTIONALS
    assert mixed.values == {"functionals": "C: PBE, Si: PZ"}
    assert check_pseudos(both, headers, overridden=True) is None
    for symbols, given in (
        ({"Ge": "Ge"}, headers),
        ({"Si": "Ge"}, headers),
        ({"Si": "Si"}, {"Si": None}),
    ):
        refusal = check_pseudos(symbols, given, overridden=False)
        assert refusal is not None
        assert refusal.reason is Reason.PSEUDO_MISMATCH
