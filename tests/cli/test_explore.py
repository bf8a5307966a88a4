import json
import subprocess
import sys

import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

from aiida_autopipe.cli.main import invoke
from aiida_autopipe.core.dataset import Dataset

EMT = "ase.calculators.emt.EMT"


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.extxyz"
    write(path, [bulk("Cu", cubic=True), bulk("Cu") * (1, 1, 2)])
    return path


def explore(*words):
    return invoke(["explore", *map(str, words)])


def test_frames_table_selection_and_json(pool, tmp_path, capsys):
    output, result = tmp_path / "frames.h5", tmp_path / "out.json"
    known = tmp_path / "known.extxyz"
    write(known, bulk("Cu", a=3.7, cubic=True))
    status = explore(
        pool, "-o", output, "--surrogate", EMT, "--steps", 20, "--every", 5, "--pressures", "0,5",
        "--select", 3, "--known", known, "--json", result,
    )  # fmt: skip
    told = capsys.readouterr().out
    assert status == 0
    assert "24 frames of 6 trajectories" in told and "rejected: a force above the limit" in told
    assert len(Dataset.read_hdf5(output)) == 24
    summary = json.loads(result.read_text())
    assert summary["frames"] == 24 and summary["rejected"]["force"] == 0
    assert summary["selection"]["n"] == 3
    chosen = read(tmp_path / "frames-selected.extxyz", ":")
    assert len(chosen) == 3 and all(atoms.calc is None for atoms in chosen)
    assert chosen[0].info["origin"] == "explore"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--surrogate", "chgnt"], "did you mean 'chgnet'"),
        (["--surrogate", "no.model"], "There is no model file 'no.model'"),
        (["--surrogate", EMT, "--steps", "0"], "steps must be a whole number"),
        (["--surrogate", EMT, "--temperatures", "-5"], "positive number of K"),
        (["--surrogate", EMT, "--temperatures", "hot"], "give numbers"),
        (["--surrogate", EMT, "--keywords", "{"], "--keywords is not JSON"),
        (["--surrogate", EMT, "--select", "0"], "at least one frame must be chosen"),
        (["--surrogate", EMT, "--method", "best"], "no selection method 'best'"),
    ],
)
def test_errors_are_one_sentence(pool, tmp_path, capsys, words, message):
    assert explore(pool, "-o", tmp_path / "frames.h5", *words) == 1
    told = capsys.readouterr().err.strip()
    assert message in told and "\n" not in told and told.startswith("Error: ")


def test_places_that_cannot_be_used(pool, tmp_path, capsys):
    assert explore(pool, "-o", tmp_path / "no" / "frames.h5", "--surrogate", EMT) == 1
    assert explore(pool, "-o", tmp_path / "frames.xyz", "--surrogate", EMT) == 1
    told = capsys.readouterr().err
    assert "does not exist" in told and "ends in .h5" in told


def test_an_element_chgnet_does_not_know_and_a_molecule(tmp_path, capsys):
    write(tmp_path / "am.extxyz", Atoms("Am", cell=[4, 4, 4], pbc=True))
    write(tmp_path / "n2.extxyz", Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]))
    for name in ("am", "n2"):
        words = (tmp_path / f"{name}.extxyz", "-o", tmp_path / "f.h5", "--surrogate", "chgnet")
        assert explore(*words) == 1
    told = capsys.readouterr().err
    assert "contains Am, which the surrogate 'chgnet' does not know" in told
    assert "not periodic in three directions" in told


def test_aiida_is_not_imported(pool, tmp_path):
    program = (
        "import sys; from aiida_autopipe.cli.main import invoke; "
        f"assert invoke(['explore', {str(pool)!r}, '-o', {str(tmp_path / 'f.h5')!r}, "
        f"'--surrogate', {EMT!r}, '--steps', '5', '--every', '5']) == 0; "
        "assert 'aiida' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
