"""`mlip-auto generate`: files, table, picture, JSON, and one sentence for bad input."""

import json
import subprocess
import sys

import pytest
from ase.build import molecule
from ase.io import read, write

from aiida_autopipe.cli.main import invoke


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(*arguments):
    return invoke(["generate", *map(str, arguments)])


def test_recipe_of_an_input_file(folder, capsys):
    (folder / "si.yaml").write_text("material: Si\ngoal: elastic\nprotocol: fast\n")
    assert generate("si.yaml", "-o", "pool.extxyz", "--picture", "pool.png") == 0
    out = capsys.readouterr().out
    assert "strain:volumetric" in out and "shortest distance" in out
    frames = read("pool.extxyz", ":")
    assert f"{len(frames)} structures in pool.extxyz" in out
    assert {"rattle", "strain:volumetric"} <= {a.info["origin"] for a in frames}
    assert (folder / "pool.png").read_bytes().startswith(b"\x89PNG")


def test_one_generator_on_an_element(folder, capsys):
    arguments = ["Al", "--generator", "strain", "--set", "volumetric=[0.0, 0.05, 0.05]"]
    arguments += ["--set", "elastic=[]", "--json", "-", "--picture", "pool.html"]
    assert generate(*arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["structures"] == 2
    assert found["origins"][0]["origin"] == "strain:volumetric"
    assert found["origins"][0]["atoms"] == [1, 1]
    assert "plotly" in (folder / "pool.html").read_text()


def test_reaction_from_a_file_and_its_seed(folder, capsys):
    write("reactant.xyz", molecule("CH3Cl"))
    arguments = ["reactant.xyz", "--generator", "reaction_path", "--set", "entering=F"]
    arguments += ["--set", "leaving=Cl", "--set", "charge=-1", "--set", "scan=0"]
    for name, seed in (("a.xyz", 1), ("b.xyz", 1), ("c.xyz", 2)):
        assert generate(*arguments, "-o", name, "--seed", seed) == 0
    assert (folder / "a.xyz").read_bytes() == (folder / "b.xyz").read_bytes()
    assert (folder / "a.xyz").read_bytes() != (folder / "c.xyz").read_bytes()
    assert {a.info["charge"] for a in read("a.xyz", ":")} == {-1}


def test_list(capsys):
    assert generate("--list") == 0
    out = capsys.readouterr().out
    assert "sqs: Special quasirandom structures" in out and "    copies = 2" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Al"], "'Al' is no input file (.yaml): name a --generator"),
        (["Al", "--generator", "strian"], "did you mean 'strain'?"),
        (["Al", "--generator", "strain", "--set", "x"], "must be KEY=VALUE"),
        (["Al", "--generator", "strain", "--set", "n=["], "is no YAML value"),
        (["Al", "--generator", "strain", "--set", "elastc=[1]"], "did you mean 'elastic'?"),
        (["nosuch.cif", "--generator", "strain"], "nosuch.cif"),
        (["Al", "--generator", "strain", "-o", "pool.h5"], "must end in .xyz or .extxyz"),
        (["Al", "--generator", "strain", "--picture", "p.txt"], "must end in .html"),
        (["Al", "--generator", "strain", "-o", "no/pool.xyz"], "'no' of --output does not exist"),
        (["si.yaml", "--generator", "strain"], "has a recipe of its own"),
        (["Al", "--generator", "antisites"], "one element only"),
        (["Al", "--generator", "strain", "--set", "volumetric=[]", "--set", "elastic=[]"], "made"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(arguments, message, capsys):
    assert generate(*arguments) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_without_input_is_a_wrong_command_line(capsys):
    assert generate() == 2
    assert "give INPUT" in capsys.readouterr().err


def test_aiida_is_not_imported():
    code = (
        "import sys; from aiida_autopipe.cli.main import invoke; "
        "invoke(['generate', 'Al', '--generator', 'dimers']); print('aiida' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
