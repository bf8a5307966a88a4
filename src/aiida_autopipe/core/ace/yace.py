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
from aiida_autopipe.core.ace.coupling import MAX_RANK, Terms, merged_terms
from aiida_autopipe.core.ace.functions import LARGEST_INDEX, BasisFunction, Bond
from aiida_autopipe.core.ace.potential_text import (
    Section,
    list_text,
    mapping_text,
    number_text,
    read_yaml,
)
from aiida_autopipe.core.ace.radial import RadialSpec
from aiida_autopipe.core.errors import PotentialFileError

EMBEDDING = "FinnisSinclairShiftedScaled"
RHO_CUTOFF, DRHO_CUTOFF = 100000, 250


def read_yace(path: Path) -> tuple[Basis, dict[str, float]]:
    """Basis of C-tilde functions (coefficients all 1) and reference energies {symbol: eV}."""
    top = read_yaml(path)
    elements = top.get("elements")
    check_elements(elements, top.where)
    energies = top.numbers("E0")
    if len(energies) != len(elements):
        raise PotentialFileError(
            f"{path}: E0 has {len(energies)} entries for {len(elements)} elements."
        )
    order = sorted(elements)
    place = [order.index(element) for element in elements]
    bonds_section, functions = top.section("bonds"), []
    bonds = {
        (place[i], place[j]): _read_bond(bonds_section.section((i, j)))
        for i in range(len(elements))
        for j in range(len(elements))
    }
    for i, element in enumerate(elements):
        embedding = top.section("embeddings").section(i)
        check_linear(
            embedding, element, embedding.integer("ndensity"), embedding.numbers("FS_parameters")
        )
        for section in top.section("functions").sections(i):
            functions.append(_read_function(section, i, place, bonds))
    basis = Basis(
        tuple(order), bonds, tuple(functions), spline_bins(top, "deltaSplineBins"), coupled=False
    )
    return basis, {element: float(e) for element, e in zip(elements, energies, strict=True)}


def check_elements(elements: object, where: str) -> None:
    """Refuse anything but a list of distinct chemical symbols."""
    names = elements if isinstance(elements, list) else []
    known = all(isinstance(e, str) and e in atomic_numbers and e != "X" for e in names)
    if not names or not known or len(set(names)) != len(names):
        raise PotentialFileError(f"{where}: elements {elements!r} must be distinct symbols.")


def check_linear(
    section: Section, element: str, ndensity: int, parameters: NDArray[np.float64]
) -> None:
    """Refuse embeddings other than E = rho, which this engine does not evaluate."""
    if section.text("npoti") != EMBEDDING:
        raise PotentialFileError(
            f"{section.where}: embedding npoti '{section.text('npoti')}' of {element} is not "
            f"supported; only {EMBEDDING}."
        )
    if ndensity != 1:
        raise PotentialFileError(
            f"{section.where}: ndensity {ndensity} of {element} is not supported; only linear "
            "potentials with ndensity 1."
        )
    if parameters.tolist() != [1.0, 1.0]:
        raise PotentialFileError(
            f"{section.where}: FS_parameters {parameters.tolist()} of {element} are not supported; "
            "only the linear [1, 1]."
        )


def spline_bins(section: Section, key: str) -> float:
    """Table spacing in Å, within what memory and accuracy allow."""
    value = section.number(key)
    if not 1e-5 <= value <= 0.1:
        raise PotentialFileError(f"{section.where}: {key} = {value} must be 1e-5 to 0.1 Å.")
    return value


def check_coefficients(
    section: Section, key: str, nradmax: int, lmax: int, nradbase: int
) -> NDArray[np.float64]:
    """Radial coefficients of the shape the other keys announce."""
    for name, value in (("nradmax", nradmax), ("lmax", lmax), ("nradbase", nradbase)):
        if not 0 <= value <= LARGEST_INDEX:
            raise PotentialFileError(
                f"{section.where}: {name} = {value} must be 0 to {LARGEST_INDEX}."
            )
    if nradmax == 0:
        return np.zeros((0, lmax + 1, nradbase))
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
    """Refuse indices outside what the bonds provide."""
    rank = len(ns)
    if not 1 <= rank <= MAX_RANK:
        raise PotentialFileError(f"{where}: rank {rank} is not supported; only 1 to {MAX_RANK}.")
    if len(mus) != rank or len(ls) != rank:
        raise PotentialFileError(f"{where}: elements, n and l must have {rank} entries each.")
    for mu, n, ell in zip(mus, ns, ls, strict=True):
        if (mu0, mu) not in bonds:
            raise PotentialFileError(f"{where}: element index {mu} is out of range.")
        bond = bonds[mu0, mu]
        largest = bond.radial.n_functions if rank == 1 else bond.nradmax
        lmax = 0 if rank == 1 else bond.lmax
        if not 1 <= n <= largest or not 0 <= ell <= lmax:
            raise PotentialFileError(
                f"{where}: n = {n}, l = {ell} is outside 1..{largest} and 0..{lmax} of the bond."
            )


def _read_bond(section: Section) -> Bond:
    nradbase = section.integer("nradbasemax")
    radial = RadialSpec(
        cutoff=section.number("rcut"),
        n_functions=nradbase,
        name=section.text("radbasename"),
        lambda_=float(section.numbers("radparameters")[0]),
        outer_width=section.number("dcut"),
        inner_cutoff=section.number("rcut_in", 0.0),
        inner_width=section.number("dcut_in", 0.0),
        inner_type=section.text("inner_cutoff_type")
        if "inner_cutoff_type" in section
        else "density",
        core_repulsion=(section.number("prehc", 0.0), section.number("lambdahc", 0.0)),
    )
    coefficients = check_coefficients(
        section, "radcoefficients", section.integer("nradmax"), section.integer("lmax"), nradbase
    )
    return Bond(radial, coefficients)


def _read_function(
    section: Section, mu0: int, place: Sequence[int], bonds: Mapping[tuple[int, int], Bond]
) -> BasisFunction:
    mus, ns, ls = (section.integer_tuple(key) for key in ("mus", "ns", "ls"))
    if any(not 0 <= mu < len(place) for mu in mus):
        raise PotentialFileError(f"{section.where}: mus {list(mus)} name unknown elements.")
    mus = tuple(place[mu] for mu in mus)
    check_factors(section.where, mus, ns, ls, bonds, place[mu0])
    rank, n_terms = len(ns), section.integer("num_ms_combs")
    if (section.integer("mu0"), section.integer("rank"), section.integer("ndensity")) != (
        mu0,
        rank,
        1,
    ):
        raise PotentialFileError(f"{section.where}: mu0, rank or ndensity contradict the rest.")
    ms, ctildes = section.integers("ms_combs"), section.numbers("ctildes")
    if len(ms) != n_terms * rank or len(ctildes) != n_terms:
        raise PotentialFileError(
            f"{section.where}: ms_combs and ctildes must have num_ms_combs = {n_terms} "
            f"times {rank} and 1 entries."
        )
    table = ms.reshape(n_terms, rank)
    if (np.abs(table) > np.array(ls)).any() or table.sum(axis=1).any():
        raise PotentialFileError(f"{section.where}: ms_combs need |m| <= l and sum zero.")
    terms = tuple(zip(map(tuple, table.tolist()), ctildes.tolist(), strict=True))
    return BasisFunction(place[mu0], mus, ns, ls, (), terms)


def ctilde_functions(
    basis: Basis, coefficients: NDArray[np.float64]
) -> list[tuple[BasisFunction, Terms]]:
    """Functions with equal (mu0, mus, ns, ls) added up: (first of them, (ms, ctilde) terms)."""
    result = []
    pairs = zip(basis.functions, coefficients.tolist(), strict=True)
    for _, group in groupby(pairs, key=lambda item: (item[0].mu0, item[0].factors)):
        members = list(group)
        total: dict[tuple[int, ...], float] = {}
        for function, c in members:
            for ms, weight in function.terms:
                total[ms] = total.get(ms, 0.0) + c * weight
        terms = tuple(sorted(total.items()))
        first = members[0][0]
        result.append((first, merged_terms(first.factors, terms) if basis.coupled else terms))
    return result


def write_yace(
    path: Path,
    basis: Basis,
    coefficients: NDArray[np.float64],
    reference_energies: Mapping[str, float],
) -> None:
    """Write a .yace file; numbers read back bit for bit."""
    n = len(basis.elements)
    energies = [reference_energies.get(element, 0.0) for element in basis.elements]
    lines = [
        f"elements: {list_text(basis.elements)}",
        f"E0: {list_text(energies)}",
        f"deltaSplineBins: {number_text(basis.spline_bins)}",
        "embeddings:",
    ]
    embedding = mapping_text(
        {
            "ndensity": "1",
            "FS_parameters": "[1, 1]",
            "npoti": EMBEDDING,
            "rho_core_cutoff": str(RHO_CUTOFF),
            "drho_core_cutoff": str(DRHO_CUTOFF),
        }
    )
    lines += [f"  {k}: {embedding}" for k in range(n)]
    lines.append("bonds:")
    lines += [f"  [{i}, {j}]: {_bond_text(basis.bonds[i, j])}" for i in range(n) for j in range(n)]
    lines.append("functions:")
    functions = ctilde_functions(basis, coefficients)
    for k in range(n):
        texts = [_function_text(f, terms) for f, terms in functions if f.mu0 == k]
        lines.append(f"  {k}:" if texts else f"  {k}: []")
        lines += [f"    - {text}" for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


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


def _function_text(function: BasisFunction, terms: Terms) -> str:
    return mapping_text(
        {
            "mu0": str(function.mu0),
            "rank": str(function.rank),
            "ndensity": "1",
            "num_ms_combs": str(len(terms)),
            "mus": list_text(function.mus),
            "ns": list_text(function.ns),
            "ls": list_text(function.ls),
            "ms_combs": list_text([m for ms, _ in terms for m in ms]),
            "ctildes": list_text([c for _, c in terms]),
        }
    )
