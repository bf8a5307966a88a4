"""The process handlers of `autopipe.pw`, one per failure.

Each one only recognises its failure; which rung of the ladder comes next is decided in
`aiida_autopipe.engines.espresso.ladder`, which knows nothing of AiiDA. Handlers of
`PwBaseWorkChain` that take another step for the same failure are replaced under their own names.
"""

from __future__ import annotations

from typing import Any

from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessHandlerReport, process_handler
from aiida.orm import CalcJobNode
from aiida_quantumespresso.calculations.pw import PwCalculation
from aiida_quantumespresso.common.types import RestartType
from aiida_quantumespresso.workflows.pw.base import PwBaseWorkChain

from aiida_autopipe.engines.espresso.attempts import (
    Accept,
    Attempt,
    Parameters,
    Reject,
    Situation,
    Step,
    changed,
)
from aiida_autopipe.engines.espresso.failure import Kind
from aiida_autopipe.engines.espresso.ladder import decide
from aiida_autopipe.workflows.adoption import AdoptingRestartWorkChain

RESTARTS = {
    "scratch": RestartType.FROM_SCRATCH,
    "density": RestartType.FROM_CHARGE_DENSITY,
    "full": RestartType.FULL,
}
CONV_THR_Ry = 1e-6
"""What pw.x takes where the input says nothing."""
EXACT_Ry = 1e-10
"""Energy error of an SCF cycle whose forces are exact to the digits pw.x prints."""
KEEPS_STRUCTURE = (Kind.NOT_CONVERGED, Kind.WALLTIME)
"""Failures in the middle of a relaxation whose last structure is as good as any."""


class PwHandlers(AdoptingRestartWorkChain, PwBaseWorkChain):
    """`PwBaseWorkChain` with the recovery ladder in place of its own electronic handlers."""

    @process_handler(priority=720, exit_codes=ExitCode(0))
    def sanity_check_insufficient_bands(self, calculation: CalcJobNode) -> Any:
        """A run that finished is not yet a label.

        With smeared levels a filled highest band means that electrons had nowhere to go: more
        bands, from scratch. Fixed occupations, also unset ones, fill every band by construction. A
        spin-polarised run may have lost its moment, which is a solution but not the ground state:
        other starting moments, the lowest energy wins. A label found with smearing is taken back
        to the dataset's own occupations.
        """
        return self._climb(calculation, None)

    @process_handler(priority=710)
    def handle_electronic_convergence_not_reached(self, calculation: CalcJobNode) -> Any:
        """The SCF cycle ends without self-consistency.

        Too few iterations; a density that overshoots (0.7, 0.3, 0.1: each real step starts from
        scratch) or sloshes along a long cell, where the Coulomb response diverges as 1/q^2 and
        local-TF mixing screens it; wavefunctions that are not converged themselves (cg); or levels
        at the Fermi energy that swap electrons in every iteration, which only smearing settles.
        """
        return self._climb(calculation, Kind.NOT_CONVERGED)

    @process_handler(priority=709)
    def handle_smearing_needed(self, calculation: CalcJobNode) -> Any:
        """Fixed occupations need whole levels: an odd electron needs smearing or spin."""
        return self._climb(calculation, Kind.SMEARING_NEEDED)

    @process_handler(priority=708)
    def handle_moment_needed(self, calculation: CalcJobNode) -> Any:
        """Fixed occupations with spin need to know how many electrons have which spin."""
        return self._climb(calculation, Kind.MOMENT_NEEDED)

    @process_handler(priority=707)
    def handle_starting_magnetization_missing(self, calculation: CalcJobNode) -> Any:
        """Starting without a moment the two spins stay equal by symmetry; pw.x refuses it."""
        return self._climb(calculation, Kind.START_MOMENT_MISSING)

    @process_handler(priority=706)
    def handle_too_few_bands(self, calculation: CalcJobNode) -> Any:
        """Fewer bands than the electrons fill: as many as they need."""
        return self._climb(calculation, Kind.TOO_FEW_BANDS)

    @process_handler(priority=705)
    def handle_too_many_bands(self, calculation: CalcJobNode) -> Any:
        """More trial vectors than plane waves: empty bands nobody needs are left out."""
        return self._climb(calculation, Kind.TOO_MANY_BANDS)

    @process_handler(priority=704)
    def handle_diagonalization_errors(self, calculation: CalcJobNode) -> Any:
        """The overlap matrix of nearly dependent trial vectors is singular, or bands do not settle.

        david expands all bands at once, cg treats one at a time; paro is never used, it fails
        wherever it was tried in pw.x 6.7.
        """
        return self._climb(calculation, Kind.S_MATRIX, Kind.DIAGONALISATION)

    @process_handler(priority=703)
    def handle_mixing_failed(self, calculation: CalcJobNode) -> Any:
        """Broyden's matrix of density differences is singular: fewer of them, smaller steps."""
        return self._climb(calculation, Kind.MIXING)

    @process_handler(priority=702)
    def handle_charge_is_wrong(self, calculation: CalcJobNode) -> Any:
        """The density does not add up to the electrons: the cutoffs cannot hold it.

        cg or a smaller mixing factor alone hide that, and then converge to another state: iron at
        12 Ry to one without its moment.
        """
        return self._climb(calculation, Kind.CHARGE_WRONG)

    @process_handler(priority=701)
    def handle_out_of_walltime(self, calculation: CalcJobNode) -> Any:
        """pw.x stopped in time and wrote its state: the next run continues it."""
        return self._climb(calculation, Kind.WALLTIME)

    @process_handler(priority=700)
    def handle_out_of_memory(self, calculation: CalcJobNode) -> Any:
        """Every pool and rank has tables of its own: fewer of them first, then more memory."""
        return self._climb(calculation, Kind.OUT_OF_MEMORY)

    @process_handler(priority=699)
    def handle_killed(self, calculation: CalcJobNode) -> Any:
        """A signal from outside: once it is chance, twice it is memory or someone's intention."""
        return self._climb(calculation, Kind.KILLED)

    @process_handler(priority=698)
    def handle_too_many_pools(self, calculation: CalcJobNode) -> Any:
        """A pool without k-points has nothing to do."""
        return self._climb(calculation, Kind.POOLS)

    @process_handler(priority=697)
    def handle_lost_output(self, calculation: CalcJobNode) -> Any:
        """stdout ends in the middle, and neither CRASH nor stderr say why: once more, not twice."""
        return self._climb(calculation, Kind.LOST_OUTPUT)

    @process_handler(priority=696)
    def handle_symmetry(self, calculation: CalcJobNode) -> Any:
        """Symmetry operations that do not fit k-points or mesh: without them the same energy."""
        return self._climb(calculation, Kind.SYMMETRY)

    @process_handler(priority=695)
    def handle_not_a_number(self, calculation: CalcJobNode) -> Any:
        """An energy that is not a number, once with a gentler start."""
        return self._climb(calculation, Kind.NOT_A_NUMBER)

    @process_handler(priority=694)
    def handle_refused_input(self, calculation: CalcJobNode) -> Any:
        """Structure, pseudopotential or input that pw.x will not run: the same every time."""
        return self._climb(calculation, Kind.OVERLAP, Kind.PSEUDO, Kind.INPUT)

    @process_handler(
        priority=650, exit_codes=[PwCalculation.exit_codes.ERROR_IONIC_CYCLE_BFGS_HISTORY_FAILURE]
    )
    def handle_noisy_forces(self, calculation: CalcJobNode) -> Any:
        """Forces of an SCF that was stopped early are noise, in which BFGS finds no way down.

        Only where they are exact is anything else to blame: then upstream rattles the structure.
        """
        electrons = self.ctx.inputs.parameters["ELECTRONS"]
        given = float(electrons.get("conv_thr", CONV_THR_Ry))
        if given <= EXACT_Ry:
            return None
        action = f"conv_thr {given:g} -> {EXACT_Ry:g} for exact forces, from the last structure"
        self.ctx.inputs.structure = calculation.outputs.output_structure
        self.set_restart_type(RestartType.FROM_SCRATCH)
        electrons["conv_thr"] = EXACT_Ry
        self.report_error_handled(calculation, action)
        return ProcessHandlerReport(True)

    @process_handler(priority=100)
    def handle_unknown_failure(self, calculation: CalcJobNode) -> Any:
        """Whatever nobody knows is rejected with the words of pw.x."""
        return self._climb(calculation, Kind.OTHER)

    @process_handler(enabled=False)
    def handle_relax_recoverable_electronic_convergence_error(self, calculation: Any) -> None:
        """Upstream's step for the SCF of a relaxation; the ladder takes it instead."""

    def _climb(self, calculation: CalcJobNode, *kinds: Kind | None) -> Any:
        """Ask the ladder for the next step where the last attempt is of one of these kinds."""
        history = self.history()
        last = history[-1]
        if last.failure not in kinds:
            return None
        decision = decide(history, self.ctx.own, self.situation())
        if isinstance(decision, Step):
            self.report_error_handled(calculation, decision.action)
            self.apply_step(decision, last)
            return ProcessHandlerReport(True)
        if isinstance(decision, Accept):
            self.ctx.accepted = decision.number
            self.ctx.note = decision.reason
            if last.failure is None and decision.number == last.number:
                return None
            self.report_error_handled(
                calculation, f"taking the result of attempt {decision.number}"
            )
            self.ctx.is_finished = True
            return ProcessHandlerReport(True)
        return ProcessHandlerReport(True, self.rejection(decision))

    def rejection(self, decision: Reject) -> ExitCode:
        """The exit code of a rejection with its reason."""
        self.ctx.reason = decision.reason
        return self.exit_codes[decision.code].format(reason=decision.reason)

    def history(self) -> list[Attempt]:
        """All attempts so far, those made elsewhere included."""
        return [Attempt.from_dict(values) for values in self.ctx.attempts]

    def situation(self) -> Situation:
        """What the ladder has to know, with the runs that are left now."""
        left = self.inputs.max_iterations.value - self.ctx.iteration
        return Situation(**{**self.ctx.situation, "tries_left": left})

    def apply_step(self, step: Step, last: Attempt) -> None:
        """Change the inputs of the next run."""
        jobs = {values["number"]: i for i, values in enumerate(self.ctx.attempts)}
        parent = None
        if step.parent and not last.elsewhere:
            offset = len(self.ctx.attempts) - self.ctx.iteration
            job = self.ctx.children[jobs[step.parent] - offset]
            parent = job.outputs.remote_folder
        restart = RESTARTS[step.restart] if parent is not None else RestartType.FROM_SCRATCH
        if last.failure in KEEPS_STRUCTURE and self.ctx.iteration:
            child = self.ctx.children[self.ctx.iteration - 1]
            if self.ctx.relaxing and "output_structure" in child.outputs:
                self.ctx.inputs.structure = child.outputs.output_structure
        self.set_restart_type(restart, parent)
        changes: Parameters = step.changes
        if parent is None and step.restart != "scratch":
            electrons = {**changes.get("ELECTRONS", {}), "startingpot": None}
            changes = {**changes, "ELECTRONS": electrons}
        self.ctx.inputs.parameters = changed(dict(self.ctx.inputs.parameters), changes)
        self._change_resources(step)

    def _change_resources(self, step: Step) -> None:
        if step.pools is not None:
            given = self.ctx.inputs.get("parallelization", None)
            flags = (
                {}
                if given is None
                else dict(given if isinstance(given, dict) else given.get_dict())
            )
            self.ctx.inputs.parallelization = {**flags, "npool": step.pools}
            self.ctx.inputs.settings = without_pools(dict(self.ctx.inputs.settings))
        options = dict(self.ctx.inputs.metadata.options)
        if step.ranks is not None:
            resources = dict(options["resources"])
            resources.pop("tot_num_mpiprocs", None)
            options["resources"] = {**resources, "num_mpiprocs_per_machine": step.ranks}
        if step.memory_kb is not None:
            options["max_memory_kb"] = step.memory_kb
        self.ctx.inputs.metadata = AttributeDict({**self.ctx.inputs.metadata, "options": options})


def without_pools(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings whose command line does not ask for pools."""
    result = dict(settings)
    for key in ("CMDLINE", "cmdline"):
        if key not in result:
            continue
        words = " ".join(str(word) for word in result[key]).split()
        kept, skip = [], False
        for word in words:
            if skip or word in ("-nk", "-npool", "-npools"):
                skip = not skip
                continue
            kept.append(word)
        result[key] = kept
    return result
