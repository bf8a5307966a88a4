"""`autopipe.validate`: a potential's properties next to those of the reference method."""

from __future__ import annotations

from aiida.engine import ExitCode, ToContext, WorkChain, if_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import Dict, Int

from aiida_autopipe.calculations.functions import compare_properties, plan_eos, plan_equilibrium
from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.workflows.functions import call, failure_reason
from aiida_autopipe.workflows.label import LabelWorkChain


class ValidateWorkChain(WorkChain):
    """Compute properties with the reference method and the potential, and compare.

    The reference method runs with the settings of the labels. Its equation of state comes first,
    because every other property is computed at its equilibrium volume; the potential is measured at
    its own.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outputs, outline and exit codes."""
        super().define(spec)
        spec.input("potential", valid_type=PotentialData)
        spec.input("crystal", valid_type=DatasetData, help="Primitive and conventional cell.")
        spec.input("settings", valid_type=Dict, help="`validate` section and `kspacing_per_A`.")
        spec.expose_inputs(LabelWorkChain, namespace="label", exclude=("dataset", "budget"))
        spec.outline(
            cls.run_eos,
            cls.inspect_eos,
            if_(cls.should_run_equilibrium)(cls.run_equilibrium, cls.inspect_equilibrium),
            cls.results,
        )
        spec.output("table", valid_type=Dict, help="`rows` and energy-volume curves.")
        spec.output("eos", valid_type=DatasetData, help="Labelled cells of the equation of state.")
        spec.output("equilibrium", valid_type=DatasetData, required=False)
        spec.exit_code(
            401, "ERROR_REFERENCE_EOS", message="No equation of state of the reference: {reason}"
        )
        spec.exit_code(402, "ERROR_COMPARISON", message="The comparison failed: {reason}")
        spec.exit_code(
            403, "ERROR_REFERENCE_STOPPED", message="The reference was not completed: {reason}"
        )

    def _submit_labels(self, dataset: DatasetData) -> ToContext:
        inputs = self.exposed_inputs(LabelWorkChain, "label")
        attempts = inputs.get("max_attempts", Int(1)).value
        return self.submit(
            LabelWorkChain, dataset=dataset, budget=Int(attempts * dataset.n_structures), **inputs
        )

    def run_eos(self) -> ToContext | ExitCode:
        """Label the primitive cell at several volumes."""
        try:
            dataset = call(plan_eos, self.inputs.crystal, self.inputs.settings)
        except AutopipeError as error:
            return self.exit_codes.ERROR_REFERENCE_EOS.format(reason=error)
        return ToContext(eos=self._submit_labels(dataset))

    def inspect_eos(self) -> ExitCode | None:
        """Find the structures the other properties need."""
        if not self.ctx.eos.is_finished_ok:
            return self.exit_codes.ERROR_REFERENCE_EOS.format(reason=failure_reason(self.ctx.eos))
        labelled = self.ctx.eos.outputs.labelled
        self.out("eos", labelled)
        try:
            self.ctx.plan = call(
                plan_equilibrium, self.inputs.crystal, labelled, self.inputs.settings
            )
        except AutopipeError as error:
            return self.exit_codes.ERROR_REFERENCE_EOS.format(reason=error)
        return None

    def should_run_equilibrium(self) -> bool:
        """True when a property needs more than the equation of state."""
        return "structures" in self.ctx.plan

    def run_equilibrium(self) -> ToContext:
        """Label strained cells and the vacancy at the equilibrium volume."""
        return ToContext(equilibrium=self._submit_labels(self.ctx.plan["structures"]))

    def inspect_equilibrium(self) -> ExitCode | None:
        """Keep what was labelled; properties whose structures failed are reported as missing."""
        if not self.ctx.equilibrium.is_finished:
            return self.exit_codes.ERROR_REFERENCE_STOPPED.format(
                reason=failure_reason(self.ctx.equilibrium)
            )
        outputs = self.ctx.equilibrium.outputs
        if "labelled" in outputs:
            self.out("equilibrium", outputs.labelled)
        if "rejected" in outputs:
            self.report(f"{outputs.rejected.n_structures} validation structures were rejected")
        return None

    def results(self) -> ExitCode | None:
        """Compare the potential with the reference."""
        try:
            table = call(
                compare_properties,
                self.inputs.potential,
                self.inputs.crystal,
                self.inputs.settings,
                **self.outputs,
            )
        except AutopipeError as error:
            return self.exit_codes.ERROR_COMPARISON.format(reason=error)
        self.out("table", table)
        return None
