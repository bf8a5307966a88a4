"""Inputs of the work chains from sections of the configuration."""

from aiida_autopipe.config.md import MdSegment
from aiida_autopipe.engines.lammps.settings import MdSettings, Segment
from aiida_autopipe.workflows.inputs import job_options, md_conditions, md_settings

RESOURCES = {
    "num_machines": 1,
    "num_mpiprocs_per_machine": 1,
    "num_cores_per_mpiproc": 1,
    "max_wallclock_seconds": 60,
}
MD = {
    "temperatures_K": [300.0, 600.0],
    "ensembles": ["nvt", "npt"],
    "pressure_GPa": 1.0,
    "steps": 10,
    "interface": "library",
    "timestep_fs": 2.0,
    "uncertainty": "gamma",
    "gamma_select": 1.5,
    "gamma_halt": 10.0,
    "gamma_every": 5,
    "max_frames": 3,
    "schedule": [],
    "schedule_supercell": None,
    "keep_every": 20,
}


def test_serial_jobs_do_not_ask_for_mpi() -> None:
    """One process on one machine runs without mpirun."""
    assert job_options(RESOURCES) == {
        "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1},
        "max_wallclock_seconds": 60,
        "withmpi": False,
    }


def test_the_code_decides_about_mpi_where_it_says_so() -> None:
    """AiiDA refuses options that contradict the code."""
    assert job_options(RESOURCES, code_with_mpi=True)["withmpi"]
    assert not job_options({**RESOURCES, "num_machines": 2}, code_with_mpi=False)["withmpi"]


def test_parallel_jobs_do() -> None:
    """Several processes run under MPI, each with its threads."""
    options = job_options({**RESOURCES, "num_mpiprocs_per_machine": 4, "num_cores_per_mpiproc": 2})
    assert options["withmpi"]
    assert options["resources"]["num_cores_per_mpiproc"] == 2


def test_one_simulation_for_each_condition() -> None:
    """Temperatures, ensembles and starts are combined; none is forgotten."""
    conditions = md_conditions(MD, n_starts=3)
    assert len(conditions) == 2 * 2 * 3
    assert len({(c["start"], c["ensemble"], c["temperature_K"][0]) for c in conditions}) == 12
    assert all(c["pressure_GPa"] == 1.0 and c["steps"] == 10 for c in conditions)


def test_the_schedule_is_one_simulation_more() -> None:
    """Its segments have the steps and the pressure of the trajectories unless they have own."""
    heat = {"ensemble": "nvt", "temperature_K": [300.0, 900.0], "steps": None}
    hold = {"ensemble": "npt", "temperature_K": 900.0, "steps": 50, "pressure_GPa": [0.0, 2.0]}
    schedule = [MdSegment(**segment).model_dump() for segment in (heat, hold)]
    conditions = md_conditions({**MD, "schedule": schedule}, n_starts=2)
    assert [c["start"] for c in conditions[-2:]] == [0, 1]
    own = md_conditions({**MD, "schedule": schedule, "schedule_supercell": [4, 4, 4]}, n_starts=3)
    assert [c["start"] for c in own if c["ensemble"] == "schedule"] == [2]
    assert {c["start"] for c in own if c["ensemble"] != "schedule"} == {0, 1}
    last = conditions[-1]
    assert (last["ensemble"], last["steps"]) == ("schedule", 60)
    assert last["temperature_K"] == [300.0, 900.0, 900.0]
    settings = MdSettings.from_dict({**md_settings(MD), "segments": last["segments"]})
    assert settings.segments == (
        Segment("nvt", 10, (300.0, 900.0), (1.0, 1.0)),
        Segment("npt", 50, (900.0, 900.0), (0.0, 2.0)),
    )


def test_md_settings_are_known_to_the_engine() -> None:
    """The engine accepts what the work chain passes on."""
    segments = [{k: v for k, v in c.items() if k != "start"} for c in md_conditions(MD, 1)[:1]]
    settings = MdSettings.from_dict({**md_settings(MD), "segments": segments})
    assert (settings.gamma_halt, settings.keep_every) == (10.0, 20)
    assert "keep_every" not in md_settings({**MD, "keep_every": None})
