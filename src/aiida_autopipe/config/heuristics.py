"""Values that follow from the material: lengths, supercells, temperatures, spin, smearing.

Protocols and goals hold values in the material's own units, so that one file serves all materials.
`resolve` turns them into numbers; an input file may use them too:

=========================  ====================================================================
``{neighbours: x}``        x nearest-neighbour distances, Å
``{melting: x}``           x melting points, K; with ``most_K`` never above that temperature
``{thermal: x}``           the displacement of an atom along one axis, Å, at x melting points, by
                           Debye's model; at most that of a melting crystal
``{cell_atoms: n}``        the smallest compact supercell with at least n atoms, three repeats
=========================  ====================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from aiida_autopipe.config.loading import parse_input
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.amplitude import DEBYE_TEMPERATURES_K, thermal_amplitude
from aiida_autopipe.core.material import Material
from aiida_autopipe.core.prototypes import NONMETALS, parse_formula, reduced

UNITS = ("neighbours", "melting", "thermal", "cell_atoms")
"""The material's own units, by the key that marks them."""

UNKNOWN_MELTING_POINT_K = 1000.0
_USUAL_DEBYE_TEMPERATURE_K = 400.0
MAGNETIC_ELEMENTS = frozenset({"Cr", "Mn", "Fe", "Co", "Ni", "Gd"})
_APART = 1.2
"""A temperature is worth a trajectory when it is higher than the one before by this factor."""


def resolve(values: Any, material: Material, key: str = "") -> Any:
    """The values with the material's own units turned into numbers.

    :param key: of the values, for errors.
    :raises InputError: a unit with something that is no positive number.
    """
    if isinstance(values, Mapping):
        if unit := next((name for name in UNITS if name in values), None):
            return _number(values, unit, material, key)
        return {k: resolve(v, material, f"{key}.{k}".lstrip(".")) for k, v in values.items()}
    if isinstance(values, list):
        found = [resolve(v, material, f"{key}[{i}]") for i, v in enumerate(values)]
        relative = any(isinstance(v, Mapping) and "melting" in v for v in values)
        # A list within a list is a ramp, which goes where it goes, and so is one temperature.
        is_ramp = key.endswith("]") or key.split(".")[-1] == "temperature_K"
        return _spread(found) if relative and not is_ramp else found
    return values


def _number(values: Mapping[str, Any], unit: str, material: Material, key: str) -> Any:
    factor = values[unit]
    extra = set(values) - {unit} - ({"most_K"} if unit == "melting" else set())
    number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if extra or not number or not 0 < factor < math.inf:
        raise InputError(
            f"{key}: {dict(values)} must be {{{unit}: NUMBER}} with a number above zero"
        )
    if unit == "neighbours":
        return round(factor * material.nearest_neighbour, 1)
    if unit == "cell_atoms":
        if not material.periodic:
            raise InputError(f"{key}: {dict(values)} is a supercell, and a molecule has none")
        return supercell(material, math.ceil(factor))
    if unit == "thermal":
        return thermal_displacement(material, factor)
    most = values.get("most_K", math.inf)
    kelvin = _round(factor * melting_point(material))
    return float(min(most, kelvin))


def _spread(temperatures: Sequence[Any]) -> list[Any]:
    """Without those that are hardly higher than one before; ramps (pairs) are all kept."""
    kept: list[Any] = []
    for value in temperatures:
        single = [v for v in kept if not isinstance(v, list)]
        if isinstance(value, list) or not single or value > _APART * max(single):
            kept.append(value)
    return kept


def element_defaults(material: Material) -> dict[str, Any]:
    """What follows from the elements alone.

    - Spin: with Cr, Mn, Fe, Co, Ni or Gd, with moments in the file, and for molecules with an odd
      number of electrons, which have a spin however their electrons pair.
    - Smearing: 0.02 Ry for metals, since a larger width makes the k-point sum of a metal converge
      on the same mesh; 0.01 Ry for others, safe for gaps that close during MD; 0.005 Ry with
      Gaussians for molecules, whose levels lie far apart.
    - Equation of state: volumes from 12 % below to 12 % above where the lattice constant is an
      estimate, for an alloy or from radii: mixing and the functional move it by several per cent.
    - Time step: 0.5 fs with hydrogen, whose fastest vibrations take 9 fs.
    """
    symbols = set(material.elements)
    atoms = material.primitive
    odd = not material.periodic and int(atoms.numbers.sum()) % 2 == 1
    moments = bool(np.any(atoms.get_initial_magnetic_moments()))
    label: dict[str, Any] = {"spin": bool(MAGNETIC_ELEMENTS & symbols) or moments or odd}
    if not material.periodic:
        label |= {"smearing": "gaussian", "smearing_width_Ry": 0.005}
    elif not symbols & NONMETALS:
        label["smearing_width_Ry"] = 0.02
    values: dict[str, Any] = {"label": label}
    if material.kind == "alloy" or "from covalent radii" in material.note:
        values["validate"] = {"eos_volume_range": 0.12}
    if "H" in symbols:
        values["md"] = {"timestep_fs": 0.5}
        values["validate"] = {**values.get("validate", {}), "simulation_timestep_fs": 0.5}
    return values


def thermal_displacement(material: Material, melting_points: float) -> float:
    """Standard deviation of a displacement along one axis, Å, at so many melting points.

    Of elements without a known Debye temperature (gases, halogens) it is taken as 400 K, near the
    middle of the others; for molecules it is 0.06 Å at room temperature, a stretching and bending
    of bonds by some per cent, and grows with the square root of the temperature.
    """
    kelvin = melting_points * melting_point(material)
    if not material.periodic:
        return round(0.06 * math.sqrt(kelvin / 300.0), 3)
    known = any(symbol in DEBYE_TEMPERATURES_K for symbol in material.elements)
    debye = None if known else _USUAL_DEBYE_TEMPERATURE_K
    return round(thermal_amplitude(material.primitive, kelvin, debye), 3)


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


def melting_point(material: Material) -> float:
    """Melting point in K: of the compound where it is in the table, else the mean over the atoms.

    For a molecule, which does not melt, 600 K: bonds then vibrate well beyond harmonic, and do not
    break.
    """
    if not material.periodic:
        return 600.0
    table = melting_points()
    symbols = material.primitive.get_chemical_symbols()
    counts = reduced({symbol: float(symbols.count(symbol)) for symbol in set(symbols)})
    for formula, kelvin in table["compounds"].items():
        if parse_formula(formula) == counts:
            return float(kelvin)
    known = [table["elements"][symbol] for symbol in symbols if symbol in table["elements"]]
    return float(np.mean(known)) if known else UNKNOWN_MELTING_POINT_K


@cache
def melting_points() -> dict[str, dict[str, float]]:
    """The table of melting points: ``elements`` and ``compounds``, K."""
    return read_table("melting_points.yaml")


def read_table(name: str) -> dict[str, Any]:
    """A YAML file of this package."""
    file = resources.files("aiida_autopipe.config").joinpath(*name.split("/"))
    return parse_input(file.read_text(encoding="utf-8"), name)


def _round(kelvin: float) -> float:
    step = 100.0 if kelvin >= 500 else 25.0
    return max(step, step * round(kelvin / step))
