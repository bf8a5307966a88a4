"""Features added to files of others: what is written, what is not, and what a crash leaves."""

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.descriptors import add
from aiida_autopipe.core.descriptors.ace import AceDescriptor
from aiida_autopipe.core.descriptors.add import add_descriptors
from aiida_autopipe.core.descriptors.keys import expand_keys, structure_groups
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.journal import JournaledFile, has_journal
from tests.core.descriptors.toy import Toy

CELL = bulk("Si", cubic=True).cell.array
FRAMES, ATOMS = 12, 8


def frames(count, seed):
    silicon = bulk("Si", cubic=True)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=(count, ATOMS, 3))
    return silicon.positions + noise


@pytest.fixture
def path(tmp_path):
    """A file as another program leaves it: trajectories, a structure, and much else."""
    path = tmp_path / "md.h5"
    with h5py.File(path, "w") as file:
        for seed, name in enumerate(("runs/a", "runs/b")):
            group = file.create_group(name)
            group["positions"] = frames(FRAMES, seed)
            group["numbers"] = np.full(ATOMS, 14)
            group["cell"] = CELL
            group.create_dataset(
                "energies", data=np.arange(FRAMES) * 1.5, chunks=(4,), maxshape=(None,),
                compression="gzip",
            )  # fmt: skip
            group.attrs["program"] = "tight binding"
            group["energies"].attrs["unit"] = "eV"
        single = file.create_group("relaxed")
        single["positions"] = frames(1, 9)[0]
        single["numbers"] = np.full(ATOMS, 14)
        single["cell"] = CELL
        file["notes"] = "slow, but good"
        file["references"] = np.array([file["runs/a"].ref], dtype=h5py.ref_dtype)
        file["again"] = h5py.SoftLink("/runs/a")
        file.attrs["made"] = [1, 2, 3]
    os.chmod(path, 0o640)
    return path


def contents(path, without=()):
    """Everything in a file but some objects: values, types, storage, addresses and attributes."""
    found = {}

    def visit(name, item):
        if f"/{name}" in without:
            return
        info = h5py.h5o.get_info(item.id)
        here = [info.type, info.mtime, info.ctime, info.rc]
        here += [(k, item.attrs.get_id(k).dtype, str(item.attrs[k])) for k in sorted(item.attrs)]
        if isinstance(item, h5py.Dataset):
            offset = item.id.get_offset() if item.chunks is None else None
            layout = (item.chunks, item.maxshape, item.compression, offset)
            here += [item.dtype, item.shape, layout, item.id.get_storage_size()]
            here += [item[...].tobytes() if item.dtype.kind != "O" else str(item[...])]
        else:
            here += [sorted(n for n in item if f"{item.name.rstrip('/')}/{n}" not in without)]
        found[name] = here

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)
        found["links"] = file.get("again", getlink=True).path if "again" in file else None
    return found


def test_features_of_a_trajectory_and_nothing_else(path):
    before = contents(path)
    added = add_descriptors(path, "runs/a", Toy())
    assert [(a.dataset, a.shape, a.frames, a.written) for a in added] == [
        ("/runs/a/toy", (FRAMES, ATOMS, 2), FRAMES, True)
    ]
    assert contents(path, without={"/runs/a/toy"}) == before
    with h5py.File(path) as file:
        data = file["runs/a/toy"]
        np.testing.assert_array_equal(data[..., 0], file["runs/a/positions"][..., 0])
        assert np.all(data[..., 1] == 14)
        attributes = dict(data.attrs)
    assert attributes["type"] == "toy"
    assert json.loads(attributes["settings"]) == {"descriptor": "toy", "scale": 1.0}
    assert attributes["frames"] == FRAMES
    assert not attributes["average"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("block_atoms", [1, 3 * ATOMS, 10_000])
def test_averages_structures_and_blocks(path, monkeypatch, block_atoms):
    monkeypatch.setattr(add, "BLOCK_ATOMS", block_atoms)
    add_descriptors(path, ["runs/a", "relaxed"], Toy(), average=True, name="mean")
    add_descriptors(path, "relaxed", Toy(), dtype="float32")
    with h5py.File(path) as file:
        expected = file["runs/a/positions"][..., 0].mean(axis=1)
        np.testing.assert_allclose(file["runs/a/mean"][:, 0], expected, rtol=1e-14)
        assert file["relaxed/mean"].shape == (2,)
        assert file["relaxed/mean"][0] == pytest.approx(file["relaxed/positions"][:, 0].mean())
        assert file["relaxed/toy"].dtype == np.float32
        assert file["relaxed/toy"].shape == (ATOMS, 2)


def test_our_own_dataset_file(tmp_path):
    path = tmp_path / "own.h5"
    structures = [bulk("Si"), bulk("Si", cubic=True), Atoms("C", positions=[[1.0, 2.0, 3.0]])]
    Dataset.from_atoms(structures).write_hdf5(path)
    (atoms,) = add_descriptors(path, "/", Toy())
    (mean,) = add_descriptors(path, "/", Toy(), average=True, name="mean")
    assert (atoms.dataset, atoms.shape) == ("/features/toy", (11, 2))
    assert (mean.dataset, mean.shape) == ("/features/mean", (3, 2))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["features/toy"][:, 0], file["positions"][:, 0])
        np.testing.assert_allclose(file["features/mean"][:, 1], [14, 14, 6])
    assert len(Dataset.read_hdf5(path)) == 3


def test_real_descriptor_and_hash_of_its_model(path, sic_files):
    descriptor = AceDescriptor.from_file(sic_files / "SiC_linear.yaml")
    add_descriptors(path, "runs/b", descriptor, threads=2)
    with h5py.File(path) as file:
        data = file["runs/b/ace"]
        atoms = Atoms("Si8", file["runs/b/positions"][5], cell=CELL, pbc=True)
        np.testing.assert_allclose(data[5], descriptor.compute([atoms]), rtol=1e-12)
        assert data.attrs["model_sha256"] == descriptor.settings()["model_sha256"]


def test_a_second_time_does_nothing(path):
    keys = ["runs/a", "/again", "runs/b"]
    add_descriptors(path, keys[:1], Toy())
    before, state = path.read_bytes(), path.stat()
    (added,) = add_descriptors(path, "again", Toy())
    assert not added.written
    assert path.read_bytes() == before
    assert path.stat() == state
    written = [a.written for a in add_descriptors(path, ["runs/a", "runs/b"], Toy())]
    assert written == [False, True]


def test_other_settings_ask_for_overwrite(path):
    add_descriptors(path, "runs/a", Toy())
    before = path.read_bytes()
    for settings, message in (
        ({"descriptor": Toy(2.0)}, "scale 1.0 instead of 2.0.*--overwrite"),
        ({"average": True}, "not averaged"),
        ({"dtype": "float32"}, "float64, not .* of float32"),
    ):
        with pytest.raises(InputError, match=message):
            add_descriptors(path, "runs/a", **{"descriptor": Toy(), **settings})
    assert path.read_bytes() == before
    rest = contents(path, without={"/runs/a/toy"})
    add_descriptors(path, "runs/a", Toy(2.0), overwrite=True)
    size = path.stat().st_size
    add_descriptors(path, "runs/a", Toy(3.0), overwrite=True)
    assert path.stat().st_size <= size + 8192
    add_descriptors(path, "runs/a", Toy(3.0), overwrite=True, average=True)
    assert contents(path, without={"/runs/a/toy"}) == rest
    with h5py.File(path) as file:
        assert json.loads(file["runs/a/toy"].attrs["settings"])["scale"] == 3.0
        assert file["runs/a/toy"].shape == (FRAMES, 2)


def test_a_trajectory_that_has_grown_or_changed(tmp_path):
    path = tmp_path / "grows.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("positions", data=frames(3, 1), maxshape=(None, ATOMS, 3))
        file["numbers"], file["cell"] = np.full(ATOMS, 14), CELL
    add_descriptors(path, "/", Toy())
    with h5py.File(path, "a") as file:
        file["positions"].resize(5, axis=0)
        file["positions"][3:] = frames(2, 2)
    with pytest.raises(InputError, match="computed for 3 frames, but there are 5 now"):
        add_descriptors(path, "/", Toy())
    (added,) = add_descriptors(path, "/", Toy(), overwrite=True)
    assert added.shape == (5, ATOMS, 2)
    with h5py.File(path, "a") as file:
        file["positions"][0, 0, 0] += 1e-9
    with pytest.raises(InputError, match="structures that have changed"):
        add_descriptors(path, "/", Toy())


def test_what_others_wrote_is_never_replaced(path):
    with pytest.raises(InputError, match="not written by this command"):
        add_descriptors(path, "runs/a", Toy(), name="energies", overwrite=True)


# ---------------------------------------------------------------------- bad input


def spoil(name, value):
    def change(file):
        del file[name]
        if value is not None:
            file[name] = value

    return change


def put(name, index, value):
    def change(file):
        file[name][index] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("runs/a/cell", None), "no cells"),
        (spoil("runs/a/positions", None), "no positions"),
        (spoil("runs/a/numbers", None), "no atomic numbers"),
        (spoil("runs/a/numbers", np.full(7, 14)), r"must be \(8,\)"),
        (spoil("runs/a/cell", np.ones((5, 3, 3))), r"cells has shape \(5, 3, 3\)"),
        (spoil("runs/a/numbers", np.full(8, 29)), "frame 0: contains Cu, but the .* only C, Si"),
        (spoil("runs/a/positions", np.zeros((4, 0, 3))), "no atoms"),
        (spoil("runs/a/positions", np.zeros((0, 8, 3))), "no frames"),
        (put("runs/a/positions", (7, 2, 1), np.nan), "frame 7: NaN"),
        (put("runs/a/positions", (9, 0, 0), 99.0), "frame 9: Atom 0 is far away"),
        (spoil("runs/a", None), "no group 'runs/a'"),
    ],
)
def test_bad_groups_leave_the_file_untouched(path, change, message):
    with h5py.File(path, "a") as file:
        change(file)
    before, state = path.read_bytes(), path.stat()
    with pytest.raises((DataError, InputError), match=message):
        add_descriptors(path, ["runs/b", "runs/a"], Toy())
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == state.st_mtime_ns
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_bad_requests(path):
    for arguments, message in (
        (([], Toy()), "no group was named"),
        ((["runs/a", "runs/a"], Toy()), "named twice"),
        (("runs/a/positions", Toy()), "is a dataset"),
    ):
        with pytest.raises(InputError, match=message):
            add_descriptors(path, *arguments)
    for name in ("", "a/b", "."):
        with pytest.raises(InputError, match="no name"):
            add_descriptors(path, "runs/a", Toy(), name=name)
    with pytest.raises(InputError, match="no dataset 'xyz' for the positions"):
        add_descriptors(path, "runs/a", Toy(), positions="xyz")


BUSY = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(flush=True); input()"


def test_read_only_truncated_missing_and_busy_files(path, tmp_path):
    os.chmod(path, 0o440)
    with pytest.raises(InputError, match="read-only"):
        add_descriptors(path, "runs/a", Toy())
    os.chmod(path, 0o640)
    short = tmp_path / "short.h5"
    short.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"not a readable HDF5 file: truncated"):
        add_descriptors(short, "runs/a", Toy())
    other = tmp_path / "other.h5"
    other.write_text("no HDF5")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        add_descriptors(other, "runs/a", Toy())
    with pytest.raises(DataError, match="no file"):
        add_descriptors(tmp_path / "none.h5", "runs/a", Toy())
    writer = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    writer.stdout.readline()
    try:
        with pytest.raises(DataError, match="being written by another program"):
            add_descriptors(path, "runs/a", Toy())
    finally:
        writer.communicate(b"\n")


def test_a_change_meanwhile_is_not_lost(path):
    """Locks keep HDF5 programs out; who writes all the same keeps what was written."""

    def interfere(what, done, _total):
        if what == "describe" and done == 0:
            with path.open("ab") as stream:
                stream.write(b"more")

    before = path.read_bytes()
    with pytest.raises(DataError, match="changed by another program"):
        add_descriptors(path, "runs/a", Toy(), progress=interfere)
    assert path.read_bytes() == before + b"more"


def test_links_and_two_at_once(path, tmp_path):
    link = tmp_path / "link.h5"
    link.symlink_to(path)

    def second(what, done, _total):
        if what == "describe" and done == 0:
            with pytest.raises(InputError, match="Another process is adding"):
                add_descriptors(path, "runs/b", Toy())

    add_descriptors(link, "runs/a", Toy(), progress=second)
    assert link.is_symlink()
    with h5py.File(path) as file:
        assert "toy" in file["runs/a"]
        assert "toy" not in file["runs/b"]


def test_no_room(path, monkeypatch):
    def full(_descriptor, begin, length):
        assert begin + length > path.stat().st_size + FRAMES * ATOMS * 2 * 8
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    before = path.read_bytes()
    with pytest.raises(InputError, match="needs 1 MB of disk beside it"):
        add_descriptors(path, "runs/a", Toy())
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_file_systems_that_copy_in_other_ways(path, monkeypatch):
    def unable(*_args):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("os.posix_fallocate", unable)
    monkeypatch.setattr("os.copy_file_range", unable)
    before = contents(path)
    add_descriptors(path, "runs/a", Toy())
    assert contents(path, without={"/runs/a/toy"}) == before


# ---------------------------------------------------------------------- crashes

KILLED = """
import sys
from tests.core.descriptors.toy import Toy
from aiida_autopipe.core.descriptors import add
add.BLOCK_ATOMS = 8
print(flush=True)
while True:
    for scale in (1.0, 2.0):
        add.add_descriptors(sys.argv[1], ["runs/a", "runs/b"], Toy(scale), overwrite=True)
        print(flush=True)
"""


def test_killed_at_any_moment(path):
    """What is there after kill -9 opens, and is one complete state; the rest is as it was."""
    features = {"/runs/a/toy", "/runs/b/toy"}
    before = contents(path, without=features)
    rng = random.Random(1)
    seen = set()
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, cwd=os.getcwd()
        )
        for _ in range(rng.randint(1, 3)):  # lines: it has begun, and each time it has written
            process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert contents(path, without=features) == before
        with h5py.File(path) as file:
            scales = set()
            for name in ("runs/a", "runs/b"):
                if "toy" in file[name]:
                    data = file[name]["toy"]
                    scale = json.loads(data.attrs["settings"])["scale"]
                    x = file[name]["positions"][..., 0]
                    np.testing.assert_array_equal(data[..., 0], scale * x)
                    scales.add(scale)
                else:
                    scales.add(None)
            assert len(scales) == 1
            seen |= scales
    assert seen & {1.0, 2.0}
    add_descriptors(path, ["runs/a", "runs/b"], Toy(5.0), overwrite=True)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_after_a_killed_writer_of_our_own(tmp_path, monkeypatch):
    """Its journal is put in place first: the copy would be of the state before."""
    path = tmp_path / "own.h5"
    Dataset.from_atoms([bulk("Si")]).write_hdf5(path)
    writer = JournaledFile(path, writable=True)
    with h5py.File(writer, "r+") as file:
        file["energies"] = np.arange(5.0)
        file.flush()

        def die():
            raise KeyboardInterrupt

        monkeypatch.setattr(writer, "_apply", die)
        with pytest.raises(KeyboardInterrupt):
            writer.commit()
        writer.abandon()
    writer.close()
    assert has_journal(path)
    add_descriptors(path, "/", Toy())
    assert not has_journal(path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["energies"], np.arange(5.0))
        assert file["features/toy"].shape == (2, 2)


def test_interrupted(path):
    def interrupt(what, done, _total):
        if what == "describe" and done:
            raise KeyboardInterrupt

    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        add_descriptors(path, "runs/a", Toy(), progress=interrupt)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


# ---------------------------------------------------------------------- groups


def test_groups_by_pattern(path):
    with h5py.File(path, "a") as file:
        file.create_group("runs/settings").attrs["steps"] = 5
        file.create_group("T=[300]")
        file.create_group("runs/a/inner")["positions"] = frames(1, 1)
        file["runs/a/inner/numbers"] = np.full(ATOMS, 14)
    with h5py.File(path) as file:
        assert structure_groups(file) == ["/relaxed", "/runs/a", "/runs/a/inner", "/runs/b"]
        assert expand_keys(file, ["runs/*"]) == ["/runs/a", "/runs/b"]
        assert expand_keys(file, ["/runs/b", "runs/?", "relaxed"]) == [
            "/runs/b", "/runs/a", "/relaxed",
        ]  # fmt: skip
        assert expand_keys(file, ["nothing/here"]) == ["/nothing/here"]
        assert expand_keys(file, ["T=[300]"]) == ["/T=[300]"]
        with pytest.raises(InputError, match=r"matches 'runs/x\*' .*: /relaxed, /runs/a"):
            expand_keys(file, ["runs/x*"])
