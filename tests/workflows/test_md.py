"""`autopipe.md` with real LAMMPS and a small ACE potential."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Bool, CalcJobNode, Dict, Int, List, load_node

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.workflows.md import MdWorkChain
from tests.reference.copper import copper, copper_potential

SETTINGS = {
    "interface": "library",
    "timestep_fs": 2.0,
    "gamma_select": 1.2,
    "gamma_halt": 3.0,
    "gamma_every": 5,
    "thermo_every": 5,
    "max_frames": 5,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of a copper potential that knows moderate displacements only."""
    return copper_potential().save(tmp_path_factory.mktemp("potential") / "copper")


@pytest.fixture
def run_md(aiida_profile: Any, lammps_code: Any, saved: list[Path]) -> Any:
    """Run `MdWorkChain` under conditions (temperatures, K)."""
    potential = PotentialData.from_files(
        {path.name: path for path in saved}, "ace", ["Cu"], 4.0, {"Cu": 0.0}
    )

    def run(
        temperatures: list[float],
        starts: list[Any] | None = None,
        descriptors: dict[str, Any] | None = None,
        restarts: dict[str, Any] | None = None,
        conditions: list[dict[str, Any]] | None = None,
        hand_over: bool = False,
        adopted: dict[str, str] | None = None,
        **changes: Any,
    ) -> Any:
        structures = starts or [copper(0.03, np.random.default_rng(2))]
        names = [f"start {i}" for i in range(len(structures))]
        dataset = Dataset.from_atoms(structures, columns={"start": names})
        conditions = conditions or [
            {
                "start": i % len(structures),
                "ensemble": "nvt",
                "temperature_K": [t, t],
                "pressure_GPa": 0.0,
                "steps": 200,
            }
            for i, t in enumerate(temperatures)
        ]
        return run_get_node(
            MdWorkChain,
            potential=potential,
            starts=DatasetData(dataset),
            conditions=List(conditions),
            settings=Dict({**SETTINGS, **changes}),
            code=lammps_code,
            seed=Int(7),
            max_concurrent=Int(2),
            **({"descriptors": Dict(descriptors)} if descriptors else {}),
            **({"restarts": restarts} if restarts else {}),
            **({"adopted": Dict(adopted)} if adopted else {}),
            hand_over=Bool(hand_over),
        )

    return run


def test_cold_survives_and_hot_is_halted(run_md: Any) -> None:
    """Heat drives the simulation out of the known: it is halted, and its frames are candidates."""
    outputs, node = run_md([50.0, 3000.0, 50.0])
    assert node.is_finished_ok
    summary = outputs["summary"].get_dict()
    cold, hot, again = summary["simulations"]
    assert (cold["survival"], cold["halted"]) == (1.0, False)
    assert hot["halted"]
    assert 0 < hot["survival"] < 1
    assert hot["gamma_max"] > SETTINGS["gamma_halt"]
    assert hot["start_name"] == "start 0"
    assert summary["survival"] == pytest.approx((2.0 + hot["survival"]) / 3)
    # Two simulations under the same conditions have their own seeds.
    assert cold["gamma_max"] != again["gamma_max"]
    candidates = outputs["candidates"].get_dataset()
    assert summary["new_candidates"] == len(candidates) > 0
    assert (candidates.columns["gamma_max"] > SETTINGS["gamma_select"]).all()
    assert set(candidates.columns["origin"]) == {"md"}
    assert candidates.energy is None


def test_what_was_halted_goes_on(run_md: Any) -> None:
    """With its clock; what reached its end begins anew, and a hopeless one stays where it was."""
    first, node = run_md([50.0, 3000.0, 3000.0])
    assert node.is_finished_ok
    restarts = dict(first["restarts"])
    assert set(restarts) == {"simulation_1", "simulation_2"}
    second, node = run_md([50.0, 3000.0, 3000.0], restarts=restarts, gamma_halt=1e9)
    assert node.is_finished_ok
    cold, *hot = second["summary"]["simulations"]
    assert (cold["first_step"], cold["steps_done"]) == (0, 200)
    for index, record in enumerate(hot, start=1):
        step = int(restarts[f"simulation_{index}"].get_array("step"))
        assert record["first_step"] == step
        assert (record["steps_done"], record["survival"]) == (200, 1.0)
    assert "restarts" not in second
    # Nothing is safe for a potential that is asked for less than the grade of known structures.
    third, _ = run_md([50.0, 3000.0], restarts=restarts, gamma_select=0.01, gamma_halt=0.02)
    assert third["restarts"]["simulation_1"].uuid == restarts["simulation_1"].uuid
    assert "simulation_0" not in third["restarts"]


def test_the_slow_run_on_and_are_taken_over(run_md: Any) -> None:
    """The generation ends when one is lost; the next waits for the other, and starts the first."""
    many, few = 30000, 100
    conditions = [
        {"start": 0, "ensemble": "nvt", "temperature_K": [t, t], "pressure_GPa": 0.0, "steps": n}
        for t, n in ((20.0, many), (3000.0, few))
    ]
    first, node = run_md([], conditions=conditions, hand_over=True)
    assert node.is_finished_ok
    running = first["summary"]["running"]
    assert set(running) == {"0"}
    assert not load_node(running["0"]).is_terminated
    (hot,) = first["summary"]["simulations"]
    assert hot["halted"] and not hot["earlier_potential"]
    assert first["summary"]["survival"] == hot["survival"]
    second, node = run_md(
        [], conditions=conditions, restarts=dict(first["restarts"]), adopted=running,
        hand_over=True, gamma_halt=1e9,
    )  # fmt: skip
    assert node.is_finished_ok
    assert second["summary"]["running"] == {}
    cold, hot = second["summary"]["simulations"]
    assert (cold["uuid"], cold["steps_done"]) == (running["0"], many)
    assert cold["earlier_potential"] and not hot["earlier_potential"]
    assert hot["first_step"] > 0 and hot["steps_done"] == few
    assert [job.label for job in node.called if isinstance(job, CalcJobNode)] == ["1 nvt 3000 K"]


def test_a_schedule_is_one_simulation(run_md: Any) -> None:
    segments = [
        {"ensemble": "nvt", "temperature_K": [20.0, 80.0], "steps": 50},
        {"ensemble": "npt", "temperature_K": [80.0, 20.0], "steps": 50},
    ]
    whole = {"temperature_K": [20.0, 80.0, 20.0], "ensemble": "schedule", "steps": 100}
    outputs, node = run_md([], conditions=[{"start": 0, **whole, "segments": segments}])
    assert node.is_finished_ok
    (record,) = outputs["summary"]["simulations"]
    assert (record["ensemble"], record["steps_done"]) == ("schedule", 100)
    (job,) = (c for c in node.called if isinstance(c, CalcJobNode))
    assert job.label == "0 schedule 20-80-20 K"


def test_candidates_with_features(run_md: Any) -> None:
    """What is asked for in the configuration is in the file of the candidates."""
    outputs, node = run_md([3000.0], descriptors={"descriptor": "ace", "average": True})
    assert node.is_finished_ok
    candidates = outputs["candidates"]
    features = candidates.get_features("ace")
    assert len(features) == candidates.n_structures == outputs["summary"]["new_candidates"]
    assert np.all(np.isfinite(features))
    assert candidates.creator.process_label == "describe"


def test_candidates_that_cannot_be_described(run_md: Any) -> None:
    """They are handed over without features, and the exit code says why."""
    outputs, node = run_md([3000.0], descriptors={"descriptor": "soap", "settings": {"n_max": 0}})
    assert node.exit_status == MdWorkChain.exit_codes.ERROR_DESCRIBE.status
    assert "n_max = 0" in node.exit_message
    assert outputs["candidates"].n_structures > 0


def test_nothing_new_gives_no_candidates(run_md: Any) -> None:
    """A potential that knows what it sees leaves nothing to label."""
    outputs, node = run_md([10.0], gamma_select=2.9)
    assert node.is_finished_ok
    assert "candidates" not in outputs
    assert outputs["summary"]["new_candidates"] == 0


def test_no_conditions(run_md: Any) -> None:
    """Without conditions there is nothing to run."""
    _, node = run_md([])
    assert node.exit_status == MdWorkChain.exit_codes.ERROR_NO_CONDITIONS.status


def test_all_failed_tells_why(run_md: Any) -> None:
    """Absurd steps: every simulation blows up, and the work chain says so in LAMMPS's words."""
    _, node = run_md([1e7], gamma_halt=1e300, timestep_fs=1e4)
    assert node.exit_status == MdWorkChain.exit_codes.ERROR_ALL_FAILED.status
    (job,) = (c for c in node.called if isinstance(c, CalcJobNode))
    assert f"[{job.exit_status}]" in node.exit_message
