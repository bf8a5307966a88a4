"""Values that depend on the material: cutoff, supercells, temperatures, spin."""

from __future__ import annotations

from typing import Any

import numpy as np

from aiida_autopipe.core.material import Material

MELTING_POINTS_K: dict[str, float] = {
    "Li": 454, "Be": 1560, "B": 2349, "C": 3915, "Na": 371, "Mg": 923, "Al": 933, "Si": 1687,
    "P": 317, "S": 388, "K": 337, "Ca": 1115, "Sc": 1814, "Ti": 1941, "V": 2183, "Cr": 2180,
    "Mn": 1519, "Fe": 1811, "Co": 1768, "Ni": 1728, "Cu": 1358, "Zn": 693, "Ga": 303, "Ge": 1211,
    "As": 1090, "Se": 494, "Rb": 312, "Sr": 1050, "Y": 1799, "Zr": 2128, "Nb": 2750, "Mo": 2896,
    "Tc": 2430, "Ru": 2607, "Rh": 2237, "Pd": 1828, "Ag": 1235, "Cd": 594, "In": 430, "Sn": 505,
    "Sb": 904, "Te": 723, "Cs": 302, "Ba": 1000, "La": 1193, "Ce": 1068, "Pr": 1208, "Nd": 1297,
    "Sm": 1345, "Eu": 1099, "Gd": 1585, "Tb": 1629, "Dy": 1680, "Ho": 1734, "Er": 1802, "Tm": 1818,
    "Yb": 1097, "Lu": 1925, "Hf": 2506, "Ta": 3290, "W": 3695, "Re": 3459, "Os": 3306, "Ir": 2719,
    "Pt": 2041, "Au": 1337, "Hg": 234, "Tl": 577, "Pb": 601, "Bi": 544, "Th": 2023, "U": 1405,
}  # fmt: skip
"""Melting (or sublimation) points at ambient pressure, CRC Handbook of Chemistry and Physics."""

ROOM_TEMPERATURE_K = 300.0
MAGNETIC_ELEMENTS = frozenset({"Cr", "Mn", "Fe", "Co", "Ni", "Gd"})


def material_defaults(material: Material, rules: dict[str, Any]) -> dict[str, Any]:
    """The part of the configuration that follows from the crystal.

    :param rules: the ``heuristics`` block of a protocol.
    """
    primitive = material.primitive
    symbols = material.elements
    cutoff = round(rules["cutoff_per_neighbour_distance"] * material.nearest_neighbour, 1)
    supercells = [supercell(material, minimum) for minimum in rules["rattle_atoms"]]
    md: dict[str, Any] = {
        "supercell": supercell(material, rules["md_atoms"]),
        "temperatures_K": temperatures(primitive.get_chemical_symbols()),
    }
    if "H" in symbols:
        md["timestep_fs"] = rules["timestep_hydrogen_fs"]
    largest = max(len(primitive) * int(np.prod(cell)) for cell in [*supercells, md["supercell"]])
    return {
        "generate": {
            "rattle_cells": [c for i, c in enumerate(supercells) if c not in supercells[:i]],
            "max_atoms": max(rules["max_atoms"], largest),
        },
        "label": {
            "spin": bool(
                MAGNETIC_ELEMENTS.intersection(symbols)
                or primitive.get_initial_magnetic_moments().any()
            ),
        },
        "train": {"cutoff": cutoff},
        "md": md,
        "validate": {"vacancy_supercell": supercell(material, rules["vacancy_atoms"])},
    }


def supercell(material: Material, minimum: int) -> list[int]:
    """Repeats of the primitive cell that hold at least ``minimum`` atoms in a compact box.

    All directions as thin as the thinnest grow together, so that a cubic crystal stays cubic.
    """
    atoms = material.primitive
    heights = 1.0 / np.linalg.norm(atoms.cell.reciprocal().array, axis=1)
    repeats = np.ones(3, dtype=int)
    while len(atoms) * repeats.prod() < minimum:
        widths = repeats * heights
        repeats[widths <= widths.min() * 1.001] += 1
    return [int(repeat) for repeat in repeats]


def temperatures(symbols: list[str]) -> list[float]:
    """MD temperatures for the goal ``elastic``: room temperature and hot, but well below melting.

    :param symbols: one per atom, so that a compound gets the mean melting point of its elements.
    """
    known = [MELTING_POINTS_K[symbol] for symbol in symbols if symbol in MELTING_POINTS_K]
    melting = float(np.mean(known)) if known else 1000.0
    low = ROOM_TEMPERATURE_K if melting > 2 * ROOM_TEMPERATURE_K else _round(0.5 * melting)
    hot = (_round(0.4 * melting), _round(0.65 * melting))
    return [low, *(value for value in hot if value > low * 1.2)]


def _round(value: float) -> float:
    step = 100.0 if value >= 500 else 25.0
    return step * round(value / step)
