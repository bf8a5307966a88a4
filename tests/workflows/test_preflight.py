"""What a run needs from AiiDA: codes that exist, pseudopotentials for every element."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiida_autopipe.cli import setup_profile
from aiida_autopipe.config.expand import expand_with_material
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.workflows.preflight import choose_profile, load_profile, preflight
from aiida_autopipe.workflows.pseudopotentials import resolve_pseudos


def expanded(**sections: Any) -> Any:
    """Configuration and crystal of silicon, or another material."""
    user = {"material": "Si", "goal": "elastic", **sections}
    return expand_with_material(user, Path(), "run")


def test_which_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIIDA_PROFILE", raising=False)
    assert choose_profile([], None) is None
    assert choose_profile(["mine"], "mine") == "mine"
    assert choose_profile(["mine", "autopipe"], "mine") == "autopipe"
    monkeypatch.setenv("AIIDA_PROFILE", "mine")
    assert choose_profile(["mine", "autopipe"], "autopipe") == "mine"


def test_a_loaded_profile_is_kept(aiida_profile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIIDA_PROFILE", "nonsense")
    assert load_profile() == aiida_profile.name


def test_profile_of_the_environment(aiida_profile: Any) -> None:
    """In a process of its own, which has no profile loaded."""
    code = "from aiida_autopipe.workflows.preflight import load_profile; print(load_profile())"

    def load(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "AIIDA_PROFILE": name},
            capture_output=True,
            text=True,
            check=False,
        )

    assert load(aiida_profile.name).stdout == f"{aiida_profile.name}\n"
    assert "AIIDA_PROFILE: AiiDA has no profile 'nonsense'; it has " in load("nonsense").stderr


@pytest.fixture
def codes(pw_code: Any, lammps_code: Any, python_code: Any) -> None:
    """All three codes."""


def test_all_there(codes: None, pz_family: Any) -> None:
    assert preflight(*expanded()) == []


def test_all_problems_at_once(codes: None, pz_family: Any) -> None:
    label = {"code": "nopw@localhost", "pseudopotentials": "SSSP/9"}
    train = {"trainer": "autopipe.acee"}
    problems = preflight(*expanded(label=label, train=train, md={"code": "lammps@cluster"}))
    assert [problem.split(":")[0] for problem in problems] == [
        "train.trainer",
        "label.code",
        "md.code",
        "label.pseudopotentials",
    ]
    assert "no pw.x" in problems[1] and "mlip-auto setup" in problems[1]
    assert "neither a folder nor an installed family" in problems[3]
    assert "autopipe/debian/PZ" in problems[3]


def test_trainer_without_the_ports_of_one(codes: None, pz_family: Any) -> None:
    (problem,) = preflight(*expanded(train={"trainer": "autopipe.lammps"}))
    assert "is no trainer" in problem and "train" in problem


def test_mpi_for_a_serial_code(codes: None, pz_family: Any) -> None:
    resources = {"label": {"num_mpiprocs_per_machine": 2}}
    (problem,) = preflight(*expanded(resources=resources))
    assert problem.startswith("resources.label: 2 MPI processes")


def test_executable_that_has_gone(
    localhost: Any, tmp_path: Path, codes: None, pz_family: Any
) -> None:
    program = tmp_path / "pw.x"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    setup_profile.ensure_code("gone", program, "quantumespresso.pw")
    config = expanded(label={"code": "gone@localhost"})
    assert preflight(*config) == []
    program.unlink()
    (problem,) = preflight(*config)
    assert problem.startswith("label.code: no pw.x") and "not an executable file" in problem


def test_first_family_with_all_elements(pz_family: Any) -> None:
    config, _ = expanded()
    chosen = resolve_pseudos(config, ["Si"])
    assert (chosen.family, chosen.functional) == ("autopipe/debian/PZ", "PZ")
    assert chosen.cutoff_rho_Ry >= 4 * chosen.cutoff_wfc_Ry > 0
    # Germanium has only a PBE file, so the two of them need the PBE set.
    both = resolve_pseudos(config, ["Ge", "Si"])
    assert (both.family, both.functional) == ("autopipe/debian/PBE", "PBE")
    pbe = resolve_pseudos(expanded(label={"functional": "PBE"})[0], ["Si"])
    assert pbe.family == "autopipe/debian/PBE"


def test_user_cutoffs_win(pz_family: Any) -> None:
    config, _ = expanded(label={"cutoff_wfc_Ry": 12.0, "cutoff_rho_Ry": 48.0})
    chosen = resolve_pseudos(config, ["Si"])
    assert (chosen.cutoff_wfc_Ry, chosen.cutoff_rho_Ry) == (12.0, 48.0)
    raised = resolve_pseudos(expanded(label={"cutoff_wfc_Ry": 100.0})[0], ["Si"])
    assert raised.cutoff_rho_Ry >= 400.0


@pytest.mark.parametrize(
    ("label", "elements", "message"),
    [
        ({}, ["Xe"], "no pseudopotential for Xe in the installed families"),
        ({}, ["Al", "Ge"], "no family has pseudopotentials for all of Al, Ge"),
        ({"pseudopotentials": "autopipe/debian/PZ"}, ["Ge"], "has no pseudopotential for Ge"),
        (
            {"pseudopotentials": "autopipe/debian/PZ", "functional": "PBE"},
            ["Si"],
            "are made for 'PZ'",
        ),
        ({"pseudopotentials": "/no/such/folder"}, ["Si"], "the folder /no/such/folder does not"),
    ],
)
def test_no_pseudopotential(
    pz_family: Any, label: dict[str, Any], elements: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        resolve_pseudos(expanded(label=label)[0], elements)


def test_folder_of_files(aiida_profile: Any, pseudo_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "upf"
    folder.mkdir()
    shutil.copy(pseudo_folder / "Si.pz-vbc.UPF", folder)
    label = {"pseudopotentials": str(folder), "cutoff_wfc_Ry": 16.0, "cutoff_rho_Ry": 64.0}
    config, _ = expanded(label=label)
    chosen = resolve_pseudos(config, ["Si"])
    assert chosen.functional == "PZ"
    assert resolve_pseudos(config, ["Si"]) == chosen
    with pytest.raises(InputError, match="no pseudopotential for C in"):
        resolve_pseudos(config, ["C", "Si"])
    with pytest.raises(InputError, match="come without recommended cutoffs"):
        resolve_pseudos(expanded(label={"pseudopotentials": str(folder)})[0], ["Si"])
    table = folder / "cutoffs.yaml"
    table.write_text("Si: {cutoff_wfc_Ry: 22, cutoff_rho_Ry: 88}\n")
    found = resolve_pseudos(expanded(label={"pseudopotentials": str(folder)})[0], ["Si"])
    assert (found.cutoff_wfc_Ry, found.cutoff_rho_Ry) == (22.0, 88.0)
    table.write_text("Si: {cutoff_wfc_Ry: high}\n")
    with pytest.raises(InputError, match="must hold Si: "):
        resolve_pseudos(expanded(label={"pseudopotentials": str(folder)})[0], ["Si"])
    shutil.copy(pseudo_folder / "Si.pbe-rrkj.UPF", folder)
    with pytest.raises(InputError, match="2 pseudopotentials for Si"):
        resolve_pseudos(config, ["Si"])


def test_other_oracles_need_settings_and_must_be_installed() -> None:
    label = {"oracle": "autopipe.ase", "code": "python@localhost"}
    with pytest.raises(InputError, match="settings are needed for the oracle 'autopipe"):
        expanded(label=label)
    with pytest.raises(InputError, match="settings are those of other oracles"):
        expanded(label={"settings": {"calculator": "ase.calculators.emt.EMT"}})


def test_preflight_checks_other_oracles(localhost: Any, python_code: Any) -> None:
    label = {"code": "python@localhost", "settings": {"calculator": "ase.calculators.emt.EMT"}}
    config, material = expanded(label={**label, "oracle": "autopipe.lost"})
    assert any("There is no oracle 'autopipe.lost'" in one for one in preflight(config, material))
    wrong = {"calculator": "ase.calculators.emt.EMT", "keyword": {}}
    config, material = expanded(label={**label, "oracle": "autopipe.ase", "settings": wrong})
    assert any("keyword" in one for one in preflight(config, material))
