"""`autopipe.validate`: a potential's properties next to those of the reference method."""

from __future__ import annotations

from aiida.engine import ExitCode, ToContext, WorkChain, if_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import Dict, Int

from aiida_autopipe.calculations.functions import compare_properties, plan_eos, plan_equilibrium
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
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

    def _submit_labels(self, dataset: DatasetData) -> ToContext:
        inputs = self.exposed_inputs(LabelWorkChain, "label")
        attempts = inputs.get("max_attempts", Int(1)).value
        return self.submit(
            LabelWorkChain, dataset=dataset, budget=Int(attempts * dataset.n_structures), **inputs
        )

    def run_eos(self) -> ToContext:
        """Label the primitive cell at several volumes."""
        dataset = plan_eos(self.inputs.crystal, self.inputs.settings)
        return ToContext(eos=self._submit_labels(dataset))

    def inspect_eos(self) -> ExitCode | None:
        """Find the structures the other properties need."""
        if not self.ctx.eos.is_finished_ok:
            return self.exit_codes.ERROR_REFERENCE_EOS.format(reason=self.ctx.eos.exit_message)
        labelled = self.ctx.eos.outputs.labelled
        self.out("eos", labelled)
        plan, node = plan_equilibrium.run_get_node(
            self.inputs.crystal, labelled, self.inputs.settings
        )
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_REFERENCE_EOS.format(reason=node.exit_message)
        self.ctx.plan = plan
        return None

    def should_run_equilibrium(self) -> bool:
        """True when a property needs more than the equation of state."""
        return "structures" in self.ctx.plan

    def run_equilibrium(self) -> ToContext:
        """Label strained cells and the vacancy at the equilibrium volume."""
        return ToContext(equilibrium=self._submit_labels(self.ctx.plan["structures"]))

    def inspect_equilibrium(self) -> None:
        """Keep what was labelled; properties whose structures failed are reported as missing."""
        outputs = self.ctx.equilibrium.outputs
        if "labelled" in outputs:
            self.out("equilibrium", outputs.labelled)
        if "rejected" in outputs:
            self.report(f"{outputs.rejected.n_structures} validation structures were rejected")

    def results(self) -> ExitCode | None:
        """Compare the potential with the reference."""
        table, node = compare_properties.run_get_node(
            self.inputs.potential, self.inputs.crystal, self.inputs.settings, **self.outputs
        )
        if not node.is_finished_ok:
            return self.exit_codes.ERROR_COMPARISON.format(reason=node.exit_message)
        self.out("table", table)
        return None
