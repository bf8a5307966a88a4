"""`autopipe.explore`: surrogate dynamics, its filter, and the choice of frames worth a label."""

from __future__ import annotations

from typing import Any

from aiida.engine import ExitCode, ToContext, WorkChain, if_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from aiida.orm import AbstractCode, Dict, Int, SinglefileData
from aiida.plugins import CalculationFactory

from aiida_autopipe.calculations.surrogate_md import (
    choose_frames,
    surrogate_md,
    validate_seed,
    validate_settings,
    validate_starts,
    validate_surrogate,
)
from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.core.select.selectors import check_method
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.workflows.functions import call, failure_reason


def validate_select(node: Dict, _: Any) -> str | None:
    """`n`, and a method that exists."""
    values = node.get_dict()
    n = values.get("n")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        return f"select needs n, a whole number of at least 1, not {n!r}."
    try:
        check_method(str(values.get("method", "direct")))
    except AutopipeError as error:
        return str(error)
    return None


class ExploreWorkChain(WorkChain):
    """Explore from the starts with a surrogate, and choose the most informative frames.

    With a `code` the dynamics is a job, `autopipe.surrogate_md`; without, it runs in this process.
    A job whose time was over gives the frames of its finished trajectories, and they are used.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare inputs, outputs, outline and exit codes."""
        super().define(spec)
        spec.input("starts", valid_type=DatasetData, validator=validate_starts)
        spec.input("surrogate", valid_type=Dict, validator=validate_surrogate, help="SurrogateSpec")
        spec.input(
            "model",
            valid_type=(SinglefileData, PotentialData),
            required=False,
            help="The surrogate's file; needs a code.",
        )
        spec.input("settings", valid_type=Dict, validator=validate_settings, help="ExploreSettings")
        spec.input("select", valid_type=Dict, validator=validate_select, help="`n`, `method`.")
        spec.input("seed", valid_type=Int, validator=validate_seed)
        spec.input(
            "known",
            valid_type=DatasetData,
            required=False,
            help="Structures that are labelled or will be; none near to them is chosen.",
        )
        spec.input("code", valid_type=AbstractCode, required=False, help="A Python interpreter.")
        spec.input(
            "options", valid_type=Dict, required=False, help="`metadata.options` of the job."
        )
        spec.inputs.validator = _validate_together
        spec.outline(
            if_(cls.should_submit)(cls.run_job, cls.inspect_job).else_(cls.run_here),
            cls.select,
        )
        spec.output("selected", valid_type=DatasetData, required=False, help="Without labels.")
        spec.output("frames", valid_type=DatasetData, help="All that passed the filter.")
        spec.output(
            "summary", valid_type=Dict, help="Frames kept and rejected by reason, trajectories."
        )
        spec.output("coverage", valid_type=Dict, help="What the selected frames cover.")
        spec.exit_code(301, "ERROR_SURROGATE_MD", message="No frames: {reason}")
        spec.exit_code(302, "ERROR_SELECT", message="No frames could be chosen: {reason}")

    def should_submit(self) -> bool:
        """True with a code."""
        return "code" in self.inputs

    def run_job(self) -> ToContext:
        """Submit the dynamics."""
        builder = CalculationFactory("autopipe.surrogate_md").get_builder()
        for name in ("starts", "surrogate", "settings", "seed", "code"):
            builder[name] = self.inputs[name]
        if "model" in self.inputs:
            builder.model = self.inputs.model
        if "options" in self.inputs:
            builder.metadata.options = self.inputs.options.get_dict()
        return ToContext(dynamics=self.submit(builder))

    def inspect_job(self) -> ExitCode | None:
        """Frames are used however the job ended."""
        node = self.ctx.dynamics
        if "frames" not in node.outputs or "summary" not in node.outputs:
            return self.exit_codes.ERROR_SURROGATE_MD.format(reason=failure_reason(node))
        if not node.is_finished_ok:
            self.report(f"not all trajectories were finished: {failure_reason(node)}")
        self.ctx.frames, self.ctx.summary = node.outputs.frames, node.outputs.summary
        return None

    def run_here(self) -> ExitCode | None:
        """Run the dynamics in this process."""
        names = ("starts", "surrogate", "settings", "seed")
        try:
            found = call(surrogate_md, *(self.inputs[name] for name in names))
        except AutopipeError as error:
            return self.exit_codes.ERROR_SURROGATE_MD.format(reason=error)
        self.ctx.frames, self.ctx.summary = found["frames"], found["summary"]
        return None

    def select(self) -> ExitCode | None:
        """Choose frames; all of them are an output too."""
        self.out("frames", self.ctx.frames)
        self.out("summary", self.ctx.summary)
        settings = {"seed": self.inputs.seed.value, **self.inputs.select.get_dict()}
        known = {"known": self.inputs.known} if "known" in self.inputs else {}
        try:
            found = call(choose_frames, self.ctx.frames, Dict(settings), **known)
        except AutopipeError as error:
            return self.exit_codes.ERROR_SELECT.format(reason=error)
        self.out("coverage", found["summary"])
        if "selected" in found:
            self.out("selected", found["selected"])
        return None


def _validate_together(inputs: Any, _: Any) -> str | None:
    if "model" in inputs and "code" not in inputs:
        return "A model file is opened by a job: give a code."
    return None
