"""`mlip-auto fit` on files: a potential, its metrics, and one sentence for bad files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write

from aiida_autopipe.cli.main import invoke
from aiida_autopipe.core.ace.potential import ACEPotential

FAST = ["--cutoff", "4.0", "--max-rank", "2", "--functions", "20", "--seed", "1"]
ERRORS = {
    "energy_mae_per_atom", "energy_rmse_per_atom", "forces_mae", "forces_rmse", "stress_mae"
}  # fmt: skip


def copper(n: int, seed: int) -> list[Atoms]:
    """Rattled and strained copper with the labels of effective medium theory."""
    rng = np.random.default_rng(seed)
    structures = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array * (1 + rng.uniform(-0.03, 0.03)), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.05, (4, 3))
        atoms.calc = EMT()
        labelled = atoms.copy()
        labelled.info["energy"] = atoms.get_potential_energy()
        labelled.arrays["forces"] = atoms.get_forces()
        labelled.info["stress"] = atoms.get_stress()
        structures.append(labelled)
    return structures


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training structures."""
    path = tmp_path_factory.mktemp("data") / "train.extxyz"
    write(path, copper(12, 0), format="extxyz")
    return path


@pytest.fixture
def test_file(tmp_path: Path) -> Path:
    """Structures the fit does not see."""
    path = tmp_path / "test.extxyz"
    write(path, copper(4, 1), format="extxyz")
    return path


def test_fit_writes_a_potential_and_its_metrics(
    train: Path, test_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, report = tmp_path / "cu.yace", tmp_path / "metrics.json"
    arguments = ["fit", str(train), "--test", str(test_file), "-o", str(output), *FAST]
    assert invoke([*arguments, "--json", str(report)]) == 0
    assert "meV/atom" in capsys.readouterr().out
    answer = json.loads(report.read_text())
    for part in ("train", "validation", "test"):
        assert set(answer[part]) == ERRORS
    assert answer["settings"]["cutoff"] == 4.0
    assert answer["seed"] == 1
    assert answer["seconds"] > 0
    assert answer["test"]["energy_mae_per_atom"] < 0.01
    assert all(Path(name).is_file() for name in answer["files"])
    assert ACEPotential.load(output).elements == ["Cu"]
    again = tmp_path / "again.json"
    assert invoke([*arguments, "--json", str(again)]) == 0
    assert json.loads(again.read_text())["test"] == answer["test"]


def test_reference_energies_and_other_keys(
    train: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = []
    for atoms in read(train, ":"):
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
        atoms.info["my_energy"] = energy
        atoms.arrays["my_forces"] = forces
        renamed.append(atoms)
    path = tmp_path / "renamed.extxyz"
    write(path, renamed, format="extxyz")
    (tmp_path / "e0.yaml").write_text("Cu: 3.5\n")
    arguments = ["fit", str(path), "-o", str(tmp_path / "cu.yace"), *FAST, "--json", "-"]
    arguments += ["--reference-energies", str(tmp_path / "e0.yaml")]
    assert invoke(arguments) == 1
    assert "has no labels" in capsys.readouterr().err
    assert invoke([*arguments, "--energy-key", "my_energy", "--forces-key", "my_forces"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["reference_energies"] == {"Cu": 3.5}
    assert answer["train"]["stress_mae"] is None
    assert invoke([*arguments, "--energy-key", "typo"]) == 1
    assert "has no energy under the key 'typo'" in capsys.readouterr().err


HEADER = (
    'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3:forces:R:{n} energy={e} pbc="T T T"'
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("hello\n", "cannot be read"),
        ("1\n" + HEADER.format(n=3, e="nan") + "\nCu 0 0 0 0 0 0\n", "0"),
        ("1\n" + HEADER.format(n=3, e="1.0") + "\nCu 0 0 0 nan 0 0\n", "0"),
        ("1\n" + HEADER.format(n=2, e="1.0") + "\nCu 0 0 0 0 0\n", "shape (1, 2)"),
        ("1\n" + HEADER.format(n=3, e="1.0") + "\nCu nan 0 0 0 0 0\n", "positions"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nCu 0 0 0\n', "no labels"),
    ],
)
def test_bad_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "bad.extxyz").write_text(content)
    assert invoke(["fit", str(tmp_path / "bad.extxyz"), "-o", str(tmp_path / "x.yace")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "x.yace").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.extxyz"], "none.extxyz"),
        (["TRAIN", "-o", "x.txt"], "must end in .yace"),
        (["TRAIN", "-o", "no/x.yace"], "does not exist"),
        (["TRAIN", "--json", "no/x.json"], "does not exist"),
        (["TRAIN", "--max-rank", "9"], "max_rank is 9"),
        (["TRAIN", "--test", "none.extxyz"], "none.extxyz"),
        (["TRAIN", "--reference-energies", "e0.yaml"], "one energy in eV for each element"),
    ],
)
def test_bad_arguments(
    train: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("e0.yaml").write_text("Copper: 1.0\n")
    assert invoke(["fit", *(str(train) if a == "TRAIN" else a for a in arguments)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error


def test_fit_and_evaluate_never_import_aiida() -> None:
    code = (
        "import sys\n"
        "from aiida_autopipe.cli.main import invoke\n"
        "invoke(['fit', 'none.extxyz']); invoke(['evaluate', 'none.yace', 'none.extxyz'])\n"
        "import aiida_autopipe.core.ace.fit\n"
        "print('aiida' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert [line[:7] for line in done.stderr.splitlines()] == ["Error: "] * 2
