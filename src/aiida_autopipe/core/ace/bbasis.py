"""The B-basis .yaml file of `pair_style pace/extrapolation`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.basis import Basis, coupled_basis
from aiida_autopipe.core.ace.embedding import Embedding
from aiida_autopipe.core.ace.functions import BasisFunction, Bond, column_order, coupled_function
from aiida_autopipe.core.ace.potential_text import (
    Section,
    list_text,
    located,
    mapping_text,
    number_text,
    read_yaml,
)
from aiida_autopipe.core.ace.radial import RadialSpec
from aiida_autopipe.core.ace.yace import (
    check_coefficients,
    check_elements,
    check_factors,
    read_embedding,
    shape_parameter,
    spline_bins,
)
from aiida_autopipe.core.ace.zbl import ZBL, metadata_lines, read_metadata
from aiida_autopipe.core.errors import PotentialFileError

Floats = NDArray[np.float64]
# Combinations of m looked through for one function, and for all: minutes of work.
_MOST_COMBINATIONS, _MOST_COMBINATIONS_OF_ALL = 500_000, 20_000_000

_EMBEDDING_KEYS = ("ndensityi", "npoti", "parameters")
# Pacemaker writes these into larger blocks too, where ML-PACE does not read them.
_CORE_CUTOFF_KEYS = ("rho_core_cut", "drho_core_cut")
_RADIAL_KEYS = (
    *("lmaxi", "nradmaxi", "nradbaseij", "radbase", "radparameters", "radcoefficients"),
    *("rcutij", "dcutij"),
)
_INNER_KEYS = ("core-repulsion", "inner_cutoff_type", "r_in", "delta_in")
_BLOCK_KEYS = {
    1: (*_EMBEDDING_KEYS, *_RADIAL_KEYS, "NameOfCutoffFunctionij", *_INNER_KEYS),
    2: (*_RADIAL_KEYS, "NameOfCutoffFunctionij", *_INNER_KEYS),
    3: ("core-repulsion",),
}
_FUNCTION_KEYS = ("type", "nr", "nl", "lint", "c", "skip")

_Blocks = Mapping[tuple[str, ...], Section]
# Centre, (element, n, l) of each factor, intermediate momenta.
_Indices = tuple[int, tuple[tuple[int, int, int], ...], tuple[int, ...]]


def read_bbasis(path: Path) -> tuple[Basis, Floats, dict[str, Embedding], ZBL | None]:
    """Basis, coefficients (F, P), embeddings and, from our own metadata, the ZBL repulsion of a
    B-basis file; the format has no reference energies."""
    top = read_yaml(path).only(("metadata", "auxdata", "global", "species"))
    blocks: dict[tuple[str, ...], Section] = {}
    for section in top.sections("species"):
        names = _block_names(section)
        if names in blocks:
            raise PotentialFileError(f"{section.where}: block '{' '.join(names)}' occurs twice.")
        blocks[names] = Section(section.data, f"{path}, block '{' '.join(names)}'")
        known = ("speciesblock", "nbody", *_CORE_CUTOFF_KEYS, *_BLOCK_KEYS[min(len(names), 3)])
        blocks[names].only(known)
    elements = sorted({name for names in blocks for name in names})
    check_elements(elements, top.where)
    bonds = _read_bonds(path, elements, blocks)
    embeddings = {element: _read_embedding(blocks[element,]) for element in elements}
    functions, coefficients = _read_functions(blocks, elements, bonds, embeddings)
    bins = spline_bins(top.section("global").only(("DeltaSplineBins",)), "DeltaSplineBins")
    with located(str(path)):
        basis = coupled_basis(elements, bonds, functions, bins)
    rows = np.zeros((len(functions), max(e.n_densities for e in embeddings.values())))
    for row, k in zip(rows, column_order(functions), strict=True):
        row[: len(coefficients[k])] = coefficients[k]
    return basis, rows, embeddings, read_metadata(top)


def _block_names(section: Section) -> tuple[str, ...]:
    """Elements of a block, the centre first; 'Al Al' is an old way to say 'Al'."""
    names = section.text("speciesblock").split()
    if len(names) == 2 and names[0] == names[1]:
        names = names[:1]
    if not names or len(set(names)) != len(names):
        raise PotentialFileError(
            f"{section.where}: speciesblock '{section.text('speciesblock')}' must name each "
            "element once."
        )
    return tuple(names)


def _read_bonds(path: Path, elements: list[str], blocks: _Blocks) -> dict[tuple[int, int], Bond]:
    """Bonds of all ordered pairs.

    Blocks 'A B' and 'B A' complete each other and must agree; when one of them is missing, the
    centre of that one does not see the other element.
    """
    bonds = {}
    for i, first in enumerate(elements):
        if (first,) not in blocks:
            raise PotentialFileError(f"{path}: block '{first}' is missing.")
        bonds[i, i] = _read_bond(blocks[first,])
    inner_type = next(iter(bonds.values())).radial.inner_type
    absent = Bond(
        RadialSpec(cutoff=1.0, n_functions=1, inner_type=inner_type), np.zeros((0, 1, 1)), True
    )
    for i, first in enumerate(elements):
        for j, second in enumerate(elements):
            block, mirror = blocks.get((first, second)), blocks.get((second, first))
            if i == j:
                continue
            bonds[i, j] = absent if block is None else _read_bond(_completed(block, mirror))
    for (i, j), bond in bonds.items():
        other = bonds[j, i]
        if not (bond.absent or other.absent) and not bond.equals(other):
            raise PotentialFileError(
                f"{path}: blocks '{elements[i]} {elements[j]}' and '{elements[j]} {elements[i]}' "
                "differ in radial functions, inner cutoff or core repulsion; they must agree."
            )
    return bonds


def _completed(block: Section, mirror: Section | None) -> Section:
    """A block of two elements with the radial functions, or core repulsion and inner cutoff, of its
    mirror block where it has none."""
    if mirror is None:
        return block
    data = dict(block.data)
    if "lmaxi" not in block:
        if partial := [key for key in _RADIAL_KEYS if key in block]:
            raise PotentialFileError(
                f"{block.where}: '{partial[0]}' without 'lmaxi' defines the radial functions only "
                "in part."
            )
        data |= {key: mirror.get(key) for key in _RADIAL_KEYS}
    if "core-repulsion" not in block and "core-repulsion" in mirror:
        data = {key: value for key, value in data.items() if key not in _INNER_KEYS}
        data |= {key: mirror.get(key) for key in _INNER_KEYS if key in mirror}
    return Section(data, block.where)


def _read_bond(section: Section) -> Bond:
    # Pacemaker leaves the name empty where it was not given.
    cutoff_function = section.text("NameOfCutoffFunctionij", "cos")
    if cutoff_function not in ("cos", ""):
        raise PotentialFileError(
            f"{section.where}: NameOfCutoffFunctionij '{cutoff_function}' is not supported; "
            "only 'cos'."
        )
    core = section.numbers("core-repulsion").tolist() if "core-repulsion" in section else [0.0, 0.0]
    if len(core) != 2:
        raise PotentialFileError(f"{section.where}: core-repulsion {core} must have two entries.")
    nradbase = section.integer("nradbaseij")
    with located(section.where):
        radial = RadialSpec(
            cutoff=section.number("rcutij"),
            n_functions=nradbase,
            name=section.text("radbase"),
            lambda_=shape_parameter(section),
            outer_width=section.number("dcutij"),
            inner_cutoff=section.number("r_in", 0.0),
            inner_width=section.number("delta_in", 0.0),
            inner_type=section.text("inner_cutoff_type", "density"),
            core_repulsion=(core[0], core[1]),
        )
    coefficients = check_coefficients(
        section, "radcoefficients", section.integer("nradmaxi"), section.integer("lmaxi"), nradbase
    )
    return Bond(radial, coefficients)


def _read_embedding(section: Section) -> Embedding:
    default = Embedding()
    return read_embedding(
        section,
        section.integer("ndensityi"),
        "parameters",
        section.number("rho_core_cut", default.rho_core_cutoff),
        section.number("drho_core_cut", default.drho_core_cutoff),
    )


def _read_functions(
    blocks: _Blocks,
    elements: list[str],
    bonds: Mapping[tuple[int, int], Bond],
    embeddings: Mapping[str, Embedding],
) -> tuple[list[BasisFunction], list[Floats]]:
    """Functions of all blocks with their coefficients (densities of the centre,)."""
    functions: list[BasisFunction] = []
    coefficients: list[Floats] = []
    known: set[object] = set()
    work: dict[object, float] = {}
    for names, block in blocks.items():
        n_densities = embeddings[names[0]].n_densities
        for section in block.sections("nbody") if "nbody" in block else []:
            if section.only(_FUNCTION_KEYS).flag("skip"):
                continue
            indices = _read_indices(section, names, elements, bonds)
            if indices in known:
                raise PotentialFileError(f"{section.where}: this function occurs twice.")
            known.add(indices)
            functions.append(_coupled(section, indices, work))
            coefficients.append(section.vector("c"))
            if len(coefficients[-1]) != n_densities:
                raise PotentialFileError(
                    f"{section.where}: c has {len(coefficients[-1])} entries, but {names[0]} has "
                    f"{n_densities} densities."
                )
    return functions, coefficients


def _read_indices(
    section: Section,
    names: tuple[str, ...],
    elements: list[str],
    bonds: Mapping[tuple[int, int], Bond],
) -> _Indices:
    """Centre, (element, n, l) of each factor and intermediate momenta of one function."""
    symbols = section.text("type").split()
    if any(symbol not in elements for symbol in symbols):
        raise PotentialFileError(f"{section.where}: type '{section.text('type')}' is unknown.")
    if symbols[:1] != [names[0]] or not set(symbols) <= set(names):
        raise PotentialFileError(
            f"{section.where}: type '{section.text('type')}' does not belong into this block."
        )
    mu0, *mus = (elements.index(symbol) for symbol in symbols)
    ns, ls = section.integer_tuple("nr"), section.integer_tuple("nl")
    check_factors(section.where, mus, ns, ls, bonds, mu0)
    lint = section.integer_tuple("lint") if "lint" in section else ()
    if len(lint) != max(0, len(ns) - 2):
        raise PotentialFileError(
            f"{section.where}: lint {list(lint)} must have {max(0, len(ns) - 2)} entries."
        )
    return mu0, tuple(zip(mus, ns, ls, strict=True)), lint


def _coupled(section: Section, indices: _Indices, work: dict[object, float]) -> BasisFunction:
    """The function of these indices; `work` counts the combinations of m looked through so far."""
    mu0, factors, lint = indices
    ls = tuple(ell for _, _, ell in factors)
    if (ls, lint) not in work:
        combinations = float(np.prod([2.0 * ell + 1 for ell in ls[1:]]))
        work[ls, lint] = combinations
        work["all"] = work.get("all", 0.0) + combinations
        if combinations > _MOST_COMBINATIONS or work["all"] > _MOST_COMBINATIONS_OF_ALL:
            raise PotentialFileError(
                f"{section.where}: nl {list(ls)} has too many combinations of m to couple."
            )
    function = coupled_function(mu0, factors, lint)
    if sum(ls) % 2 or not function.terms:
        raise PotentialFileError(
            f"{section.where}: nl {list(ls)} with lint {list(lint)} do not couple to zero."
        )
    return function


def write_bbasis(
    path: Path,
    basis: Basis,
    coefficients: Floats,
    embeddings: Mapping[str, Embedding],
    zbl: ZBL | None = None,
) -> None:
    """Write a B-basis file; numbers read back bit for bit. It cannot hold reference energies.

    `coefficients` (F, P).
    """
    elements, types = basis.elements, range(len(basis.elements))
    blocks: dict[tuple[int, ...], list[str]] = {(k,): [] for k in types}
    for i in types:
        blocks |= {(i, j): [] for j in types if j != i and not basis.bonds[i, j].absent}
    for function, row in zip(basis.functions, coefficients, strict=True):
        others = sorted(set(function.mus) - {function.mu0})
        c = row[: embeddings[elements[function.mu0]].n_densities]
        text = _function_text(elements, function, c)
        blocks.setdefault((function.mu0, *others), []).append(text)
    lines = metadata_lines(zbl)
    lines += ["global:", f"  DeltaSplineBins: {number_text(basis.spline_bins)}", "species:"]
    for key in sorted(blocks, key=lambda key: (len(key), key)):
        # Quoted: a block of nobelium alone would read as 'false'.
        lines.append(f'  - speciesblock: "{" ".join(elements[k] for k in key)}"')
        if len(key) == 1:
            lines += _embedding_lines(embeddings[elements[key[0]]])
        if len(key) <= 2:
            lines += _bond_lines(basis.bonds[key[0], key[-1]])
        lines.append("    nbody:" if blocks[key] else "    nbody: []")
        lines += [f"      - {text}" for text in blocks[key]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _embedding_lines(embedding: Embedding) -> list[str]:
    return [
        f"    ndensityi: {embedding.n_densities}",
        f"    npoti: {embedding.npoti}",
        f"    parameters: {list_text(embedding.parameters)}",
        f"    rho_core_cut: {number_text(embedding.rho_core_cutoff)}",
        f"    drho_core_cut: {number_text(embedding.drho_core_cutoff)}",
    ]


def _bond_lines(bond: Bond) -> list[str]:
    r = bond.radial
    items = {
        "nradmaxi": str(bond.nradmax),
        "lmaxi": str(bond.lmax),
        "rcutij": number_text(r.cutoff),
        "dcutij": number_text(r.outer_width),
        "NameOfCutoffFunctionij": "cos",
        "r_in": number_text(r.inner_cutoff),
        "delta_in": number_text(r.inner_width),
        "inner_cutoff_type": r.inner_type,
        "nradbaseij": str(r.n_functions),
        "radbase": r.name,
        "radparameters": list_text([r.lambda_]),
        "radcoefficients": list_text(bond.coefficients),
        "core-repulsion": list_text(r.core_repulsion),
    }
    return [f"    {key}: {value}" for key, value in items.items()]


def _function_text(elements: tuple[str, ...], function: BasisFunction, c: Floats) -> str:
    names = " ".join(elements[k] for k in (function.mu0, *function.mus))
    items = {"type": names, "nr": list_text(function.ns), "nl": list_text(function.ls)}
    if function.lint:
        items["lint"] = list_text(function.lint)
    return mapping_text({**items, "c": list_text(c)})
