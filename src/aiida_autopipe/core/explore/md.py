"""One trajectory: Langevin dynamics at constant volume or pressure, watched while it runs.

The integrator is ASE's `LangevinBAOAB`: B. Leimkuhler and C. Matthews, J. Chem. Phys. 138,
174102 (2013); with a barostat, D. Quigley and M. I. J. Probert, J. Chem. Phys. 120, 11432 (2004),
here with a cell that keeps its shape.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.velocitydistribution import thermalize_momenta

from aiida_autopipe.core.explore.screen import Rejection, Screen
from aiida_autopipe.core.explore.settings import ExploreSettings, Trajectory


@dataclass(frozen=True)
class Outcome:
    """How a trajectory ended.

    index: of the trajectory; frames: frames kept; steps: steps done; ended: 'done', or one of
    `screen.REASONS`; detail: a sentence with the numbers, None when it is done.
    """

    index: int
    frames: int
    steps: int
    ended: str
    detail: str | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


class Stopped(Exception):  # noqa: N818 - not an error: the time is over
    """A trajectory was given up in the middle."""


def run_trajectory(
    start: Atoms,
    trajectory: Trajectory,
    settings: ExploreSettings,
    timestep_fs: float,
    calculator: Any,
    rng: np.random.Generator,
    keep: Callable[[Atoms, int], None],
    watch: Callable[[int], None] = lambda step: None,
) -> Outcome:
    """Run one trajectory until its end, or until a frame is rejected.

    Args:
        start: the structure it starts from; not changed.
        trajectory: its conditions.
        settings: its length and limits.
        timestep_fs: time step, fs.
        calculator: an ASE calculator; with stresses for npt.
        rng: source of the velocities and of the thermostat's random forces.
        keep: gets a frame with `info['energy']` (eV), `arrays['forces']` (eV/Å), where there is one
            `info['stress']` (eV/Å^3), and its step.
        watch: gets the number of steps after each; it may raise `Stopped`.
    """
    atoms = Atoms(start.numbers, start.positions, cell=start.cell, pbc=start.pbc)
    screen = Screen(atoms, settings)
    atoms.calc = calculator
    step = frames = 0

    def outcome(found: Rejection) -> Outcome:
        return Outcome(trajectory.index, frames, step, found.reason, found.detail)

    try:
        found = screen.full(atoms) or screen.cheap(atoms, *_evaluated(atoms))
        if found is not None:
            return outcome(found)
        thermalize_momenta(atoms, trajectory.temperature_K, rng=rng)
        dynamics = _integrator(atoms, trajectory, settings, timestep_fs, rng)
        for step in range(1, settings.steps + 1):
            dynamics.step()
            energy, forces = _evaluated(atoms)
            found = screen.cheap(atoms, energy, forces)
            if found is None and step % settings.every == 0:
                found = screen.full(atoms)
                if found is None:
                    keep(_frame(atoms, energy, forces), step)
                    frames += 1
            if found is not None:
                return outcome(found)
            watch(step)
    except (Stopped, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - a calculator may fail in any way
        reason = " ".join(str(error).split())[:300]
        return outcome(Rejection("failed", f"{type(error).__name__}: {reason}"))
    return Outcome(trajectory.index, frames, step, "done", None)


def _integrator(
    atoms: Atoms,
    trajectory: Trajectory,
    settings: ExploreSettings,
    timestep_fs: float,
    rng: np.random.Generator,
) -> LangevinBAOAB:
    options: dict[str, Any] = {}
    if trajectory.pressure_GPa is not None:
        options = {
            "externalstress": -trajectory.pressure_GPa * units.GPa,
            "hydrostatic": True,
            "P_tau": settings.barostat_fs * units.fs,
        }
    with warnings.catch_warnings():  # that it chooses the mass of the barostat by itself
        warnings.simplefilter("ignore")
        return LangevinBAOAB(
            atoms,
            timestep_fs * units.fs,
            temperature_K=trajectory.temperature_K,
            T_tau=settings.thermostat_fs * units.fs,
            rng=rng,
            **options,
        )


def _evaluated(atoms: Atoms) -> tuple[float, np.ndarray[Any, np.dtype[np.float64]]]:
    forces = np.asarray(atoms.get_forces(), dtype=np.float64)
    return float(np.asarray(atoms.get_potential_energy()).item()), forces


def _frame(atoms: Atoms, energy: float, forces: np.ndarray[Any, np.dtype[np.float64]]) -> Atoms:
    """A copy with the surrogate's labels and without momenta."""
    frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    frame.info["energy"] = energy
    frame.arrays["forces"] = forces.copy()
    results = getattr(atoms.calc, "results", {})
    stress = results.get("stress") if isinstance(results, dict) else None
    if stress is not None and bool(atoms.pbc.all()) and np.isfinite(stress).all():
        frame.info["stress"] = np.asarray(stress, dtype=np.float64).copy()
    return frame
