"""`mlip-auto evaluate` with MACE models: one, and a committee."""

import json
from pathlib import Path

import pytest

from aiida_autopipe.cli.main import invoke
from aiida_autopipe.core.dataset import write_dataset
from tests.core.descriptors.mace_models import save_model
from tests.engines.mace.small import silicon


@pytest.fixture(scope="module")
def mace_models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models with random weights for silicon."""
    folder = tmp_path_factory.mktemp("mace")
    return [save_model(folder / f"{k}.model", "4x0e", (14,), seed=k) for k in range(2)]


def test_a_committee_of_mace_models(
    mace_models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean is evaluated, the spread calibrated with the labels, and decided with."""
    write_dataset(silicon(4), tmp_path / "test.extxyz")
    paths = [str(path) for path in mace_models]
    file, out = str(tmp_path / "test.extxyz"), str(tmp_path / "out.json")
    given = ["evaluate", *paths, file, "--json", out]
    assert invoke(given) != 0
    assert "allow it with --trust" in capsys.readouterr().err
    assert invoke([*given, "--trust", "--known-below", "0.5"]) == 0
    assert "from the labels of the file" in capsys.readouterr().out
    answer = json.loads(Path(out).read_text())
    assert answer["committee"]["calibration"]["n_forces"] == 8
    for one in answer["structures"]:
        assert one["uncertainty"] == max(one["force_spread"]) > 0
        assert one["decision"] in ("known", "label")
        assert one["energy_std"] > 0
    assert answer["errors"]["forces_mae"] > 0
    assert invoke([*given, "--trust", "--scale", "1.0"]) == 0
    raw = json.loads(Path(out).read_text())
    assert raw["committee"] == {"scale": 1.0, "calibration": None}
    ratio = answer["structures"][0]["uncertainty"] / raw["structures"][0]["uncertainty"]
    assert ratio == pytest.approx(answer["committee"]["scale"])
    assert invoke(["evaluate", paths[0], file, "--json", out, "--trust"]) == 0
    assert "committee" not in json.loads(Path(out).read_text())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a.model", "b.yace", "c.extxyz"], "a committee is made of MACE models"),
        (["a.model", "c.extxyz", "--uncertainty"], "of MACE give several models"),
        (["a.yace", "c.extxyz", "--known-below", "1"], "need several MACE models"),
    ],
)
def test_what_belongs_to_other_potentials(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["evaluate", *given]) != 0
    assert message in capsys.readouterr().err
