"""`mlip-auto check`: the expanded file, the cost, and one clear sentence for what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiida_autopipe.cli.main import invoke
from aiida_autopipe.config.loading import parse_input

EXAMPLES = Path(__file__).parents[2] / "examples"
SILICON = "material: Si\ngoal: elastic\nprotocol: fast\n"


@pytest.fixture
def silicon(tmp_path: Path) -> Path:
    """An input file."""
    path = tmp_path / "silicon.yaml"
    path.write_text(SILICON)
    return path


def test_output_is_an_input_file_with_the_cost(
    silicon: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["check", str(silicon), "--offline"]) == 0
    captured = capsys.readouterr()
    assert "# DFT calculations at most: 104" in captured.out
    assert "# CPU hours for 92 labels: about " in captured.out
    assert "without past runs to learn from" in captured.out
    assert "Not checked: codes and pseudopotentials" in captured.err
    expanded = silicon.with_name("expanded.yaml")
    expanded.write_text(captured.out)
    assert invoke(["check", str(expanded), "--offline"]) == 0
    again = capsys.readouterr().out
    assert parse_input(again, "x") == parse_input(captured.out, "x")


def test_json(silicon: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["check", str(silicon), "--offline", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["config"]["budget"]["labels"] == 80
    assert answer["max_dft_calculations"]["total"] == 104
    assert answer["initial_structures"] > 0
    assert answer["cost"]["n_labels"] == 92 and answer["cost"]["hours"] > 0
    assert answer["checked_aiida"] is False


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples(example: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert invoke(["check", str(example), "--offline"]) == 0
    text = capsys.readouterr().out
    again = tmp_path / "expanded.yaml"
    again.write_text(text)
    assert invoke(["check", str(again), "--offline"]) == 0
    assert parse_input(capsys.readouterr().out, "x") == parse_input(text, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "material: FeNi\ngoal: melt-quench\n",
            "disordered on fcc, a = 3.569 Å, a cell of 8 atoms",
        ),
        ("material: NaCl\ngoal: surface\n", "rocksalt, a = 5.64 Å (table)"),
        ("material: H2O\ngoal: molecule\n", "H2O, a molecule of 3 atoms"),
    ],
)
def test_the_choices_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "x.yaml").write_text(text + "protocol: fast\n")
    assert invoke(["check", str(tmp_path / "x.yaml"), "--offline"]) == 0
    assert message in capsys.readouterr().out


def test_with_a_profile(
    silicon: Path,
    pw_code: Any,
    lammps_code: Any,
    python_code: Any,
    pz_family: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert invoke(["check", str(silicon)]) == 0
    captured = capsys.readouterr()
    assert "label:" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("material: Sj\ngoal: elastic\n", "unknown element 'Sj'; did you mean 'Si'?"),
        ("material: gone.cif\ngoal: elastic\n", "gone.cif does not exist"),
        ("material: empty.cif\ngoal: elastic\n", "empty.cif is empty"),
        ("material: nan.extxyz\ngoal: elastic\n", "the position of atom 0 is not a number"),
        (SILICON + "md: {temperatures_K: [-300]}\n", "md.temperatures_K[0]: -300 must be greater"),
        (SILICON + "label: {cutof_wfc_Ry: 1}\n", "did you mean 'cutoff_wfc_Ry'?"),
        (SILICON + "budget: {labels: 0}\n", "budget.labels: 0 must be greater than 0"),
        (SILICON + "generate: {max_atoms: 1}\n", "more than max_atoms = 1"),
        ("material: {Fe: 0.5, Ni: 0.4}\ngoal: alloy\n", "add up to 0.9, not to 1"),
        ("material: H2O\ngoal: surface\n", "'surface' is for a crystal or an alloy"),
        ("material: {molecule: H2OX}\ngoal: molecule\n", "ASE knows no molecule 'H2OX'"),
        (SILICON + "generate: {recipe: {ratle: {}}}\n", "did you mean 'rattle'?"),
        ("material: [Si\n", "not valid YAML"),
        ("", "is empty"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "empty.cif").write_text("")
    lattice = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"'
    (tmp_path / "nan.extxyz").write_text(f"1\n{lattice}\nSi 0 nan 0\n")
    (tmp_path / "bad.yaml").write_text(text)
    assert invoke(["check", str(tmp_path / "bad.yaml"), "--offline"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: ") and message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_missing_input_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["check", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml does not exist" in capsys.readouterr().err


def test_without_a_profile_and_without_a_traceback(silicon: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from aiida_autopipe.cli.main import main; main()",
            "check",
            silicon,
        ],
        env={**os.environ, "AIIDA_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "Error: AiiDA has no profile here: type 'mlip-auto setup' to create what is missing"
    ]


@pytest.mark.parametrize("text", [SILICON, "material: {Al: 0.75, Mg: 0.25}\ngoal: alloy\n"])
def test_the_expanded_file_is_the_same_run(
    tmp_path: Path,
    text: str,
    pw_code: Any,
    lammps_code: Any,
    python_code: Any,
    pz_family: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from aiida_autopipe.config.expand import load_config
    from aiida_autopipe.workflows.launch import prepare

    first = tmp_path / "run.yaml"
    first.write_text(text + "md: {interface: library}\nlabel: {pseudopotentials: auto}\n")
    assert invoke(["check", str(first)]) == 0
    (tmp_path / "expanded.yaml").write_text(capsys.readouterr().out)
    one, two = (prepare(*load_config(tmp_path / f"{name}.yaml")) for name in ("run", "expanded"))
    assert one.key == two.key
    assert one.builder.config.get_dict() == two.builder.config.get_dict()
