"""`autopipe.pw`: one structure to one label, rescued or rejected for a stated reason."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aiida.common import AttributeDict
from aiida.engine import ExitCode
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import CalcJobNode, Dict, Float, Int, Node
from aiida_quantumespresso.calculations.pw import PwCalculation as UpstreamPwCalculation

from aiida_autopipe.calculations.recovery import PwCalculation
from aiida_autopipe.engines.espresso.attempts import Accept, Attempt, Reject, method_change
from aiida_autopipe.engines.espresso.failure import Kind
from aiida_autopipe.engines.espresso.ladder import decide
from aiida_autopipe.engines.espresso.sanity import (
    MIN_DISTANCE,
    SENTENCES,
    Reason,
    Refusal,
    check_parameters,
    check_pseudos,
    check_structure,
)
from aiida_autopipe.workflows.pw_evidence import (
    attempt_of,
    headers_of,
    known_attempt,
    situation_of,
)
from aiida_autopipe.workflows.pw_handlers import PwHandlers

__all__ = ["MIN_DISTANCE", "PwWorkChain"]

MAX_ITERATIONS = 8
"""Runs of pw.x: the longest useful way up the ladder and back."""
UNBUFFERED = {"GFORTRAN_UNBUFFERED_PRECONNECTED": "y"}
"""Without it an abort under MPI loses the end of stdout, and with it the reason."""

EXIT_CODES = (
    (220, "ERROR_OVERLAPPING_ATOMS", SENTENCES[Reason.OVERLAPPING_ATOMS]),
    (221, "ERROR_UNUSABLE_STRUCTURE", SENTENCES[Reason.UNUSABLE_STRUCTURE]),
    (222, "ERROR_ABSURD_VOLUME", SENTENCES[Reason.ABSURD_VOLUME]),
    (223, "ERROR_LEFT_HANDED_CELL", SENTENCES[Reason.LEFT_HANDED_CELL]),
    (224, "ERROR_PSEUDO_MISMATCH", "The pseudopotentials do not fit the structure: {reason}; pw.x "
     "was not started."),
    (225, "ERROR_MIXED_FUNCTIONALS", "The pseudopotentials are of different functionals "
     "({functionals}); pw.x was not started."),
    (226, "ERROR_INVALID_PARAMETERS", "An input parameter is unusable: {reason}; pw.x was not "
     "started."),
    (330, "ERROR_CHARGE_IS_WRONG", "The charge is wrong: {reason}."),
    (331, "ERROR_CUTOFF_TOO_LOW", "The basis is too small: {reason}."),
    (332, "ERROR_PSEUDO_REFUSED", "{reason}."),
    (333, "ERROR_INPUT_REFUSED", "{reason}."),
    (334, "ERROR_OUT_OF_MEMORY", "Out of memory: {reason}."),
    (335, "ERROR_KILLED", "pw.x was killed: {reason}."),
    (336, "ERROR_OUTPUT_LOST", "No output: {reason}."),
    (337, "ERROR_WALLTIME_TOO_SHORT", "The wall time is too short: {reason}."),
    (338, "ERROR_NOT_A_NUMBER", "Not a number: {reason}."),
    (411, "ERROR_SCF_NOT_CONVERGED", "The SCF does not converge: {reason}."),
    (412, "ERROR_DIAGONALISATION", "The diagonalisation fails: {reason}."),
    (413, "ERROR_WRONG_MOMENT", "The magnetic solution is wrong: {reason}."),
    (414, "ERROR_SYMMETRY", "The symmetry does not fit: {reason}."),
    (415, "ERROR_BANDS", "The number of bands does not fit: {reason}."),
    (416, "ERROR_NOT_UNDERSTOOD", "Not understood: {reason}."),
    (417, "ERROR_OUT_OF_TIME", "The time for all labels is over; pw.x was not started{again}."),
)  # fmt: skip


class PwWorkChain(PwHandlers):
    """`PwBaseWorkChain` that never needs a person.

    A senseless input is refused before pw.x is started. A run that fails climbs the recovery
    ladder, at most `max_iterations` runs high. What was done, and whether the label still is one of
    the dataset's own method, is in the output `rescue`, which every work chain has.
    """

    _process_class = PwCalculation

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare the inputs, outputs and exit codes that `PwBaseWorkChain` does not have."""
        super().define(spec)
        spec.inputs["max_iterations"].default = lambda: Int(MAX_ITERATIONS)
        spec.input(
            "known_failure",
            valid_type=Dict,
            required=False,
            help="How the standard settings failed elsewhere, so that they are not run again: "
            "`exit_status` of the parser, `failure` in words, and `stdout` where it is kept.",
        )
        spec.input(
            "deadline",
            valid_type=Float,
            required=False,
            help="Seconds since 1970 after which pw.x is not started, and by which it has to end.",
        )
        spec.output(
            "rescue",
            valid_type=Dict,
            help="outcome (ok, rescued, rejected), reason, steps (attempt, failure, action, energy "
            "in eV), method (own, other), method_change, energy (eV), magnetic_moment (Bohr "
            "magnetons per cell), calculations.",
        )
        for status, label, message in EXIT_CODES:
            spec.exit_code(status, label, message=message)

    def setup(self) -> ExitCode | None:
        """Refuse what no setting can rescue, and take note of an attempt made elsewhere."""
        super().setup()
        self.ctx.attempts = []
        self.ctx.actions = {}
        self.ctx.accepted = 0
        self.ctx.reason = self.ctx.note = ""
        self.ctx.own = {
            name: dict(values) if isinstance(values, Mapping) else values
            for name, values in self.ctx.inputs.parameters.items()
        }
        self.ctx.relaxing = self.ctx.own["CONTROL"].get("calculation", "scf") in (
            "relax",
            "vc-relax",
        )
        headers = headers_of(self.inputs.pw.pseudos)
        refusal = self._check(headers)
        if refusal is not None:
            code = self.exit_codes[refusal.reason.value].format(**refusal.values)
            self.ctx.reason = code.message
            self.report(code.message)
            return self._finish(code)
        options = dict(self.ctx.inputs.metadata.options)
        options["environment_variables"] = {
            **UNBUFFERED,
            **options.get("environment_variables", {}),
        }
        self.ctx.inputs.metadata = AttributeDict({**self.ctx.inputs.metadata, "options": options})
        self.ctx.situation = asdict(
            situation_of(
                self.inputs.pw.structure,
                headers,
                self.ctx.own,
                self._one_kpoint(),
                options.get("max_wallclock_seconds"),
                self.inputs.max_iterations.value,
            )
        )
        return self._continue_elsewhere() if "known_failure" in self.inputs else None

    def _check(self, headers: Mapping[str, Any]) -> Refusal | None:
        structure = self.inputs.pw.structure
        atoms = structure.get_ase()
        crystal = not self._one_kpoint()
        isolated = self.ctx.own["SYSTEM"].get("assume_isolated", "none") != "none"
        symbols = {kind.name: kind.symbol for kind in structure.kinds}
        return (
            check_parameters(self.ctx.own)
            or check_structure(atoms, crystal and not isolated)
            or check_pseudos(symbols, headers, "input_dft" in self.ctx.own["SYSTEM"])
        )

    def _one_kpoint(self) -> bool:
        """Whether only the Gamma point is sampled: then it is a molecule in a box."""
        if any(
            str(key).lower() == "gamma_only" and value
            for key, value in dict(self.ctx.inputs.settings).items()
        ):
            return True
        if "kpoints" not in self.inputs:
            return False
        points = self.inputs.kpoints
        try:
            mesh, _ = points.get_kpoints_mesh()
        except AttributeError:  # an explicit list
            return len(points.get_kpoints()) == 1
        return list(mesh) == [1, 1, 1]

    def _continue_elsewhere(self) -> ExitCode | None:
        """Take the failed attempt made elsewhere as the first one."""
        first = known_attempt(self.inputs.known_failure.get_dict(), self.ctx.own)
        self.ctx.attempts.append(first.to_dict())
        self.report(f"an attempt made elsewhere failed: {first.failure} ({first.seen})")
        decision = decide([first], self.ctx.own, self.situation())
        if isinstance(decision, Reject):
            return self._finish(self.rejection(decision))
        assert not isinstance(decision, Accept)
        self.report(f"Action taken: {decision.action}")
        self.ctx.actions[str(first.number)] = decision.action
        self.apply_step(decision, first)
        return None

    def prepare_process(self) -> ExitCode | None:
        """Start nothing after the deadline, and let nothing run beyond it."""
        if "deadline" in self.inputs:
            left = int(self.inputs.deadline.value - time.time())
            if left < 1:
                again = " again" if self.ctx.attempts else ""
                return self._finish(self.exit_codes.ERROR_OUT_OF_TIME.format(again=again))
            options = dict(self.ctx.inputs.metadata.options)
            options["max_wallclock_seconds"] = min(
                left, options.get("max_wallclock_seconds") or left
            )
            control = self.ctx.inputs.parameters["CONTROL"]
            longest = self.defaults.delta_factor_max_seconds * options["max_wallclock_seconds"]
            control["max_seconds"] = min(longest, control.get("max_seconds", longest))
            self.ctx.inputs.metadata = AttributeDict(
                {**self.ctx.inputs.metadata, "options": options}
            )
        super().prepare_process()
        return None

    def inspect_process(self) -> ExitCode | None:
        """Look at the last run once, let the handlers act on it, and tell the end if it is one."""
        node = self.ctx.children[self.ctx.iteration - 1]
        if not (node.is_excepted or node.is_killed):
            attempt, failure = attempt_of(node, len(self.ctx.attempts) + 1)
            self.ctx.attempts.append(attempt.to_dict())
            if failure is not None:
                self.report(f"attempt {attempt.number}: {failure}")
        code = super().inspect_process()
        if code is None or code.status == 0:
            return None
        return self._finish(code)

    def report_error_handled(self, calculation: CalcJobNode, action: str) -> None:
        """Report an action, also one of a handler of `PwBaseWorkChain`, and keep it."""
        super().report_error_handled(calculation, action)
        self.ctx.actions[str(len(self.ctx.attempts))] = action

    def results(self) -> ExitCode | None:
        """Attach the outputs of the run that is the label, and what was done to get it."""
        number = self.ctx.accepted or len(self.ctx.attempts)
        offset = len(self.ctx.attempts) - self.ctx.iteration
        node = self.ctx.children[number - 1 - offset]
        self.report(f"work chain completed after {self.ctx.iteration} iterations")
        self._attach_outputs(node)
        chosen = self.history()[number - 1]
        change = method_change(self.ctx.own, chosen.parameters)
        if chosen.failure is None:
            first = number == 1
            self._record("ok" if first else "rescued", chosen, change)
        return None

    def _finish(self, code: ExitCode) -> ExitCode:
        """End without a label; the reason is in the output as well as in the exit message."""
        last = self.history()[-1:] or None
        reason = " ".join(str(code.message).split())
        if self.ctx.reason and self.ctx.reason not in reason:
            reason = f"{reason} {self.ctx.reason}."
        elif last is not None and last[0].failure is not None and not self.ctx.reason:
            reason = f"{reason} {last[0].failure.value}: {last[0].seen}"
        self.ctx.reason = reason + self._exit_words()
        self.report(f"rejected: {self.ctx.reason}")
        if "rescue" not in self.outputs:
            self._record("rejected", None, None)
        return code

    def _exit_words(self) -> str:
        """The exit status of the last calculation, for those who know the codes."""
        if not self.ctx.iteration:
            return ""
        status = self.ctx.children[self.ctx.iteration - 1].exit_status
        return f" [{status}]" if status else ""

    def _record(self, outcome: str, chosen: Attempt | None, change: str | None) -> None:
        actions = self.ctx.actions
        steps = [
            {
                "attempt": a.number,
                "failure": "" if a.failure is None else f"{Kind(a.failure).value}: {a.seen}",
                "action": actions.get(str(a.number), ""),
                "energy": a.energy,
            }
            for a in self.history()
        ]
        reason = self.ctx.reason or self.ctx.note
        if outcome == "rescued":
            done = "; ".join(step["action"] for step in steps if step["action"])
            reason = f"{done}; {reason}" if reason and done else done or reason
        record = {
            "outcome": outcome,
            "reason": reason,
            "steps": steps,
            "method": "own" if change is None else "other",
            "method_change": change,
            "energy": None if chosen is None else chosen.energy,
            "magnetic_moment": None if chosen is None else chosen.moment,
            "calculations": self.ctx.iteration,
        }
        self.out("rescue", Dict(record).store())

    def get_outputs(self, node: CalcJobNode) -> Mapping[str, Node]:
        """Outputs of the run that is the label; `rescue` is this work chain's own."""
        return dict(self.exposed_outputs(node, UpstreamPwCalculation))
