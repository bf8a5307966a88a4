"""`autopipe.pw`: one structure to one label, on top of `PwBaseWorkChain`."""

from __future__ import annotations

from aiida.engine import ExitCode
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida_quantumespresso.workflows.pw.base import PwBaseWorkChain

from aiida_autopipe.core.distances import closest_pair
from aiida_autopipe.core.errors import DataError

MIN_DISTANCE = 0.5
"""Å; two nuclei closer than this are a mistake in the structure, for every element."""


class PwWorkChain(PwBaseWorkChain):
    """`PwBaseWorkChain` that refuses a senseless structure before pw.x is started."""

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare the exit codes of the checks before the first run."""
        super().define(spec)
        spec.exit_code(
            220,
            "ERROR_OVERLAPPING_ATOMS",
            message="Atoms {first} and {second} are {distance} Å apart; pw.x was not started.",
        )
        spec.exit_code(221, "ERROR_UNUSABLE_STRUCTURE", message="pw.x was not started: {reason}")

    def setup(self) -> ExitCode | None:
        """Refuse atoms on top of each other: pw.x would run for hours or abort without a word."""
        super().setup()
        try:
            pair = closest_pair(self.inputs.pw.structure.get_ase())
        except DataError as error:
            return self.exit_codes.ERROR_UNUSABLE_STRUCTURE.format(reason=error)
        if pair is not None and pair.distance < MIN_DISTANCE:
            return self.exit_codes.ERROR_OVERLAPPING_ATOMS.format(
                first=pair.first, second=pair.second, distance=f"{pair.distance:.3f}"
            )
        return None
