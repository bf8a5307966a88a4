"""What AiiDA adds to the time of small pw.x calculations.

Rattled and strained cells of two silicon atoms are labelled three times: by a shell loop that
starts pw.x on the same inputs (`bare`), in one `autopipe.pw_batch` job (`batch`), and through
`autopipe.label` (`label`), with the same number of runs at a time. Wall time, and CPU time of every
process that was started; making the profile is left out, importing AiiDA is not.

    python benchmarks/label.py --structures 100 --slots 2 --json

Needs pw.x and Debian's pseudopotentials; writes into a temporary folder. On Linux only: the CPU
time of a job is known because its processes become children of this program.
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.engines.espresso import batch
from aiida_autopipe.engines.espresso.pseudos import find_debian_folder
from aiida_autopipe.engines.espresso.pw import PwSettings

MODES = ("bare", "batch", "label")
PSEUDO = "Si.pz-vbc.UPF"
PR_SET_CHILD_SUBREAPER = 36
SHELL_LOOP = (
    'cut -c1-6 order | xargs -P "$1" -I NAME sh -c "cd runs/NAME && pw.x -in pw.in >pw.out"'
)


def structures(number: int, seed: int) -> list[Atoms]:
    """Two-atom cells of silicon, all different."""
    rng = np.random.default_rng(seed)
    cells = []
    for _ in range(number):
        atoms = bulk("Si", a=5.4)
        strain = np.eye(3) + 0.03 * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.positions += 0.05 * rng.normal(size=(2, 3))
        cells.append(atoms)
    return cells


def run_bare(folder: Path, cells: list[Atoms], settings: PwSettings, slots: int) -> dict[str, Any]:
    """The shell loop; writing its inputs is not counted."""
    plan = batch.plan_batch(settings, cells)
    pseudos = find_debian_folder()
    assert pseudos is not None, "no pseudopotentials of Debian"
    (folder / batch.PSEUDO_FOLDER).mkdir()
    pseudo = folder / batch.PSEUDO_FOLDER / batch.pseudo_file("Si")
    pseudo.write_bytes((pseudos / PSEUDO).read_bytes())
    (folder / batch.ORDER_FILE).write_text(batch.order_text(plan.order))
    for position, text in plan.inputs.items():
        run = folder / "runs" / batch.structure_name(position)
        run.mkdir(parents=True)
        (run / batch.INPUT_FILE).write_text(text)
    began = Clock()
    subprocess.run(["sh", "-c", SHELL_LOOP, "sh", str(slots)], cwd=folder, check=True)
    done = sum("JOB DONE" in path.read_text() for path in folder.glob("runs/*/pw.out"))
    return {"labels": done, **began.spent()}


def run_aiida(
    folder: Path, cells: list[Atoms], settings: PwSettings, slots: int, mode: str
) -> dict[str, Any]:
    """One process in a profile of its own, run in this interpreter."""
    os.environ["AIIDA_PATH"] = str(folder)
    began = Clock()
    from dataclasses import asdict

    from aiida.engine import run_get_node
    from aiida.orm import Dict, Int, load_code
    from aiida.plugins import CalculationFactory, WorkflowFactory

    from aiida_autopipe.cli import probe, setup_profile
    from aiida_autopipe.data.dataset import DatasetData

    imported = began.spent()
    setup_profile.ensure_profile("benchmark")
    setup_profile.ensure_computer()
    code = load_code(setup_profile.ensure_pw_code(probe.probe_pw().path).name)
    setup_profile.ensure_pseudo_families(find_debian_folder())
    family = setup_profile.find_family("autopipe/debian/PZ")
    inputs = {
        "dataset": DatasetData(Dataset.from_atoms(cells)),
        "settings": Dict(asdict(settings)),
        "code": code,
        "pseudos": family.get_pseudos(elements=("Si",)),
    }
    options = {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": slots}}
    began = Clock()
    if mode == "batch":
        process = CalculationFactory("autopipe.pw_batch")
        inputs["metadata"] = {"options": options}
    else:
        process = WorkflowFactory("autopipe.label")
        inputs |= {"budget": Int(3 * len(cells)), "options": Dict(options)}
    outputs, node = run_get_node(process, **inputs)
    assert node.is_finished_ok, node.exit_message
    spent = began.spent()
    total = {key: round(spent[key] + imported[key], 2) for key in spent}
    return {"labels": outputs["labelled"].n_structures, "import_s": imported["wall_s"], **total}


class Clock:
    """Wall time and CPU time of this program and of all it started."""

    def __init__(self) -> None:
        self.start = self._now()

    def spent(self) -> dict[str, float]:
        """Seconds since the start."""
        # A job is started in the background: its end is waited for by nobody else.
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        now = self._now()
        return {key: round(now[key] - self.start[key], 2) for key in now}

    @staticmethod
    def _now() -> dict[str, float]:
        cpu = 0.0
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            used = resource.getrusage(who)
            cpu += used.ru_utime + used.ru_stime
        return {"wall_s": time.monotonic(), "cpu_s": cpu}


def run_mode(mode: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One way to label, in this process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.environ["OMP_NUM_THREADS"] = "1"
    settings = PwSettings(
        cutoff_wfc_Ry=arguments.cutoff,
        cutoff_rho_Ry=4 * arguments.cutoff,
        kspacing_per_A=arguments.kspacing,
        functional="PZ",
        smearing="none",
    )
    cells = structures(arguments.structures, arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        if mode == "bare":
            return run_bare(Path(name), cells, settings, arguments.slots)
        return run_aiida(Path(name), cells, settings, arguments.slots, mode)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Cost of labels through AiiDA, beside bare pw.x.")
    parser.add_argument("--structures", type=int, default=100)
    parser.add_argument("--slots", type=int, default=2, help="pw.x at a time")
    parser.add_argument("--cutoff", type=float, default=18.0, help="Ry")
    parser.add_argument("--kspacing", type=float, default=0.35, help="1/Å")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", choices=MODES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run_mode(arguments.run, arguments)))
        return
    results = {}
    for mode in arguments.modes:
        # A process of its own: what one imports or leaves in memory does not help the next.
        command = [sys.executable, __file__, *sys.argv[1:], "--run", mode]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        results[mode] = json.loads(output.splitlines()[-1])
    if "bare" in results:
        for found in results.values():
            for key in ("wall", "cpu"):
                found[f"{key}_ratio"] = round(found[f"{key}_s"] / results["bare"][f"{key}_s"], 3)
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{'':8}{'labels':>8}{'wall s':>10}{'CPU s':>10}{'wall ratio':>12}{'CPU ratio':>12}")
    for mode, found in results.items():
        ratios = [found.get(f"{key}_ratio", float("nan")) for key in ("wall", "cpu")]
        times = f"{found['wall_s']:10.1f}{found['cpu_s']:10.1f}"
        print(f"{mode:8}{found['labels']:8}{times}{ratios[0]:12.3f}{ratios[1]:12.3f}")


if __name__ == "__main__":
    main()
