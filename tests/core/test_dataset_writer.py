"""The writer of dataset files: append, flush, and what is left when it dies."""

import errno
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.dataset_writer import DatasetWriter
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.hdf5 import open_committed
from aiida_autopipe.core.journal import JournaledFile, has_journal


def structure(k: int) -> Atoms:
    """Everything in it follows from its number."""
    n = 1 + k % 5
    info = {"energy": float(k), "name": f"s{k}", "step": k}
    cell = np.eye(3) * (k + 1)
    return Atoms([1 + k % 90] * n, np.full((n, 3), float(k)), cell=cell, info=info)


def assert_right(data: Dataset) -> None:
    """Every structure is the one of its number."""
    data.validate()
    k = np.arange(len(data))
    np.testing.assert_array_equal(data.energy, k)
    np.testing.assert_array_equal(data.sizes, 1 + k % 5)
    np.testing.assert_array_equal(data.numbers, np.repeat(1 + k % 90, data.sizes))
    np.testing.assert_array_equal(data.positions, np.repeat(k, data.sizes)[:, None] * [1, 1, 1])
    np.testing.assert_array_equal(data.cell, (k + 1)[:, None, None] * np.eye(3))
    np.testing.assert_array_equal(data.columns["step"], k)
    assert list(data.columns["name"]) == [f"s{i}" for i in k]


def labelled(n: int, method: str = "x") -> Dataset:
    structures = [bulk("Si", a=5.4 + 0.01 * k) for k in range(n)]
    for atoms in structures:
        atoms.info["energy"] = -1.0
        atoms.arrays["forces"] = np.full((2, 3), 0.5)
    attributes = {"method": {"fingerprint": method}, "reference_energies": {"Si": -0.5}}
    return Dataset.from_atoms(structures, {"generation": [1] * n}, attributes=attributes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.h5"


# ------------------------------------------------------------------ what is written


@pytest.mark.parametrize("how", ["atoms", "lists", "datasets", "reopened", "flushed"])
def test_appending_in_any_way_gives_the_same_content(path: Path, how: str) -> None:
    structures = [structure(k) for k in range(40)]
    if how == "atoms":
        with DatasetWriter(path) as writer:
            for atoms in structures:
                writer.append(atoms)
            assert len(writer) == 40
    for start in range(0, 40, 8):
        part = structures[start : start + 8]
        if how in ("lists", "datasets", "flushed"):
            writer = DatasetWriter(path) if start == 0 else writer
            writer.append(Dataset.from_atoms(part) if how == "datasets" else part)
            if how == "flushed":
                writer.flush()
        elif how == "reopened":
            with DatasetWriter(path, append=True) as writer:
                writer.append(part)
    writer.close()
    data = Dataset.read_hdf5(path)
    assert_right(data)
    assert data.content_hash() == Dataset.from_atoms(structures).content_hash()


def test_blocks_larger_than_the_buffer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiida_autopipe.core.dataset_writer.BLOCK_ATOMS", 7)
    with DatasetWriter(path, commit_seconds=0.0) as writer:
        for k in range(30):
            writer.append(structure(k))
    assert_right(Dataset.read_hdf5(path))


def test_an_open_file_is_appended_block_by_block(path: Path, tmp_path: Path) -> None:
    with DatasetWriter(path) as writer:
        writer.append([structure(k) for k in range(20)])
    with Dataset.open(path) as source, DatasetWriter(tmp_path / "b.h5") as writer:
        writer.append(source)
    assert_right(Dataset.read_hdf5(tmp_path / "b.h5"))


def test_the_same_as_concatenate(path: Path) -> None:
    """Labels, masks and columns that only some have, and attributes."""
    plain = Dataset.from_atoms([molecule("H2O")], {"origin": ["md"], "gamma": [2.5]})
    masked = replace(labelled(2), force_mask=np.array([1.0, 0, 1, 0]), weight=np.full(2, 2.0))
    parts = [plain, masked, plain.with_columns(good=[True]), labelled(1)]
    with DatasetWriter(path) as writer:
        for part in parts:
            writer.append(part)
            writer.flush()
    data, expected = Dataset.read_hdf5(path), Dataset.concatenate(parts)
    assert data.content_hash() == expected.content_hash()
    assert data.attributes == expected.attributes
    with DatasetWriter(path, append=True) as writer:
        writer.append(plain.with_columns(generation=[0.5]))
    np.testing.assert_array_equal(
        Dataset.read_hdf5(path).columns["generation"], [0, 1, 1, 0, 1, 0.5]
    )


def test_text_where_numbers_were(path: Path) -> None:
    first, second = (Dataset.from_atoms([bulk("Si")], {"id": [v]}) for v in (7, "a7"))
    with DatasetWriter(path, promote=True) as writer:
        writer.append(first)
        writer.flush()
        writer.append(second)
        writer.append(first)
    assert list(Dataset.read_hdf5(path).columns["id"]) == ["7", "a7", "7"]
    with DatasetWriter(path, append=True) as writer:
        with pytest.raises(InputError, match="'id' holds text in one dataset and int in another"):
            writer.append(first)
        writer.append(second)  # the writer goes on
    assert len(Dataset.read_hdf5(path)) == 4


def test_methods_and_references_must_agree(path: Path) -> None:
    with DatasetWriter(path, attributes={"note": "first"}) as writer:
        writer.append(labelled(2))
        with pytest.raises(InputError, match=r"different methods \(x, y\)"):
            writer.append(labelled(1, "y"))
        other = labelled(1).with_attributes(reference_energies={"Si": -0.6})
        with pytest.raises(InputError, match="reference energy of Si"):
            writer.append(other)
    with DatasetWriter(path, append=True) as writer:
        with pytest.raises(InputError, match="different methods"):
            writer.append(labelled(1, "y"))
        writer.append(replace(labelled(1, "y"), energy=None, forces=None))
        assert len(writer) == 3
    attributes = Dataset.read_hdf5(path).attributes
    assert attributes["method"] == {"fingerprint": "x"} and attributes["note"] == "first"


def test_appending_to_a_file_that_cannot_grow(path: Path) -> None:
    """Files of `Dataset.write_hdf5` are rewritten once; what is not ours is kept."""
    data = Dataset.from_atoms([structure(k) for k in range(10)], attributes={"note": 1})
    data.write_hdf5(path)
    with h5py.File(path, "r+") as handle:
        handle["descriptors/soap"] = np.arange(10)
        handle["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/x")
    with DatasetWriter(path, append=True) as writer:
        writer.append([structure(k) for k in range(10, 20)])
    found = Dataset.read_hdf5(path)
    assert_right(found)
    assert found.attributes == {"note": 1}
    with h5py.File(path) as handle:
        assert list(handle["descriptors/soap"]) == list(range(10))
        assert isinstance(handle.get("elsewhere", getlink=True), h5py.ExternalLink)
    assert list(path.parent.iterdir()) == [path]


def test_an_error_around_the_writer_loses_nothing(path: Path) -> None:
    def interrupted() -> None:
        with DatasetWriter(path) as writer:
            writer.append([structure(k) for k in range(3)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(Dataset.read_hdf5(path)) == 3


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "Structure 0 has no atoms"),
        (Atoms("H", [[np.nan, 0, 0]]), "Structure 2 has NaN or infinite positions"),
        (Atoms("H", cell=np.full((3, 3), np.inf)), "Structure 2 has a NaN or infinite cell"),
        (Atoms("H", pbc=True), "Structure 2 is periodic but its cell has no volume"),
        (Atoms("H", info={"energy": np.nan}), "NaN or infinite energy"),
        (Atoms("H", info={"name": "a\0b", "step": 1}), "NUL"),
    ],
)
def test_unusable_structures(path: Path, atoms: Atoms, message: str) -> None:
    with DatasetWriter(path) as writer:
        writer.append([structure(0), structure(1)])
        writer.flush()
        with pytest.raises(DataError, match=message):
            writer.append(atoms)
            writer.flush()
    assert_right(Dataset.read_hdf5(path))


def test_targets_that_cannot_be_written(path: Path, tmp_path: Path) -> None:
    path.write_text("not HDF5")
    with pytest.raises(InputError, match="exists"):
        DatasetWriter(path)
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        DatasetWriter(path, append=True)
    assert path.read_text() == "not HDF5"
    with pytest.raises(DataError, match="is not a file"):
        DatasetWriter(tmp_path, append=True)
    with pytest.raises(FileNotFoundError):
        DatasetWriter(tmp_path / "none" / "data.h5")


def test_only_one_writer_and_no_reader_meanwhile(path: Path) -> None:
    with DatasetWriter(path) as writer:
        writer.append(structure(0))
        writer.flush()
        with pytest.raises(DataError, match="in use by another process"):
            DatasetWriter(path, append=True)
        with pytest.raises(DataError, match="in use by another process"):
            Dataset.read_hdf5(path)
    with pytest.raises(InputError, match="is closed"):
        writer.append(structure(1))
    writer.close()
    assert len(Dataset.read_hdf5(path)) == 1


# ------------------------------------------------------------------ when it dies


def in_child(action: Callable[[], Any]) -> int:
    """Run something in a forked process, which ends without any cleaning up; its process id."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns where there are other threads; the child uses none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    return pid


def session(path: Path, first: int) -> None:
    """Two commits behind `first` structures."""
    with DatasetWriter(path, append=True) as writer:
        for part in (range(first, first + 30), range(first + 30, first + 50)):
            writer.append([structure(k) for k in part])
            writer.flush()


def dying_at(number: int, torn: bool) -> None:
    """From now on, the process dies in its write, truncation or fsync of this number."""
    calls = iter(range(1_000_000))

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def call(descriptor: int, *arguments: Any) -> Any:
            if next(calls) == number:
                if torn and name == "pwrite":
                    content, start = arguments
                    real(descriptor, content[: len(content) // 2], start)
                os._exit(9)
            return real(descriptor, *arguments)

        setattr(os, name, call)

    for name in ("pwrite", "ftruncate", "fsync"):
        wrap(name)


def test_death_in_any_system_call(path: Path) -> None:
    """The file is what one of the flushes left, and the next writer goes on from there."""
    with DatasetWriter(path) as writer:
        writer.append([structure(k) for k in range(100)])
    before = path.read_bytes()
    died, lengths, journals, number = True, set(), 0, 0
    while died:
        path.write_bytes(before)

        def run(k: int = number) -> None:
            dying_at(k, torn=k % 2 == 0)
            session(path, 100)

        status = os.waitpid(in_child(run), 0)[1]
        died = os.waitstatus_to_exitcode(status) == 9
        data = Dataset.read_hdf5(path)
        assert_right(data)
        lengths.add(len(data))
        if has_journal(path):
            journals += 1
        else:
            with h5py.File(path) as handle:  # whoever reads it
                assert handle["offsets"].shape[0] == len(data) + 1
        if number % 5 == 0:
            with DatasetWriter(path, append=True) as writer:
                writer.append(structure(len(writer)))
            assert not has_journal(path)
            assert_right(Dataset.read_hdf5(path))
        number += 3  # every one of them was tried when this was written
    assert lengths == {100, 130, 150}
    assert journals > 2
    assert number > 20


def test_the_committed_state_outlives_a_commit_that_shortens_the_file(path: Path) -> None:
    """HDF5 gives up space at the end when the last chunk moves into a gap."""
    with h5py.File(path, "w") as handle:
        handle["kept"] = np.arange(10)
        handle["last"] = np.random.default_rng(0).random(5000)
    size = path.stat().st_size

    def remove(dies_at: int) -> None:
        if dies_at >= 0:
            dying_at(dies_at, torn=False)
        file = JournaledFile(path, writable=True)
        handle = h5py.File(file, "r+")
        del handle["last"]
        handle.flush()
        file.commit()
        handle.close()
        file.commit()
        file.close()

    before, died, number = path.read_bytes(), True, 0
    while died:
        path.write_bytes(before)
        status = os.waitpid(in_child(partial(remove, number)), 0)[1]
        died = os.waitstatus_to_exitcode(status) == 9
        with open_committed(path) as handle:
            np.testing.assert_array_equal(handle["kept"], np.arange(10))
            assert len(handle.get("last", np.empty(5000))) == 5000
            if "last" in handle:
                assert 0 < handle["last"][:].max() < 1
        number += 1
    assert number > 5
    JournaledFile(path, writable=True).close()
    assert path.stat().st_size < size


def test_kill_at_random_moments(path: Path) -> None:
    def run() -> None:
        with DatasetWriter(path, append=True) as writer:
            while True:
                start = len(writer)
                writer.append([structure(k) for k in range(start, start + 1 + start % 17)])
                writer.flush()

    rng, length = random.Random(0), 0
    for _ in range(8):
        pid = in_child(run)
        time.sleep(0.1 + 0.2 * rng.random())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        data = Dataset.read_hdf5(path)
        assert len(data) >= length
        length = len(data)
        if length > 0:  # an empty dataset is none to validate
            assert_right(data)
    assert length > 0


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """A limit on the size of files, which acts as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 100, 5_000, 40_000])
def test_a_full_disk(path: Path, small_files: Callable[[int], None], room: int) -> None:
    with DatasetWriter(path) as writer:
        writer.append([structure(k) for k in range(100)])
    before = path.read_bytes()
    small_files(len(before) + room)
    with pytest.raises(OSError, match=r"File too large.*data\.h5") as caught:
        session(path, 100)
        rng = np.random.default_rng(0)
        with DatasetWriter(path, append=True) as writer:
            for _ in range(100):
                writer.append(Atoms(["H"] * 500, rng.random((500, 3)), info={"name": "x"}))
                writer.flush()
    assert caught.value.errno == errno.EFBIG
    small_files(resource.RLIM_INFINITY)
    data = Dataset.read_hdf5(path)
    assert len(data) >= 100
    assert_right(data[:100])
    if room == 0:
        assert path.read_bytes() == before
    with DatasetWriter(path, append=True) as writer:
        writer.append(structure(0))


def test_a_read_only_file() -> None:
    """As a user for whom the file is read-only: root may write everything."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.h5"
        with DatasetWriter(path) as writer:
            writer.append(structure(0))
        path.chmod(0o444)
        path.parent.chmod(0o755)
        before, user = path.read_bytes(), os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                DatasetWriter(path, append=True)
            assert len(Dataset.read_hdf5(path)) == 1
        finally:
            os.seteuid(user)
        assert path.read_bytes() == before
