"""`mlip-auto describe` on files as other programs leave them, and one sentence for bad input."""

import json
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from aiida_autopipe.cli.main import invoke
from aiida_autopipe.core.dataset import Dataset
from tests.core.descriptors.mace_models import save_model

ACE = ["--descriptor", "ace", "--functions", "12", "--r-cut", "4", "--max-rank", "2"]


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Two trajectories of silicon and a structure of silicon carbide, with names of their own."""
    monkeypatch.chdir(tmp_path)
    silicon = bulk("Si", cubic=True)
    noise = np.random.default_rng(1).normal(scale=0.1, size=(2, 4, 8, 3))
    carbide = bulk("SiC", "zincblende", a=4.36)
    with h5py.File("md.h5", "w") as file:
        for name, shifts in zip(("runs/cold", "runs/hot"), noise, strict=True):
            file[f"{name}/xyz"] = silicon.positions + shifts
            file[f"{name}/species"] = np.array([b"Si"] * 8)
            file[f"{name}/box_vectors"] = silicon.cell.array
        file["relaxed/positions"] = carbide.positions
        file["relaxed/numbers"] = carbide.numbers
        file["relaxed/cell"] = carbide.cell.array
    return tmp_path / "md.h5"


def describe(*arguments):
    return invoke(["describe", *map(str, arguments)])


NAMES = ["--positions", "xyz", "--cell", "box_vectors"]


def test_pattern_of_groups_with_names_of_their_own(path, capsys):
    arguments = [path, "--key", "runs/*", *NAMES, *ACE, "--average", "--json", "-"]
    assert describe(*arguments, "--threads", 2) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out)["groups"] == [
        {"key": f"/{name}", "dataset": f"/{name}/ace", "shape": [4, 12], "structures": 4,
         "written": True}
        for name in ("runs/cold", "runs/hot")
    ]  # fmt: skip
    with h5py.File(path) as file:
        settings = json.loads(file["runs/hot/ace"].attrs["settings"])
        assert (settings["elements"], settings["cutoff"]) == (["Si"], 4.0)
        assert np.abs(file["runs/hot/ace"][...]).max() > 0.1
    before = path.read_bytes()
    assert describe(path, "--key", "runs/*", *NAMES, *ACE, "--average") == 0
    assert "there already; nothing was changed" in capsys.readouterr().out
    assert path.read_bytes() == before
    assert describe(path, "--key", "runs/hot", *NAMES, *ACE) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert describe(path, "--key", "runs/hot", *NAMES, *ACE, "--overwrite", "--float32") == 0
    assert "/runs/hot/ace: 4 x 8 x 12 features of 4 structures" in capsys.readouterr().out


def test_dataset_file_of_ours_needs_no_key(tmp_path, capsys):
    path = tmp_path / "pool.h5"
    Dataset.from_atoms([bulk("Si"), bulk("Si", cubic=True)]).write_hdf5(path)
    assert describe(path, *ACE, "--name", "basis") == 0
    assert "/features/basis: 10 x 12 features" in capsys.readouterr().out


def test_mace_model(path, tmp_path, capsys):
    model = save_model(tmp_path / "small.model")
    arguments = [path, "--key", "relaxed", "--descriptor", "mace", "--model", model]
    assert describe(*arguments) == 1
    assert "--trust" in capsys.readouterr().err
    arguments += ["--trust", "--device", "cpu"]
    assert describe(*arguments, "--layers", "1", "--name", "first", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["groups"][0]["shape"] == [2, 4]
    assert describe(*arguments) == 0
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["relaxed/mace"][:, :4], file["relaxed/first"], atol=1e-12)


def test_aiida_is_not_imported(path):
    code = (
        "import sys; from aiida_autopipe.cli.main import invoke; status = invoke(sys.argv[1:]); "
        "sys.exit(status or 'aiida' in sys.modules or 'torch' in sys.modules)"
    )
    arguments = ["describe", str(path), "--key", "relaxed", *ACE]
    assert subprocess.run([sys.executable, "-c", code, *arguments]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["md.h5", *ACE], "Say with --key .*; groups with structures: /relaxed"),
        (["md.h5", *ACE, "--key", "nothing"], "no group '/nothing'; .* it holds: relaxed/, runs/"),
        (["md.h5", *ACE, "--key", "x*"], "No group .* matches 'x\\*'"),
        (["md.h5", *ACE, "--key", "runs/hot"], "no positions under a usual name"),
        (["md.h5", *ACE, "--key", "relaxed", "--elements", "Cu"], "knows only Cu"),
        (["md.h5", *ACE, "--key", "relaxed", "--n-max", "3"], "no setting of the .* 'ace'"),
        (["md.h5", *ACE, "--key", "relaxed", "--no-pbc", "--pbc", "p"], "give one"),
        (["md.h5", "--key", "relaxed", "--descriptor", "mace"], "--model"),
        (["md.h5", *ACE, "--key", "relaxed", "--layers", "x"], "whole numbers"),
        (["si.extxyz", *ACE], "mlip-auto data convert si.extxyz si.h5"),
        (["none.h5", *ACE], "no file 'none.h5'"),
        (["text.h5", *ACE], "not a readable HDF5 file"),
    ],
)
def test_bad_input_in_one_sentence(path, arguments, message, capsys):
    write("si.extxyz", bulk("Si"))
    (path.parent / "text.h5").write_text("hello")
    before = path.read_bytes()
    assert describe(*arguments) == 1
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert re.search(message, captured.err)
    assert path.read_bytes() == before
