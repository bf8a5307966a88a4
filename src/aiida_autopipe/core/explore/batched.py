"""Many trajectories at once: their energies and forces come from one call of a batched model.

Each trajectory runs in a thread of its own through the same code as everywhere, until it needs
forces; when all of them do, torch-sim computes the structures together. So a trajectory has the
same random numbers and the same filter as alone, and it may end early while the others go on: the
next that waits takes its place.
"""

from __future__ import annotations

import importlib.util
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from aiida_autopipe.core.explore.md import Outcome, Stopped
from aiida_autopipe.core.explore.runner import Runner, quietly_in_one_thread
from aiida_autopipe.core.mace_model import require, silent
from aiida_autopipe.core.surrogates.registry import Surrogate

BATCH_ATOMS = 4096
"""Most atoms in one batch; where the memory of the device is too small, a batch is divided."""
MOST_LANES = 256
"""Most trajectories at once; each has a thread."""

Evaluate = Callable[[Sequence[Atoms]], list[dict[str, Any]]]


def can_batch(surrogate: Surrogate) -> str:
    """Why trajectories of a surrogate cannot run in batches; '' when they can."""
    if surrogate.name != "mace":
        return f"it can batch MACE models, not the surrogate '{surrogate.name}'"
    if len(getattr(surrogate.calculator, "available_heads", ())) > 1:
        return "it cannot choose between the heads of the model"
    if importlib.util.find_spec("torch_sim") is None:
        return "install it with pip install 'aiida-autopipe[batched]'"
    return ""


def mace_evaluator(surrogate: Surrogate) -> Evaluate:
    """Energies, forces and stresses of many structures in one call, on the device of the model.

    Raises:
        EngineError: torch-sim is not installed.
    """
    torch, torch_sim = require("torch"), require("torch_sim")
    network = surrogate.calculator.models[0]
    parameter = next(network.parameters())
    device, dtype = parameter.device, parameter.dtype
    with silent():
        wrapper = require("torch_sim.models.mace").MaceModel(network, device=device, dtype=dtype)

    def evaluate(structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        try:
            with silent():
                state = torch_sim.io.atoms_to_state(list(structures), device, dtype)
                found = {k: v.detach().cpu().numpy() for k, v in wrapper(state).items()}
        except torch.cuda.OutOfMemoryError:
            if len(structures) == 1:
                raise
            torch.cuda.empty_cache()
            half = len(structures) // 2
            return evaluate(structures[:half]) + evaluate(structures[half:])
        ends = np.cumsum([len(atoms) for atoms in structures])
        forces = np.split(found["forces"].astype(np.float64), ends[:-1])
        return [
            {"energy": float(e), "forces": f, "stress": _voigt(s)}
            for e, f, s in zip(found["energy"], forces, found["stress"], strict=True)
        ]

    return evaluate


def _voigt(stress: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """xx yy zz yz xz xy."""
    return np.asarray(stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], dtype=np.float64)


class _Lane(Calculator):
    """The calculator of one trajectory: it hands structures over and waits for what comes back."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 - as ASE declares it

    def __init__(self, events: queue.Queue[tuple[str, Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._events = events
        self.answer: queue.Queue[Any] = queue.Queue(1)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Wait for the batch this structure is computed in."""
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        self.structure: Atoms = self.atoms
        self._events.put(("request", self))
        answer = self.answer.get()
        if isinstance(answer, BaseException):
            raise answer
        self.results = answer


class BatchRunner:
    """Runs trajectories in lanes, as many at once as fit into a batch."""

    def __init__(self, runner: Runner, evaluate: Evaluate, batch_atoms: int = BATCH_ATOMS) -> None:
        self._runner, self._evaluate, self._batch_atoms = runner, evaluate, batch_atoms
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._active = 0
        self._atoms_active = 0

    def run(
        self,
        indices: Sequence[int],
        report: Callable[[int], None],
        finished: Callable[[], None],
    ) -> None:
        """Run trajectories by their numbers.

        Args:
            indices: the trajectories.
            report: gets numbers of steps done; it may raise `Stopped`.
            finished: called for each trajectory that has an outcome.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        waiting, requests = deque(indices), list[_Lane]()
        with quietly_in_one_thread():
            try:
                while waiting or self._active:
                    self._fill(waiting)
                    if len(requests) == self._active:
                        self._answer(requests)
                        requests = []
                    kind, value = self._events.get()
                    if kind == "request":
                        requests.append(value)
                    elif kind == "steps":
                        report(value)
                    elif kind == "end":
                        self._leave(*value)
                        finished()
            finally:
                self._stop(requests)

    def _fill(self, waiting: deque[int]) -> None:
        """Start trajectories while there is room; one is always."""
        while waiting and self._active < MOST_LANES:
            size = self._runner.n_atoms(waiting[0])
            if self._active and self._atoms_active + size > self._batch_atoms:
                return
            index = waiting.popleft()
            self._active += 1
            self._atoms_active += size
            threading.Thread(target=self._lane, args=(index, size), daemon=True).start()

    def _lane(self, index: int, size: int) -> None:
        lane = _Lane(self._events)
        result: Outcome | BaseException
        try:
            steps: Callable[[int], None] = lambda n: self._events.put(("steps", n))  # noqa: E731
            result = self._runner.run_with(index, lane, steps)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the batches
            result = error
        self._events.put(("end", (result, size)))

    def _leave(self, result: Outcome | BaseException, size: int) -> None:
        self._active -= 1
        self._atoms_active -= size
        if isinstance(result, BaseException):
            raise result

    def _answer(self, requests: list[_Lane]) -> None:
        if not requests:
            return
        try:
            found: Sequence[Any] = self._evaluate([lane.structure for lane in requests])
        except Exception as error:  # noqa: BLE001 - each trajectory counts it as failed
            found = [error] * len(requests)
        for lane, result in zip(requests, found, strict=True):
            lane.answer.put(result)

    def _stop(self, requests: list[_Lane]) -> None:
        """End the threads that are left: whoever asks for forces is told to stop."""
        for lane in requests:
            lane.answer.put(Stopped())
        while self._active:
            kind, value = self._events.get()
            if kind == "request":
                value.answer.put(Stopped())
            elif kind == "end":
                self._active -= 1
