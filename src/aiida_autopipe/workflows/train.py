"""`autopipe.train`: split the labels, fit a potential with the chosen trainer."""

from __future__ import annotations

from typing import Any

from aiida.engine import ExitCode, ToContext, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import AbstractCode, ArrayData, Dict, Int, ProcessNode, SinglefileData, load_node
from aiida.plugins import CalculationFactory

from aiida_autopipe.calculations.committee import calibrate_committee
from aiida_autopipe.calculations.functions import split
from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.workflows.functions import call, failure_reason
from aiida_autopipe.workflows.rolling import RollingWorkChain

RESTART_PORT = "restart_from"
OUT_OF_TIME = "ERROR_OUT_OF_TIME"
SCHEDULER_OUT_OF_TIME = 120


def validate_positive(node: Int, _: Any) -> str | None:
    """A count of at least one."""
    return None if node.value > 0 else f"must be at least 1, not {node.value}"


class TrainWorkChain(RollingWorkChain):
    """Hold out a test part and fit a potential to the rest.

    A structure stays in its part when later generations add structures, so errors on the test part
    can be compared between generations. A committee is several fits with consecutive seeds. A fit
    whose time was over goes on from its checkpoint where the trainer can do that.
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
        spec.input("seed", valid_type=Int, help="Seed of the split and of the (first) fit.")
        spec.input("code", valid_type=AbstractCode, help="Code of the trainer.")
        spec.input(
            "options", valid_type=Dict, required=False, help="`metadata.options` of the fit."
        )
        spec.input(
            "prior",
            valid_type=(PotentialData, SinglefileData),
            required=False,
            help="Potential to start from, where the trainer has such an input.",
        )
        spec.input(
            "replay",
            valid_type=DatasetData,
            required=False,
            help="Data `prior` must not forget, where the trainer has such an input.",
        )
        for name, default in (("committee", 1), ("max_concurrent", 1), ("max_restarts", 10)):
            spec.input(
                name,
                valid_type=Int,
                validator=validate_positive,
                default=lambda n=default: Int(n),
            )
        spec.outline(cls.split, while_(cls.should_fit)(cls.run_fits, cls.inspect_fits), cls.results)
        spec.output("potential", valid_type=PotentialData)
        spec.output("metrics", valid_type=Dict)
        spec.output("parity", valid_type=ArrayData, required=False)
        spec.output("learning_curve", valid_type=ArrayData, required=False)
        spec.output("train", valid_type=DatasetData)
        spec.output("test", valid_type=DatasetData)
        spec.output_namespace(
            "committee",
            valid_type=PotentialData,
            required=False,
            help="All members, the first is `potential`.",
        )
        spec.output(
            "calibration",
            valid_type=Dict,
            required=False,
            help="How spreads of the committee become errors; see `core.committee`.",
        )
        spec.exit_code(
            201, "ERROR_UNLABELLED", message="The dataset has structures without labels."
        )
        spec.exit_code(
            202, "ERROR_TOO_FEW", message="A fit needs at least 2 structures, there are {n}."
        )
        spec.exit_code(
            203, "ERROR_NO_SUCH_PORT", message="The trainer '{trainer}' has no input '{port}'."
        )
        spec.exit_code(402, "ERROR_SPLIT", message="The labels cannot be split: {reason}")
        spec.exit_code(401, "ERROR_FIT_FAILED", message="The fit failed: {reason}")
        spec.exit_code(
            403, "ERROR_CALIBRATION", message="The committee cannot be calibrated: {reason}"
        )

    def split(self) -> ExitCode | None:
        """Assign each structure to the training or the test part."""
        if not self.inputs.dataset.labelled:
            return self.exit_codes.ERROR_UNLABELLED
        if self.inputs.dataset.n_structures < 2:
            return self.exit_codes.ERROR_TOO_FEW.format(n=self.inputs.dataset.n_structures)
        for port in ("prior", "replay"):
            if port in self.inputs and port not in self.trainer.spec().inputs:
                return self.exit_codes.ERROR_NO_SUCH_PORT.format(
                    trainer=self.inputs.trainer, port=port
                )
        try:
            self.ctx.parts = call(split, self.inputs.dataset, self.inputs.split, self.inputs.seed)
        except AutopipeError as error:
            return self.exit_codes.ERROR_SPLIT.format(reason=error)
        self.out_many(self.ctx.parts)
        # Names of processes: the member and how often it was restarted.
        self.ctx.queue = [f"fit_{k}_0" for k in range(self.inputs.committee.value)]
        self.ctx.running, self.ctx.fitted, self.ctx.failed = {}, {}, None
        return None

    @property
    def trainer(self) -> Any:
        """The process class of the trainer."""
        return CalculationFactory(self.inputs.trainer)

    def should_fit(self) -> bool:
        """True while something runs, or waits and nothing has failed."""
        return bool(self.ctx.running) or bool(self.ctx.queue and self.ctx.failed is None)

    def run_fits(self) -> ToContext | None:
        """Start as many fits as may run at once, and wait for the first to end."""
        while self.ctx.queue and self.ctx.failed is None:
            if len(self.ctx.running) >= self.inputs.max_concurrent.value:
                break
            name = self.ctx.queue[0]
            node = self.adopt(name) or self.submit(self._builder(name))
            self.ctx.queue = self.ctx.queue[1:]
            self.ctx.running[name] = node.pk
        return self.wait_for_running()

    def _builder(self, name: str) -> Any:
        _, member, restarts = name.split("_")
        builder = self.trainer.get_builder()
        builder.code = self.inputs.code
        builder.train = self.ctx.parts["train"]
        builder.test = self.ctx.parts["test"]
        builder.settings = self.inputs.settings
        seed = self.inputs.seed
        builder.seed = seed if member == "0" else Int(seed.value + int(member))
        for port in ("prior", "replay"):
            if port in self.inputs:
                builder[port] = self.inputs[port]
        if int(restarts):
            before = self.adopt(f"fit_{member}_{int(restarts) - 1}")
            assert before is not None
            builder[RESTART_PORT] = before.outputs.remote_folder
        if "options" in self.inputs:
            builder.metadata.options = self.inputs.options.get_dict()
        builder.metadata.label = name
        return builder

    def inspect_fits(self) -> None:
        """Note what has ended, and start again what ran out of time."""
        for name, node in self.take_ended().items():
            _, member, restarts = name.split("_")
            if node.is_finished_ok:
                self.ctx.fitted[member] = node.pk
            elif self._can_go_on(node) and int(restarts) < self.inputs.max_restarts.value:
                self.report(f"{name} goes on: {failure_reason(node)}")
                self.ctx.queue = [f"fit_{member}_{int(restarts) + 1}", *self.ctx.queue]
            else:
                self.ctx.failed = failure_reason(node)

    def _can_go_on(self, node: ProcessNode) -> bool:
        """Whether a fit was only out of time, and its trainer can continue it."""
        if RESTART_PORT not in self.trainer.spec().inputs:
            return False
        own = self.trainer.exit_codes.get(OUT_OF_TIME)
        began = "learning_curve" in node.outputs and "remote_folder" in node.outputs
        return began and node.exit_status in (SCHEDULER_OUT_OF_TIME, own and own.status)

    def results(self) -> ExitCode | None:
        """Pass the potentials on, or the trainer's own words."""
        if self.ctx.failed is not None:
            return self.exit_codes.ERROR_FIT_FAILED.format(reason=self.ctx.failed)
        fits = {k: load_node(self.ctx.fitted[str(k)]) for k in range(self.inputs.committee.value)}
        for name in ("potential", "metrics", "parity", "learning_curve"):
            if name in fits[0].outputs:
                self.out(name, fits[0].outputs[name])
        if len(fits) == 1:
            return None
        for k, fit in fits.items():
            self.out(f"committee.member_{k}", fit.outputs.potential)
        try:
            parities = {f"member_{k}": fit.outputs.parity for k, fit in fits.items()}
            self.out("calibration", call(calibrate_committee, **parities))
        except AutopipeError as error:
            return self.exit_codes.ERROR_CALIBRATION.format(reason=error)
        return None
