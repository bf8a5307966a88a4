"""`mlip-auto validate`: two calculators on the same structures, and what is refused."""

import json
from pathlib import Path

import pytest

from aiida_autopipe.cli.main import invoke
from tests.reference.copper import copper_potential

EMT = "ase.calculators.emt.EMT"


def test_a_potential_against_a_calculator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copper_potential().save(tmp_path / "cu")
    names = ["bulk_modulus", "eos_curve", "phonon_frequencies", "nve_stability"]
    options = [text for name in names for text in ("--property", name)]
    options += ["--set", "simulation_steps=100", "--set", "phonon_supercell=[2, 2, 2]"]
    options += ["--protocol", "fast", "--json", str(tmp_path / "out.json")]
    command = ["validate", str(tmp_path / "cu.yace"), "--material", "Cu", "--against", EMT]
    assert invoke([*command, *options]) == 0
    printed = capsys.readouterr().out
    assert "4 of 4 properties passed." in printed
    assert "at most" in printed and "over 8 wave vectors" in printed
    found = json.loads((tmp_path / "out.json").read_text())
    assert [row["name"] for row in found["validation"]] == names
    assert all(row["checked"] and row["passed"] for row in found["validation"])
    assert found["validation"][0]["reference"] == pytest.approx(134, abs=3)
    assert [plot["name"] for plot in found["plots"]] == names[1:]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--property", "phonon_frequency"], "did you mean 'phonon_frequencies'"),
        (["--set", "eos_points=3"], "validate.eos_points: 3 must be"),
        (["--set", "eos_points"], "must be KEY=VALUE"),
        (["--set", "eos_point=7"], "did you mean 'eos_points'"),
        (["--material", "H2O"], "goal: 'elastic' is for"),
        (["--material", "Si"], "gives no forces of Si"),
    ],
)
def test_refused_in_one_sentence(
    options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["validate", EMT, "--material", "Cu", "--against", "ase.calculators.lj.LennardJones"]
    assert invoke([*command, *options]) == 1
    assert expected in capsys.readouterr().err
