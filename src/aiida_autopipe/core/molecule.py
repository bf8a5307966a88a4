"""Molecules and reactions: names of ASE's G2 collection, structure files, paths of several frames.

A molecule is not periodic and carries no cell. Engines put it into a box themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.collections import g2

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.prototypes import parse_formula
from aiida_autopipe.core.structure_files import read_structures

CLOSEST = 0.5
"""Two atoms nearer than this, in Å, are a mistake (H2 has 0.74 Å)."""
LARGEST_STEP = 8.0
"""Ends of a reaction whose atoms move farther than this, in Å, have their atoms out of order."""


def is_molecule_name(text: str) -> bool:
    """True for a name, or the formula of one single molecule, of ASE's G2 collection."""
    return _g2_name(text) is not None


def read_molecule(spec: str, base_dir: Path, key: str = "material") -> Atoms:
    """One molecule by name or from a file with one structure.

    :param base_dir: folder that a file is relative to.
    :param key: of the input file, for errors.
    :raises InputError: an unknown name, an unusable file, a periodic structure, a single atom.
    """
    name = _g2_name(spec)
    path = Path(spec).expanduser()
    path = path if path.is_absolute() else base_dir / path
    if path.is_file():
        frames = _frames(path, key)
        if len(frames) > 1:
            raise InputError(
                f"{key} '{spec}': {path} holds {len(frames)} structures; give a file with one, or "
                "{path: FILE} for a reaction path"
            )
        atoms = frames[0]
    elif name is not None:
        atoms = ase_molecule(name)
    elif "/" in spec or "." in spec:
        raise InputError(f"{key} '{spec}': the file {path} does not exist")
    else:
        near = get_close_matches(spec, g2.names, n=4, cutoff=0.5)
        hint = f"near are {', '.join(near)}" if near else f"ASE knows {', '.join(g2.names[:8])}..."
        raise InputError(f"{key}: ASE knows no molecule '{spec}'; {hint}; or give a structure file")
    return check_molecule(atoms, f"{key} '{spec}'")


def read_reaction(reactants: str, products: str, base_dir: Path) -> list[Atoms]:
    """The two ends of a reaction: the same atoms in the same order.

    :raises InputError: as `read_molecule`, or ends that do not belong together.
    """
    ends = [
        read_molecule(reactants, base_dir, "material.reactants"),
        read_molecule(products, base_dir, "material.products"),
    ]
    first, last = ends
    if len(first) == len(last) and np.allclose(first.positions, last.positions, atol=0.01):
        raise InputError("material.products: they are the reactants, a reaction changes something")
    return _same_atoms(ends, ["material.reactants", "material.products"])


def read_path(spec: str, base_dir: Path) -> list[Atoms]:
    """The frames of a reaction path, from the reactants to the products.

    :raises InputError: an unusable file, fewer than two frames, or frames of different atoms.
    """
    path = Path(spec).expanduser()
    path = path if path.is_absolute() else base_dir / path
    if not path.is_file():
        raise InputError(f"material.path: the file {path} does not exist")
    frames = _frames(path, "material.path")
    if len(frames) < 2:
        raise InputError(
            f"material.path: {path} holds one structure; a path has two or more, the reactants "
            "first"
        )
    names = [f"frame {i} of {path.name}" for i in range(len(frames))]
    return _same_atoms(
        [
            check_molecule(frame, f"material.path: {n}")
            for frame, n in zip(frames, names, strict=True)
        ],
        names,
    )


def _g2_name(text: str) -> str | None:
    if text in g2.names:
        return text
    counts = parse_formula(text)
    if counts is None:
        return None
    same = [name for name in g2.names if Counter(g2[name].get_chemical_symbols()) == counts]
    return same[0] if len(same) == 1 else None


def _frames(path: Path, key: str) -> list[Atoms]:
    try:
        return read_structures(path)
    except DataError as error:
        raise InputError(f"{key}: {error}") from error


def check_molecule(atoms: Atoms, where: str) -> Atoms:
    """The bare molecule around the origin.

    :raises InputError: a single atom, a periodic structure, NaN or overlapping atoms.
    """
    if len(atoms) < 2:
        raise InputError(f"{where}: one atom is no molecule, it has nothing to learn from")
    if not np.isfinite(atoms.positions).all():
        bad = int(np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))[0])
        raise InputError(f"{where}: the position of atom {bad} is not a number")
    if np.any(atoms.pbc) and abs(atoms.cell.volume) > 1.0:
        raise InputError(
            f"{where}: the structure is periodic, a molecule is not; for a crystal choose another "
            "goal, or remove the cell"
        )
    if np.any(atoms.numbers < 1):
        raise InputError(f"{where}: the structure has an atom of no known element")
    distances = atoms.get_all_distances() + np.eye(len(atoms)) * 1e3
    if distances.min() < CLOSEST:
        i, j = (int(k) for k in np.unravel_index(np.argmin(distances), distances.shape))
        raise InputError(
            f"{where}: atoms {i} and {j} overlap, they are {distances[i, j]:.3f} Å apart"
        )
    clean = Atoms(numbers=atoms.numbers, positions=atoms.positions - atoms.positions.mean(axis=0))
    moments = atoms.get_initial_magnetic_moments()
    if np.any(moments):
        clean.set_initial_magnetic_moments(moments)
    return clean


def _same_atoms(structures: Sequence[Atoms], names: Sequence[str]) -> list[Atoms]:
    first = structures[0]
    for atoms, name in zip(structures[1:], names[1:], strict=True):
        ours, theirs = first.get_chemical_formula(), atoms.get_chemical_formula()
        if ours != theirs:
            raise InputError(
                f"{name}: {theirs} and {ours} ({names[0]}) are different atoms; a reaction keeps "
                "them"
            )
        if np.any(first.numbers != atoms.numbers):
            raise InputError(
                f"{name}: the atoms are in another order than in {names[0]}; list the same atom at "
                "the same place in both"
            )
        step = float(np.linalg.norm(first.positions - atoms.positions, axis=1).max())
        if step > LARGEST_STEP * max(1, len(structures) // 2):
            raise InputError(
                f"{name}: an atom moves {step:.1f} Å from {names[0]}; list the same atom at the "
                "same place in both"
            )
    return list(structures)
