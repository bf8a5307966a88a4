"""Calculators that do what real ones do on a bad day; a job of an oracle imports them by path."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

SPRING = 0.3
"""eV/Å^2 to the origin."""


class Odd(Calculator):
    """Springs to the origin, and the trouble that a structure carries in its info."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012
    default_parameters = {"spring": SPRING, "entropy": 0.0}  # noqa: RUF012

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        trouble = str(self.atoms.info.get("trouble", ""))
        spring = self.parameters["spring"]
        energy = 0.5 * spring * float(np.sum(self.atoms.positions**2))
        self.results = {
            "energy": energy,
            "free_energy": energy - self.parameters["entropy"],
            "forces": -spring * self.atoms.positions,
        }
        if trouble:
            getattr(self, f"do_{trouble}")()

    def do_abort(self) -> None:
        os.abort()

    def do_raise(self) -> None:
        raise RuntimeError("SCF did not converge\nafter 100 iterations")

    def do_exit(self) -> None:
        sys.exit("I give up")

    def do_nan(self) -> None:
        self.results["forces"][0, 0] = np.nan

    def do_shape(self) -> None:
        self.results["forces"] = self.results["forces"][:, :2]

    def do_unconverged(self) -> None:
        self.converged = False

    def do_print(self) -> None:
        print("{this is no JSON}\n" * 5000, flush=True)
        Path("left_behind.txt").write_text("a file of a calculator")

    def do_sleep(self) -> None:
        child = subprocess.Popen(["sleep", "300"])
        Path("sleeping.pid").write_text(f"{child.pid} {os.getpid()}")
        time.sleep(300)

    def do_nap(self) -> None:
        time.sleep(0.5)
        Path("worker.pid").write_text(str(os.getpid()))

    def do_kill_job(self) -> None:
        time.sleep(0.5)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(300)

    def do_moments(self) -> None:
        self.results["energy"] = self.results["free_energy"] = float(
            np.sum(self.atoms.get_initial_magnetic_moments())
            + 100 * np.sum(self.atoms.get_initial_charges())
        )


class Picky:
    """Not made without a key that nobody has."""

    def __init__(self, licence: str) -> None:
        raise ValueError(f"the licence {licence} is not valid")

    def get_potential_energy(self, *_: Any) -> float:
        return 0.0


class Stillborn:
    """Crashes while it is made."""

    def __init__(self) -> None:
        os.abort()

    def get_potential_energy(self, *_: Any) -> float:
        return 0.0


def not_a_class() -> None:
    raise AssertionError("an import path must not be called before it is known to be a class")
