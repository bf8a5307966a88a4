"""Values of the section on validation: rows of its table, and curves."""

from typing import Literal, Self

from pydantic import BaseModel, model_validator

from aiida_autopipe.report.values import PLAIN, FloatList, NodeRef, require_same_length


class ValidationRow(BaseModel):
    """One property: potential against reference, or against a limit."""

    model_config = PLAIN

    name: str
    """machine name, as in the configuration"""
    label: str
    """what readers call it"""
    unit: str
    potential: float | None = None
    reference: float | None = None
    relative_error: float | None = None
    """with the rule `difference` (potential - reference) / |reference|, with `curve` the error of a
    curve, with `precision` the standard error over |potential|, both without a sign; None where it
    could not be computed, and with the other rules"""
    passed: bool = False
    tolerance: float = 0.1
    """largest accepted |relative_error|"""
    rule: Literal["difference", "curve", "at_most", "at_least", "precision"] = "difference"
    """what the verdict is about; `at_most` and `at_least`: the potential alone against `limit`;
    `precision`: how well simulations with the potential determine its value"""
    limit: float | None = None
    """what is demanded where there is no reference"""
    note: str = ""
    """why a value is missing, or what to know about it"""
    potential_node: NodeRef | None = None
    reference_node: NodeRef | None = None


class PlotSeries(BaseModel):
    """One line of a plot; NaN in `y` is a gap."""

    model_config = PLAIN

    side: Literal["reference", "potential", "limit"]
    mode: Literal["lines", "markers"]
    x: FloatList
    y: FloatList

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        require_same_length(self, ("x", "y"))
        return self


class ValidationPlot(BaseModel):
    """Curves behind a property, as the validation describes them."""

    model_config = PLAIN

    name: str
    """of the property"""
    title: str
    x_label: str
    y_label: str
    series: list[PlotSeries]
    ticks: list[tuple[float, str]] = []
    """positions and labels on the x axis; none for a plain axis"""
    note: str = ""
    y_range: tuple[float, float] | None = None
    """part of the y axis that is shown"""
    node: NodeRef | None = None
