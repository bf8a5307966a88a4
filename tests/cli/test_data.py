"""`mlip-auto data`, as a user calls it."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from aiida_autopipe.cli.main import invoke
from aiida_autopipe.core.dataset import Dataset, read_dataset


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """20 structures in si.h5."""
    monkeypatch.chdir(tmp_path)
    made = []
    for k in range(20):
        atoms = bulk("Si", a=5.4 + 0.01 * k)
        atoms.info |= {"energy": -8.0 - k, "origin": "md" if k % 4 else "rattle"}
        atoms.arrays["forces"] = np.full((2, 3), 0.1 * k)
        made.append(atoms)
    attributes = {"method": {"fingerprint": "pbe"}, "reference_energies": {"Si": -1.5}}
    Dataset.from_atoms(made, attributes=attributes).write_hdf5("si.h5")
    return tmp_path


def run(*arguments: str) -> int:
    return invoke(["data", *arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 1) -> str:
    """The one line of an error."""
    capsys.readouterr()
    assert run(*arguments) == status
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error
    return error.splitlines()[-1]


def test_info(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File("si.h5", "r+") as handle:
        handle["soap"] = np.zeros((20, 3))
    assert run("info", "si.h5", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_structures"] == 20 and found["layout_version"] == 1
    assert found["method_fingerprint"] == "pbe" and found["other_objects"] == {"soap": [20, 3]}
    assert found["columns"]["origin"]["values"] == {"md": 15, "rattle": 5}
    assert run("info", "si.h5") == 0
    text = capsys.readouterr().out
    for part in ("dataset, layout version 1", "structures   20, 20 of", "Si 40", "md 15", "pbe"):
        assert part in text
    assert "reference energy of Si: -1.500000 eV" in text and "also in the file: soap" in text


def test_convert(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--slice", "2:18", "--every", "2", "--filter", "max_force<2", "--filter", "n_Si=2")
    assert run("convert", "si.h5", "out.extxyz", *arguments, "--filter", "origin=md") == 0
    assert "out.extxyz: 3 structures" in capsys.readouterr().out
    assert [a.get_potential_energy() for a in read("out.extxyz", ":")] == [-10, -14, -18]
    assert run("convert", "si.h5", "again.h5") == 0
    data = read_dataset("again.h5")
    assert data.content_hash() == read_dataset("si.h5").content_hash()
    assert run("convert", "out.extxyz", "frames", "--output-format", "traj") == 0
    assert run("info", "frames", "--format", "traj") == 0
    assert run("convert", "si.h5", "si.h5", "--every", "10") == 0  # onto itself
    assert len(read_dataset("si.h5")) == 2


def test_convert_foreign_groups(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File("run.h5", "w") as handle:
        handle["md/run1/coord"] = np.random.default_rng(0).normal(0, 1, (5, 2, 3))
        handle["md/run1/z"] = [14, 8]
        handle["md/run1/box"] = np.eye(3) * 4
    names = ("--positions", "coord", "--numbers", "z", "--cell", "box")
    assert run("convert", "run.h5", "run.extxyz", "--key", "md/run1", *names) == 0
    assert len(read("run.extxyz", ":")) == 5
    assert "name the group and the dataset (--key" in refused(capsys, "info", "run.h5")
    with h5py.File("run.h5", "r+") as handle:
        del handle["md/run1/box"]
    assert "(--no-pbc)" in refused(capsys, "info", "run.h5", "--key", "md/run1", *names[:4])
    assert run("info", "run.h5", "--key", "md/run1", *names[:4], "--no-pbc") == 0


def test_convert_a_dump(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n0 4\n0 4\n0 4\n"
        "ITEM: ATOMS id type xs ys zs\n1 2 0.5 0 0\n"
    )
    Path("md.dump").write_text(text)
    assert "--elements Si,O" in refused(capsys, "convert", "md.dump", "md.h5")
    assert run("convert", "md.dump", "md.h5", "--elements", "Si, O") == 0
    assert read_dataset("md.h5").elements == ["O"]


def test_what_is_not_kept_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atoms = bulk("Si")
    atoms.set_momenta(np.ones((2, 3)))
    atoms.info["vector"] = np.ones(4)
    write("a.xyz", atoms, format="extxyz")
    assert run("convert", "a.xyz", "a.h5") == 0
    assert "Not kept: momenta, vector" in capsys.readouterr().err


def test_merge(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "si.h5", "part.h5", "--slice", "5:10") == 0
    other = bulk("Ge")
    other.info["temperature"] = 300.0
    write("ge.extxyz", other, format="extxyz")
    assert run("merge", "si.h5", "part.h5", "ge.extxyz", "-o", "all.h5") == 0
    data = read_dataset("all.h5")
    assert len(data) == 26 and data.method_fingerprint == "pbe"
    assert data.columns["temperature"][-1] == 300 and np.isnan(data.columns["temperature"][0])
    capsys.readouterr()
    assert run("merge", "si.h5", "all.h5", "-o", "few.h5", "--no-duplicates") == 0
    assert "Left out 25 duplicates" in capsys.readouterr().out
    assert len(read_dataset("few.h5")) == 21
    read_dataset("part.h5").with_attributes(method={"fingerprint": "lda"}).write_hdf5("lda.h5")
    for target in ("no.h5", "no.extxyz"):
        message = refused(capsys, "merge", "si.h5", "lda.h5", "-o", target)
        assert "different methods (lda, pbe)" in message
        assert not Path(target).exists()


@pytest.mark.parametrize("name", ["si.h5", "si.extxyz"])
def test_split_at_random(folder: Path, name: str) -> None:
    run("convert", "si.h5", "si.extxyz")
    for seed in ("1", "1", "2"):
        split = ("split", name, "--fraction", "0.1", "--seed", seed)
        assert run(*split, "-o", f"train{seed}.h5", f"test{seed}.extxyz") == 0
    train, test = read_dataset("train1.h5"), read_dataset("test1.extxyz")
    assert (len(train), len(test)) == (18, 2)
    assert sorted([*train.energy, *test.energy]) == sorted(-8.0 - np.arange(20))
    assert list(train.energy) == sorted(train.energy, reverse=True)  # the order is kept
    assert list(read_dataset("test2.extxyz").energy) != list(test.energy)


def test_split_by_column(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("parts").mkdir()
    assert run("split", "si.h5", "--by", "origin", "--folder", "parts") == 0
    assert len(read_dataset("parts/si_md.h5")) == 15
    assert len(read_dataset("parts/si_rattle.h5")) == 5
    assert "has no column 'x'; it has: origin" in refused(capsys, "split", "si.h5", "--by", "x")
    odd = read_dataset("si.h5").with_columns(g=[1.5] * 20, n=["a/b", "a b"] * 10)
    odd.write_hdf5("odd.h5")
    assert "real numbers" in refused(capsys, "split", "odd.h5", "--by", "g")
    assert "the same file" in refused(capsys, "split", "odd.h5", "--by", "n")
    assert not list(folder.glob("odd_*"))


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (("info", "none.h5"), "There is no file 'none.h5'", 1),
        (("info", "."), "There is no file '.'", 1),
        (("convert", "si.h5", "o.cif"), "cannot write 'o.cif': use one of the endings", 1),
        (("convert", "si.h5", "none/o.h5"), "the folder 'none' of the result does not exist", 1),
        (("convert", "si.h5", "o.h5", "--slice", "x"), "the slice 'x' must be START:STOP", 1),
        (("convert", "si.h5", "o.h5", "--slice", "50:"), "in the range that was asked for", 1),
        (("convert", "si.h5", "o.h5", "--filter", "x<1"), "there is no 'x' to filter by", 1),
        (("convert", "si.h5", "o.h5", "--filter", "n_atoms>9"), "no structure passes", 1),
        (("convert", "si.h5", "o.h5", "--key", "md"), "has no group 'md'; it holds: cell", 1),
        (("split", "si.h5"), "Give either --fraction or --by", 2),
        (("split", "si.h5", "--fraction", "1.5"), "1.5 is not in the range", 2),
        (("split", "si.h5", "--fraction", "0.5"), "--fraction needs -o REST PART", 2),
        (("split", "si.h5", "--fraction", "0.5", "-o", "a.h5", "a.h5"), "both results would be", 1),
        (("split", "si.h5", "--by", "origin", "--folder", "none"), "there is no folder 'none'", 1),
        (("merge", "si.h5"), "Missing option '-o'", 2),
    ],
)
def test_wrong_input(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
    status: int,
) -> None:
    before = sorted(folder.iterdir())
    assert message in refused(capsys, *arguments, status=status)
    assert sorted(folder.iterdir()) == before


def test_a_damaged_frame_leaves_the_old_result(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("convert", "si.h5", "si.extxyz")
    text = Path("si.extxyz").read_text()
    Path("si.extxyz").write_text(text[:-40])
    for name in ("out.h5", "out.extxyz", "out.traj", "out.db"):
        Path(name).write_text("old")
        message = refused(capsys, "convert", "si.extxyz", name)
        assert "'si.extxyz', frame 19" in message
        assert Path(name).read_text() == "old"
    assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize("name", ["out.h5", "out.extxyz"])
def test_a_full_disk(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        message = refused(capsys, "convert", "si.h5", name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in message and name in message
    assert sorted(path.name for path in folder.iterdir()) == ["si.h5"]


def test_ctrl_c(folder: Path) -> None:
    """A long file is being read when the signal comes."""
    # Shells start background processes with SIGINT ignored.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from aiida_autopipe.cli.main import main; main()"
    )
    command = [sys.executable, "-c", program, "data", "convert", "long.xyz", "out.h5"]
    frame = b'1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nSi 0 0 0\n'
    Path("long.xyz").write_bytes(frame * 200_000)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not Path("out.h5.partial").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130 and error.strip() == "Interrupted."
    assert not Path("out.h5").exists() and not Path("out.h5.partial").exists()


def test_the_data_commands_do_not_import_aiida(folder: Path) -> None:
    program = (
        "import sys; from aiida_autopipe.cli.main import invoke; "
        "status = invoke(['data', 'convert', 'si.h5', 'o.extxyz']); "
        "sys.exit(status or 'aiida' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_help_and_debug(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("info", "convert", "merge", "split"):
        assert run(name, "--help") == 0
        text = capsys.readouterr().out
        assert "Example" in text and "--debug" in text
    with pytest.raises(Exception, match="There is no file"):
        run("info", "none.h5", "--debug")
