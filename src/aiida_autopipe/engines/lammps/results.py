"""Parsed output of one MD run -> sampled frames as a Dataset, and a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.thresholds import UNITS
from aiida_autopipe.engines.lammps.parse import Frame, Log, Outcome, Trace, outcome, spread
from aiida_autopipe.engines.lammps.settings import MdSettings


def sampled_frames(
    candidates: Sequence[Frame], safe: Sequence[Frame], trace: Trace, settings: MdSettings
) -> Dataset | None:
    """Frames above gamma_select (at most max_frames) and the last safe one, in the order of time.

    Columns: step, time_ps, temperature_K (interpolated in the trace), gamma_max, gamma_atom (index
    of the atom with the largest gamma), is_candidate.

    Returns:
        None when the run gave no frame at all.
    """
    above = spread(
        [f for f in candidates if f.gamma.max() > settings.gamma_select], settings.max_frames
    )
    below = sorted(
        (f for f in safe if f.gamma.max() <= settings.gamma_select), key=lambda f: f.step
    )
    frames = sorted([*above, *below[-1:]], key=lambda f: f.step)
    if not frames:
        return None
    steps = np.array([f.step for f in frames])
    gamma_max = np.array([f.gamma.max() for f in frames])
    temperature = np.full(len(frames), np.nan)
    if len(trace.step):
        temperature = np.interp(steps, trace.step, trace.temperature_K)
    return Dataset.from_atoms(
        [f.atoms for f in frames],
        columns={
            "step": steps,
            "time_ps": steps * settings.timestep_fs * 1e-3,
            "temperature_K": temperature,
            "gamma_max": gamma_max,
            "gamma_atom": np.array([int(f.gamma.argmax()) for f in frames]),
            "is_candidate": gamma_max > settings.gamma_select,
        },
    )


def restart_arrays(safe: Sequence[Frame], settings: MdSettings) -> dict[str, NDArray[Any]] | None:
    """The last safe frame with its velocities, from which the simulation can go on; None without.

    Arrays: step (), numbers (n,), positions (n, 3) in Å, velocities (n, 3) in Å/fs, cell (3, 3) in
    Å, gamma (n,).
    """
    known = [f for f in safe if f.atoms.has("momenta") and f.gamma.max() <= settings.gamma_select]
    if not known:
        return None
    last = max(known, key=lambda frame: frame.step)
    return {
        "step": np.array(last.step),
        "numbers": last.atoms.numbers,
        "positions": last.atoms.positions.copy(),
        "velocities": last.atoms.get_velocities() * units.fs,
        "cell": last.atoms.cell.array.copy(),
        "gamma": last.gamma,
    }


def restart_structure(arrays: Mapping[str, NDArray[Any]]) -> tuple[int, Atoms]:
    """Step and structure, with velocities, of what `restart_arrays` gave."""
    atoms = Atoms(arrays["numbers"], arrays["positions"], cell=arrays["cell"], pbc=True)
    atoms.set_velocities(arrays["velocities"] / units.fs)
    return int(arrays["step"]), atoms


def summarise(
    log: Log, trace: Trace, frames: Dataset | None, settings: MdSettings, first_step: int = 0
) -> dict[str, Any]:
    """JSON-able summary of a run that ended in any way.

    All steps count from the beginning of the simulation, also where the run went on from
    `first_step`. `survival` is the fraction of the steps asked of this run that were made before it
    ended;
    `gamma_max` and `gamma_mean` are over the largest gamma of each trace point (and of the frames,
    for the maximum).
    """
    ending = outcome(log, trace)
    seen = [first_step]
    if len(trace.step):
        seen.append(int(trace.step[-1]))
    if frames is not None:
        seen.append(int(frames.columns["step"].max()))
    if log.halt_step is not None:
        seen.append(log.halt_step)
    steps_done = min(max(first_step + log.steps, *seen), settings.steps)
    gammas = trace.gamma_max[np.isfinite(trace.gamma_max)]
    largest = gammas if frames is None else np.append(gammas, frames.columns["gamma_max"])
    atom_steps = log.steps * log.n_atoms
    return {
        "outcome": str(ending),
        "first_step": first_step,
        "steps_done": steps_done,
        "steps_asked": settings.steps,
        "halted": ending is Outcome.HALTED,
        "halt_step": log.halt_step,
        "halt_reason": _halt_reason(log, settings),
        "uncertainty": settings.uncertainty,
        "uncertainty_unit": UNITS[settings.uncertainty],
        "gamma_max": float(largest.max()) if len(largest) else None,
        "gamma_mean": float(gammas.mean()) if len(gammas) else None,
        "survival": (steps_done - first_step) / (settings.steps - first_step),
        "wall_seconds": log.loop_seconds,
        "lammps_version": log.version,
        "seconds_per_atom_step": log.loop_seconds / atom_steps if atom_steps else None,
    }


def _halt_reason(log: Log, settings: MdSettings) -> str | None:
    if log.halt_step is None:
        return None
    if settings.uncertainty == "gamma":
        return f"gamma {log.halt_value:.4g} above gamma_halt {settings.gamma_halt:.4g}"
    return (
        f"standard deviation of a force {log.halt_value:.4g} eV/Å above gamma_halt "
        f"{settings.gamma_halt:.4g} eV/Å"
    )
