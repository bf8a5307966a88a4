"""The active set .asi beside the B-basis file of `pair_style pace/extrapolation`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aiida_autopipe.core.ace.basis import Basis
from aiida_autopipe.core.ace.embedding import Embedding
from aiida_autopipe.core.ace.potential_text import located
from aiida_autopipe.core.errors import PotentialFileError

Floats = NDArray[np.float64]
# Bytes a .npy header may add to the N x N doubles of one element.
_HEADER_ALLOWANCE = 4096


def read_asi(path: Path, basis: Basis, embeddings: Mapping[str, Embedding]) -> dict[str, Floats]:
    """Inverse active sets {symbol: (N, N)}, N the number of functions of that element for a linear
    grade, times the number of its densities for a non-linear one."""
    result = {}
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        if unknown := sorted(set(sizes) - {f"{element}.npy" for element in basis.elements}):
            raise PotentialFileError(
                f"{path}: the active set of {unknown[0].removesuffix('.npy')} belongs to another "
                "potential."
            )
        for element in basis.elements:
            columns = basis.columns(element)
            n = columns.stop - columns.start
            size = sizes.get(f"{element}.npy")
            if size is None:
                raise PotentialFileError(f"{path}: no active set for {element}.")
            # Checked before loading, so that a small file cannot unpack to a huge array.
            if size > (n * embeddings[element].n_densities) ** 2 * 8 + _HEADER_ALLOWANCE:
                raise PotentialFileError(
                    f"{path}: the active set of {element} holds {size} bytes, expected {n} x {n} "
                    "doubles; it belongs to another potential."
                )
            with np.load(path, allow_pickle=False) as arrays:
                result[element] = _checked_matrix(path, element, arrays[element])
    except (OSError, zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
        raise PotentialFileError(
            f"{path}: not a readable active set, truncated or damaged ({error})."
        ) from error
    with located(str(path)):
        is_linear_grade(basis, embeddings, result)
    return result


def _checked_matrix(path: Path, element: str, matrix: NDArray[np.generic]) -> Floats:
    if matrix.dtype != np.float64 or matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise PotentialFileError(
            f"{path}: the active set of {element} is {matrix.dtype} {matrix.shape}, expected a "
            "matrix of finite float64."
        )
    return np.ascontiguousarray(matrix, dtype=np.float64)


def is_linear_grade(
    basis: Basis, embeddings: Mapping[str, Embedding], inverse_active_set: Mapping[str, Floats]
) -> bool:
    """Whether the active sets are of B (N, N), not of dE/drho_p B (N P, N P), by their shapes.

    One decision for all elements, as ML-PACE takes it. Raises PotentialFileError for other shapes
    and when elements differ.
    """
    kinds: dict[bool, str] = {}
    for element, matrix in inverse_active_set.items():
        columns = basis.columns(element)
        n = columns.stop - columns.start
        n_all = n * embeddings[element].n_densities
        if matrix.shape not in ((n, n), (n_all, n_all)):
            either = f" or {(n_all, n_all)}" if n_all != n else ""
            raise PotentialFileError(
                f"the active set of {element} has the shape {matrix.shape}, expected "
                f"{(n, n)}{either}."
            )
        kinds.setdefault(matrix.shape == (n, n), element)
    if len(kinds) > 1:
        raise PotentialFileError(
            f"the active set of {kinds[True]} is linear, that of {kinds[False]} is not; all must "
            "be of one kind."
        )
    return next(iter(kinds), True)


def write_asi(path: Path, inverse_active_set: Mapping[str, Floats]) -> None:
    """Write inverse active sets as LAMMPS reads them: uncompressed npz, C order, by symbol."""
    arrays = {
        element: np.ascontiguousarray(matrix, dtype=np.float64)
        for element, matrix in inverse_active_set.items()
    }
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
