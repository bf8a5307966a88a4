"""`autopipe.pw` and failures that pw.x 6.7 itself was made to have.

For each exit code that a run can end with, and each process handler, there is one here or in
`test_pw`: 331 and 333 there, and 330 and 413, if rounding does not make it 411 (`fe_lowcut`).
"""

from pathlib import Path
from typing import Any

import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, InstalledCode

from aiida_autopipe.engines.espresso.pw_input import read_pw_input
from aiida_autopipe.workflows.functions import jobs
from aiida_autopipe.workflows.pw_input import pw_builder

HARD = Path(__file__).parents[1] / "engines" / "espresso" / "data" / "hard"
RYDBERG = 13.605693122994


@pytest.fixture
def run(localhost: Any, pw_code: Any, pseudo_folder: Path, tmp_path: Path) -> Any:
    """Run an input on pw.x, which a line of shell starts."""

    def start(
        name: str, line: str = "", *, damage: Any = None, changes: Any = None, pools: int = 0
    ) -> Any:
        code = pw_code
        if line:
            path = tmp_path / "pw.sh"
            path.write_text(f"#!/bin/bash\npw={pw_code.get_executable()}\n{line}\n")
            path.chmod(0o755)
            label = f"pw-{tmp_path.name}"[:50]
            plugin = "quantumespresso.pw"
            code = InstalledCode(
                localhost, str(path), label=label, default_calc_job_plugin=plugin, with_mpi=False
            ).store()
        parsed = read_pw_input((HARD / f"{name}.in").read_text())
        files = {one.name: pseudo_folder / one.pseudo for one in parsed.species}
        for kind, file in files.items():
            if damage is not None:
                files[kind] = tmp_path / file.name
                files[kind].write_text(damage(file.read_text()))
        seconds = {"max_wallclock_seconds": 1} if changes == "hasty" else None
        builder = pw_builder(parsed, files, code, options=seconds)
        if isinstance(changes, dict):
            parameters = builder.pw.parameters.get_dict()
            for namelist, values in changes.items():
                parameters.setdefault(namelist, {}).update(values)
            builder.pw.parameters = Dict(parameters)
        if pools:
            builder.pw.parallelization = Dict({"npool": pools})
        outputs, node = run_get_node(builder)
        return outputs["rescue"].get_dict(), node

    return start


def cut_off(upf: str) -> str:
    """A pseudopotential that was not copied to its end."""
    return upf[:9000]


# However fast the machine is, this takes longer than the run may: its clock runs by then.
PAUSED = (
    'GFORTRAN_UNBUFFERED_PRECONNECTED=y "$pw" "$@" & p=$!; '
    'until grep -q "unit-cell volume" aiida.out; do sleep 0.005; done; '
    "kill -STOP $p; sleep 1.5; kill -CONT $p; wait $p"
)
FIRST_PAUSED = (
    f'once=${{0%/*}}/once; if [ -e $once ]; then exec "$pw" "$@"; fi; touch $once; {PAUSED}'
)
KILLED = '"$pw" "$@" & sleep 0.1; kill -9 $!; wait $!'
NEVER = {"ELECTRONS": {"conv_thr": 1e-40, "electron_maxstep": 100}}
# Levels so sharp that the occupations of Methfessel and Paxton overflow. pw.x 6.7 never ends where
# it writes such an energy to its XML file: here the next diagonalisation fails before it does.
SHARP = {
    "SYSTEM": {"occupations": "smearing", "smearing": "mp", "degauss": 1e-320},
    "ELECTRONS": {"electron_maxstep": 100},
}
# A threshold below the precision of the numbers, with more bands than pw.x lets pass unconverged.
EXACT = {"SYSTEM": {"nbnd": 24}, "ELECTRONS": {"diago_thr_init": 1e-30, "diago_cg_maxiter": 3}}
# Four processes diagonalise together, for one band.
FOUR_RANKS = (
    "exec /usr/bin/mpirun.openmpi --allow-run-as-root --oversubscribe --bind-to none -n 4 "
    '"$pw" -ndiag 4 "$@"'
)
PROVOKED: list[tuple[Any, ...]] = [
    ("si_maxstep1", "", cut_off, None, 332, "xmltools.f90", 1),
    ("al_memory", 'ulimit -v 600000; exec "$pw" "$@"', None, None, 334, "rror allocating", 2),
    ("al_memory", KILLED, None, None, 335, "Killed", 2),
    ("si_maxstep1", 'ulimit -f 4; exec "$pw" "$@"', None, None, 336, "lost every time", 2),
    ("al_memory", PAUSED, None, "hasty", 337, "did not finish a single SCF iteration", None),
    ("si_maxstep1", "", None, SHARP, 338, "softer mixing", 2),
    ("si_maxstep1", "", None, NEVER, 411, "no step of the ladder converged", None),
    ("al_toofewbands", "", None, EXACT, 412, "too many bands are not converged", 3),
    # Two k-points along an electric field that are not half a reciprocal lattice vector apart.
    ("si_gpar", "", None, None, 414, "G_par is NOT a reciprocal lattice", 2),
    ("h_atom_fixed", FOUR_RANKS, None, None, 415, "Too few bands for required ndiag", 1),
    ("si_maxstep1", 'rm -r out; touch out; exec "$pw" "$@"', None, None, 416, "check_tempdir", 1),
]


@pytest.mark.parametrize(
    ("name", "line", "damage", "changes", "status", "words", "calculations"), PROVOKED
)
def test_rejected_for_its_reason(
    run: Any,
    name: str,
    line: str,
    damage: Any,
    changes: Any,
    status: int,
    words: str,
    calculations: int | None,
) -> None:
    rescue, node = run(name, line, damage=damage, changes=changes)
    assert node.exit_status == status, rescue
    assert words in rescue["reason"]
    assert (rescue["outcome"], rescue["energy"]) == ("rejected", None)
    assert (
        rescue["calculations"] == len(jobs(node)) == (calculations or rescue["calculations"]) <= 8
    )
    assert all(step["failure"] for step in rescue["steps"])


def steps(**values: Any) -> Any:
    """Enough iterations, which the input does not have, and what else is changed."""
    return {"ELECTRONS": {"electron_maxstep": 100}, "SYSTEM": values}


HANDLED: list[tuple[Any, ...]] = [
    ("si_maxstep1", steps(nspin=2), 0, "need tot_magnetization", "smearing first", -15.61688934),
    (
        "si_maxstep1",
        steps(nspin=2, tot_magnetization=2.0, nbnd=4),
        0,
        "too few spin up bands",
        "nbnd 4 -> 5",
        -15.43167257,
    ),
    (
        "si_maxstep1",
        steps(noncolin=True, nbnd=4),
        0,
        "too few bands",
        "nbnd 4 -> 8",
        -15.61688934,
    ),
    (
        "si_maxstep1",
        {"ELECTRONS": {"electron_maxstep": 100, "mixing_ndim": 26}},
        0,
        "n_iter too big",
        "mixing_ndim 4",
        -15.61688934,
    ),
    ("si_maxstep1", steps(), 2, "invalid number of pools", "1 pool instead of 2", -15.61688934),
    # Seven digits of a hexagonal lattice, the last of them two off.
    (
        "al_hexagonal",
        None,
        0,
        "not orthogonal operation",
        "switching symmetry off",
        -8.22369686,
    ),
]


@pytest.mark.parametrize(("name", "changes", "pools", "failure", "action", "energy_Ry"), HANDLED)
def test_rescued_from_its_failure(
    run: Any, name: str, changes: Any, pools: int, failure: str, action: str, energy_Ry: float
) -> None:
    """The energies are those of inputs without the mistake."""
    rescue, node = run(name, changes=changes, pools=pools)
    assert node.is_finished_ok, rescue
    assert (rescue["outcome"], rescue["method"]) == ("rescued", "own")
    assert failure in rescue["steps"][0]["failure"]
    assert action in rescue["steps"][0]["action"]
    assert rescue["energy"] == pytest.approx(energy_Ry * RYDBERG, abs=2e-3)


RELAXED = [
    ("", {"CONTROL": {"nstep": 2}}, "maximum number of steps", "using output structure"),
    (
        "",
        {"ELECTRONS": {"conv_thr": 1e-2}, "CONTROL": {"forc_conv_thr": 1e-6}},
        "two BFGS steps in a row failed",
        "conv_thr 0.01 -> 1e-10",
    ),
    ("", {"ELECTRONS": {"electron_maxstep": 5}}, "SCF not converged", "electron_maxstep 5 -> 100"),
    (
        FIRST_PAUSED,
        {"CONTROL": {"max_seconds": 1.0}},
        "Maximum CPU time exceeded",
        "max_seconds 1 -> 4",
    ),
]


@pytest.mark.parametrize(("line", "changes", "failure", "action"), RELAXED)
def test_relaxation_goes_on(run: Any, line: str, changes: Any, failure: str, action: str) -> None:
    """Exit codes 502, 520, 510 and 400 of pw.x's parser, in a relaxation from 0.25 Å away.

    The others of relaxations (501, 511, 521, 541, 542) are of variable cells, which are no labels.
    """
    rescue, node = run("si_relax", line, changes=changes)
    assert node.is_finished_ok, rescue
    assert rescue["outcome"] == "rescued"
    assert failure in rescue["steps"][0]["failure"]
    assert action in rescue["steps"][0]["action"]
    assert rescue["energy"] == pytest.approx(-15.61446485 * RYDBERG, abs=2e-3)
    assert node.outputs.output_parameters["total_force"] < 0.05
