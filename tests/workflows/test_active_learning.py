"""`autopipe.active_learning`: the whole loop on real codes through a daemon that is killed."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import CalcJobNode, WorkChainNode, load_node

from aiida_autopipe.cli.daemon import ensure_daemon
from aiida_autopipe.cli.results import write_results
from aiida_autopipe.config.expand import expand_with_material, merge
from aiida_autopipe.config.loading import load_input
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.workflows.launch import Launch, find_run, load_run, prepare, start
from aiida_autopipe.workflows.progress import Progress, failures, snapshot
from aiida_autopipe.workflows.trajectories import collect_trajectories

EXAMPLE = Path(__file__).parents[2] / "examples" / "silicon-short.yaml"
DESCRIPTORS = {"descriptor": "ace", "average": True}


@pytest.fixture
def launch(pw_code: Any, python_code: Any, lammps_code: Any, pz_family: Any) -> Any:
    """Prepare the short example with changes."""

    def make(**changes: Any) -> Launch:
        user = merge(load_input(EXAMPLE), changes)
        config, material = expand_with_material(user, EXAMPLE.parent, "short")
        return prepare(config, material)

    return make


def wait(run: WorkChainNode, until: Callable[[Progress], bool], seconds: float = 900.0) -> None:
    """Wait until something is true of a run, or fail."""
    end = time.monotonic() + seconds
    while not until(now := snapshot(run)):
        assert time.monotonic() < end, f"still {now}"
        time.sleep(1.0)


def kill_daemon(client: Any) -> None:
    """Kill supervisor and workers without warning, as a power cut would do."""
    workers = [int(pid) for pid in client.get_worker_info()["info"]]
    for pid in (client.get_daemon_pid(), *workers):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.loop
@pytest.mark.timeout(1200)
def test_loop_survives_a_killed_daemon(
    launch: Any, started_daemon_client: Any, tmp_path: Path
) -> None:
    """The loop ends with a validated potential although its daemon was killed in the middle."""
    prepared = launch(md={"descriptors": DESCRIPTORS})
    assert find_run(prepared.key) is None
    run = start(prepared)
    wait(run, lambda now: now.labels_done >= 3)
    kill_daemon(started_daemon_client)
    # What is left of it is a PID file; the command notices and starts another.
    assert ensure_daemon(1)
    wait(run, lambda now: now.stage == "done")
    assert run.is_finished_ok, (run.exit_message, failures(run))

    # The same input finds the same run; so does its name.
    again = find_run(launch(md={"descriptors": DESCRIPTORS}).key)
    assert again is not None
    assert again.pk == run.pk
    assert load_run("short").pk == run.pk

    history = run.outputs.history.get_dict()
    counts = history["labels"]
    budget = prepared.builder.config["budget"]["labels"]
    steps = run.base.links.get_outgoing(link_label_filter="CALL").all_nodes()
    jobs = [
        job
        for step in steps
        if step.process_label == "LabelWorkChain"
        for job in step.called_descendants
        if isinstance(job, CalcJobNode)
    ]
    found = [
        step.outputs.candidates
        for step in steps
        if step.process_label == "MdWorkChain" and "candidates" in step.outputs
    ]
    assert all(len(node.get_features("ace")) == node.n_structures for node in found)
    batches = [job for job in jobs if job.process_label == "PwBatchCalculation"]
    begun = [
        one
        for job in batches
        for one in job.outputs.outcomes["outcomes"]
        if one["outcome"] != "not_run"
    ]
    assert batches
    assert counts["calculations"] == len(begun) + len(jobs) - len(batches) <= budget
    assert counts["requested"] == counts["ok"] + counts["rejected"]
    assert len(history["generations"]) == 2
    assert history["stop_reason"]
    dataset = run.outputs.dataset
    assert dataset.labelled
    # The isolated atom became the reference energy.
    assert counts["ok"] == dataset.n_structures + 1
    assert set(dataset.get_dataset().reference_energies) == {"Si"}

    written = write_results(run, tmp_path)
    summary = json.loads(written["summary"].read_text())
    assert summary["generations"] == 2
    # A last fit follows only where the last generation brought labels.
    assert summary["fits"] in (2, 3)
    assert summary["labels"]["ok"] == counts["ok"]
    assert {row["name"] for row in summary["validation"]} == {
        "lattice_constant",
        "bulk_modulus",
        "C11",
        "C12",
        "C44",
    }
    assert all(row["checked"] for row in summary["validation"])
    for name in summary["files"].values():
        assert (tmp_path / name).stat().st_size > 0
    page = written["report"].read_text()
    assert run.uuid in page
    shares = summary["time_seconds"]
    assert set(shares) == {"pw.x", "training", "MD", "AiiDA"}
    assert shares["pw.x"] > 0


def test_halted_md_is_taught_and_resumed(python_code: Any, lammps_code: Any) -> None:
    """Cells around the uncertain atoms are labelled, and the simulation goes on where it was.

    A slow simulation that knows its ground runs on while others are learned from.
    """
    path = EXAMPLE.with_name("copper-quench.yaml")
    heat = {"ensemble": "npt", "temperature_K": [300, 4000], "steps": 1000}
    cool = {"ensemble": "npt", "temperature_K": [4000, 1000], "steps": 100}
    changes = {
        "md": {
            "supercell": [4, 4, 4], "schedule": [heat, cool], "gamma_halt": 3.0,
            "temperatures_K": [20], "ensembles": ["nvt"], "steps": 40000, "overlap": True,
            "embed": {"radius_A": 2.7, "buffer_A": 1.0},
        },
        "loop": {"max_generations": 2, "candidates_per_generation": 4},
        "train": {"max_functions": 40},
    }  # fmt: skip
    config, material = expand_with_material(merge(load_input(path), changes), path.parent, "cu")
    outputs, run = run_get_node(prepare(config, material).builder)
    assert run.is_finished_ok, (run.exit_message, failures(run))
    steps = sorted(run.called, key=lambda step: step.pk)
    waves = [step for step in steps if step.process_label == "MdWorkChain"]
    first, second = (wave.outputs.summary["simulations"][-1] for wave in waves)
    assert first["halted"] and first["first_step"] == 0
    assert 0 < second["first_step"] <= first["steps_done"] < second["steps_done"]
    slow = load_node(waves[0].outputs.summary["running"]["0"])
    assert slow.caller.pk == waves[0].pk and slow.mtime > waves[0].mtime
    meanwhile = {step.process_label for step in steps if waves[0].mtime < step.ctime < slow.mtime}
    assert "LabelWorkChain" in meanwhile
    assert waves[1].outputs.summary["simulations"][0]["uuid"] == slow.uuid
    (labels,) = (s for s in steps if s.label == "candidates of generation 1")
    assert labels.inputs.max_concurrent == 1  # of 2, and one still runs
    cells = [step.outputs.cells for step in steps if step.process_label == "embed"]
    assert len(cells) == 2
    data = outputs["dataset"].get_dataset()
    assert data.force_mask is not None
    embedded = data.columns["origin"] == "embed"
    assert (
        0
        < embedded.sum()
        == sum((cell.get_dataset().columns["origin"] == "embed").sum() for cell in cells)
    )
    _check_trajectories(run, second, len(cells[0].get_dataset()) + len(cells[1].get_dataset()))
    learned = np.add.reduceat(data.force_mask, data.offsets[:-1]) / data.sizes
    assert learned[embedded].max() < 0.7
    assert learned[~embedded].min() == 1


def _check_trajectories(run: WorkChainNode, last: dict[str, Any], labelled: int) -> None:
    """The report shows the schedule with both its potentials, and the long simulation."""
    shown, _ = collect_trajectories(run)
    schedule, slow = shown
    assert (schedule.generations, schedule.times_begun) == ([1, 2], 1)
    assert (slow.generations, slow.steps_done) == ([1], 40000)
    assert schedule.steps_done == last["steps_done"]
    heat = schedule.segments[0]
    assert heat.name == "npt 300-4000 K" and heat.generations == [1, 2]
    assert heat.density_start == pytest.approx(8.9, abs=0.3)
    time = np.array(schedule.time_ps)
    assert np.all(np.diff(time[np.isfinite(time)]) >= 0)
    # One break where the second potential took over.
    assert np.isnan(time).sum() >= 2
    # Cut-outs have forces to be judged by, but no energy and no structure of the simulation.
    assert 0 < len(schedule.frames.time_ps) <= labelled
    assert np.isfinite(schedule.frames.forces_rmse).all()
    assert not heat.pairs[0].labelled_g and heat.labelled == 0
    assert heat.forces_rmse is not None and heat.energy_rmse_per_atom is None
    cold = slow.segments[0]
    assert cold.pairs[0].coordination == pytest.approx(12, abs=0.01)
    assert cold.diffusion is None and "keep their places" in cold.diffusion_note


def test_unknown_run_is_named(aiida_profile: Any) -> None:
    """A run that does not exist is an error with what there is."""
    with pytest.raises(InputError, match="There is no run 'nonsense'"):
        load_run("nonsense")
