"""`mlip-auto select` on real files."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.cli.main import invoke
from aiida_autopipe.core.dataset import Dataset, read_dataset, write_dataset
from aiida_autopipe.core.descriptors.add import add_descriptors
from aiida_autopipe.core.descriptors.soap import SoapDescriptor


def cells(n: int, seed: int) -> Dataset:
    """Rattled and strained cells of silicon, two to four atoms each."""
    rng = np.random.default_rng(seed)
    structures: list[Atoms] = []
    for index in range(n):
        atoms = bulk("Si") * (1, 1, 1 + index % 2)
        atoms.set_cell(atoms.cell * (1 + 0.1 * rng.random()), scale_atoms=True)
        atoms.rattle(0.1 * rng.random(), rng=rng)
        structures.append(atoms)
    return Dataset.from_atoms(structures, columns={"number": list(range(n))})


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "pool.h5"
    write_dataset(cells(40, 0), path)
    soap = SoapDescriptor(("Si",), r_cut=4.0, n_max=3, l_max=2)
    add_descriptors(path, ["/"], soap, name="atoms")
    add_descriptors(path, ["/"], soap, name="means", average=True)
    return path


def numbers(path: Path) -> list[int]:
    return read_dataset(path).columns["number"].tolist()


@pytest.mark.parametrize("method", ["direct", "fps"])
def test_stored_features(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    outputs = []
    for name in ("atoms", "means"):
        out = tmp_path / f"{name}.h5"
        arguments = ["select", str(pool), "-n", "7", "--method", method, "--features", name]
        assert invoke([*arguments, "-o", str(out), "--json", str(tmp_path / "out.json")]) == 0
        outputs.append(numbers(out))
        printed = capsys.readouterr().out
        assert f"7 of 40 structures: {out}" in printed and "within reach" in printed
    assert outputs[0] == outputs[1] and len(set(outputs[0])) == 7
    content = json.loads((tmp_path / "out.json").read_text())
    assert sorted(content["indices"]) == outputs[0]
    assert content["coverage"]["n_pool"] == 40 and content["structures"] == 7
    assert 0 < content["coverage"]["chosen"]["score"] <= 1


def test_environments_and_known_ones(pool: Path, tmp_path: Path) -> None:
    out, page, image = (tmp_path / name for name in ("out.extxyz", "out.html", "out.png"))
    base = ["select", str(pool), "-n", "9", "--per", "environment", "--features", "atoms"]
    assert invoke([*base, "-o", str(out), "--k", "2", "--report", str(page)]) == 0
    chosen = read_dataset(out)
    atoms = [str(text).split() for text in chosen.columns["selected_atoms"]]
    assert sum(map(len, atoms)) == 9
    for mine, size in zip(atoms, chosen.sizes, strict=True):
        assert all(name.startswith("Si") and int(name[2:]) < size for name in mine)
    text = page.read_text()
    assert "pool.h5: 9 by direct" in text and "https://" not in text.split("plotly.js")[0]
    known = [*base, "--known", str(pool), "-o", str(out), "--report", str(image)]
    assert invoke(known) == 1  # everything is known
    half = tmp_path / "half.h5"
    write_dataset(read_dataset(pool)[:20], half)
    soap = SoapDescriptor(("Si",), r_cut=4.0, n_max=3, l_max=2)
    add_descriptors(half, ["/"], soap, name="atoms")
    known[known.index("--known") + 1] = str(half)
    assert invoke(known) == 0
    assert min(numbers(out)) >= 20
    assert image.read_bytes().startswith(b"\x89PNG")


def test_computed_features_without_aiida(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.extxyz"
    assert invoke(["select", str(pool), "-n", "3", "-o", str(out), "--threads", "2"]) == 0
    first = numbers(out)
    other = tmp_path / "pool.extxyz"
    write_dataset(read_dataset(pool), other)
    assert invoke(["select", str(other), "-n", "3", "-o", str(out)]) == 0
    assert numbers(out) == first
    assert "select" in sys.modules["aiida_autopipe.cli.main"].COMMANDS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-n 41 --features means", "Cannot choose 41 of the 40 structures"),
        ("-n 0", "at least one structure"),
        ("-n 3 --method best", "There is no selection method 'best'; known are direct, fps"),
        ("-n 3 --features none", "has no features 'none'; it has: atoms, means"),
        ("-n 3 --features means --per environment", "are means over the atoms of structures"),
        ("-n 3 --features means --descriptor soap", "give one"),
        ("-n 3 --features means --k 0", "k must be at least 1"),
        ("-n 3 --features means --method fps --k 2", "'fps' has no clusters"),
        ("-n 3 --report plot.pdf", "must end in .html or .png"),
        ("-n 3 --model si.txt", "SOAP needs no model file"),
        ("-n 3 --known nowhere.h5", "There is no file 'nowhere.h5'"),
    ],
)
def test_bad_input_is_one_sentence(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, said: str
) -> None:
    out, before = tmp_path / "out.h5", pool.read_bytes()
    assert invoke(["select", str(pool), *options.split(), "-o", str(out)]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not out.exists() and pool.read_bytes() == before


def test_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["select", "nowhere.h5", "-n", "1", "-o", str(tmp_path / "o.h5")]) == 1
    assert invoke(["select", str(tmp_path), "-n", "1", "-o", str(tmp_path / "o.txt")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Error: There is no file 'nowhere.h5'." and "Cannot write" in lines[1]
