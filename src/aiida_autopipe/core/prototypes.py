"""Crystals of chemical formulas: a table of measured lattices, and rules where it has none.

The rules choose the prototype that most compounds of a kind have (table by groups of the periodic
system in `guess`), with a lattice constant from covalent radii (Cordero et al., Dalton Trans. 2008,
2832). Such a lattice is right to five or ten per cent. It is a start: the command says which choice
it made, and the material can name prototype and lattice constants, or be a file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii
from ase.spacegroup import crystal

from aiida_autopipe.core.errors import InputError

_TOKEN = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")

_NONMETALS = "H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Te I Xe At Rn"
NONMETALS = frozenset(_NONMETALS.split())
ALKALI = frozenset(("Li", "Na", "K", "Rb", "Cs"))
ALKALINE_EARTH = frozenset(("Be", "Mg", "Ca", "Sr", "Ba"))
_HALOGENS = frozenset(("F", "Cl", "Br", "I"))
_CHALCOGENS = frozenset(("O", "S", "Se", "Te"))
_METALS = "Sc Ti V Cr Mn Fe Co Ni Cu Y Zr Nb Mo Ru Rh Pd Hf Ta W Re Os Ir Pt"
_TRANSITION = frozenset(_METALS.split())
_LARGE_TETRAVALENT = frozenset(("Zr", "Hf", "Ce", "Pr", "Tb", "Th", "U", "Np", "Pu"))
_GROUP = {
    **dict.fromkeys(("Be", "Mg", "Zn", "Cd", "Hg"), 2),
    **dict.fromkeys(("B", "Al", "Ga", "In"), 3),
    **dict.fromkeys(("C", "Si", "Ge", "Sn"), 4),
    **dict.fromkeys(("N", "P", "As", "Sb"), 5),
    **dict.fromkeys(("S", "Se", "Te"), 6),
}


def _built(name: str) -> Callable[[str, str, tuple[float, ...]], Atoms]:
    def build(first: str, second: str, lattice: tuple[float, ...]) -> Atoms:
        symbols = {"fluorite": f"{first}{second}2"}.get(name, first + second)
        atoms: Atoms = bulk(symbols, name, a=lattice[0], c=lattice[1] if len(lattice) > 1 else None)
        return atoms

    return build


def _antifluorite(first: str, second: str, lattice: tuple[float, ...]) -> Atoms:
    atoms: Atoms = bulk(f"{second}{first}2", "fluorite", a=lattice[0])
    return atoms


def _rutile(first: str, second: str, lattice: tuple[float, ...]) -> Atoms:
    a, c = lattice[:2]
    u = lattice[2] if len(lattice) > 2 else 0.305
    basis = [(0, 0, 0), (u, u, 0)]
    return _crystal((first, second), basis, 136, [a, a, c, 90, 90, 90])


def _l12(first: str, second: str, lattice: tuple[float, ...]) -> Atoms:
    a = lattice[0]
    return _crystal((first, second), [(0, 0.5, 0.5), (0, 0, 0)], 221, [a, a, a, 90, 90, 90])


def _l10(first: str, second: str, lattice: tuple[float, ...]) -> Atoms:
    # The face-centred tetragonal cell is meant; the primitive one has a / sqrt(2).
    a, c = lattice[0] / math.sqrt(2), lattice[1]
    return _crystal((first, second), [(0, 0, 0), (0.5, 0.5, 0.5)], 123, [a, a, c, 90, 90, 90])


def _corundum(first: str, second: str, lattice: tuple[float, ...]) -> Atoms:
    a, c = lattice[:2]
    basis = [(0, 0, 0.3522), (0.3064, 0, 0.25)]
    return _crystal((first, second), basis, 167, [a, a, c, 90, 90, 120])


def _quartz(first: str, second: str, lattice: tuple[float, ...]) -> Atoms:
    a, c = lattice[:2]
    basis = [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.2142)]
    return _crystal((first, second), basis, 152, [a, a, c, 90, 90, 120])


def _crystal(
    symbols: tuple[str, ...],
    basis: Sequence[tuple[float, float, float]],
    spacegroup: int,
    cell: list[float],
) -> Atoms:
    atoms: Atoms = crystal(
        symbols, basis, spacegroup=spacegroup, cellpar=cell, primitive_cell=False
    )
    return atoms


@dataclass(frozen=True)
class Prototype:
    """A structure type.

    :param counts: atoms of the first and the second element in one formula unit.
    :param lattice: names of the lattice constants it takes, the optional ones last.
    :param build: crystal from two symbols and lattice constants in Å.
    :param bond: bond length over the first lattice constant, for `guess`; None where no rule uses
        the type.
    """

    counts: tuple[int, int]
    lattice: tuple[str, ...]
    build: Callable[[str, str, tuple[float, ...]], Atoms]
    bond: float | None = None


PROTOTYPES: dict[str, Prototype] = {
    "rocksalt": Prototype((1, 1), ("a",), _built("rocksalt"), 0.5),
    "zincblende": Prototype((1, 1), ("a",), _built("zincblende"), math.sqrt(3) / 4),
    "wurtzite": Prototype((1, 1), ("a", "c"), _built("wurtzite"), 0.6124),
    "cesiumchloride": Prototype((1, 1), ("a",), _built("cesiumchloride"), math.sqrt(3) / 2),
    "L10": Prototype((1, 1), ("a", "c"), _l10),
    "L12": Prototype((3, 1), ("a",), _l12),
    "fluorite": Prototype((1, 2), ("a",), _built("fluorite"), math.sqrt(3) / 4),
    "antifluorite": Prototype((2, 1), ("a",), _antifluorite, math.sqrt(3) / 4),
    "rutile": Prototype((1, 2), ("a", "c"), _rutile, 0.4265),
    "corundum": Prototype((2, 3), ("a", "c"), _corundum),
    "quartz": Prototype((1, 2), ("a", "c"), _quartz),
}
"""Structure types by name. B2 is cesiumchloride; L12 has the majority element first."""

_TABLE_TEXT = {
    "rocksalt": """LiH 4.083 LiF 4.027 LiCl 5.140 LiBr 5.501 LiI 6.012 NaF 4.634 NaCl 5.640
        NaBr 5.973 NaI 6.473 KF 5.348 KCl 6.293 KBr 6.600 KI 7.066 RbF 5.652 RbCl 6.581 RbBr 6.889
        AgCl 5.550 AgBr 5.775 MgO 4.212 CaO 4.811 SrO 5.160 BaO 5.539 MnO 4.446 FeO 4.326 CoO 4.260
        NiO 4.177 CdO 4.695 MgS 5.203 CaS 5.695 SrS 6.024 PbS 5.936 PbSe 6.124 PbTe 6.462 SnTe 6.327
        TiC 4.328 TiN 4.242 VC 4.166 VN 4.137 ZrC 4.698 ZrN 4.578 NbC 4.470 NbN 4.394 HfC 4.638
        TaC 4.456 CrN 4.149 ScN 4.503""",
    "zincblende": """SiC 4.360 BN 3.616 BP 4.538 AlP 5.464 AlAs 5.661 AlSb 6.136 GaP 5.451
        GaAs 5.653 GaSb 6.096 InP 5.869 InAs 6.058 InSb 6.479 ZnS 5.409 ZnSe 5.668 ZnTe 6.104
        CdTe 6.482 HgTe 6.461 CuCl 5.416 CuBr 5.691""",
    "wurtzite": """AlN 3.112/4.982 GaN 3.189/5.185 InN 3.545/5.703 ZnO 3.250/5.207 CdS 4.136/6.714
        CdSe 4.299/7.011 BeO 2.698/4.377""",
    "cesiumchloride": """CsCl 4.123 CsBr 4.296 CsI 4.567 TlCl 3.834 TlBr 3.986 NiAl 2.887 CoAl 2.862
        FeAl 2.909 TiNi 3.015 TiFe 2.976 CuZn 2.954 AgMg 3.311 RuAl 2.990 CuZr 3.262""",
    "L10": "TiAl 4.005/4.070 FePt 3.852/3.713 CoPt 3.803/3.701 FePd 3.852/3.723 CuAu 3.966/3.673",
    "L12": """Ni3Al 3.572 Ni3Ga 3.585 Ni3Si 3.504 Ni3Ge 3.574 Ni3Fe 3.555 Cu3Au 3.748 Al3Sc 4.101
        Pt3Co 3.831""",
    "fluorite": "CaF2 5.463 SrF2 5.800 BaF2 6.200 CeO2 5.411 UO2 5.471 ThO2 5.597 ZrO2 5.090",
    "antifluorite": "Li2O 4.619 Na2O 5.550 K2O 6.436 Li2S 5.708 Mg2Si 6.351 Mg2Ge 6.385",
    "rutile": """TiO2 4.594/2.959/0.305 SnO2 4.737/3.186/0.307 RuO2 4.491/3.106/0.306
        MnO2 4.398/2.873/0.302 CrO2 4.421/2.917/0.301 MgF2 4.621/3.051/0.303 VO2 4.554/2.856/0.300
        GeO2 4.395/2.860/0.306 PbO2 4.957/3.388/0.309""",
    "corundum": "Al2O3 4.759/12.991 Cr2O3 4.959/13.594 Fe2O3 5.038/13.772",
    "quartz": "SiO2 4.913/5.405",
}
"""Lattice constants in Å at room temperature, a/c/(internal parameter): R. W. G. Wyckoff, Crystal
Structures (Wiley, 1963); intermetallics from Pearson's Handbook. Where a compound has several
forms, the common one that is an ordered crystal of few atoms."""


@dataclass(frozen=True)
class KnownCrystal:
    """A prototype with its elements and lattice constants.

    :param prototype: name in `PROTOTYPES`.
    :param first: element of the prototype's first sites.
    :param second: element of its second sites.
    :param lattice: lattice constants in Å, then the internal parameter.
    :param source: where they come from, in words.
    """

    prototype: str
    first: str
    second: str
    lattice: tuple[float, ...]
    source: str

    def atoms(self) -> Atoms:
        """The crystal."""
        return PROTOTYPES[self.prototype].build(self.first, self.second, self.lattice)

    def describe(self) -> str:
        """In words, such as 'rocksalt, a = 5.64 Å (table)'."""
        names = PROTOTYPES[self.prototype].lattice
        lattice = ", ".join(
            f"{name} = {value:.4g} Å" for name, value in zip(names, self.lattice, strict=False)
        )
        return f"{self.prototype}, {lattice} ({self.source})"


def parse_formula(text: str) -> dict[str, float] | None:
    """Numbers of atoms by element; None when the text is no formula of known elements.

    Brackets, charges and hydrates are not read.
    """
    tokens = _TOKEN.findall(text)
    if not tokens or "".join(symbol + number for symbol, number in tokens) != text:
        return None
    counts: dict[str, float] = {}
    for symbol, number in tokens:
        if symbol not in atomic_numbers or symbol == "X" or number == ".":
            return None
        counts[symbol] = counts.get(symbol, 0.0) + (float(number) if number else 1.0)
    return counts if all(count > 0 for count in counts.values()) else None


def reduced(counts: Mapping[str, float]) -> dict[str, float]:
    """The same ratio in the smallest whole numbers; fractions that are none are kept."""
    if any(not float(count).is_integer() for count in counts.values()):
        return dict(counts)
    divisor = math.gcd(*(int(count) for count in counts.values()))
    return {symbol: int(count) / divisor for symbol, count in counts.items()}


def _read_table() -> dict[frozenset[tuple[str, float]], KnownCrystal]:
    table = {}
    for prototype, text in _TABLE_TEXT.items():
        words = text.split()
        for formula, numbers in zip(words[::2], words[1::2], strict=True):
            counts = parse_formula(formula) or {}
            first, second = counts
            lattice = tuple(float(number) for number in numbers.split("/"))
            known = KnownCrystal(prototype, first, second, lattice, "table")
            table[frozenset(counts.items())] = known
    return table


_TABLE = _read_table()


def tabulated(counts: Mapping[str, float]) -> KnownCrystal | None:
    """The crystal of a formula in the table, None when it is not there; the order is free."""
    return _TABLE.get(frozenset(reduced(counts).items()))


def guess(counts: Mapping[str, float]) -> KnownCrystal | None:
    """The usual prototype of a compound of a metal and a non-metal, None where no rule holds.

    ======  ==========================================================  ===============
    AB      valences 2-6, 3-5 or 4-4 (ZnTe, GaP, SiC)                   zincblende
    AB      Cs with Cl, Br or I                                         cesiumchloride
    AB      alkali halides; alkaline earths and transition metals with  rocksalt
            O, S, Se, Te, N or C
    AB2     fluorides of alkaline earths, dioxides of Zr, Hf, Ce, U...   fluorite
    AB2     other dioxides of transition metals                         rutile
    A2B     alkali metals with O, S, Se, Te                             antifluorite
    ======  ==========================================================  ===============
    """
    ratio = reduced(counts)
    if len(ratio) != 2:
        return None
    # The more electropositive element is the one further to the left of the list below.
    first, second = sorted(ratio, key=lambda symbol: symbol in NONMETALS)
    if {first, second} <= set(_GROUP) and _GROUP[first] > _GROUP[second]:
        first, second = second, first
    shape = (int(ratio[first]), int(ratio[second]))
    name = _usual_prototype(first, second, shape)
    return None if name is None else from_prototype(name, first, second)


def _usual_prototype(first: str, second: str, shape: tuple[int, int]) -> str | None:
    if shape == (1, 1):
        if _GROUP.get(first, 0) + _GROUP.get(second, 0) == 8:
            return "rocksalt" if first == "Mg" else "zincblende"
        if first == "Cs" and second in _HALOGENS - {"F"}:
            return "cesiumchloride"
        salt = first in ALKALI and second in _HALOGENS
        oxide = first in ALKALINE_EARTH | _TRANSITION and second in _CHALCOGENS | {"N", "C"}
        return "rocksalt" if salt or oxide else None
    if shape == (1, 2):
        if first in ALKALINE_EARTH and second == "F":
            return "fluorite"
        if second == "O" and first in _LARGE_TETRAVALENT:
            return "fluorite"
        return "rutile" if second == "O" and first in _TRANSITION else None
    if shape == (2, 1) and first in ALKALI and second in _CHALCOGENS:
        return "antifluorite"
    return None


def from_prototype(
    name: str, first: str, second: str, a: float | None = None, c: float | None = None
) -> KnownCrystal:
    """A crystal of a chosen prototype; lattice constants that are not given come from radii.

    :raises InputError: an unknown prototype, or one whose lattice no rule gives.
    """
    if name == "B2":
        name = "cesiumchloride"
    prototype = PROTOTYPES.get(name)
    if prototype is None:
        raise InputError(
            f"material.prototype: {name!r} is not a valid choice; valid: {', '.join(PROTOTYPES)}"
        )
    if c is not None and "c" not in prototype.lattice:
        raise InputError(f"material.c_A: the cubic prototype {name} has one lattice constant, a_A")
    source = "given"
    if a is None:
        if prototype.bond is None:
            raise InputError(
                f"material.a_A: this key is missing; there is no rule for the lattice of {name}"
            )
        bond = covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]]
        if name in ("fluorite", "rutile") and second == "O":
            bond *= 0.9  # bonds of four-valent metals to oxygen are a tenth shorter
        a, source = round(float(bond) / prototype.bond, 3), "from covalent radii"
    if "c" not in prototype.lattice:
        return KnownCrystal(name, first, second, (a,), source)
    ratios = {"wurtzite": math.sqrt(8 / 3), "rutile": 0.644, "L10": 1.0}
    if c is None and name not in ratios:
        raise InputError(f"material.c_A: this key is missing; {name} needs it with a_A")
    return KnownCrystal(name, first, second, (a, c or round(a * ratios[name], 3)), source)
