"""`autopipe.train`: split the labels, fit a potential with the chosen trainer."""

from __future__ import annotations

from aiida.engine import ExitCode, ToContext, WorkChain
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import AbstractCode, ArrayData, Dict, Int
from aiida.plugins import CalculationFactory

from aiida_autopipe.calculations.functions import split
from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.workflows.functions import call, failure_reason


class TrainWorkChain(WorkChain):
    """Hold out a test part and fit a potential to the rest.

    A structure stays in its part when later generations add structures, so errors on the test part
    can be compared between generations.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outputs, outline and exit codes."""
        super().define(spec)
        spec.input(
            "dataset", valid_type=DatasetData, help="Labelled structures with reference energies."
        )
        spec.input(
            "trainer", valid_type=str, non_db=True, default="autopipe.ace", help="Entry point."
        )
        spec.input("settings", valid_type=Dict, help="Settings of the trainer.")
        spec.input("split", valid_type=Dict, help="`test_fraction`.")
        spec.input("seed", valid_type=Int, help="Seed of the split and of the fit.")
        spec.input("code", valid_type=AbstractCode, help="Code of the trainer.")
        spec.input(
            "options", valid_type=Dict, required=False, help="`metadata.options` of the fit."
        )
        spec.outline(cls.split, cls.run_fit, cls.inspect_fit)
        spec.output("potential", valid_type=PotentialData)
        spec.output("metrics", valid_type=Dict)
        spec.output("parity", valid_type=ArrayData, required=False)
        spec.output("train", valid_type=DatasetData)
        spec.output("test", valid_type=DatasetData)
        spec.exit_code(
            201, "ERROR_UNLABELLED", message="The dataset has structures without labels."
        )
        spec.exit_code(
            202, "ERROR_TOO_FEW", message="A fit needs at least 2 structures, there are {n}."
        )
        spec.exit_code(402, "ERROR_SPLIT", message="The labels cannot be split: {reason}")
        spec.exit_code(401, "ERROR_FIT_FAILED", message="The fit failed: {reason}")

    def split(self) -> ExitCode | None:
        """Assign each structure to the training or the test part."""
        if not self.inputs.dataset.labelled:
            return self.exit_codes.ERROR_UNLABELLED
        if self.inputs.dataset.n_structures < 2:
            return self.exit_codes.ERROR_TOO_FEW.format(n=self.inputs.dataset.n_structures)
        try:
            self.ctx.parts = call(split, self.inputs.dataset, self.inputs.split, self.inputs.seed)
        except AutopipeError as error:
            return self.exit_codes.ERROR_SPLIT.format(reason=error)
        self.out_many(self.ctx.parts)
        return None

    def run_fit(self) -> ToContext:
        """Submit the trainer."""
        builder = CalculationFactory(self.inputs.trainer).get_builder()
        builder.code = self.inputs.code
        builder.train = self.ctx.parts["train"]
        builder.test = self.ctx.parts["test"]
        builder.settings = self.inputs.settings
        builder.seed = self.inputs.seed
        if "options" in self.inputs:
            builder.metadata.options = self.inputs.options.get_dict()
        return ToContext(fit=self.submit(builder))

    def inspect_fit(self) -> ExitCode | None:
        """Pass the potential on, or the trainer's own words."""
        fit = self.ctx.fit
        if not fit.is_finished_ok:
            return self.exit_codes.ERROR_FIT_FAILED.format(reason=failure_reason(fit))
        self.out("potential", fit.outputs.potential)
        self.out("metrics", fit.outputs.metrics)
        if "parity" in fit.outputs:
            self.out("parity", fit.outputs.parity)
        return None
