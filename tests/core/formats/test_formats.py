"""Files of structures in all formats, read and written frame by frame."""

import bz2
import gzip
import lzma
import tracemalloc
from pathlib import Path

import ase.db
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write
from ase.io.extxyz import key_val_str_to_dict

from aiida_autopipe.core.dataset import Dataset, read_dataset
from aiida_autopipe.core.errors import AutopipeError, DataError, InputError
from aiida_autopipe.core.formats import source as source_module
from aiida_autopipe.core.formats.extxyz import _parsed
from aiida_autopipe.core.formats.foreign import GroupNames
from aiida_autopipe.core.formats.frames import FrameRange, frame_range
from aiida_autopipe.core.formats.sink import open_sink
from aiida_autopipe.core.formats.source import Source, format_of
from aiida_autopipe.core.labels import LabelKeys

ARRAYS = (
    "offsets",
    "numbers",
    "positions",
    "cell",
    "pbc",
    "energy",
    "forces",
    "stress",
    "force_mask",
)


def structures(n: int = 12) -> list[Atoms]:
    """Bulk and molecules; some without labels; decimals that extxyz keeps."""
    rng = np.random.default_rng(0)
    made = []
    for k in range(n):
        atoms = molecule("H2O") if k % 3 == 2 else bulk("NaCl", "rocksalt", 5.6)
        atoms.positions = np.round(atoms.positions + rng.normal(0, 0.1, atoms.positions.shape), 8)
        atoms.info = {"origin": "md" if k % 2 else "two words", "step": k, "good": bool(k % 2)}
        if k % 4:
            atoms.info["energy"] = -1.5 * k
            atoms.arrays["forces"] = np.round(rng.normal(0, 1, atoms.positions.shape), 8)
            if atoms.pbc.all():
                atoms.info["stress"] = rng.normal(0, 1, 6)
        made.append(atoms)
    return made


def read_all(path: Path, **options: object) -> Dataset:
    return Dataset.concatenate([block.data for block in Source(path, **options).blocks()])


def written(path: Path, data: Dataset) -> Path:
    with open_sink(path) as sink:
        sink(data[:5])
        sink(data[5:])
    return path


def assert_same(one: Dataset, other: Dataset) -> None:
    for name in ARRAYS:
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None), name
        if left is not None:
            np.testing.assert_array_equal(left, right, err_msg=name)
    assert set(one.columns) == set(other.columns)
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, other.columns[name], err_msg=name)


@pytest.mark.parametrize("ending", ["h5", "extxyz", "traj", "db", "json"])
def test_there_and_back(tmp_path: Path, ending: str) -> None:
    data = Dataset.from_atoms(structures())
    path = written(tmp_path / f"data.{ending}", data)
    source = Source(path)
    assert_same(read_all(path), data)
    assert source.count() == len(data)
    assert list(tmp_path.iterdir()) == [path]
    chosen = Source(path, wanted=FrameRange(2, 11, 4))
    assert chosen.count() == 3
    assert_same(read_all(path, wanted=FrameRange(2, 11, 4)), data[2:11:4])
    # ASE reads the same.
    if ending != "h5":
        found = read(path, index=":")
        assert len(found) == len(data)
        for k, atoms in enumerate(found):
            np.testing.assert_array_equal(atoms.positions, data.atoms(k).positions)
            if k % 4:
                assert atoms.get_potential_energy() == -1.5 * k
                np.testing.assert_array_equal(atoms.get_forces(), data.labels(k).forces)
                if atoms.pbc.all():
                    np.testing.assert_allclose(atoms.get_stress(), data.labels(k).stress)


def test_extxyz_is_read_as_by_ase(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz", structures(), format="extxyz")
    expected = Dataset.from_atoms(read(tmp_path / "a.xyz", index=":"))
    assert_same(read_all(tmp_path / "a.xyz"), expected)
    (tmp_path / "plain.xyz").write_text("2\nany = comment\nH 0 0 0 7\nO 1 0 0 8\n\n\n")
    plain = read_all(tmp_path / "plain.xyz")
    assert plain.elements == ["H", "O"] and not plain.pbc.any()


@pytest.mark.parametrize(
    "comment",
    [
        'Lattice="1 2 3 4 5 6 7 8 9" Properties=species:S:1:pos:R:3 pbc="T F T" a=1 b=2.5 d=abc',
        'a=1 b=-1e-3 c=+.5 d=5. e=T f=F g="two  words 1" h="T F x" i=nan j="one" k="1.5 2"',
        'virial="1 2 3 2 5 6 3 6 9" stress="1 2 3 4 5 6 7 8 9" x=2024-05 y=a/b q=007 w=1_000',
        'a=[1,2] b={"x": 1} c="" d=True e=None flag f="1" g=\'h\' i=1/2 j=T,F',
    ],
)
def test_comment_lines_are_parsed_as_by_ase(comment: str) -> None:
    ours, theirs = _parsed(comment), key_val_str_to_dict(comment)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if np.ndim(value) == 0:
            assert np.asarray(ours[key]).dtype.kind == np.asarray(value).dtype.kind, key
        np.testing.assert_array_equal(ours[key], value, err_msg=key)


@pytest.mark.parametrize(("ending", "module"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)])
def test_compressed_text(tmp_path: Path, ending: str, module: object) -> None:
    data = Dataset.from_atoms(structures())
    text = written(tmp_path / "a.extxyz", data).read_bytes()
    path = tmp_path / f"a.extxyz.{ending}"
    path.write_bytes(module.compress(text))  # type: ignore[attr-defined]
    assert_same(read_all(path), data)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"a\.extxyz"):
        read_all(path)


def test_columns_do_not_depend_on_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that comes late, lacks somewhere, or changes its type."""
    made = [bulk("Si") for _ in range(6)]
    for k, atoms in enumerate(made):
        atoms.info = {"id": k if k < 3 else f"s{k}", "x": k if k else 0.5, "v": np.ones(2)}
    made[4].info |= {"late": 7, "word": "w", "yes": True}
    write(tmp_path / "a.extxyz", made, format="extxyz")
    expected = {
        "id": ["0", "1", "2", "s3", "s4", "s5"], "x": [0.5, 1, 2, 3, 4, 5],
        "late": [np.nan] * 4 + [7, np.nan], "word": [""] * 4 + ["w", ""],
        "yes": [np.nan] * 4 + [1, np.nan],
    }  # fmt: skip
    for size in (1, 2, 6):
        monkeypatch.setattr(source_module, "BLOCK_FRAMES", size)
        source = Source(tmp_path / "a.extxyz")
        with open_sink(tmp_path / "b.h5") as sink:
            for block in source.blocks():
                sink(block.data)
        found = Dataset.read_hdf5(tmp_path / "b.h5")
        assert set(found.columns) == set(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found.columns[name], values, err_msg=name)
        assert source.left_out == {"v"}


def test_keys_of_labels(tmp_path: Path) -> None:
    made = [bulk("Si"), bulk("Si")]
    made[1].info["dft"] = -3.0
    write(tmp_path / "a.extxyz", made, format="extxyz")
    data = read_all(tmp_path / "a.extxyz", keys=LabelKeys(energy="dft"))
    np.testing.assert_array_equal(data.energy, [np.nan, -3.0])
    with pytest.raises(InputError, match="has no energy under the key 'x'"):
        read_all(tmp_path / "a.extxyz", keys=LabelKeys(energy="x"))


def test_names_a_database_refuses(tmp_path: Path) -> None:
    columns = {"energy_per_atom x": [1.5], "Si": [2], "word": ["12"], "id": [3], "fine": ["a b"]}
    data = Dataset.from_atoms([bulk("Si")], columns)
    for ending in ("db", "json"):
        path = tmp_path / f"a.{ending}"
        with open_sink(path) as sink:
            sink(data)
        assert_same(read_all(path), data)
        (row,) = ase.db.connect(path).select()
        assert row.fine == "a b"


def test_foreign_groups_one_after_the_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "md.h5", "w") as handle:
        for name, count in (("a", 4), ("b", 3)):
            group = handle.create_group(f"md/{name}")
            group["coord"] = rng.normal(0, 1, (count, 2, 3))
            group["z"] = [1, 8]
            group["energy"] = np.arange(count)
            group["forces"] = rng.normal(0, 1, (count, 2, 3))
        handle["md/b/forces"].attrs["units"] = "kcal/mol/Å"
        positions = np.concatenate([handle[f"md/{n}/coord"][...] for n in "ab"])
    names = GroupNames(("md/a", "/md/b"), "coord", pbc=False)
    path = tmp_path / "md.h5"
    data = read_all(path, names=names)
    np.testing.assert_array_equal(data.positions, positions.reshape(-1, 3))
    np.testing.assert_array_equal(data.energy, [0, 1, 2, 3, 0, 1, 2])
    assert np.isnan(data.forces[8:]).all() and not np.isnan(data.forces[:8]).any()
    assert Source(path, names=names).count() == 7
    part = read_all(path, names=names, wanted=FrameRange(2, 6, 3))
    np.testing.assert_array_equal(part.positions, positions[[2, 5]].reshape(-1, 3))
    for changed, keys, message in (
        (GroupNames(("md/c",)), LabelKeys(), "has no group 'md/c'; it holds: md/"),
        (names, LabelKeys(forces="forces"), r"forces has shape \(3, 2, 3\) and unit 'kcal/mol/Å'"),
        (names, LabelKeys(energy="e"), "has no dataset 'e'"),
        (names, LabelKeys(stress="s"), "stresses of other programs' files are not read"),
    ):
        with pytest.raises(AutopipeError, match=message):
            read_all(path, names=changed, keys=keys)


def test_any_format_that_ase_knows(tmp_path: Path) -> None:
    write(tmp_path / "POSCAR", bulk("Si"))
    assert Source(tmp_path / "POSCAR").count() == 1
    assert read_all(tmp_path / "POSCAR").elements == ["Si"]
    assert format_of(Path("a.XYZ.gz")) == "extxyz" and format_of(Path("a")) is None


GOOD = '1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nSi 0 0 0\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.extxyz", "", "'.*a.extxyz' is empty"),
        ("a.extxyz", "\n\n", "contains no structures"),
        ("a.extxyz", GOOD + GOOD[:-9], "frame 1: the file ends after 0 of its 1 atoms"),
        ("a.extxyz", GOOD + "hello\n", "frame 1: expected a number of atoms, not 'hello'"),
        ("a.extxyz", GOOD + "0\n\n", "frame 1: it has no atoms"),
        (
            "a.extxyz",
            GOOD + GOOD.replace("0 0\n", "nan 0\n"),
            "Structure 1 has NaN or infinite pos",
        ),
        ("a.extxyz", GOOD + GOOD.replace("Si 0", "Qq 0"), "frame 1: 'Qq' is no chemical symbol"),
        ("a.extxyz", GOOD.replace("0 0\n", "0\n"), "frame 0: the line of atom 0 has 3 values"),
        ("a.extxyz", GOOD.replace("0 0\n", "0 x\n"), "frame 0 cannot be read: .*'x'"),
        ("a.extxyz", GOOD.replace("pos:R:3", "pos:R"), "frame 0: Properties=.* is not NAME:TYPE"),
        ("a.extxyz", GOOD.replace("pos:R", "poz:R"), "has no positions or no species"),
        ("a.extxyz", GOOD.replace(' 4"', '"'), "frame 0 cannot be read"),
        ("a.extxyz", GOOD.replace('"4 0', '"0 0'), "Structure 0 is periodic but its cell has no"),
        ("a.extxyz", b"1\n\xff\xfe\nSi 0 0 0\n", "frame 0: .* is not a text file"),
        ("a.traj", "hello", "is not an ASE trajectory"),
        ("a.db", "hello", "is not an ASE database|cannot be read as an ASE database"),
        ("a.json", "[1, 2]", "cannot be read as an ASE database"),
        ("a.h5", "hello", "is not a readable HDF5 file"),
        ("a.cif", "hello", "cannot be read as structures"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=message) as caught:
        read_all(path)
    assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("ending", ["h5", "extxyz", "traj", "db"])
def test_truncated_files(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"data.{ending}", Dataset.from_atoms(structures()))
    content = path.read_bytes()
    for part in (0.2, 0.6, 0.95):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(DataError, match=rf"data\.{ending}"):
            read_all(path)


def test_ranges() -> None:
    assert frame_range("2:10:3", 2) == FrameRange(2, 10, 6)
    assert frame_range(None) == frame_range(":") == FrameRange()
    assert [i for i in range(20) if i in FrameRange(2, 10, 3)] == [2, 5, 8]
    for text in ("3", "a:", "-1:", "1:2:3:4", "::0"):
        with pytest.raises(InputError, match="slice"):
            frame_range(text)


def test_an_empty_range(tmp_path: Path) -> None:
    for ending in ("h5", "extxyz", "traj"):
        path = written(tmp_path / f"data.{ending}", Dataset.from_atoms(structures()))
        with pytest.raises(InputError, match="in the range"):
            read_all(path, wanted=FrameRange(start=100))


@pytest.mark.parametrize("ending", ["h5", "extxyz"])
def test_memory_does_not_grow(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "BLOCK_FRAMES", 50)
    data = Dataset.from_atoms([bulk("Si", a=5.4 + 1e-3 * k) for k in range(200)])
    peaks = []
    for repeats in (1, 6):
        path = tmp_path / f"{repeats}.{ending}"
        with open_sink(path) as sink:
            for _ in range(repeats):
                sink(data)
        tracemalloc.start()
        with open_sink(tmp_path / "out.extxyz") as sink:
            for block in Source(path).blocks():
                sink(block.data)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # A thousand frames more: of a file of ours only the offsets are in memory.
    assert peaks[1] - peaks[0] < 64 * 1000
    assert len(read_dataset(tmp_path / "out.extxyz")) == 1200
