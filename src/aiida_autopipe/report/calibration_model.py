"""What the uncertainty of the MD was worth, as plain validated values."""

from typing import Literal, Self

from pydantic import BaseModel, model_validator

from aiida_autopipe.report.values import PLAIN, FloatList, NodeRef, require_same_length

Uncertainty = Literal["gamma", "committee"]


class _Model(BaseModel):
    model_config = PLAIN


class UsedThresholds(_Model):
    """Thresholds of the simulations of one generation."""

    generation: int
    select: float
    halt: float
    sentence: str = ""
    """where they come from; empty where the configuration has numbers"""
    node: NodeRef | None = None
    """settings of the simulations"""


class Calibration(_Model):
    """Uncertainty against the error of held-out forces, for the final potential.

    Thresholds and curve are those the training suggests, whether or not they were used.
    """

    uncertainty: FloatList = []
    """of each held-out force, in its unit"""
    error: FloatList = []
    """eV/Å, norm of the error of the same force"""
    curve_uncertainty: FloatList = []
    curve_error: FloatList = []
    """eV/Å, expected error"""
    select: float | None = None
    halt: float | None = None
    select_error: float | None = None
    """eV/Å, expected error at `select`"""
    halt_error: float | None = None
    n_forces: int = 0
    """not zero by symmetry"""
    rank_correlation: float | None = None
    note: str = ""
    node: NodeRef | None = None
    """metrics of the training"""

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        require_same_length(self, ("uncertainty", "error"))
        require_same_length(self, ("curve_uncertainty", "curve_error"))
        return self
