"""Groups of HDF5 files that other programs wrote."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase.build import bulk, molecule

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.foreign_hdf5 import ForeignGroup

FRAMES, ATOMS = 7, 4


def trajectory() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "positions": rng.normal(0, 1, (FRAMES, ATOMS, 3)),
        "numbers": np.array([14, 14, 8, 1]),
        "cell": np.eye(3) * 5,
    }


def written(path: Path, arrays: dict[str, Any], group: str = "md/run1") -> Path:
    with h5py.File(path, "w") as handle:
        for name, values in arrays.items():
            handle[f"{group}/{name}"] = values
    return path


def frames(path: Path, group: str = "md/run1", **names: Any) -> list[Any]:
    with h5py.File(path) as handle:
        found = ForeignGroup.open(handle[group], **names)
        read = [atoms for _, block in found.blocks(3 * ATOMS) for atoms in block]
        assert len(read) == len(found) == len(found.n_atoms)
        assert list(found.n_atoms) == [len(atoms) for atoms in read]
        assert found.atoms(len(found) - 1) == read[-1]
    return read


@pytest.mark.parametrize(
    ("numbers", "cell"),
    [
        ("one", "one"),
        ("one", "each"),
        ("each", "each"),
        ("each", "one"),
        ("single", "single"),
        ("symbols", "edges"),
    ],
)
def test_trajectories(tmp_path: Path, numbers: str, cell: str) -> None:
    data = trajectory()
    z, box = data["numbers"], data["cell"]
    data["numbers"] = {
        "one": z, "each": np.tile(z, (FRAMES, 1)), "single": z[None],
        "symbols": np.array([b"Si", b"Si", b"O", b"H"]),
    }[numbers]  # fmt: skip
    boxes = box * (1 + 0.1 * np.arange(FRAMES))[:, None, None]
    data["cell"] = {
        "one": box, "each": boxes, "single": box[None], "edges": np.full((FRAMES, 3), 5.0)
    }[cell]  # fmt: skip
    read = frames(written(tmp_path / "md.h5", data))
    for k, atoms in enumerate(read):
        np.testing.assert_array_equal(atoms.numbers, z)
        np.testing.assert_allclose(atoms.positions, data["positions"][k])
        np.testing.assert_allclose(atoms.cell.array, boxes[k] if cell == "each" else box)
        assert atoms.pbc.all()


def test_one_structure(tmp_path: Path) -> None:
    data = trajectory()
    data["positions"] = data["positions"][0]
    (atoms,) = frames(written(tmp_path / "md.h5", data))
    np.testing.assert_allclose(atoms.positions, data["positions"])


def test_names_given_by_the_user(tmp_path: Path) -> None:
    data = trajectory()
    names = {"coord": "positions", "charge": "numbers", "period": "cell"}
    path = written(tmp_path / "md.h5", {new: data[old] for new, old in names.items()})
    read = frames(path, positions="coord", numbers="charge", cell="/md/run1/period", pbc=False)
    assert len(read) == FRAMES and not read[0].pbc.any()
    with (
        h5py.File(path) as handle,
        pytest.raises(InputError, match=r"no dataset 'x' .* holds: charge \(4,\)"),
    ):
        ForeignGroup.open(handle["md/run1"], positions="x")


def test_h5md(tmp_path: Path) -> None:
    data = trajectory()
    with h5py.File(tmp_path / "md.h5", "w") as handle:
        group = handle.create_group("particles/all")
        group["position/value"] = data["positions"] / 10
        group["position/value"].attrs["unit"] = "nm"
        group["species"] = data["numbers"]
        group["box/edges/value"] = np.full((FRAMES, 3), 0.5)
        group["box/edges/value"].attrs["unit"] = "nm"
        group["box"].attrs["boundary"] = ["periodic", "periodic", "none"]
    for names in ({}, {"positions": "position", "cell": "box"}):
        read = frames(tmp_path / "md.h5", "particles/all", **names)
        np.testing.assert_allclose(read[3].positions, data["positions"][3])
        np.testing.assert_allclose(read[3].cell.array, np.eye(3) * 5)
        np.testing.assert_array_equal(read[3].pbc, [True, True, False])


def test_torch_sim(tmp_path: Path) -> None:
    data = trajectory()
    arrays = {
        "positions": data["positions"].astype("f4"), "atomic_numbers": data["numbers"][None],
        "cell": data["cell"][None], "pbc": np.array([[True, True, True]]),
    }  # fmt: skip
    assert len(frames(written(tmp_path / "md.h5", arrays, "data"), "data")) == FRAMES


def test_our_own_layout(tmp_path: Path) -> None:
    structures = [bulk("Si"), molecule("H2O"), bulk("NaCl", "rocksalt", 5.6, cubic=True)] * 3
    structures[1].cell = np.eye(3)
    Dataset.from_atoms(structures, {}).write_hdf5(tmp_path / "data.h5")
    for found, expected in zip(frames(tmp_path / "data.h5", "/"), structures, strict=True):
        np.testing.assert_allclose(found.positions, expected.positions)
        np.testing.assert_array_equal(found.numbers, expected.numbers)
        np.testing.assert_array_equal(found.pbc, expected.pbc)


def test_symbols_of_an_enumeration(tmp_path: Path) -> None:
    data = trajectory()
    kind = h5py.enum_dtype({"Si": 0, "O": 1, "H": 2}, basetype="i")
    path = written(tmp_path / "md.h5", {k: v for k, v in data.items() if k != "numbers"})
    with h5py.File(path, "r+") as handle:
        handle["md/run1"].create_dataset("species", data=[0, 0, 1, 2], dtype=kind)
    np.testing.assert_array_equal(frames(path)[0].numbers, data["numbers"])


def test_soft_links_inside_the_file_are_followed(tmp_path: Path) -> None:
    data = trajectory()
    path = written(tmp_path / "md.h5", data)
    with h5py.File(path, "r+") as handle:
        handle["shared/z"] = data["numbers"]
        del handle["md/run1/numbers"]
        handle["md/run1/numbers"] = h5py.SoftLink("/shared/z")
    assert len(frames(path)) == FRAMES


def test_molecules_without_cells(tmp_path: Path) -> None:
    data = trajectory()
    del data["cell"]
    path = written(tmp_path / "md.h5", data)
    assert not frames(path, pbc=False)[0].cell.array.any()
    with h5py.File(path, "r+") as handle:
        handle["md/run1/pbc"] = np.zeros(3, dtype=bool)
    assert len(frames(path)) == FRAMES


def change(name: str, values: Any) -> Callable[[h5py.Group], None]:
    def apply(group: h5py.Group) -> None:
        if name in group:
            del group[name]
        if values is not None:
            group[name] = values

    return apply


def nan_in_frame_5(group: h5py.Group) -> None:
    group["positions"][5, 1, 2] = np.nan


def external_storage(group: h5py.Group) -> None:
    del group["positions"]
    group.create_dataset("positions", (7, 4, 3), "f8", external=[("/etc/passwd", 0, 672)])


def absurd(group: h5py.Group) -> None:
    del group["positions"]
    group.create_dataset("positions", (10**12, 4, 3), "f8", chunks=(1, 4, 3))


def many_atoms(group: h5py.Group) -> None:
    del group["positions"]
    data = group.create_dataset("positions", (2, 10**10, 3), "f8", chunks=(1, 4, 3))
    data[0, 0] = 1.0


def unknown_unit(group: h5py.Group) -> None:
    group["positions"].attrs["units"] = "parsec"


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (change("positions", None), "no positions under a usual name"),
        (change("numbers", None), "no atomic numbers under a usual name"),
        (change("cell", None), "no cells under a usual name"),
        (change("cell", np.zeros((3, 3))), "frame 0: periodic, but the cell has no volume"),
        (
            change("cell", np.ones((6, 3, 3))),
            r"'/md/run1/cell' for the cells has shape \(6, 3, 3\)",
        ),
        (change("cell", np.full((3, 3), np.nan)), "frame 0: NaN or infinite cell"),
        (change("cell", "big"), "for the cells holds object"),
        (change("numbers", np.array([14] * 5)), r"has shape \(5,\); with these positions it must"),
        (change("numbers", np.array([14, 14, 8, 0])), "holds 0, which is no atomic number"),
        (change("numbers", np.array([14, 14, 8, 400])), "holds 400, which is no atomic number"),
        (change("numbers", np.array([14, 14, 8, 1.5])), "does not hold atomic numbers"),
        (change("numbers", np.array([b"Si", b"Xx", b"O", b"H"])), "holds 'Xx', which is no"),
        (change("positions", np.zeros((7, 0, 3))), "has no atoms"),
        (change("positions", np.zeros((0, 4, 3))), "has no frames"),
        (change("positions", np.zeros((7, 4, 2))), r"has shape \(7, 4, 2\)"),
        (change("positions", np.zeros(7)), r"has shape \(7,\)"),
        (change("positions", h5py.ExternalLink("/etc/passwd", "/x")), "is a link to another file"),
        (change("positions", h5py.SoftLink("positions")), "leads in a circle"),
        (change("pbc", np.array([True, True])), "for the periodic directions has shape"),
        (nan_in_frame_5, "'/md/run1', frame 5: NaN or infinite positions"),
        (external_storage, "is stored in another file"),
        (absurd, "but holds nothing"),
        (many_atoms, "claims 10000000000 atoms in one frame"),
        (unknown_unit, "in the unit 'parsec'"),
    ],
)
def test_unusable_groups(tmp_path: Path, alter: Callable[[h5py.Group], None], message: str) -> None:
    path = written(tmp_path / "md.h5", trajectory())
    with h5py.File(path, "r+") as handle:
        alter(handle["md/run1"])
    with pytest.raises(DataError, match=message):
        frames(path)


def test_offsets_that_do_not_fit(tmp_path: Path) -> None:
    arrays = {"positions": np.ones((5, 3)), "numbers": [1] * 5, "cell": np.eye(3)}
    path = written(tmp_path / "a.h5", arrays | {"offsets": [0, 2, 2, 5]})
    with pytest.raises(DataError, match="frame 1: no atoms"):
        frames(path)
    path = written(tmp_path / "b.h5", arrays | {"offsets": [0, 2, 4]})
    with pytest.raises(DataError, match="does not partition the 5 rows"):
        frames(path)
