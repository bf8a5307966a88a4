"""`autopipe.pw`: real failures of pw.x, rescued with the right answer or rejected for the reason.

The energies to compare with were converged with the same method and other settings of mixing and
diagonalisation than the rescue ends with.
"""

import time
from pathlib import Path
from typing import Any

import pytest
from aiida.cmdline.utils.common import get_workchain_report
from aiida.engine import run_get_node
from aiida.orm import Dict, Float, InstalledCode, Int, KpointsData, StructureData
from aiida_pseudo.data.pseudo.upf import UpfData

from aiida_autopipe.engines.espresso.pw_input import read_pw_input
from aiida_autopipe.workflows.functions import jobs
from aiida_autopipe.workflows.pw import EXIT_CODES, PwWorkChain
from aiida_autopipe.workflows.pw_input import pw_builder
from tests.workflows.test_pw_provoked import PROVOKED

HARD = Path(__file__).parents[1] / "engines" / "espresso" / "data" / "hard"
RYDBERG = 13.605693122994
LINE = " " + "%" * 78


@pytest.fixture
def run(pw_code: Any, pseudo_folder: Path) -> Any:
    """Run an input of the folder, with changes, on pw.x or on a program in its place."""

    def start(name: str, code: Any = None, *, changes: Any = None, **inputs: Any) -> Any:
        parsed = read_pw_input((HARD / f"{name}.in").read_text())
        files = {one.name: pseudo_folder / one.pseudo for one in parsed.species}
        builder = pw_builder(parsed, files, code or pw_code, options=inputs.pop("options", None))
        parameters = builder.pw.parameters.get_dict()
        for namelist, values in (changes or {}).items():
            parameters.setdefault(namelist, {}).update(values)
        builder.pw.parameters = Dict(parameters)
        for key, value in inputs.items():
            builder[key] = value
        outputs, node = run_get_node(builder)
        return outputs["rescue"].get_dict(), node

    return start


@pytest.fixture
def program(localhost: Any, tmp_path: Path) -> Any:
    """A program in the place of pw.x: a few lines of shell."""

    def make(text: str) -> Any:
        path = tmp_path / "pw.sh"
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        return InstalledCode(
            localhost,
            str(path),
            label=f"pw-{tmp_path.name}"[:50],
            default_calc_job_plugin="quantumespresso.pw",
            with_mpi=False,
        ).store()

    return make


def aborts(routine: str, code: int, words: str) -> str:
    """Shell that ends as pw.x does with an error."""
    box = f"{LINE}\n     Error in routine {routine} ({code}):\n     {words}\n{LINE}\n"
    return f"cat <<'X'\n     Program PWSCF v.6.7MaX starts\n{box}\nX\nexit 1"


def scf(*lines: str) -> str:
    """Shell that prints an SCF cycle."""
    text = "\n".join(
        ("     Program PWSCF v.6.7MaX starts", "     Self-consistent Calculation", *lines)
    )
    return f"cat <<'X'\n{text}\nX\nexit 2"


RESCUED = [
    ("si_maxstep1", -15.61688934, "electron_maxstep 1 -> 100", 2),
    ("cu_overshoots", -87.61384613, "mixing_beta 0.7 -> 0.3", 2),
    ("cu_singular", -83.48984380, "david -> cg", 2),
    ("si_manybands", -15.32352692, "nbnd 25 -> 4", 2),
    ("al_toofewbands", -16.74406138, "nbnd 4 -> 10", 2),
    ("al_fewbands", -4.16436736, "nbnd 2 -> 6", 2),
    ("fe_nomag", -55.81076944, "starting_magnetization to 0.5", 2),
]


@pytest.mark.parametrize(("name", "energy", "action", "calculations"), RESCUED)
def test_rescued_by_the_own_method(
    run: Any, name: str, energy: float, action: str, calculations: int
) -> None:
    rescue, node = run(name)
    assert node.is_finished_ok
    assert rescue["outcome"] == "rescued"
    assert (rescue["method"], rescue["method_change"]) == ("own", None)
    assert rescue["energy"] == pytest.approx(energy * RYDBERG, abs=2e-3)
    assert node.outputs.output_parameters["energy"] == rescue["energy"]
    assert action in rescue["steps"][0]["action"]
    assert action in rescue["reason"]
    assert action in get_workchain_report(node, "REPORT")
    assert rescue["calculations"] == len(jobs(node)) == calculations
    if name == "fe_nomag":
        assert rescue["magnetic_moment"] == pytest.approx(2.97, abs=0.05)
    unbuffered = jobs(node)[0].get_option("environment_variables")
    assert unbuffered["GFORTRAN_UNBUFFERED_PRECONNECTED"] == "y"


def test_another_method_is_marked(run: Any) -> None:
    """An odd electron needs smearing, and gamma-only stays gamma-only."""
    rescue, node = run("h_atom_fixed")
    assert node.is_finished_ok
    assert (rescue["outcome"], rescue["method"]) == ("rescued", "other")
    assert "occupations fixed -> smearing" in rescue["method_change"]
    assert rescue["energy"] == pytest.approx(-0.88189845 * RYDBERG, abs=2e-3)
    assert all(job.inputs.settings["gamma_only"] for job in jobs(node))


def test_a_lost_moment_is_found(run: Any) -> None:
    """A start of 0.001 ends without a moment; the magnetic solution is lower."""
    rescue, node = run("fe_tinymag")
    assert node.is_finished_ok
    assert rescue["outcome"] == "rescued"
    assert rescue["magnetic_moment"] == pytest.approx(2.97, abs=0.05)
    assert rescue["energy"] < rescue["steps"][0]["energy"]


def test_relaxation_goes_on(run: Any) -> None:
    """The SCF of a relaxation fails on the way; the forces are below the threshold in the end."""
    rescue, node = run("al_relax")
    assert node.is_finished_ok
    assert rescue["outcome"] == "rescued"
    assert node.outputs.output_parameters["total_force"] < 0.05


def test_nothing_to_rescue(run: Any) -> None:
    """Unset occupations are fixed ones: no band check raises nbnd and runs it again."""
    rescue, node = run("si_maxstep1", changes={"ELECTRONS": {"electron_maxstep": 50}})
    assert (rescue["outcome"], rescue["reason"]) == ("ok", "")
    assert rescue["steps"] == [
        {"attempt": 1, "failure": "", "action": "", "energy": rescue["energy"]}
    ]
    assert len(jobs(node)) == 1


def test_a_failure_known_from_elsewhere_is_not_repeated(run: Any) -> None:
    known = {"exit_status": 410, "failure": "SCF not converged"}
    rescue, node = run("cu_overshoots", known_failure=Dict(known))
    assert node.is_finished_ok
    assert rescue["outcome"] == "rescued"
    assert rescue["energy"] == pytest.approx(-87.61384613 * RYDBERG, abs=2e-3)
    assert [step["attempt"] for step in rescue["steps"]] == [1, 2]
    assert rescue["calculations"] == len(jobs(node)) == 1


def test_walltime_goes_on_from_where_it_stopped(run: Any) -> None:
    """A limit in the input that is far too short is raised until it is enough."""
    rescue, node = run("fe_tinymag", changes={
        "CONTROL": {"max_seconds": 0.1}, "SYSTEM": {"starting_magnetization": [0.5]},
    })  # fmt: skip
    assert node.is_finished_ok
    assert "walltime" in rescue["steps"][0]["failure"]
    assert "max_seconds" in rescue["steps"][0]["action"]
    assert rescue["energy"] == pytest.approx(-55.81076944 * RYDBERG, abs=2e-3)


def test_killed_once_is_bad_luck(run: Any, program: Any, pw_code: Any, tmp_path: Path) -> None:
    """kill -9 in the middle of a run; the next one is left alone."""
    once = f"""if [ ! -e {tmp_path}/before ]; then
touch {tmp_path}/before
{pw_code.get_executable()} "$@" &
sleep 0.2; kill -9 $!; wait $!; kill -9 $$
fi
exec {pw_code.get_executable()} "$@\""""
    rescue, node = run(
        "si_maxstep1", program(once), changes={"ELECTRONS": {"electron_maxstep": 50}}
    )
    assert node.is_finished_ok
    assert rescue["steps"][0]["failure"].startswith("killed")
    assert rescue["energy"] == pytest.approx(-15.61688934 * RYDBERG, abs=2e-3)


REFUSED = [
    ("si_overlap", None, 220, "0.949 Å apart"),
    ("si_maxstep1", {"SYSTEM": {"ecutwfc": -5.0}}, 226, "-5.0"),
    ("si_left", None, 223, "-40.026"),
    ("si_huge", {}, 222, None),
    ("sic_mixed", None, 225, "C: PBE, Si: PZ"),
]


@pytest.mark.parametrize(("name", "changes", "status", "words"), REFUSED)
def test_refused_before_pw_is_started(
    run: Any, name: str, changes: Any, status: int, words: str | None
) -> None:
    rescue, node = run(name, changes=changes) if name != "si_huge" else run_huge(run)
    assert node.exit_status == status
    assert (words or "216.00 Å^3") in node.exit_message
    assert rescue["outcome"] == "rejected"
    assert rescue["reason"] == node.exit_message
    assert (rescue["calculations"], rescue["energy"], rescue["steps"]) == (0, None, [])
    assert not jobs(node)


def run_huge(run: Any) -> Any:
    """A crystal is one with several k-points."""
    points = KpointsData()
    points.set_kpoints_mesh([2, 2, 2])
    return run("si_huge", kpoints=points)


def test_a_wrong_pseudopotential_is_refused(run: Any, pw_code: Any, pseudo_folder: Path) -> None:
    parsed = read_pw_input((HARD / "si_left.in").read_text())
    builder = pw_builder(parsed, {"Si": pseudo_folder / "Si.pz-vbc.UPF"}, pw_code)
    ordered = parsed.atoms.copy()
    ordered.cell[[0, 1]] = ordered.cell[[1, 0]]
    builder.pw.structure = StructureData(ase=ordered)
    builder.pw.pseudos = {"Si": UpfData(pseudo_folder / "Al.pz-vbc.UPF")}
    outputs, node = run_get_node(builder)
    assert node.exit_status == 224
    assert "one of Al, not of Si" in outputs["rescue"]["reason"]


def test_a_flat_cell_is_refused(run: Any, pw_code: Any, pseudo_folder: Path) -> None:
    parsed = read_pw_input((HARD / "si_left.in").read_text())
    builder = pw_builder(parsed, {"Si": pseudo_folder / "Si.pz-vbc.UPF"}, pw_code)
    flat = parsed.atoms.copy()
    flat.cell[1] = flat.cell[0] + 0.001  # AiiDA itself refuses what is flat to the last digit
    builder.pw.structure = StructureData(ase=flat)
    outputs, node = run_get_node(builder)
    assert node.exit_status == 221
    assert "no volume" in outputs["rescue"]["reason"]


STUCK = (
    "     total energy              =     -15.0 Ry",
    "     estimated scf accuracy    <       0.00300000 Ry",
    "     convergence NOT achieved after 100 iterations: stopping",
    "   JOB DONE.",
)
FAST = {"ELECTRONS": {"electron_maxstep": 100}}
# What pw.x 6.7 said of the input beside it; on other processors the same input ends otherwise.
RECORDED = HARD.parent / "recorded" / "charge_is_wrong.txt"
REJECTED = [
    (
        "si_maxstep1",
        f"cat {RECORDED}; exit 1",
        {"SYSTEM": {"ecutwfc": 4.0}},
        330,
        "ecutwfc 4 Ry",
    ),
    ("si_vlow", None, None, 331, "ecutwfc 1 Ry"),
    ("si_maxstep1", aborts("readpp", 1, "file x.UPF is bad"), None, 332, "x.UPF"),
    ("si_maxstep1", None, {"SYSTEM": {"occupations": "nonsense"}}, 333, "refused the input"),
    ("si_maxstep1", "echo 'Error allocating 99 bytes' >&2; exit 1", None, 334, "99 bytes"),
    ("si_maxstep1", "kill -9 $$", None, 335, "Killed"),
    ("si_maxstep1", "echo '     Program PWSCF starts'", None, 336, "lost every time"),
    ("si_maxstep1", scf("     Maximum CPU time exceeded", "   JOB DONE."), None, 337, "not finish"),
    ("si_maxstep1", scf(*STUCK), FAST, 411, "3.0e-03 Ry"),
    ("si_maxstep1", aborts("davcio", 10, "disk full"), None, 416, "disk full"),
]


@pytest.mark.parametrize(("name", "text", "changes", "status", "words"), REJECTED)
def test_rejected_for_its_reason(
    run: Any, program: Any, name: str, text: str | None, changes: Any, status: int, words: str
) -> None:
    """Short ways to exit codes: what pw.x says and how it ends is played to the work chain.

    Failures that pw.x was made to have itself, the long way, are in `test_pw_provoked`.
    """
    rescue, node = run(name, None if text is None else program(text), changes=changes)
    assert node.exit_status == status
    assert words in node.exit_message
    assert rescue["outcome"] == "rejected"
    assert words in rescue["reason"]
    assert rescue["energy"] is None
    assert rescue["calculations"] == len(jobs(node)) == len(rescue["steps"]) <= 8
    assert all(step["failure"] for step in rescue["steps"])


def test_a_moment_that_no_rescue_finds_again_is_rejected(run: Any) -> None:
    """Aluminium has no moment; an attempt elsewhere claims one at a lower energy."""
    stdout = (
        "Self-consistent Calculation\n     total energy              =     -99.0 Ry\n"
        "     estimated scf accuracy    <       0.00300000 Ry\n"
        "     total magnetization       =     3.00 Bohr mag/cell\n"
        "     absolute magnetization    =     3.10 Bohr mag/cell\n"
    )
    known = {"exit_status": 410, "failure": "convergence NOT achieved", "stdout": stdout}
    spin = {"nspin": 2, "starting_magnetization": {"Al": 0.5}, "nbnd": 8}
    rescue, node = run("al_fewbands", changes={"SYSTEM": spin}, known_failure=Dict(known))
    assert node.exit_status == 413
    assert "attempt 1 had 3.10 Bohr magnetons" in rescue["reason"]


def test_cutoffs_that_are_too_low_give_no_label(run: Any) -> None:
    """Whether charge, moment or SCF goes wrong first depends on rounding, hence on the CPU."""
    rescue, node = run("fe_lowcut")
    assert node.exit_status in (330, 411, 413)
    assert (rescue["outcome"], rescue["energy"]) == ("rejected", None)
    assert "ecutwfc 12 Ry" in rescue["reason"]


def test_the_number_of_runs_is_a_limit(run: Any, program: Any) -> None:
    """An attempt is not started when no run is left for it."""
    rescue, node = run("si_maxstep1", program(scf(*STUCK)), changes=FAST, max_iterations=Int(2))
    assert node.exit_status == 401
    assert rescue["calculations"] == len(jobs(node)) == 2
    assert "no runs are left" in rescue["reason"]


def test_nothing_is_started_after_the_deadline(run: Any) -> None:
    """A campaign that is over starts no run; one that ends soon gives a run no longer."""
    rescue, node = run("si_maxstep1", deadline=Float(time.time() - 1))
    assert node.exit_status == 417
    assert rescue["outcome"] == "rejected"
    assert not jobs(node)
    _, node = run("si_maxstep1", deadline=Float(time.time() + 100))
    assert node.is_finished_ok
    first = jobs(node)[0]
    assert first.get_option("max_wallclock_seconds") <= 100
    assert first.inputs.parameters["CONTROL"]["max_seconds"] <= 95


def test_every_exit_code_has_a_test() -> None:
    """The codes that are declared are those that are raised here, in range and unique."""
    tested = {status for *_, status, _ in REFUSED} | {status for *_, status, _ in REJECTED}
    declared = [status for status, _, _ in EXIT_CODES]
    provoked = {status for *_, status, _, _ in PROVOKED}
    assert set(declared) == tested | provoked | {221, 224, 413, 417}
    assert len(set(declared)) == len(declared)
    spec = [code.status for code in PwWorkChain.exit_codes.values()]
    assert len(set(spec)) == len(spec)
