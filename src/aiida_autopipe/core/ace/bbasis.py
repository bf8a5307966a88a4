"""The B-basis .yaml file of `pair_style pace/extrapolation` and the active set .asi beside it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.basis import Basis, coupled_basis
from aiida_autopipe.core.ace.functions import BasisFunction, Bond, coupled_function
from aiida_autopipe.core.ace.potential_text import (
    Section,
    list_text,
    mapping_text,
    number_text,
    read_yaml,
)
from aiida_autopipe.core.ace.radial import RadialSpec
from aiida_autopipe.core.ace.yace import (
    DRHO_CUTOFF,
    EMBEDDING,
    RHO_CUTOFF,
    check_coefficients,
    check_elements,
    check_factors,
    check_linear,
    spline_bins,
)
from aiida_autopipe.core.errors import PotentialFileError

Floats = NDArray[np.float64]
# Bytes a .npy header may add to the N x N doubles of one element.
_HEADER_ALLOWANCE = 4096


def read_bbasis(path: Path) -> tuple[Basis, Floats]:
    """Basis and coefficients (F,) of a B-basis file; the format has no reference energies."""
    top = read_yaml(path)
    blocks: dict[tuple[str, ...], Section] = {}
    for section in top.sections("species"):
        names = tuple(section.text("speciesblock").split())
        blocks[names] = Section(section.data, f"{path}, block '{' '.join(names)}'")
    elements = sorted({name for names in blocks for name in names})
    check_elements(elements, top.where)
    bonds = _read_bonds(path, elements, blocks)
    for element in elements:
        block = blocks[(element,)]
        check_linear(block, element, block.integer("ndensityi"), block.numbers("parameters"))
    coefficients: dict[BasisFunction, float] = {}
    for block in blocks.values():
        for section in block.sections("nbody") if "nbody" in block else []:
            function, c = _read_function(section, elements, bonds)
            if function in coefficients:
                raise PotentialFileError(f"{section.where}: this function occurs twice.")
            coefficients[function] = c
    bins = spline_bins(top.section("global"), "DeltaSplineBins")
    basis = coupled_basis(elements, bonds, list(coefficients), bins)
    return basis, np.array([coefficients[function] for function in basis.functions])


def _read_bonds(
    path: Path, elements: list[str], blocks: Mapping[tuple[str, ...], Section]
) -> dict[tuple[int, int], Bond]:
    """Bonds of all ordered pairs; a missing mirror block stands for an identical one."""
    bonds = {}
    for i, first in enumerate(elements):
        for j, second in enumerate(elements):
            candidates = [(first,)] if i == j else [(first, second), (second, first)]
            block = next((blocks[names] for names in candidates if names in blocks), None)
            if block is None:
                raise PotentialFileError(f"{path}: block '{' '.join(candidates[0])}' is missing.")
            bonds[i, j] = _read_bond(block)
    return bonds


def _read_bond(section: Section) -> Bond:
    if "NameOfCutoffFunctionij" in section and section.text("NameOfCutoffFunctionij") != "cos":
        raise PotentialFileError(
            f"{section.where}: NameOfCutoffFunctionij "
            f"'{section.text('NameOfCutoffFunctionij')}' is not supported; only 'cos'."
        )
    core = section.numbers("core-repulsion").tolist() if "core-repulsion" in section else [0, 0]
    if len(core) != 2:
        raise PotentialFileError(f"{section.where}: core-repulsion {core} must have two entries.")
    nradbase = section.integer("nradbaseij")
    radial = RadialSpec(
        cutoff=section.number("rcutij"),
        n_functions=nradbase,
        name=section.text("radbase"),
        lambda_=float(section.numbers("radparameters")[0]),
        outer_width=section.number("dcutij"),
        inner_cutoff=section.number("r_in", 0.0),
        inner_width=section.number("delta_in", 0.0),
        inner_type=section.text("inner_cutoff_type")
        if "inner_cutoff_type" in section
        else "density",
        core_repulsion=(core[0], core[1]),
    )
    coefficients = check_coefficients(
        section, "radcoefficients", section.integer("nradmaxi"), section.integer("lmaxi"), nradbase
    )
    return Bond(radial, coefficients)


def _read_function(
    section: Section, elements: list[str], bonds: Mapping[tuple[int, int], Bond]
) -> tuple[BasisFunction, float]:
    names = section.text("type").split()
    if any(name not in elements for name in names):
        raise PotentialFileError(f"{section.where}: type '{section.text('type')}' is unknown.")
    mu0, *mus = (elements.index(name) for name in names)
    ns, ls = section.integer_tuple("nr"), section.integer_tuple("nl")
    check_factors(section.where, mus, ns, ls, bonds, mu0)
    lint = section.integer_tuple("lint") if "lint" in section and len(ns) > 2 else ()
    if len(lint) != max(0, len(ns) - 2):
        raise PotentialFileError(
            f"{section.where}: lint {list(lint)} must have {max(0, len(ns) - 2)} entries."
        )
    function = coupled_function(mu0, tuple(zip(mus, ns, ls, strict=True)), lint)
    if sum(ls) % 2 or not function.terms:
        raise PotentialFileError(
            f"{section.where}: nl {list(ls)} with lint {list(lint)} do not couple to zero."
        )
    c = section.numbers("c")
    if len(c) != 1:
        raise PotentialFileError(
            f"{section.where}: c has {len(c)} entries; only one density is supported."
        )
    return function, float(c[0])


def write_bbasis(path: Path, basis: Basis, coefficients: Floats) -> None:
    """Write a B-basis file; numbers read back bit for bit. It cannot hold reference energies."""
    elements = basis.elements
    blocks: dict[tuple[int, ...], list[str]] = {(k,): [] for k in range(len(elements))}
    for i in range(len(elements)):
        blocks |= {(i, j): [] for j in range(len(elements)) if j != i}
    for function, c in zip(basis.functions, coefficients, strict=True):
        others = sorted(set(function.mus) - {function.mu0})
        text = _function_text(elements, function, float(c))
        blocks.setdefault((function.mu0, *others), []).append(text)
    lines = ["global:", f"  DeltaSplineBins: {number_text(basis.spline_bins)}", "species:"]
    for types in sorted(blocks, key=lambda key: (len(key), key)):
        # Quoted: a block of nobelium alone would read as 'false'.
        lines.append(f'  - speciesblock: "{" ".join(elements[k] for k in types)}"')
        if len(types) == 1:
            lines += [
                "    ndensityi: 1",
                f"    npoti: {EMBEDDING}",
                "    parameters: [1, 1]",
                f"    rho_core_cut: {RHO_CUTOFF}",
                f"    drho_core_cut: {DRHO_CUTOFF}",
            ]
        if len(types) <= 2:
            lines += _bond_lines(basis.bonds[types[0], types[-1]])
        lines.append("    nbody:" if blocks[types] else "    nbody: []")
        lines += [f"      - {text}" for text in blocks[types]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


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


def _function_text(elements: tuple[str, ...], function: BasisFunction, c: float) -> str:
    names = " ".join(elements[k] for k in (function.mu0, *function.mus))
    items = {"type": names, "nr": list_text(function.ns), "nl": list_text(function.ls)}
    if function.lint:
        items["lint"] = list_text(function.lint)
    return mapping_text({**items, "c": list_text([c])})


def read_asi(path: Path, basis: Basis) -> dict[str, Floats]:
    """Inverse active sets {symbol: (N, N)}, N the number of functions of that element."""
    result = {}
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        for element in basis.elements:
            columns = basis.columns(element)
            n = columns.stop - columns.start
            size = sizes.get(f"{element}.npy")
            if size is None:
                raise PotentialFileError(f"{path}: no active set for {element}.")
            # Checked before loading, so that a small file cannot unpack to a huge array.
            if size > n * n * 8 + _HEADER_ALLOWANCE:
                raise PotentialFileError(
                    f"{path}: the active set of {element} holds {size} bytes, expected {n} x {n} "
                    "doubles; it belongs to another potential."
                )
            with np.load(path, allow_pickle=False) as arrays:
                result[element] = _checked_matrix(path, element, arrays[element], n)
    except (OSError, zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
        raise PotentialFileError(
            f"{path}: not a readable active set, truncated or damaged ({error})."
        ) from error
    return result


def _checked_matrix(path: Path, element: str, matrix: NDArray[np.generic], n: int) -> Floats:
    if matrix.dtype != np.float64 or matrix.shape != (n, n) or not np.isfinite(matrix).all():
        raise PotentialFileError(
            f"{path}: the active set of {element} is {matrix.dtype} {matrix.shape}, expected "
            f"finite float64 {(n, n)}."
        )
    return np.ascontiguousarray(matrix, dtype=np.float64)


def write_asi(path: Path, inverse_active_set: Mapping[str, Floats]) -> None:
    """Write inverse active sets as LAMMPS reads them: uncompressed npz, C order, by symbol."""
    arrays = {
        element: np.ascontiguousarray(matrix, dtype=np.float64)
        for element, matrix in inverse_active_set.items()
    }
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
