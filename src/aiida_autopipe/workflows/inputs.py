"""From sections of the configuration to inputs of the work chains."""

from __future__ import annotations

from typing import Any


def job_options(resources: dict[str, Any], code_with_mpi: bool | None = None) -> dict[str, Any]:
    """`metadata.options` from a `resources` section of the configuration.

    Args:
        resources: a section of `resources`.
        code_with_mpi: what the code itself says; AiiDA refuses options that contradict it, so
            the number of processes only decides for a code that leaves it open.
    """
    machine = {key: resources[key] for key in ("num_machines", "num_mpiprocs_per_machine")}
    if resources["num_cores_per_mpiproc"] > 1:
        machine["num_cores_per_mpiproc"] = resources["num_cores_per_mpiproc"]
    by_number = n_processes(resources) > 1
    return {
        "resources": machine,
        "max_wallclock_seconds": resources["max_wallclock_seconds"],
        "withmpi": by_number if code_with_mpi is None else code_with_mpi,
    }


def n_processes(resources: dict[str, Any]) -> int:
    """MPI processes that a `resources` section asks for."""
    return int(resources["num_machines"] * resources["num_mpiprocs_per_machine"])


def md_conditions(md: dict[str, Any], n_starts: int) -> list[dict[str, Any]]:
    """One simulation for each start, ensemble and temperature.

    Args:
        md: the `md` section of the configuration.
        n_starts: number of start structures.
    """
    return [
        {
            "start": start,
            "ensemble": ensemble,
            "temperature_K": [temperature, temperature],
            "pressure_GPa": md["pressure_GPa"],
            "steps": md["steps"],
        }
        for temperature in md["temperatures_K"]
        for ensemble in md["ensembles"]
        for start in range(n_starts)
    ]


def md_settings(md: dict[str, Any]) -> dict[str, Any]:
    """Settings shared by all simulations, from the `md` section of the configuration."""
    names = ("interface", "timestep_fs", "gamma_select", "gamma_halt", "gamma_every", "max_frames")
    return {**{name: md[name] for name in names}, "thermo_every": md["gamma_every"]}
