"""One process of an oracle's job: structures in, labels out, one after the other.

This file is copied into the job and runs there with nothing but ASE and the calculator's package:
it imports nothing of this project. It takes structures as JSON lines on its standard input and
answers with JSON lines on the file descriptor in its command line. Calculators print what they
like, and programs that they start inherit neither end.
"""

from __future__ import annotations

import difflib
import faulthandler
import importlib
import importlib.metadata
import inspect
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

LONGEST_REASON = 400
CLOSED = tuple(f"ase.calculators.{name}" for name in ("emt", "lj", "morse"))
"""Modules of calculators that read nothing but what they list."""


class Refused(Exception):  # noqa: N818 - an answer, not an error of this program
    """The calculator cannot be made; `kind` says what is wrong."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Unusable(Exception):  # noqa: N818
    """A structure has no usable label; the message says why."""


def find_class(path: str) -> Any:
    """The calculator's class; nothing is called before it is known to be one."""
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise Refused("import", f"{error} (interpreter {sys.executable})") from error
    except Exception as error:
        raise Refused("import", f"importing {module_name} failed: {reason(error)}") from error
    found = getattr(module, name, None)
    if found is None:
        near = difflib.get_close_matches(name, dir(module), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise Refused("import", f"the module {module_name} has no '{name}'{hint}")
    if not inspect.isclass(found) or not hasattr(found, "get_potential_energy"):
        raise Refused("import", f"{path} is not the class of an ASE calculator")
    return found


def check_names(kind: Any, keywords: dict[str, Any]) -> None:
    """Refuse keywords that a calculator would take and silently ignore."""
    defaults = getattr(kind, "default_parameters", None)
    if not isinstance(defaults, dict) or not defaults:
        return
    known = set(defaults)
    for base in kind.__mro__:
        if inspect.isfunction(base.__init__):
            known |= set(inspect.signature(base.__init__).parameters)
    known -= {"self", "args", "kwargs"}
    for name in sorted(set(keywords) - known):
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
        if near:
            raise Refused("keywords", f"unknown keyword '{name}'; did you mean '{near[0]}'?")
        if kind.__module__ in CLOSED:
            taken = ", ".join(sorted(defaults))
            raise Refused("keywords", f"unknown keyword '{name}'; it takes {taken}")


def make(kind: Any, keywords: dict[str, Any]) -> Any:
    """A calculator; raises Refused when it does not take its keywords."""
    try:
        return kind(**keywords)
    except ImportError as error:
        raise Refused("import", f"{error} (interpreter {sys.executable})") from error
    except Exception as error:
        raise Refused("keywords", reason(error)) from error


def reason(error: BaseException) -> str:
    """One line about an exception."""
    words = " ".join(str(error).split())
    text = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "..."


def versions(path: str) -> dict[str, str | None]:
    """Versions of the calculator's package and of ASE."""
    import ase

    package = path.split(".")[0]
    try:
        version: str | None = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = getattr(sys.modules.get(package), "__version__", None)
    return {package: None if version is None else str(version), "ase": str(ase.__version__)}


def label(structure: dict[str, Any], calculator: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Energy, forces and, in a periodic cell, stress of one structure."""
    from ase import Atoms

    atoms = Atoms(
        numbers=structure["numbers"],
        positions=structure["positions"],
        cell=structure["cell"],
        pbc=structure["pbc"],
        magmoms=structure["magmoms"],
        charges=structure["charges"],
        info=structure["info"],
    )
    atoms.calc = calculator
    if structure["relax"]:
        from ase.optimize import BFGS  # half a second, which only relaxations are worth

        limit, steps = job["force_threshold"], job["relax_steps"]
        if not BFGS(atoms, logfile=None).run(fmax=limit, steps=steps):
            raise Unusable(f"not relaxed to {limit} eV/Å in {steps} steps")
    found = properties(atoms)
    if getattr(calculator, "converged", None) is False:
        raise Unusable("the calculator says that it did not converge")
    relaxed = atoms.positions.tolist() if structure["relax"] else None
    return {**found, "positions": relaxed}


def properties(atoms: Any) -> dict[str, Any]:
    """The label of atoms with a calculator; raises Unusable for values that are none.

    Forces are the derivative of the free energy, so that is the energy where there is one.
    """
    import numpy as np
    from ase.calculators.calculator import Calculator, all_changes

    stressed = bool(atoms.pbc.all()) and has_stress(atoms.calc)
    if isinstance(atoms.calc, Calculator) and atoms.calc.calculation_required(atoms, ["forces"]):
        # All at once: many programs would otherwise run once for each property.
        wanted = ["energy", "forces", *(["stress"] if stressed else [])]
        atoms.calc.atoms, atoms.calc.results = atoms.copy(), {}
        atoms.calc.calculate(atoms, wanted, list(all_changes))
    energy = atoms.get_potential_energy()
    results = getattr(atoms.calc, "results", {})
    free = results.get("free_energy") if isinstance(results, dict) else None
    values = {"energy": energy if free is None else free, "forces": atoms.get_forces()}
    if stressed:
        try:
            values["stress"] = atoms.get_stress()
        except NotImplementedError:
            stressed = False
    shapes = {"energy": (), "forces": (len(atoms), 3), "stress": (6,)}
    plain: dict[str, Any] = {"stress": None}
    for name, value in values.items():
        array = np.asarray(value, dtype=float)
        if array.shape != shapes[name] and not (name == "energy" and array.size == 1):
            raise Unusable(f"the calculator gave {name} of shape {array.shape}")
        if not np.isfinite(array).all():
            raise Unusable(f"the calculator gave {name} that is not a finite number")
        plain[name] = array.reshape(shapes[name]).tolist()
    return plain


def has_stress(calculator: Any) -> bool:
    """False only where the calculator lists its properties and stress is not among them."""
    listed = getattr(calculator, "implemented_properties", None)
    return listed is None or "stress" in listed


class Worker:
    """Makes the calculator, then labels what it is given, each structure in a folder of its own."""

    def __init__(self, job: dict[str, Any], answers: Any) -> None:
        self.job = job
        self.answers = answers
        self.home = Path.cwd()
        self.calculator: Any = None

    def run(self, lines: queue.Queue[str]) -> None:
        """Answer until told to stop."""
        try:
            # Now, so that it does not count against the time of the first structure.
            import ase.atoms
            import ase.calculators.calculator  # noqa: F401
        except ImportError as error:
            raise Refused("interpreter", f"{error} (interpreter {sys.executable})") from error
        kind = find_class(self.job["calculator"])
        check_names(kind, self.job["keywords"])
        self.calculator = make(kind, self.job["keywords"])
        self.say("ready", versions=versions(self.job["calculator"]))
        while (line := lines.get()).strip() != "quit":
            structure = json.loads(line)
            self.say("result", position=structure["position"], **self.answer(structure, kind))

    def answer(self, structure: dict[str, Any], kind: Any) -> dict[str, Any]:
        """The record of one structure, whatever the calculator does short of a crash."""
        started = time.perf_counter()
        folder = self.home / "structures" / f"{structure['position']:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        failure, found = None, {}
        try:
            if self.calculator is None:
                self.calculator = make(kind, self.job["keywords"])
            found = label(structure, self.calculator, self.job)
        except (Unusable, Refused) as error:
            failure = str(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is this structure's failure
            failure = reason(error)
        finally:
            os.chdir(self.home)
        if not any(folder.iterdir()):
            folder.rmdir()
        if failure or not self.job["reuse_calculator"]:
            self.calculator = None
        seconds = time.perf_counter() - started
        result = "failed" if failure else "ok"
        return {"outcome": result, "reason": failure, "seconds": seconds, **found}

    def say(self, kind: str, **values: Any) -> None:
        """One line to the job."""
        self.answers.write(json.dumps({"kind": kind, **values}) + "\n")
        self.answers.flush()


def listen(source: Any, lines: queue.Queue[str]) -> None:
    """Pass lines on; when the job is gone, end this process and all that it started."""
    for line in source:
        lines.put(line)
        if line.strip() == "quit":
            return
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> int:
    """Answer on the file descriptor in the second argument for the job file in the first."""
    faulthandler.enable()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answers = os.fdopen(int(sys.argv[2]), "w", encoding="utf-8")
    os.set_inheritable(answers.fileno(), False)
    source = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=listen, args=(source, lines), daemon=True).start()
    worker = Worker(job, answers)
    try:
        worker.run(lines)
    except Refused as error:
        worker.say("refused", reason=error.kind, message=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
