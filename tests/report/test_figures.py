"""The plots are valid plotly figures, with units, and without NaN."""

import json
import math

import plotly.graph_objects as go
import pytest

from aiida_autopipe.report import figures
from aiida_autopipe.report.extrapolation import extrapolation
from aiida_autopipe.report.model import ErrorMetrics, Parity, ParitySplit


def _check(figure):
    json.dumps(figure, allow_nan=False)
    return go.Figure(figure)  # raises on a property plotly does not know


def test_learning_curve_in_milli_units(report):
    figure = _check(figures.learning_curve(report.generations))
    energy = next(t for t in figure.data if t.name == "test" and t.yaxis == "y")
    assert energy.y == pytest.approx([4.2, 2.1, 1.05])
    assert figure.layout.yaxis.title.text == "energy RMSE (meV/atom)"
    assert figure.layout.yaxis2.title.text == "force RMSE (meV/Å)"
    assert figure.layout.xaxis.ticktext == ("1<br>34", "2<br>52", "3<br>61")


def test_learning_curve_without_errors_is_none(report):
    none = {"train": ErrorMetrics(), "test": ErrorMetrics()}
    empty = [g.model_copy(update=none) for g in report.generations]
    assert figures.learning_curve([]) is None
    assert figures.learning_curve(empty) is None


def test_parity_legend_holds_errors_over_all_points():
    n = 2 * figures.MAX_PARITY_POINTS
    reference = [0.001 * i for i in range(n)]
    potential = [x + (0.003 if i % 2 else -0.001) for i, x in enumerate(reference)]
    split = ParitySplit(forces_reference=reference, forces_potential=potential)
    figure, note = figures.parity(Parity(train=split))
    trace = _check(figure).data[0]
    rmse = 1000 * math.sqrt((0.003**2 + 0.001**2) / 2)
    assert trace.name == f"train: RMSE {rmse:.2f}, MAE 2.00 meV/Å"
    assert len(trace.x) == figures.MAX_PARITY_POINTS
    assert f"{figures.MAX_PARITY_POINTS} of {n} train force components" in note


def test_parity_leaves_out_nan_pairs():
    split = ParitySplit(
        energy_reference=[1.0, float("nan"), 3.0], energy_potential=[1.0, 2.0, float("inf")]
    )
    figure, _ = figures.parity(Parity(test=split))
    assert _check(figure).data[0].x == (1.0,)


def test_parity_of_nothing_is_none():
    assert figures.parity(Parity()) == (None, "")
    assert figures.parity(Parity(train=ParitySplit())) == (None, "")


def test_extrapolation_has_a_panel_per_generation_thresholds_and_halts(report):
    figure = _check(extrapolation(report))
    assert [a.text for a in figure.layout.annotations] == [f"generation {i}" for i in (1, 2, 3)]
    assert sorted({shape.y0 for shape in figure.layout.shapes}) == [2.0, 10.0]
    halts = [t for t in figure.data if t.name == "halted"]
    assert len(halts) == 1
    assert halts[0].y[0] > 10.0
    assert halts[0].hovertext == ("halted: gamma 10.4 above 10 at atom 31",)


@pytest.mark.parametrize("n_generations", range(1, 14))
def test_extrapolation_panels_stay_inside_the_plot(report_factory, report, n_generations):
    generations = [report.final.model_copy(update={"index": i}) for i in range(n_generations)]
    figure = _check(extrapolation(report_factory(generations=generations)))
    domains = [axis.domain for axis in figure.select_yaxes()]
    assert len(domains) == n_generations
    assert all(0 <= low < high <= 1 for low, high in domains)


def test_extrapolation_with_nan_and_zero(report_factory, report):
    generation = report.generations[0]
    runs = [
        run.model_copy(update={"trace": run.trace.model_copy(update={"gamma_max": values})})
        for run, values in zip(
            generation.simulations[:2],
            (
                [float("nan"), 0.0, 3.0] * (len(generation.simulations[0].trace.step) // 3)
                + [1.0] * (len(generation.simulations[0].trace.step) % 3),
                [0.0] * len(generation.simulations[1].trace.step),
            ),
            strict=True,
        )
    ]
    changed = generation.model_copy(update={"simulations": runs})
    figure = _check(extrapolation(report_factory(generations=[changed])))
    assert {t.name for t in figure.data} == {"300 K NPT"}


def test_extrapolation_without_thresholds_or_traces(report_factory, report):
    assert extrapolation(report_factory(generations=[])) is None
    figure = _check(extrapolation(report_factory(gamma_select=None, gamma_halt=float("nan"))))
    assert not figure.layout.shapes


def test_equation_of_state_starts_at_the_lowest_reference_energy(report):
    figure = _check(figures.equation_of_state(report))
    assert [t.name for t in figure.data] == ["pw.x", "potential"]
    assert min(figure.data[0].y) == 0.0
    assert list(figure.data[0].x) == sorted(figure.data[0].x)


def test_equation_of_state_of_one_side_only(report_factory):
    only = _check(figures.equation_of_state(report_factory(eos_reference=None)))
    assert [t.name for t in only.data] == ["potential"]
    nothing = report_factory(eos_reference=None, eos_potential=None)
    assert figures.equation_of_state(nothing) is None


def test_bars():
    figure = _check(figures.bars(["pw.x", "<b>"], [2.0, 1.0], "time (min)", ["2 min", "1 min"]))
    assert figure.data[0].y == ("pw.x", "&lt;b&gt;")
    assert figures.bars([], [], "", []) is None
