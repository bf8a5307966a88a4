"""`autopipe.pw` and memory that really is too small, with pw.x under Open MPI.

The limit is one on address space, of which pw.x with its libraries takes 0.45 GB before it has an
atom. One aluminium atom in a box with a fine density needs 0.85 GB in one process, and 0.7 GB in
each of two that share the density.
"""

from pathlib import Path
from typing import Any

import pytest
from aiida.engine import run_get_node
from aiida.orm import Computer, Dict, InstalledCode
from aiida.schedulers.plugins.direct import DirectScheduler

from aiida_autopipe.engines.espresso.pw_input import read_pw_input
from aiida_autopipe.workflows.functions import jobs
from aiida_autopipe.workflows.pw_input import pw_builder

HARD = Path(__file__).parents[1] / "engines" / "espresso" / "data" / "hard"
RYDBERG = 13.605693122994
ENERGY_Ry = -3.95830787
"""Without any limit."""


class LimitedScheduler(DirectScheduler):
    """AiiDA's direct scheduler, which ignores `max_memory_kb`, keeping the processes to it."""

    def _get_submit_script_header(self, job_tmpl: Any) -> str:
        each = job_tmpl.max_memory_kb // job_tmpl.job_resource.get_tot_num_mpiprocs()
        return f"ulimit -v {each}\n{super()._get_submit_script_header(job_tmpl)}"


def open_mpi() -> Path:
    """The `mpirun` of the MPI that Debian's pw.x is built with; pip's MPICH has one as well."""
    path = Path("/usr/bin/mpirun.openmpi")
    assert path.exists(), "Open MPI, which Debian's quantum-espresso needs, is not installed"
    return path


@pytest.fixture
def limited_pw(entry_points: Any, tmp_path: Path, pw_code: Any) -> Any:
    """pw.x on a computer that keeps to `max_memory_kb`."""
    entry_points.add(LimitedScheduler, "aiida.schedulers:test.limited")
    computer = Computer(
        label=f"limited-{tmp_path.name}"[:50],
        hostname="localhost",
        transport_type="core.local",
        scheduler_type="test.limited",
        workdir=str(tmp_path),
    )
    # Waiting ranks let others work: the cores may be busy.
    computer.set_prepend_text(
        "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1\n"
        "export OMPI_MCA_mpi_yield_when_idle=1 OMP_NUM_THREADS=1"
    )
    computer.set_mpirun_command(
        [str(open_mpi()), "--oversubscribe", "--bind-to", "none", "-np", "{tot_num_mpiprocs}"]
    )
    computer.store()
    computer.configure(use_login_shell=False, safe_interval=0.0)
    computer.set_minimum_job_poll_interval(0.1)
    return InstalledCode(
        computer,
        str(pw_code.get_executable()),
        label="pw",
        default_calc_job_plugin="quantumespresso.pw",
        with_mpi=True,
    ).store()


RESCUED = [
    ((2, 2), 1_500_000, ["using 1 pool instead of 2, which share memory"]),
    (
        (2, 2),
        1_100_000,
        [
            "using 1 pool instead of 2, which share memory",
            "using 1 instead of 2 MPI processes",
        ],
    ),
    (
        (1, 1),
        600_000,
        [
            "asking for twice the memory (600000 -> 1200000 kB) and keeping fewer trial vectors "
            "and densities"
        ],
    ),
]


@pytest.mark.parametrize(("processes", "memory_kb", "actions"), RESCUED)
def test_out_of_memory(
    limited_pw: Any,
    pseudo_folder: Path,
    processes: tuple[int, int],
    memory_kb: int,
    actions: list[str],
) -> None:
    """Fewer pools share the density, fewer ranks the limit; then more memory is asked for."""
    ranks, pools = processes
    parsed = read_pw_input((HARD / "al_memory.in").read_text())
    files = {one.name: pseudo_folder / one.pseudo for one in parsed.species}
    options = {
        "resources": {"num_machines": 1, "num_mpiprocs_per_machine": ranks},
        "max_memory_kb": memory_kb,
    }
    builder = pw_builder(parsed, files, limited_pw, options=options)
    builder.pw.parallelization = Dict({"npool": pools})
    outputs, node = run_get_node(builder)
    rescue = outputs["rescue"].get_dict()
    assert node.is_finished_ok, rescue
    assert [step["action"] for step in rescue["steps"]] == [*actions, ""]
    assert all("rror allocating" in step["failure"] for step in rescue["steps"][:-1])
    assert (rescue["outcome"], rescue["method"]) == ("rescued", "own")
    assert rescue["energy"] == pytest.approx(ENERGY_Ry * RYDBERG, abs=2e-3)
    last = max(jobs(node), key=lambda job: job.pk)
    asked = last.get_option("max_memory_kb")
    assert asked == (1_200_000 if ranks == 1 else memory_kb)
