"""`mlip-auto fit` on files: a potential, its metrics, and one sentence for bad files."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write

from aiida_autopipe.cli.main import invoke
from aiida_autopipe.core.ace.posterior import load_posterior
from aiida_autopipe.core.ace.potential import ACEPotential

POTENTIALS = Path(__file__).parents[1] / "core" / "ace" / "data"
MORE = ["--candidates-per-function", "2"]
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
    text = capsys.readouterr().out
    assert "meV/atom" in text and "Uncertainty, committee: Only" in text
    answer = json.loads(report.read_text())
    # 16 forces are too few for thresholds, and it is said.
    assert "at least 50 of 4" in answer["calibration"]["gamma"]["note"]
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


@pytest.fixture(scope="module")
def base(train: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A potential fitted with about every option, and the JSON of its fit."""
    folder = tmp_path_factory.mktemp("base")
    arguments = ["fit", str(train), "-o", str(folder / "cu.yace"), *FAST, "--threads", "1"]
    arguments += ["--committee", "2", "--posterior", "--zbl", "--json", str(folder / "fit.json")]
    assert invoke(arguments) == 0
    return folder / "cu.yace", json.loads((folder / "fit.json").read_text())


def test_files_of_committee_posterior_and_repulsion(base: tuple[Path, dict[str, Any]]) -> None:
    path, answer = base
    names = [f"cu{suffix}" for suffix in (".yace", ".yaml", ".asi", ".in", ".posterior.npz")]
    names += [f"cu-committee-{n}{s}" for n in (1, 2) for s in (".yace", ".yaml", ".in")]
    assert [Path(name).name for name in answer["files"]] == names
    assert {file.name for file in path.parent.iterdir()} == {*names, "fit.json"}
    assert answer["settings"]["threads"] == 1
    settings = answer["settings"]
    assert 0 < settings["zbl_inner"] < settings["zbl_outer"] < 2.5
    assert "zbl" in path.with_suffix(".in").read_text()

    potential = ACEPotential.load(path)
    assert potential.zbl is not None and potential.zbl.outer == settings["zbl_outer"]
    members = [ACEPotential.load(path.with_name(f"cu-committee-{n}.yace")) for n in (1, 2)]
    atoms = copper(1, 5)[0]
    energies = [p.evaluate(atoms).energy for p in (potential, *members)]
    spread = load_posterior(path, potential).uncertainty(potential.basis, atoms).energy
    assert len(set(energies)) == 3
    assert np.abs(np.diff(energies)).max() < 10 * spread


def test_threads_and_time_do_not_change_the_result(
    base: tuple[Path, dict[str, Any]], train: Path, tmp_path: Path
) -> None:
    arguments = ["fit", str(train), "-o", str(tmp_path / "cu.yace"), *FAST, "--zbl"]
    assert invoke([*arguments, "--threads", "2", "--time-limit", "1000"]) == 0
    assert (tmp_path / "cu.yaml").read_bytes() == base[0].with_suffix(".yaml").read_bytes()


def test_triangular_factors_give_the_same_errors(
    base: tuple[Path, dict[str, Any]], train: Path, tmp_path: Path
) -> None:
    report = tmp_path / "fit.json"
    chosen = base[1]["settings"]
    arguments = ["fit", str(train), "-o", str(tmp_path / "cu.yace"), *FAST, "--zbl"]
    for name in ("energy_weight", "stress_weight", "regularisation", "smoothness"):
        arguments += [f"--{name.replace('_', '-')}", repr(chosen[name])]
    assert invoke([*arguments, "--solver", "qr", "--json", str(report)]) == 0
    answer = json.loads(report.read_text())
    assert answer["settings"]["solver"] == "qr"
    assert answer["train"] == pytest.approx(base[1]["train"], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "ended"),
    [
        (["--search", "2"], "the number of candidates was reached"),
        (["--time-limit", "0"], "the time limit was reached"),
        # Where there is time for it.
        (["--search", "2", *MORE], "the number of candidates was reached"),
        (["--time-limit", "0", *MORE], "the time limit was reached"),
    ],
)
def test_the_search_ends_when_it_is_told_to(
    train: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    ended: str,
) -> None:
    report = tmp_path / "fit.json"
    arguments = ["fit", str(train), "-o", str(tmp_path / "cu.yace"), "--max-rank", "2"]
    arguments += ["--functions", "10", "--json", str(report)]
    assert invoke([*arguments, *options]) == 0
    chosen = json.loads(report.read_text())["settings"]
    more = "--search" in options and MORE[0] in options
    assert len(chosen["candidates"]) == (1 if "--search" not in options else 3 if more else 2)
    assert chosen["chosen_from"] == (20 if more else 10)
    assert chosen["n_functions"] == 10
    assert chosen["search_ended"] == ended
    shown = capsys.readouterr()
    assert ended in shown.out
    assert ("10 functions per element (10 of 20)" in shown.out) == more
    assert len(shown.err.splitlines()) == len(chosen["candidates"])


def test_a_fit_starts_from_a_prior(
    base: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Labels of another method, here twice the energies and forces, on few structures."""
    for name, seed in (("few", 7), ("test", 8)):
        other = copper(4, seed)
        for atoms in other:
            atoms.info = {"energy": 2 * atoms.info["energy"]}
            atoms.arrays["forces"] = 2 * atoms.arrays["forces"]
        write(tmp_path / f"{name}.extxyz", other, format="extxyz")
    arguments = ["fit", str(tmp_path / "few.extxyz"), "--prior", str(base[0]), "--json", "-"]
    arguments += ["-o", str(tmp_path / "cu.yace"), "--test", str(tmp_path / "test.extxyz")]
    assert invoke(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["settings"]["search_ended"] == "the basis is that of the prior"
    assert answer["settings"]["zbl_outer"] == base[1]["settings"]["zbl_outer"]
    for part in ("train", "test"):
        assert answer[part]["forces_mae"] < 0.1 * answer[f"prior_{part}"]["forces_mae"]
    assert ACEPotential.load(tmp_path / "cu.yace").basis.functions == (
        ACEPotential.load(base[0]).basis.functions
    )


def test_priors_that_cannot_be_used(
    base: tuple[Path, dict[str, Any]],
    train: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = tmp_path / "alone.yace"
    alone.write_bytes(base[0].read_bytes())
    gold = Atoms("Au", cell=[2.5, 2.5, 2.5], pbc=True)
    gold.info["energy"] = 1.0
    write(tmp_path / "gold.extxyz", [*copper(1, 0), gold], format="extxyz")
    for file, prior, more, message in (
        (train, alone, [], "put the B-basis file 'alone.yaml' beside it"),
        (train, POTENTIALS / "Cu_fs.yaml", [], "Cu has 2 densities with the exponents [1.0, 0.5]"),
        (train, base[0], ["--cutoff", "5"], "cutoff cannot be given with a prior"),
        (train, tmp_path / "none.yace", [], "none.yace"),
        (train, train, [], "ends in .yace or .yaml"),
        (tmp_path / "gold.extxyz", base[0], [], "contains Au, but the prior knows only Cu"),
    ):
        arguments = ["fit", str(file), "--prior", str(prior), "-o", str(tmp_path / "x.yace")]
        assert invoke([*arguments, *more]) == 1
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1
        assert not (tmp_path / "x.yace").exists()


def test_ctrl_c_ends_in_one_line_and_leaves_no_file(train: Path, tmp_path: Path) -> None:
    # Where the tests run in the background, a shell has them ignore the signal.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from aiida_autopipe.cli.main import main; main()"
    )
    many = tmp_path / "many.extxyz"
    write(many, copper(60, 0), format="extxyz")
    folder = tmp_path / "out"
    folder.mkdir()
    command = [sys.executable, "-c", code, "fit", str(many), "-o", str(folder / "cu.yace")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("cutoff ")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130
    lines = [line for line in rest.splitlines() if line and not line.startswith("cutoff ")]
    assert lines == ["Interrupted."]
    assert not list(folder.iterdir())


HEADER = (
    'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3:forces:R:{n} energy={e} pbc="T T T"'
)
ONE = "1\n" + HEADER.format(n=3, e="1.0") + "\nCu 0 0 0 0 0 0\n"


def pair(place: str, energy: float) -> str:
    """Two atoms, the second one at a place."""
    return "2\n" + HEADER.format(n=3, e=energy) + f"\nCu 0 0 0 0 0 0\nCu {place} 0 0 0\n"


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
        ("1\n" + HEADER.format(n=3, e="1.0") + "\nXx 0 0 0 0 0 0\n", "'Xx'"),
        (ONE + pair("0 0 0", 2.0), "': Structure 1: Atoms 0 and 1 are less than"),
        (2 * ONE + pair("0 0 2", 1e7), "': Structure 2 has an energy 5e+06 eV/atom above"),
        (ONE + ONE.replace("0 0 0\n", "0 0 1\n"), "': Structures 0 and 1 are the same"),
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
        (["TRAIN", "--json", "."], "the JSON file '.' is a folder"),
        (["TRAIN", "-o", "folder.yace"], "the output 'folder.yace' is a folder"),
        (["TRAIN", "-o", "/proc/x.yace"], "the folder '/proc' of the output cannot be written"),
        (["TRAIN", "--cutoff", "-1"], "cutoff is -1.0; it must be between 1 and 20"),
        (["TRAIN", "--functions", "0"], "max_functions is 0"),
        (["TRAIN", "--search", "0"], "search is 0"),
        (["TRAIN", "--time-limit", "-1"], "time_limit is -1.0"),
        (["TRAIN", "--threads", "0"], "threads is 0"),
        (["TRAIN", "--test", "spot.extxyz"], "The test set cannot be used: Structure 0: Atoms 0"),
        (["TRAIN", "--reference-energies", "empty.yaml"], "needs at least 'Si: -107.2'"),
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
    Path("empty.yaml").write_text("")
    Path("folder.yace").mkdir()
    Path("spot.extxyz").write_text(pair("0 0 0", 1.0))
    assert invoke(["fit", *(str(train) if a == "TRAIN" else a for a in arguments)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cutof", "4"], "Did you mean --cutoff?"),
        (["--cutoff", "wide"], "'wide' is not a valid float"),
        (["--solver", "lu"], "'lu' is not one of 'normal', 'qr'"),
        (["--committee", "0"], "0 is not in the range"),
    ],
)
def test_wrong_command_lines(
    train: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert invoke(["fit", str(train), *arguments]) == 2
    assert message in capsys.readouterr().err


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
