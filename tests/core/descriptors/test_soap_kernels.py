"""Kernels of SOAP one by one, and their tables."""

import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from numba import njit

from aiida_autopipe.core.ace.neighbours import full_neighbour_list
from aiida_autopipe.core.descriptors.kernels.products import add_product
from aiida_autopipe.core.descriptors.kernels.surroundings import (
    Near,
    gather_near,
    make_grid,
    measure,
    pick_close,
)
from aiida_autopipe.core.descriptors.soap import SoapDescriptor
from aiida_autopipe.core.descriptors.soap_radial import (
    breaks,
    gto,
    padding,
    polynomial,
    tabulate,
)
from aiida_autopipe.core.errors import InputError


@njit
def _tiles(a, b, out, count):
    add_product(a, 3, 1, 7, b, 2, 9, count, out, 0, 10, 5, 2, True)
    add_product(a, 0, 7, 1, b, 0, 9, count, out, 50, 4, 1, 1, False)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_tiles_are_matrix_products(count):
    rng = np.random.default_rng(count)
    a, b, start = rng.normal(size=60), rng.normal(size=70), rng.normal(size=54)
    expected = start.copy()
    for i in range(5):
        for k in range(count):
            expected[10 * i : 10 * i + 8] += a[3 + i + 7 * k] * b[2 + 9 * k : 10 + 9 * k]
    expected[50:54] = sum((a[k] * b[9 * k : 9 * k + 4] for k in range(count)), np.zeros(4))
    out = start.copy()
    _tiles(a, b, out, count)
    np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-13)


@njit
def _around(grid, cell, x, y, z, limit):
    """Types and vectors of the atoms around a point in a cell."""
    near = Near(np.empty((4, 4)), np.zeros(grid.n_types + 1, dtype=np.int64))
    near = gather_near(grid, cell, near)
    chosen = np.empty(near.rows.shape[1], dtype=np.int64)
    measure(near, x, y, z, near.begin[grid.n_types])
    found = np.empty((near.rows.shape[1], 4))
    total = 0
    for t in range(grid.n_types):
        n = pick_close(near.rows[3], near.begin[t], near.begin[t + 1], limit, chosen)
        for k in range(n):
            q = chosen[k]
            found[total, 0], found[total, 1] = t, near.rows[0, q] - x
            found[total, 2], found[total, 3] = near.rows[1, q] - y, near.rows[2, q] - z
            total += 1
    return found[:total]


@pytest.mark.parametrize("seed", range(5))
def test_surroundings_are_those_of_the_neighbour_list(seed):
    """Cells of every shape and size against the cutoff, periodic or not, atoms anywhere."""
    rng = np.random.default_rng(seed)
    n, cutoff = int(rng.integers(1, 60)), rng.uniform(1.5, 4.0)
    cell = rng.uniform(1.0, 12.0, 3)[:, None] * (np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3)))
    positions, types = rng.uniform(-0.4, 1.2, (n, 3)) @ cell, rng.integers(0, 3, n)
    atoms = Atoms(types + 1, positions=positions, cell=cell, pbc=rng.uniform(size=3) < 0.6)
    box = atoms.cell.complete()[:] if atoms.pbc.any() else np.eye(3)
    box = np.ascontiguousarray(box)
    inverse = np.ascontiguousarray(np.linalg.inv(box))
    grid = make_grid(positions, types, 3, box, inverse, atoms.pbc, cutoff)
    pairs = full_neighbour_list(atoms, cutoff)
    for cell_index in range(len(grid.first) // 3):
        for q in range(grid.first[3 * cell_index], grid.first[3 * cell_index + 3]):
            i = grid.order[q]
            mine = pairs.centre == i
            expected = np.column_stack([types[pairs.neighbour[mine]], pairs.vectors[mine]])
            expected = np.vstack([expected, [types[i], 0, 0, 0]])
            found = _around(grid, cell_index, *grid.points[:, q], cutoff**2)
            assert sorted(map(tuple, np.round(found, 7) + 0.0)) == sorted(
                map(tuple, np.round(expected, 7) + 0.0)
            )


def look_up(table, r):
    """f at distances, as the kernel takes it from the table."""
    b = table.lookup[(r * table.inverse_width).astype(int)]
    while np.any(late := r >= table.start[b + 1]):
        b += late
    assert (table.start[b] <= r).all()
    t = ((r - table.middle[b]) * table.scale[b])[:, None, None]
    value = 0.0
    for power in range(table.coefficients.shape[1]):
        value = value * t + table.coefficients[b, power]
    return value


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("basis", [gto, polynomial])
def test_tables_everywhere(basis, sigma):
    r_cut, n_max, l_max = 5.5, 5, 6
    radial, reach = basis(r_cut, n_max, l_max, sigma), r_cut + padding(sigma)
    edges = breaks(r_cut, l_max, sigma, reach) if basis is polynomial else np.zeros(0)
    table = tabulate(radial, reach, edges)
    r = np.concatenate([[0.0, 1e-9, reach], np.random.default_rng(0).uniform(0, reach, 3000)])
    expected, found = radial(r), look_up(table, r)
    assert table.coefficients.nbytes < 2**21
    np.testing.assert_allclose(
        found[:, :, :n_max], expected, rtol=0, atol=2e-11 * np.abs(expected).max()
    )
    assert np.all(found[:, :, n_max:] == 0)


def test_functions_too_sharp_for_a_table():
    with pytest.raises(InputError, match="too sharp"):
        tabulate(lambda r: np.sin(1e6 * r)[:, None, None], 5.0, np.zeros(0))


PROCESS = """
from ase.build import bulk
from aiida_autopipe.core.descriptors.kernels.soap import describe_structures
from aiida_autopipe.core.descriptors.soap import SoapDescriptor
SoapDescriptor(["Si"]).compute([bulk("Si")])
print(len(describe_structures.stats.cache_hits), len(describe_structures.stats.cache_misses))
"""


def test_compiled_code_is_kept():
    """A process after the first, which is this one, compiles nothing."""
    SoapDescriptor(["Si"]).compute([bulk("Si")])
    done = subprocess.run(
        [sys.executable, "-c", PROCESS], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "0"]
