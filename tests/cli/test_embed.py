"""`mlip-auto embed` on files."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from aiida_autopipe.cli.main import invoke


@pytest.fixture
def frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    atoms = bulk("Cu", cubic=True, a=3.6).repeat(6)
    atoms.rattle(0.05, rng=np.random.default_rng(0))
    write("frame.extxyz", [bulk("Cu"), atoms])
    write("crystal.extxyz", bulk("Cu", a=3.6))
    write("other.extxyz", bulk("Cu", "bcc", a=2.9))
    return Path("frame.extxyz")


def test_a_cell_and_what_is_known_of_it(frame: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["embed", str(frame), "--atom", "9", "--radius", "3", "--buffer", "4.2"]
    assert invoke([*command, "-o", "cell.extxyz", "--json", "cell.json"]) == 0
    told = capsys.readouterr().out
    assert "256 of 864 atoms in a cube; 13 in the core have force_mask 1." in told
    atoms = read("cell.extxyz")
    assert len(atoms) == 256 and atoms.arrays["force_mask"].sum() == 13
    assert atoms.info["origin"] == "embed" and atoms.arrays["source_index"][0] == 9
    written = json.loads(Path("cell.json").read_text())
    assert written["cell"] == "cube" and written["core"] == 13 and not written["odd_electrons"]
    assert (
        invoke([*command, "-o", "cell.extxyz", "--crystal", "crystal.extxyz", "--json", "-"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["cell"] == "lattice"
    assert invoke([*command, "-o", "cell.extxyz", "--crystal", "other.extxyz"]) == 0
    assert "no supercell of 'other.extxyz'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--atom": "900"}, "There is no atom 900 in a frame of 864 atoms"),
        ({"--radius": "-3"}, "The radius is -3.0 Å"),
        ({"--index": "2"}, "'frame.extxyz' has no structure 2: it holds 2."),
        ({"-o": "cell.cif"}, "must end in .extxyz"),
        ({"-o": "none/cell.extxyz"}, "The folder 'none' of the output does not exist."),
        ({"--crystal": "none.cif"}, "There is no file 'none.cif'."),
        ({"--potential": "none.yace"}, "none.yace"),
    ],
)
def test_wrong_requests_are_one_sentence(
    frame: Path, change: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--atom": "0", "--radius": "3", "--buffer": "4", "-o": "cell.extxyz", **change}
    assert invoke(["embed", str(frame), *(word for pair in given.items() for word in pair)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and error.count("\n") == 1 and message in error
    assert not Path("cell.extxyz").exists()
