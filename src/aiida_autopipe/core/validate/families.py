"""The table of property families; a new property is a module and a line here."""

from __future__ import annotations

import difflib

from ase import Atoms

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.validate.dimers import DimerFamily
from aiida_autopipe.core.validate.elastic import ElasticFamily
from aiida_autopipe.core.validate.eos_curve import EosCurveFamily
from aiida_autopipe.core.validate.family import Family
from aiida_autopipe.core.validate.lattice import LatticeFamily
from aiida_autopipe.core.validate.phases import PhaseFamily
from aiida_autopipe.core.validate.phonons import PhononFamily
from aiida_autopipe.core.validate.stability import NveFamily, StableTemperatureFamily
from aiida_autopipe.core.validate.surfaces import SurfaceFamily
from aiida_autopipe.core.validate.thermal import ThermalFamily
from aiida_autopipe.core.validate.vacancy import PointDefectFamily

FAMILIES: tuple[Family, ...] = (
    LatticeFamily(),
    ElasticFamily(),
    PointDefectFamily(),
    EosCurveFamily(),
    PhononFamily(),
    PhaseFamily(),
    SurfaceFamily(),
    DimerFamily(),
    NveFamily(),
    StableTemperatureFamily(),
    ThermalFamily(),
)
"""In the order in which their structures are planned."""


def family_of(name: str) -> Family:
    """The family that a property belongs to.

    Raises:
        InputError: no family has this name.
    """
    for family in FAMILIES:
        if family.owns(name):
            return family
    examples = [one for family in FAMILIES for one in family.examples]
    near = difflib.get_close_matches(name, examples, n=1)
    known = ", ".join(family.names for family in FAMILIES)
    hint = f"did you mean '{near[0]}'?" if near else f"use {known}."
    raise InputError(f"'{name}' is not a property that can be validated: {hint}")


def undefined_because(name: str, primitive: Atoms) -> str | None:
    """Why a property is not defined for a crystal; None where it is."""
    return family_of(name).undefined(name, primitive)
