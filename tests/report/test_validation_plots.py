"""Curves and limits of the validation on the page."""

import json

import pytest

from aiida_autopipe.report.page import cards, render
from aiida_autopipe.report.summary import summary
from aiida_autopipe.report.validation_model import PlotSeries, ValidationPlot, ValidationRow
from aiida_autopipe.report.validation_plots import validation_plot
from aiida_autopipe.report.verdict import demand, error_text, verdict


@pytest.fixture
def plot():
    return ValidationPlot(
        name="phonon_frequencies",
        title="Phonon dispersion",
        x_label="",
        y_label="frequency <THz>",
        series=[
            PlotSeries(side="reference", mode="lines", x=[0, 1, 1, 0, 1], y=[0, 3, None, 0, 5]),
            PlotSeries(side="potential", mode="lines", x=[0, 1], y=[0, 4]),
            PlotSeries(side="reference", mode="markers", x=[1], y=[3]),
        ],
        ticks=[(0.0, "Γ"), (1.0, "X")],
        y_range=(-1.0, 6.0),
    )


@pytest.fixture
def limits():
    return [
        ValidationRow(
            name="nve_stability",
            label="Energy drift in NVE",
            unit="meV/atom/ps",
            potential=0.02,
            passed=True,
            rule="at_most",
            limit=1.0,
        ),
        ValidationRow(
            name="max_stable_temperature",
            label="Max stable temperature",
            unit="K",
            potential=800.0,
            rule="at_least",
            limit=1700.0,
        ),
        ValidationRow(
            name="phonon_frequencies",
            label="Phonon frequencies, mean",
            unit="THz",
            potential=9.0,
            reference=9.1,
            relative_error=0.031,
            passed=True,
            rule="curve",
            note="mean difference 0.28 THz over 8 wave vectors",
        ),
    ]


def test_figure_names_each_side_once_and_keeps_gaps(plot):
    figure = validation_plot(plot, "pw.x")
    assert [trace["name"] for trace in figure["data"]] == ["pw.x", "potential", "pw.x"]
    assert [trace["showlegend"] for trace in figure["data"]] == [True, True, False]
    assert figure["data"][0]["y"] == [0, 3, None, 0, 5]
    assert figure["layout"]["xaxis"]["ticktext"] == ["Γ", "X"]
    assert figure["layout"]["yaxis"]["range"] == [-1.0, 6.0]
    assert figure["layout"]["yaxis"]["title"]["text"] == "frequency &lt;THz&gt;"
    json.dumps(figure, allow_nan=False)


def test_page_and_summary_show_limits_and_curves(report_factory, report, plot, limits):
    full = report_factory(validation=[*report.validation, *limits], validation_plots=[plot])
    html = render(full)
    assert 'id="plot-validation-0"' in html and "<h3>Phonon dispersion</h3>" in html
    assert "at least 1700" in html and "at most 1<" in html
    assert "with the potential alone" in html
    rows = {row["name"]: row for row in summary(full)["validation"]}
    assert rows["nve_stability"]["limit"] == 1.0 and rows["nve_stability"]["checked"]
    assert rows["nve_stability"]["reference"] is None
    assert rows["phonon_frequencies"]["rule"] == "curve"
    assert "or their limit" in cards(full)[0].remark


def test_verdict_tells_limits_from_differences(report_factory, limits):
    judged = verdict(report_factory(validation=limits))
    assert judged.level == "mixed"
    assert judged.sentences[:3] == (
        "1 of 1 property agrees with pw.x within 10 %; the largest difference is 3.1 % "
        "(Phonon frequencies, mean).",
        "1 of 2 demands on the potential alone hold.",
        "Outside the tolerance: Max stable temperature (800.0 K, at least 1700).",
    )
    assert (demand(limits[0]), error_text(limits[0]), error_text(limits[2])) == (
        "at most 1",
        "",
        "3.1 %",
    )


def test_a_limit_without_a_value_is_not_checked(report_factory, limits):
    broken = limits[0].model_copy(update={"potential": None})
    judged = verdict(report_factory(validation=[broken]))
    assert "Could not be checked: Energy drift in NVE." in judged.sentences
