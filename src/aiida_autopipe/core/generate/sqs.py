"""Special quasirandom structures: small ordered cells that look random to their pairs.

Zunger, Wei, Ferreira and Bernard, Phys. Rev. Lett. 65, 353 (1990). The search is that of
sqsgenerator (Gehringer, Friák and Holec, Comput. Phys. Commun. 286, 108664 (2023)); how random a
structure is, is measured here, with all periodic images (see `correlations`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.geometry import find_mic
from numpy.typing import NDArray

from aiida_autopipe.core.errors import EngineError, InputError
from aiida_autopipe.core.generate.cells import Repeat, check_count, compact_repeats, repeated
from aiida_autopipe.core.generate.correlations import Shells, correlation_error, find_shells
from aiida_autopipe.core.generate.strain import mark, scale_volume

RANDOM_STRUCTURES = 50
"""Random structures whose mean error is recorded beside that of each SQS."""

CANDIDATES = 8
"""Structures of one search that are measured; the library sees one image of each pair."""

EXCHANGES = 300
"""Exchanges of two atoms that are tried on what the library found."""


def sqs(
    crystal: Atoms,
    rng: np.random.Generator,
    *,
    composition: Mapping[str, float] | Mapping[str, Mapping[str, float]] | None = None,
    n: int = 2,
    atoms: int = 32,
    repeat: Repeat | None = None,
    shells: int = 4,
    iterations: int = 100_000,
    volume_per_atom: float | None = None,
) -> list[Atoms]:
    """Special quasirandom structures of an alloy on the lattice of the crystal.

    Args:
        crystal: primitive cell of the parent lattice.
        rng: source of the seeds of the searches.
        composition: fractions of the elements on all sites, `{Al: 0.5, Mg: 0.5}`, or on the sites
            of an element, `{Na: {Na: 0.5, K: 0.5}}`; null mixes the crystal's own atoms.
        n: structures.
        atoms: about how many in a structure; the composition is always exact.
        repeat: of the crystal, instead of `atoms`.
        shells: neighbour shells whose pairs are made random; shell k has the weight 1/k.
        iterations: arrangements that one search tries.
        volume_per_atom: Å^3; null keeps the crystal's.

    Raises:
        InputError: unknown elements, a composition that no cell of the size can have exactly.
        EngineError: sqsgenerator is not installed.
    """
    check_count("n", n)
    check_count("shells", shells, 1)
    check_count("iterations", iterations, 1)
    parts = sublattices(crystal, composition)
    parent = _parent(crystal, parts, atoms, repeat)
    if volume_per_atom is not None:
        parent = scale_volume(parent, volume_per_atom * len(parent) / parent.get_volume())
    sites = [_Sublattice.of(parent, part) for part in parts]
    found = find_shells(parent.positions, parent.cell.array, [s.sites for s in sites], shells)
    random_error = _random_error(parent, sites, found, rng)
    structures = []
    for copy in range(n):
        best, error = _best(parent, sites, found, iterations, rng)
        structures.append(
            mark(
                best,
                "sqs",
                composition=best.get_chemical_formula(),
                copy=copy,
                correlation_error=round(error, 6),
                random_error=round(random_error, 6),
                shell_radii_A=[round(float(r), 4) for r in found.radii],
            )
        )
    return structures


@dataclass(frozen=True)
class Part:
    """What is mixed: the element whose sites are meant, None for all sites, and the fractions."""

    host: str | None
    fractions: dict[str, Fraction]


def sublattices(
    crystal: Atoms, composition: Mapping[str, float] | Mapping[str, Mapping[str, float]] | None
) -> list[Part]:
    """The composition of each group of sites, as exact fractions.

    Raises:
        InputError: unknown elements, no amount, or one element alone.
    """
    symbols = crystal.get_chemical_symbols()
    if composition is None:
        counts = {s: float(symbols.count(s)) for s in sorted(set(symbols))}
        return [Part(None, _fractions(counts))]
    if not composition:
        raise InputError("The composition is empty: give fractions such as {Al: 0.5, Mg: 0.5}.")
    nested: dict[str, Mapping[str, float]] = {}
    flat: dict[str, float] = {}
    for key, value in composition.items():
        if isinstance(value, Mapping):
            nested[key] = value
        else:
            flat[key] = float(value)
    if nested and flat:
        raise InputError(
            "The composition mixes fractions of all sites with those of single elements: give "
            "{Al: 0.5, Mg: 0.5} or {Na: {Na: 0.5, K: 0.5}}."
        )
    for host in nested:
        if host not in symbols:
            raise InputError(
                f"The composition names the sites of '{host}', but the crystal has "
                f"{', '.join(sorted(set(symbols)))}."
            )
    if nested:
        return [Part(host, _fractions(amounts)) for host, amounts in nested.items()]
    return [Part(None, _fractions(flat))]


def _fractions(amounts: Mapping[str, float]) -> dict[str, Fraction]:
    """Amounts as fractions of small denominators, which sum to one."""
    for symbol, amount in amounts.items():
        if symbol not in atomic_numbers or symbol == "X":
            raise InputError(f"'{symbol}' in the composition is no element.")
        if not amount > 0:
            raise InputError(f"The amount of {symbol} in the composition must be above zero.")
    if len(amounts) < 2:
        raise InputError(
            f"An alloy needs two elements on its sites, and there is only "
            f"{', '.join(amounts) or 'none'}: give a composition."
        )
    total = sum(amounts.values())
    found = {s: Fraction(a / total).limit_denominator(120) for s, a in amounts.items()}
    if sum(found.values()) != 1:
        raise InputError(
            f"The composition {dict(amounts)} cannot be made of a few dozen atoms exactly: give "
            "fractions such as 0.25, or whole amounts such as 1 and 3."
        )
    return found


def _parent(crystal: Atoms, parts: list[Part], size: int, repeat: Repeat | None) -> Atoms:
    """The supercell of the crystal that takes the composition exactly."""
    symbols = crystal.get_chemical_symbols()

    def is_exact(cells: int) -> bool:
        return all(
            (
                fraction * cells * (symbols.count(part.host) if part.host else len(symbols))
            ).denominator
            == 1
            for part in parts
            for fraction in part.fractions.values()
        )

    if repeat is not None:
        parent = repeated(crystal, repeat, 0.0)
        if not is_exact(len(parent) // len(crystal)):
            raise InputError(
                f"{_told(parts)} cannot be made exactly of {len(parent)} atoms: choose another "
                "repeat."
            )
        return parent
    check_count("atoms", size, 2)
    possible = [
        cells
        for cells in range(1, 2 * size // len(symbols) + 1)
        if is_exact(cells) and cells * len(symbols) >= max(2, size / 2)
    ]
    if not possible:
        least = next(c for c in range(1, 120**2) if is_exact(c)) * len(symbols)
        raise InputError(
            f"{_told(parts)} needs a multiple of {least} atoms, which is not near atoms = {size}."
        )
    return repeated(crystal, compact_repeats(crystal, possible, size / len(symbols)), 0.0)


def _told(parts: list[Part]) -> str:
    return "; ".join(
        (f"on {part.host}: " if part.host else "")
        + ", ".join(f"{s} {f.numerator}/{f.denominator}" for s, f in part.fractions.items())
        for part in parts
    )


@dataclass(frozen=True)
class _Sublattice:
    """Sites (indices) of a supercell, and the atomic numbers to distribute on them."""

    sites: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, parent: Atoms, part: Part) -> _Sublattice:
        chosen = np.arange(len(parent))
        if part.host is not None:
            chosen = np.flatnonzero(parent.numbers == atomic_numbers[part.host])
        numbers: list[int] = []
        for symbol, fraction in sorted(part.fractions.items()):
            numbers += [atomic_numbers[symbol]] * int(fraction * len(chosen))
        return cls(chosen, np.array(numbers, dtype=np.int64))


def _random_error(
    parent: Atoms, sites: list[_Sublattice], found: Shells, rng: np.random.Generator
) -> float:
    errors = []
    numbers = parent.numbers.copy()
    for _ in range(RANDOM_STRUCTURES):
        for sublattice in sites:
            numbers[sublattice.sites] = rng.permutation(sublattice.numbers)
        errors.append(correlation_error(numbers, found))
    return float(np.mean(errors))


def _best(
    parent: Atoms,
    sites: list[_Sublattice],
    found: Shells,
    iterations: int,
    rng: np.random.Generator,
) -> tuple[Atoms, float]:
    """The structure with the least error among those the library finds best."""
    options = [_search(parent, s, found, iterations, rng) for s in sites]
    best, error = parent.copy(), np.inf
    numbers = parent.numbers.copy()
    for rank in range(min(len(o) for o in options)):
        for sublattice, arrangements in zip(sites, options, strict=True):
            numbers[sublattice.sites] = arrangements[rank]
        this = correlation_error(numbers, found)
        if this < error:
            best.numbers, error = numbers.copy(), this
    return _polish(best, sites, found, float(error), rng)


def _polish(
    best: Atoms, sites: list[_Sublattice], found: Shells, error: float, rng: np.random.Generator
) -> tuple[Atoms, float]:
    """Exchange atoms where that helps: in small cells most pairs are images the library omits."""
    numbers = best.numbers.copy()
    for _ in range(EXCHANGES):
        chosen = sites[int(rng.integers(len(sites)))].sites
        i, j = rng.choice(chosen, 2, replace=False)
        if numbers[i] == numbers[j]:
            continue
        numbers[[i, j]] = numbers[[j, i]]
        this = correlation_error(numbers, found)
        if this < error:
            error = this
        else:
            numbers[[i, j]] = numbers[[j, i]]
    best.numbers = numbers
    return best, error


def _search(
    parent: Atoms,
    sublattice: _Sublattice,
    found: Shells,
    iterations: int,
    rng: np.random.Generator,
) -> list[NDArray[np.int64]]:
    """Atomic numbers on the sites of a sublattice, the best arrangements first."""
    try:
        import sqsgenerator
    except ImportError as error:
        raise EngineError(
            "Special quasirandom structures need sqsgenerator: pip install sqsgenerator."
        ) from error
    fractional = parent.get_scaled_positions()[sublattice.sites]
    counts = {
        chemical_symbols[int(z)]: int(np.sum(sublattice.numbers == z))
        for z in np.unique(sublattice.numbers)
    }
    radii = [0.0, *(float(r) + found.tolerance for r in found.radii)]
    seen = _nearest_images(fractional, parent.cell.array)
    shells = [k for k, r in enumerate(found.radii) if np.any(np.abs(seen - r) < found.tolerance)]
    config: dict[str, Any] = {
        "iterations": iterations,
        "structure": {
            "lattice": parent.cell.array.tolist(),
            "coords": fractional.tolist(),
            "species": [next(iter(counts))] * len(fractional),
        },
        "composition": counts,
        "shell_radii": radii,
        "shell_weights": {k + 1: float(found.weights[k]) for k in shells},
        "max_results_per_objective": CANDIDATES,
        "thread_config": 1,
        "seed": int(rng.integers(2**31)),
    }
    parsed = sqsgenerator.parse_config(config)
    if not hasattr(parsed, "iterations"):
        raise EngineError(f"sqsgenerator refuses its input ({parsed.key}: {parsed.msg}).")
    results = sqsgenerator.optimize(parsed)
    arrangements = []
    for _, group in results:
        for result in group:
            structure = result.structure()
            order = _order(np.asarray(structure.frac_coords), fractional)
            arrangements.append(np.asarray(structure.species, dtype=np.int64)[order])
        if len(arrangements) >= CANDIDATES:
            break
    # Threads of the library fill its lists; the order must not depend on it.
    return sorted(arrangements[: 4 * CANDIDATES], key=lambda a: a.tolist())


def _nearest_images(
    fractional: NDArray[np.float64], cell: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance of each pair of sites between their nearest images, Å: what the library sees."""
    i, j = np.triu_indices(len(fractional), 1)
    _, distances = find_mic((fractional[i] - fractional[j]) @ cell, cell)
    return np.asarray(distances, dtype=np.float64)


def _order(given: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index in `given` of each wanted position, both fractional."""
    difference = wanted[:, None, :] - given[None, :, :]
    difference -= np.round(difference)
    return np.asarray(np.argmin(np.sum(difference**2, axis=2), axis=1), dtype=np.int64)
