"""`mlip-auto setup` on a fresh AIIDA_PATH, on a user's own one, and with programs missing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiida_autopipe.cli import main, probe, setup_profile
from aiida_autopipe.core.errors import EngineError, InputError

COMMAND = Path(sys.executable).with_name("mlip-auto")


def mlip_auto(aiida_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the installed command in a process of its own, as a user does."""
    return subprocess.run(
        [str(COMMAND), *arguments],
        env={**os.environ, "AIIDA_PATH": str(aiida_path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def configuration(aiida_path: Path) -> dict[str, Any]:
    return json.loads((aiida_path / ".aiida" / "config.json").read_text())


def executable(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_fresh_setup_finds_everything_and_runs_again(tmp_path: Path) -> None:
    first = mlip_auto(tmp_path, "setup", "--json")
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stderr == ""
    steps = json.loads(first.stdout)["steps"]
    assert [step["name"] for step in steps] == [
        "profile",
        "computer",
        "pw.x",
        "lammps",
        "python",
        "pseudopotentials",
    ]
    assert all(step["ok"] and "created" in step["detail"] for step in steps)

    profile = configuration(tmp_path)["profiles"]["autopipe"]
    assert profile["storage"]["backend"] == "core.sqlite_dos"
    assert profile["process_control"]["backend"] == "core.zeromq"
    assert profile["options"]["caching.enabled_for"] == [
        "aiida.calculations:quantumespresso.pw",
        "aiida.calculations:autopipe.*",
    ]

    second = mlip_auto(tmp_path, "setup")
    assert second.returncode == 0
    assert second.stdout.count("[OK]") == 6
    assert "created" not in second.stdout


def test_a_users_profile_is_not_touched_without_being_asked(tmp_path: Path) -> None:
    mlip_auto(tmp_path, "setup", "--profile", "mine")
    before = (tmp_path / ".aiida" / "config.json").read_bytes()

    refused = mlip_auto(tmp_path, "setup")
    assert refused.returncode == 1
    assert "already has the profile 'mine'" in refused.stderr
    assert "mlip-auto setup --profile autopipe" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert (tmp_path / ".aiida" / "config.json").read_bytes() == before

    asked = mlip_auto(tmp_path, "setup", "--profile", "autopipe")
    assert asked.returncode == 0
    assert configuration(tmp_path)["default_profile"] == "mine"
    assert "AIIDA_PROFILE" not in asked.stdout

    # From now on the commands pick the profile 'autopipe', unless they are told.
    again = mlip_auto(tmp_path, "setup", "--profile", "mine")
    assert "for this one type 'export AIIDA_PROFILE=mine'" in again.stdout
    told = mlip_auto(tmp_path, "setup", "--profile", "mine", AIIDA_PROFILE="mine")
    assert "AIIDA_PROFILE" not in told.stdout


def test_missing_programs_are_told_with_what_to_type(tmp_path: Path) -> None:
    broken = executable(tmp_path / "pw.x", "echo some other program")
    done = mlip_auto(tmp_path, "setup", "--pw", str(broken), "--lammps", "/nowhere/lmp")
    assert done.returncode == 1
    assert "[MISSING] pw.x:" in done.stdout and "some other program" in done.stdout
    assert "[MISSING] lammps: '/nowhere/lmp' is not an executable file" in done.stdout
    assert "mlip-auto setup --pw PATH" in done.stdout
    assert "[OK]      python" in done.stdout


def test_another_executable_takes_the_label_and_the_old_code_stays(
    localhost: Any, tmp_path: Path
) -> None:
    one, two = (executable(tmp_path / name, "true") for name in ("one", "two"))
    assert setup_profile.ensure_code("tool", one, "core.arithmetic.add").created
    old = setup_profile.find_code("tool")
    assert not setup_profile.ensure_code("tool", one, "core.arithmetic.add").created
    assert setup_profile.ensure_code("tool", two, "core.arithmetic.add").created
    new = setup_profile.find_code("tool")
    assert old is not None and new is not None
    assert str(new.filepath_executable) == str(two)
    assert old.label == f"tool-{old.pk}"


def test_families_carry_the_cutoffs_of_the_table(pz_family: Any) -> None:
    assert set(pz_family.elements) >= {"Si", "Al", "Cu"}
    cutoffs = pz_family.get_recommended_cutoffs(elements=("Si",), unit="Ry")
    assert cutoffs == (26.0, 104.0)
    assert setup_profile.find_family("autopipe/debian/PBE") is not None
    assert setup_profile.find_family("autopipe/debian/nonsense") is None


def test_a_family_with_older_cutoffs_is_set_aside(pz_family: Any, pseudo_folder: Path) -> None:
    changed = {**pz_family.get_cutoffs(), "Si": {"cutoff_wfc": 1.0, "cutoff_rho": 4.0}}
    pz_family.set_cutoffs(changed, setup_profile.STRINGENCY, unit="Ry")
    made = {one.name: one.created for one in setup_profile.ensure_pseudo_families(pseudo_folder)}
    assert made == {"autopipe/debian/PZ": True, "autopipe/debian/PBE": False}
    assert pz_family.label == f"autopipe/debian/PZ-{pz_family.pk}"


def test_pw_runs_through_the_daemon(pw_code: Any, pz_family: Any, submit_and_await: Any) -> None:
    from aiida.orm import Dict, KpointsData, StructureData
    from ase.build import bulk

    structure = StructureData(ase=bulk("Si", "diamond", a=5.4))
    kpoints = KpointsData()
    kpoints.set_kpoints_mesh([1, 1, 1])
    builder = pw_code.get_builder()
    builder.structure = structure
    builder.kpoints = kpoints
    builder.pseudos = pz_family.get_pseudos(structure=structure)
    builder.parameters = Dict(
        {
            "CONTROL": {"calculation": "scf"},
            "SYSTEM": {"ecutwfc": 8.0, "ecutrho": 32.0, "occupations": "fixed"},
        }
    )
    builder.metadata.options.resources = {"num_machines": 1}
    node = submit_and_await(builder, timeout=120)
    assert node.is_finished_ok, node.exit_message
    assert node.outputs.output_parameters["energy"] < 0


def test_probes_say_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = executable(tmp_path / "silent", "true")
    with pytest.raises(EngineError, match="it printed nothing"):
        probe.probe_pw(silent)
    with pytest.raises(InputError, match="no pair_style pace/extrapolation"):
        probe.probe_lammps(silent)
    with pytest.raises(EngineError, match="cannot import aiida_autopipe"):
        probe.probe_python(executable(tmp_path / "python", "echo No module >&2; exit 1"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="no-such-program is not on PATH"):
        probe.find_executable("no-such-program")


def test_an_lmp_with_ml_pace_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    banner = "Large-scale Atomic/Molecular Massively Parallel Simulator - 2 Aug 2023"
    answer = f"{banner}\nInstalled packages:\n\nML-PACE\n\n* Pair styles\npace pace/extrapolation"
    lmp = executable(tmp_path / "lmp", f"cat <<'END'\n{answer}\nEND")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = probe.probe_lammps()
    assert (found.path, found.version, found.interface) == (lmp, "2 Aug 2023", "ml-pace")


def test_a_program_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.2)
    with pytest.raises(EngineError, match="did not answer"):
        probe.probe_pw(executable(tmp_path / "pw.x", "exec sleep 20"))


def test_the_library_path_of_a_job_survives_any_folder(tmp_path: Path) -> None:
    place = tmp_path / "it's $HOME" / "bin" / "autopipe-lammps"
    lines = setup_profile.lammps_prepend(place, "library")
    script = f'{lines}\necho "$LD_LIBRARY_PATH"'
    library = str(place.parent.parent / "lib")
    for before, expected in ((None, library), ("/a b", f"{library}:/a b")):
        environment = {} if before is None else {"LD_LIBRARY_PATH": before}
        done = subprocess.run(
            ["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{expected}\n"


def test_setup_without_a_writable_folder_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    done = mlip_auto(file, "setup")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert main.invoke(["setup", "--pw"]) == 2


@pytest.mark.parametrize("command", [("status",), ("doctor",), ("run", "examples/silicon.yaml")])
def test_without_a_profile_one_line_says_what_to_type(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    answer = mlip_auto(tmp_path, *command)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.count("\n") == 1 and "type 'mlip-auto setup'" in answer.stderr
