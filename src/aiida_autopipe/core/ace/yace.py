"""The .yace file: C-tilde coefficients of a potential, read by `pair_style pace` of LAMMPS.

Its functions are sums of B functions over the intermediate momenta, with the fitted coefficients
multiplied in. They can be evaluated and written again, but the B functions and their coefficients
cannot be recovered from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.ace.basis import Basis
from aiida_autopipe.core.ace.coupling import MAX_RANK, Ms, merged_terms
from aiida_autopipe.core.ace.embedding import Embedding
from aiida_autopipe.core.ace.functions import LARGEST_INDEX, BasisFunction, Bond, column_order
from aiida_autopipe.core.ace.potential_text import (
    Section,
    list_text,
    located,
    mapping_text,
    number_text,
    read_yaml,
)
from aiida_autopipe.core.ace.radial import RadialSpec
from aiida_autopipe.core.ace.zbl import ZBL, metadata_lines, read_metadata
from aiida_autopipe.core.errors import PotentialFileError

Floats = NDArray[np.float64]
# Per term the m of each factor and the coefficient of each density.
VectorTerms = tuple[tuple[Ms, Floats], ...]

_TOP_KEYS = (
    *("elements", "E0", "deltaSplineBins", "embeddings", "bonds", "functions"),
    # Notes of the program that wrote the file.
    *("metadata", "auxdata"),
)
_EMBEDDING_KEYS = ("ndensity", "FS_parameters", "npoti", "rho_core_cutoff", "drho_core_cutoff")
_BOND_KEYS = (
    *("nradmax", "lmax", "nradbasemax", "radbasename", "radparameters", "radcoefficients"),
    *("prehc", "lambdahc", "rcut", "dcut", "rcut_in", "dcut_in", "inner_cutoff_type"),
)
_FUNCTION_KEYS = (
    *("mu0", "rank", "ndensity", "num_ms_combs", "mus", "ns", "ls", "ms_combs", "ctildes"),
)


def read_yace(
    path: Path,
) -> tuple[Basis, Floats, dict[str, Embedding], dict[str, float], ZBL | None]:
    """Basis of C-tilde functions, their coefficients (F, P), embeddings, reference energies
    {symbol: eV} and the ZBL repulsion that our own metadata name.

    The numbers of the file are in the terms of the functions, one function per density of each
    entry; its row of coefficients says which density it adds to.
    """
    top = read_yaml(path).only(_TOP_KEYS)
    elements = top.get("elements")
    check_elements(elements, top.where)
    energies = top.numbers("E0")
    if len(energies) != len(elements):
        raise PotentialFileError(
            f"{path}: E0 has {len(energies)} entries for {len(elements)} elements."
        )
    order, indices = sorted(elements), range(len(elements))
    place = [order.index(element) for element in elements]
    section = top.section("embeddings").only(indices)
    embeddings = {e: _read_embedding(section.section(i)) for i, e in enumerate(elements)}
    pairs = [(i, j) for i in indices for j in indices]
    section = top.section("bonds").only(pairs)
    bonds = {(place[i], place[j]): _read_bond(section.section((i, j))) for i, j in pairs}
    functions: list[BasisFunction] = []
    densities: list[int] = []
    section = top.section("functions").only(indices)
    for i, element in enumerate(elements):
        n_densities = embeddings[element].n_densities
        for entry in section.sections(i):
            functions += _read_function(entry, i, n_densities, place, bonds)
            densities += range(n_densities)
    rows = np.eye(max(e.n_densities for e in embeddings.values()))[densities]
    with located(str(path)):
        basis = Basis(
            tuple(order),
            bonds,
            tuple(functions),
            spline_bins(top, "deltaSplineBins"),
            coupled=False,
        )
    energy_of = {element: float(e) for element, e in zip(elements, energies, strict=True)}
    return basis, rows[column_order(functions)], embeddings, energy_of, read_metadata(top)


def check_elements(elements: object, where: str) -> None:
    """Refuse anything but a list of distinct chemical symbols."""
    names = elements if isinstance(elements, list) else []
    known = all(isinstance(e, str) and e in atomic_numbers and e != "X" for e in names)
    if not names or not known or len(set(names)) != len(names):
        raise PotentialFileError(f"{where}: elements {elements!r} must be distinct symbols.")


def read_embedding(
    section: Section, n_densities: int, parameters: str, cutoff: float, width: float
) -> Embedding:
    """Embedding whose weights and exponents stand under the key `parameters`."""
    values = section.numbers(parameters).tolist()
    if len(values) != 2 * n_densities:
        raise PotentialFileError(
            f"{section.where}: {parameters} {values} must have two entries for each of the "
            f"{n_densities} densities."
        )
    with located(section.where):
        return Embedding(tuple(values), section.text("npoti"), cutoff, width)


def _read_embedding(section: Section) -> Embedding:
    section.only(_EMBEDDING_KEYS)
    return read_embedding(
        section,
        section.integer("ndensity"),
        "FS_parameters",
        section.number("rho_core_cutoff"),
        section.number("drho_core_cutoff"),
    )


def spline_bins(section: Section, key: str) -> float:
    """Table spacing in Å, within what memory and accuracy allow."""
    value = section.number(key)
    if not 1e-5 <= value <= 0.1:
        raise PotentialFileError(f"{section.where}: {key} = {value} must be 1e-5 to 0.1 Å.")
    return value


def shape_parameter(section: Section) -> float:
    """The one entry of radparameters."""
    values = section.numbers("radparameters").tolist()
    if len(values) != 1:
        raise PotentialFileError(
            f"{section.where}: radparameters {values} must have one entry; others have no meaning."
        )
    return float(values[0])


def check_coefficients(
    section: Section, key: str, nradmax: int, lmax: int, nradbase: int
) -> Floats:
    """Radial coefficients (nradmax, lmax + 1, nradbase) of the shape the other keys announce.

    Also from the flat list of old files, in which k runs slowest and l fastest.
    """
    for name, value in (("nradmax", nradmax), ("lmax", lmax), ("nradbase", nradbase)):
        if not 0 <= value <= LARGEST_INDEX:
            raise PotentialFileError(
                f"{section.where}: {name} = {value} must be 0 to {LARGEST_INDEX}."
            )
    if section.get(key) == [] and nradmax == 0:
        return np.zeros((0, lmax + 1, nradbase))
    given = section.get(key)
    if isinstance(given, list) and given and not isinstance(given[0], list):
        flat = section.numbers(key)
        if len(flat) == nradmax * (lmax + 1) * nradbase:
            return flat.reshape(nradbase, nradmax, lmax + 1).transpose(1, 2, 0).copy()
    coefficients = section.numbers(key, ndim=3)
    if coefficients.shape != (nradmax, lmax + 1, nradbase):
        raise PotentialFileError(
            f"{section.where}: {key} has the shape {coefficients.shape}, expected "
            f"{(nradmax, lmax + 1, nradbase)} (nradmax, lmax + 1, nradbase)."
        )
    return coefficients


def check_factors(
    where: str,
    mus: Sequence[int],
    ns: Sequence[int],
    ls: Sequence[int],
    bonds: Mapping[tuple[int, int], Bond],
    mu0: int,
) -> None:
    """Refuse indices outside what the bonds provide; the elements must be known ones."""
    rank = len(ns)
    if not 1 <= rank <= MAX_RANK:
        raise PotentialFileError(f"{where}: rank {rank} is not supported; only 1 to {MAX_RANK}.")
    if len(mus) != rank or len(ls) != rank:
        raise PotentialFileError(f"{where}: elements, n and l must have {rank} entries each.")
    for mu, n, ell in zip(mus, ns, ls, strict=True):
        bond = bonds[mu0, mu]
        if bond.absent:
            raise PotentialFileError(
                f"{where}: the block of this centre and neighbour with the radial functions is "
                "missing."
            )
        largest = bond.radial.n_functions if rank == 1 else bond.nradmax
        lmax = 0 if rank == 1 else bond.lmax
        if not 1 <= n <= largest or not 0 <= ell <= lmax:
            raise PotentialFileError(
                f"{where}: n = {n}, l = {ell} is outside 1..{largest} and 0..{lmax} of the bond."
            )


def _read_bond(section: Section) -> Bond:
    name = section.text("radbasename")
    if name.startswith("ACE.jl"):
        raise PotentialFileError(
            f"{section.where}: radbasename '{name}' of ACE.jl is not supported; only files of "
            "Pacemaker and of this program."
        )
    section.only(_BOND_KEYS)
    nradbase = section.integer("nradbasemax")
    with located(section.where):
        radial = RadialSpec(
            cutoff=section.number("rcut"),
            n_functions=nradbase,
            name=name,
            lambda_=shape_parameter(section),
            outer_width=section.number("dcut"),
            inner_cutoff=section.number("rcut_in", 0.0),
            inner_width=section.number("dcut_in", 0.0),
            inner_type=section.text("inner_cutoff_type", "density"),
            core_repulsion=(section.number("prehc"), section.number("lambdahc")),
        )
    coefficients = check_coefficients(
        section, "radcoefficients", section.integer("nradmax"), section.integer("lmax"), nradbase
    )
    return Bond(radial, coefficients)


def _read_function(
    section: Section,
    mu0: int,
    n_densities: int,
    place: Sequence[int],
    bonds: Mapping[tuple[int, int], Bond],
) -> list[BasisFunction]:
    """One function for each density."""
    section.only(_FUNCTION_KEYS)
    mus, ns, ls = (section.integer_tuple(key) for key in ("mus", "ns", "ls"))
    if any(not 0 <= mu < len(place) for mu in mus):
        raise PotentialFileError(f"{section.where}: mus {list(mus)} name unknown elements.")
    mus = tuple(place[mu] for mu in mus)
    check_factors(section.where, mus, ns, ls, bonds, place[mu0])
    rank, n_terms = len(ns), section.integer("num_ms_combs")
    given = tuple(section.integer(key) for key in ("mu0", "rank", "ndensity"))
    if given != (mu0, rank, n_densities):
        raise PotentialFileError(f"{section.where}: mu0, rank or ndensity contradict the rest.")
    ms, ctildes = section.integers("ms_combs"), section.numbers("ctildes")
    if (
        len(ms) != n_terms * rank
        or len(ctildes) != n_terms * n_densities
        or (rank == 1 and n_terms != 1)
    ):
        raise PotentialFileError(
            f"{section.where}: ms_combs and ctildes must have num_ms_combs = {n_terms} "
            f"times {rank} and {n_densities} entries, num_ms_combs = 1 for rank 1."
        )
    table = ms.reshape(n_terms, rank)
    if (np.abs(table) > np.array(ls)).any() or table.sum(axis=1).any():
        raise PotentialFileError(f"{section.where}: ms_combs need |m| <= l and sum zero.")
    rows = [tuple(row) for row in table.tolist()]
    return [
        BasisFunction(place[mu0], mus, ns, ls, (), tuple(zip(rows, values, strict=True)))
        for values in ctildes.reshape(n_terms, n_densities).T.tolist()
    ]


def ctilde_functions(basis: Basis, coefficients: Floats) -> list[tuple[BasisFunction, VectorTerms]]:
    """Functions with equal (mu0, mus, ns, ls) added up: (first of them, (ms, ctildes (P,)) terms).

    `coefficients` (F, P).
    """
    result = []
    pairs = zip(basis.functions, coefficients, strict=True)
    for _, group in groupby(pairs, key=lambda item: item[0].index_key):
        members = list(group)
        total: dict[Ms, Floats] = {}
        for function, c in members:
            terms = (
                merged_terms(function.factors, function.terms) if basis.coupled else function.terms
            )
            for ms, weight in terms:
                total[ms] = total[ms] + c * weight if ms in total else c * weight
        result.append((members[0][0], tuple(sorted(total.items(), key=lambda item: item[0]))))
    return result


def write_yace(
    path: Path,
    basis: Basis,
    coefficients: Floats,
    embeddings: Mapping[str, Embedding],
    reference_energies: Mapping[str, float],
    zbl: ZBL | None = None,
) -> None:
    """Write a .yace file; numbers read back bit for bit. `coefficients` (F, P)."""
    n = len(basis.elements)
    energies = [reference_energies.get(element, 0.0) for element in basis.elements]
    lines = [
        *metadata_lines(zbl),
        f"elements: {list_text(basis.elements)}",
        f"E0: {list_text(energies)}",
        f"deltaSplineBins: {number_text(basis.spline_bins)}",
        "embeddings:",
    ]
    chosen = [embeddings[element] for element in basis.elements]
    lines += [f"  {k}: {_embedding_text(embedding)}" for k, embedding in enumerate(chosen)]
    lines.append("bonds:")
    lines += [f"  [{i}, {j}]: {_bond_text(basis.bonds[i, j])}" for i in range(n) for j in range(n)]
    lines.append("functions:")
    functions = ctilde_functions(basis, coefficients)
    for k, embedding in enumerate(chosen):
        texts = [
            _function_text(f, terms, embedding.n_densities) for f, terms in functions if f.mu0 == k
        ]
        lines.append(f"  {k}:" if texts else f"  {k}: []")
        lines += [f"    - {text}" for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _embedding_text(embedding: Embedding) -> str:
    return mapping_text(
        {
            "ndensity": str(embedding.n_densities),
            "FS_parameters": list_text(embedding.parameters),
            "npoti": embedding.npoti,
            "rho_core_cutoff": number_text(embedding.rho_core_cutoff),
            "drho_core_cutoff": number_text(embedding.drho_core_cutoff),
        }
    )


def _bond_text(bond: Bond) -> str:
    r = bond.radial
    return mapping_text(
        {
            "nradmax": str(bond.nradmax),
            "lmax": str(bond.lmax),
            "nradbasemax": str(r.n_functions),
            "radbasename": r.name,
            "radparameters": list_text([r.lambda_]),
            "radcoefficients": list_text(bond.coefficients),
            "prehc": number_text(r.core_repulsion[0]),
            "lambdahc": number_text(r.core_repulsion[1]),
            "rcut": number_text(r.cutoff),
            "dcut": number_text(r.outer_width),
            "rcut_in": number_text(r.inner_cutoff),
            "dcut_in": number_text(r.inner_width),
            "inner_cutoff_type": r.inner_type,
        }
    )


def _function_text(function: BasisFunction, terms: VectorTerms, n_densities: int) -> str:
    return mapping_text(
        {
            "mu0": str(function.mu0),
            "rank": str(function.rank),
            "ndensity": str(n_densities),
            "num_ms_combs": str(len(terms)),
            "mus": list_text(function.mus),
            "ns": list_text(function.ns),
            "ls": list_text(function.ls),
            "ms_combs": list_text([m for ms, _ in terms for m in ms]),
            "ctildes": list_text([c for _, values in terms for c in values[:n_densities]]),
        }
    )
