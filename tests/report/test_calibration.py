"""The uncertainty against the true error, in the figure, in words and on the page."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from aiida_autopipe.report.calibration import MAX_POINTS, calibration, sentence
from aiida_autopipe.report.calibration_model import Calibration, UsedThresholds
from aiida_autopipe.report.extrapolation import extrapolation
from aiida_autopipe.report.model import Report
from aiida_autopipe.report.page import render

ReportFactory = Callable[..., Report]


def found(**changes: Any) -> Calibration:
    rng = np.random.default_rng(4)
    spread = np.exp(rng.normal(-3, 1, 3000))
    values = {
        "uncertainty": spread,
        "error": spread * rng.chisquare(3, 3000) ** 0.5,
        "curve_uncertainty": [0.02, 0.1],
        "curve_error": [0.04, 0.2],
        "select": 0.08,
        "halt": 0.3,
        "select_error": 0.16,
        "halt_error": 0.6,
        "n_forces": 3000,
        "rank_correlation": 0.83,
    }
    return Calibration(**{**values, **changes})


def test_figure_has_the_pairs_the_curve_and_the_thresholds() -> None:
    figure = calibration("committee", found())
    assert figure is not None
    go.Figure(**figure)
    points, curve = figure["data"]
    assert len(points["x"]) == MAX_POINTS
    assert max(points["y"]) == pytest.approx(max(found().error), rel=1e-3)
    assert curve["y"] == [0.04, 0.2]
    names = [shape["name"] for shape in figure["layout"]["shapes"]]
    assert names == ["select, σ<sub>F</sub> = 0.0800 eV/Å", "halt, σ<sub>F</sub> = 0.300 eV/Å"]


def test_nothing_to_draw() -> None:
    assert calibration("gamma", None) is None
    assert calibration("gamma", Calibration(uncertainty=[math.nan], error=[1.0])) is None
    figure = calibration(
        "gamma", found(select=None, halt=None, curve_error=[], curve_uncertainty=[])
    )
    assert figure is not None and figure["layout"]["shapes"] == [] and len(figure["data"]) == 1


def test_rounding_of_forces_that_are_zero_by_symmetry_is_not_drawn() -> None:
    figure = calibration("gamma", found(uncertainty=[0.1, 0.2, 0.3], error=[0.02, 1e-16, 2e-5]))
    assert figure is not None
    assert figure["data"][0]["y"] == [0.02, 2e-5]


def test_one_sentence() -> None:
    assert "rank correlation of 0.83; an error of 0.16 eV/Å is expected at 0.0800 eV/Å" in sentence(
        "committee", found()
    )
    assert sentence("gamma", found(select=None, note="Too few forces.")) == "Too few forces."


def test_page_shows_what_was_used(report_factory: ReportFactory) -> None:
    used = [
        UsedThresholds(generation=g, select=0.1 * g, halt=0.5 * g, sentence="Calibrated <so>.")
        for g in (1, 2, 3)
    ]
    report = report_factory(
        uncertainty="committee",
        gamma_select=None,
        gamma_halt=None,
        thresholds=used,
        calibration=found(note="An extrapolation."),
    )
    page = render(report)
    assert 'id="plot-calibration"' in page
    assert "Calibrated &lt;so&gt;." in page
    assert "An extrapolation." in page
    assert "standard deviation of the force" in page
    figure = extrapolation(report)
    assert figure is not None
    lines = [shape["y0"] for shape in figure["layout"]["shapes"]]
    assert lines == pytest.approx([0.1, 0.5, 0.2, 1.0, 0.3, 1.5])
    assert figure["layout"]["yaxis"]["title"]["text"] == "largest σ<sub>F</sub> in the cell"


def test_page_says_when_nothing_was_calibrated(report_factory: ReportFactory) -> None:
    assert "calibrated no uncertainty" in render(report_factory())
