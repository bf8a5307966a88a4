"""Text dumps of LAMMPS."""

from pathlib import Path

import numpy as np
import pytest
from ase.cell import Cell

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.formats.frames import FrameRange
from aiida_autopipe.core.formats.source import Source
from aiida_autopipe.engines.lammps.library import open_lammps

CELL = np.array([[5.0, 0, 0], [1.0, 4, 0], [0.5, -0.7, 6]])
ORIGIN = np.array([-1.0, 2, 0.5])
SCALED = np.array([[0.1, 0.2, 0.3], [0.5, 0.5, 0.9], [0.7, 0.1, 0.2]])
FORCES = np.arange(9.0).reshape(3, 3)


def bounds(cell: np.ndarray, origin: np.ndarray) -> str:
    """As LAMMPS writes them: of the box around the skewed one."""
    xy, xz, yz = cell[1, 0], cell[2, 0], cell[2, 1]
    low = origin + np.array([min(0, xy, xz, xy + xz), min(0, yz), 0])
    high = origin + np.diag(cell) + np.array([max(0, xy, xz, xy + xz), max(0, yz), 0])
    rows = zip(low, high, (xy, xz, yz), strict=True)
    return "\n".join(" ".join(map(repr, map(float, row))) for row in rows)


def frame(columns: dict[str, list], step: int = 0, header: str | None = None) -> str:
    box = header or f"ITEM: BOX BOUNDS xy xz yz pp pp ff\n{bounds(CELL, ORIGIN)}"
    rows = "\n".join(" ".join(map(str, row)) for row in zip(*columns.values(), strict=True))
    n = len(next(iter(columns.values())))
    return (
        f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{n}\n{box}\n"
        f"ITEM: ATOMS {' '.join(columns)}\n{rows}\n"
    )


def columns(coordinates: str, order: tuple[int, ...] = (0, 1, 2)) -> dict[str, list]:
    values = SCALED if "s" in coordinates else SCALED @ CELL + ORIGIN
    names = [f"{axis}{coordinates}" for axis in "xyz"]
    table = {"id": [k + 1 for k in order], "type": [[1, 2, 1][k] for k in order]}
    table |= {name: list(values[list(order), k]) for k, name in enumerate(names)}
    return table | {f"f{a}": list(FORCES[list(order), k]) for k, a in enumerate("xyz")}


def read_all(path: Path, **options: object) -> Dataset:
    return Dataset.concatenate([block.data for block in Source(path, **options).blocks()])


@pytest.mark.parametrize("coordinates", ["", "s", "u", "su"])
def test_coordinates_and_triclinic_boxes(tmp_path: Path, coordinates: str) -> None:
    path = tmp_path / "md.lammpstrj"
    path.write_text(frame(columns(coordinates)) + frame(columns(coordinates, (2, 0, 1)), 10))
    data = read_all(path, elements=("Si", "O"))
    assert len(data) == 2
    for k in range(2):
        atoms = data.atoms(k)
        np.testing.assert_array_equal(atoms.numbers, [14, 8, 14])
        np.testing.assert_allclose(atoms.cell.array, CELL, atol=1e-12)
        np.testing.assert_allclose(atoms.positions, SCALED @ CELL + ORIGIN)
        np.testing.assert_array_equal(data.labels(k).forces, FORCES)
        np.testing.assert_array_equal(atoms.pbc, [True, True, False])
    np.testing.assert_array_equal(data.columns["timestep"], [0, 10])
    assert len(read_all(path, elements=("Si", "O"), wanted=FrameRange(1))) == 1
    assert Source(path, elements=("Si", "O")).count() == 2


def test_other_headers(tmp_path: Path) -> None:
    table = columns("s")
    del table["id"], table["type"]
    table["element"] = ["Si", "O", "Si"]
    rectangular = "ITEM: UNITS\nmetal\nITEM: TIME\n0.5\nITEM: BOX BOUNDS pp pp pp\n0 5\n0 4\n0 6"
    rows = "\n".join(
        " ".join(map(repr, map(float, [*v, o]))) for v, o in zip(CELL, ORIGIN, strict=True)
    )
    general = f"ITEM: BOX BOUNDS abc origin pp pp pp\n{rows}"
    path = tmp_path / "md.dump"
    path.write_text(frame(table, header=rectangular) + "\n" + frame(table, header=general))
    data = read_all(path)
    np.testing.assert_allclose(data.cell[0], np.diag([5, 4, 6]))
    np.testing.assert_allclose(data.atoms(0).positions, SCALED * [5, 4, 6])
    np.testing.assert_allclose(data.cell[1], CELL)
    np.testing.assert_allclose(data.atoms(1).positions, SCALED @ CELL + ORIGIN)
    assert Cell(data.cell[1]).volume > 0


def test_what_lammps_writes(tmp_path: Path) -> None:
    """A real dump of a skewed box."""
    run = open_lammps(["-log", "none", "-screen", "none"])
    dump = tmp_path / "run.dump"
    for line in (
        "units metal", "lattice fcc 4.0", "region box prism 0 2 0 2 0 2 0.5 0.25 -0.3",
        "create_box 1 box", "create_atoms 1 box", "mass 1 63.5", "pair_style zero 3.0",
        "pair_coeff * *", f"dump d all custom 1 {dump} id type xs ys zs x y z", "run 0",
    ):  # fmt: skip
        run.command(line)
    run.close()
    text = dump.read_text()
    scaled = read_all(dump, elements=("Cu",))
    dump.write_text(text.replace(" x y z", " a b c"))
    unscaled = read_all(dump, elements=("Cu",))
    np.testing.assert_allclose(scaled.positions, unscaled.positions, atol=1e-4)


GOOD = frame(columns("s"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + GOOD[:-20], "frame 1: .*does not have 8 values|frame 1: the file ends"),
        (GOOD + GOOD[:60], "frame 1: the file ends in its header|frame 1 cannot be read"),
        (GOOD + "hello\n", "frame 1: expected 'ITEM: ...', not 'hello'"),
        (GOOD.replace("NUMBER OF ATOMS\n3", "NUMBER OF ATOMS\n0"), "frame 0: it has no atoms"),
        (GOOD.replace("id type", "id kind"), "frame 0: it has no atom types"),
        (GOOD.replace(" xs ys", " a b"), "frame 0: it has no coordinates; its columns are"),
        (GOOD.replace("ITEM: TIMESTEP\n0", "ITEM: UNITS\nreal"), "its units are 'real'"),
        (GOOD.replace("\n3\n", "\nthree\n"), "frame 0 cannot be read"),
        (GOOD.replace("\n2 2 ", "\n2 3 "), "it has atom type 3, but 2 elements were given"),
        (GOOD.replace("0.1 ", "nan "), "Structure 0 has NaN or infinite positions"),
        ("\n", "expected 'ITEM: ...'|contains no structures"),
    ],
)
def test_damaged_dumps(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "md.dump"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_all(path, elements=("Si", "O"))


def test_elements_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "md.dump"
    path.write_text(GOOD)
    with pytest.raises(DataError, match="types 1 to 2, such as --elements"):
        read_all(path)
    with pytest.raises(InputError, match="'Xx' is no chemical symbol"):
        read_all(path, elements=("Si", "Xx"))
