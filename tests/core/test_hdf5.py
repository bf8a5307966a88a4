"""The dataset file: same bytes for the same content, and nothing strange is read."""

import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase.build import bulk

from aiida_autopipe.core import hdf5
from aiida_autopipe.core.dataset import Dataset, read_dataset
from aiida_autopipe.core.errors import DataError


def dataset(n: int = 3, scale: float = 1.0) -> Dataset:
    structures = [bulk("Si", a=5.4 + 0.01 * k) for k in range(n)]
    for atoms in structures:
        atoms.info["energy"] = -scale
        atoms.arrays["forces"] = np.full((2, 3), scale)
    columns = {"origin": ["Å"] * n, "generation": [1] * n}
    return Dataset.from_atoms(structures, columns, attributes={"method": {"fingerprint": "x"}})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    dataset().write_hdf5(tmp_path / "data.h5")
    return tmp_path / "data.h5"


@pytest.mark.parametrize("n", [1, 3, 1500])
def test_same_content_same_bytes(tmp_path: Path, n: int) -> None:
    data = dataset(n)
    data.write_hdf5(tmp_path / "one.h5")
    # HDF5's own time stamps have a resolution of one second.
    time.sleep(1.1)
    reordered = data.with_columns(generation=data.columns["generation"])
    reordered.write_hdf5(tmp_path / "two.h5")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    Dataset.read_hdf5(tmp_path / "one.h5").write_hdf5(tmp_path / "three.h5")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "three.h5").read_bytes()


def test_interrupted_writer_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    bad = {"offsets": np.array([0]), "energy": np.array([object()])}
    with pytest.raises(TypeError):
        hdf5.write_hdf5(path, bad, {}, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_leftover_of_a_killed_writer_is_no_hindrance(path: Path) -> None:
    path.with_name("data.h5.partial").write_bytes(path.read_bytes()[:100])
    assert len(read_dataset(path)) == 3
    dataset(2).write_hdf5(path)
    assert len(read_dataset(path)) == 2
    assert list(path.parent.iterdir()) == [path]


def test_large_attributes(tmp_path: Path) -> None:
    """More than the 64 kB that an HDF5 attribute of fixed length may have."""
    data = dataset().with_attributes(note="x" * 100_000)
    data.write_hdf5(tmp_path / "data.h5")
    assert read_dataset(tmp_path / "data.h5").attributes == data.attributes


def test_number_types_of_other_writers(path: Path) -> None:
    with h5py.File(path, "r+") as handle:
        for name, dtype in (("numbers", "u1"), ("positions", "f4"), ("offsets", "i4")):
            values = handle[name][...].astype(dtype)
            del handle[name]
            handle[name] = values
    data = read_dataset(path)
    assert (data.numbers.dtype, data.offsets.dtype) == (np.int32, np.int64)
    np.testing.assert_allclose(data.positions, dataset().positions, atol=1e-6)


def replace_with(name: str, values: object) -> Callable[[h5py.File], None]:
    def change(handle: h5py.File) -> None:
        del handle[name]
        handle[name] = values

    return change


def external_link(handle: h5py.File) -> None:
    del handle["energy"]
    handle["energy"] = h5py.ExternalLink("/etc/passwd", "/energy")


def soft_link(handle: h5py.File) -> None:
    handle["columns/extra"] = h5py.SoftLink("/energy")


def linked_group(handle: h5py.File) -> None:
    del handle["columns"]
    handle["columns"] = h5py.SoftLink("/")


def external_storage(handle: h5py.File) -> None:
    del handle["energy"]
    handle.create_dataset("energy", (3,), "f8", external=[("/etc/passwd", 0, 24)])


def virtual(handle: h5py.File) -> None:
    del handle["energy"]
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "energy", (3,))
    handle.create_virtual_dataset("energy", layout)


def group_for_array(handle: h5py.File) -> None:
    del handle["energy"]
    handle.create_group("energy")


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(handle: h5py.File) -> None:
        handle.attrs[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_link, "'energy' is a link to elsewhere"),
        (soft_link, "'columns/extra' is a link to elsewhere"),
        (linked_group, "'columns' is a link to elsewhere"),
        (external_storage, "'energy' is stored in another file"),
        (virtual, "'energy' is stored in another file"),
        (group_for_array, "'energy' is not an array"),
        (attribute("format", "other"), "its attribute 'format' is 'other'"),
        (attribute("version", 2), "has dataset version 2; this program reads 1 to 1"),
        (attribute("version", "one"), "has dataset version one"),
        (attribute("attributes", "{"), "is not JSON"),
        (attribute("attributes", "[1]"), "is not a JSON object"),
        (lambda handle: handle.__delitem__("positions"), "lacks the arrays positions"),
        (replace_with("energy", np.zeros(4)), r"'energy' has shape \(4,\), expected \(3,\)"),
        (replace_with("columns/generation", np.zeros((3, 1))), "'columns/generation' has shape"),
        (replace_with("positions", np.zeros((6, 2))), "'positions' has shape"),
        (replace_with("positions", np.full((6, 3), b"x")), "'positions' holds values of type"),
        (replace_with("offsets", np.array([0, 2, 1, 6])), "does not partition the 6 atoms"),
        (replace_with("offsets", np.array([0, 2, 4, 5])), "does not partition the 6 atoms"),
        (replace_with("offsets", np.zeros(0, dtype=int)), "must be lists of numbers"),
        (replace_with("numbers", np.full(6, 400)), "not atomic numbers"),
    ],
)
def test_strange_files_are_refused(
    path: Path, change: Callable[[h5py.File], None], message: str
) -> None:
    with h5py.File(path, "r+") as handle:
        change(handle)
    with pytest.raises(DataError, match=message):
        read_dataset(path)
    # The file was closed again.
    path.unlink()
    dataset().write_hdf5(path)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_truncated_file(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(DataError, match="is not a readable HDF5 file"):
        read_dataset(path)


def test_damaged_data(tmp_path: Path) -> None:
    """Compressed data with flipped bits opens well and fails when it is read."""
    path = tmp_path / "data.h5"
    dataset(3000).write_hdf5(path)
    with h5py.File(path) as handle:
        chunk = handle["positions"].id.get_chunk_info(0)
        start = chunk.byte_offset
    content = bytearray(path.read_bytes())
    content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        read_dataset(path)


def test_a_text_file_is_no_hdf5_file(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    path.write_text("1\n\nSi 0 0 0\n")
    with pytest.raises(DataError, match="is not a readable HDF5 file"):
        read_dataset(path)
