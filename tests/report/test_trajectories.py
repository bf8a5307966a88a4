"""The section on the structure along a simulation, and its plots."""

import json
import math
import re

import numpy as np
import pytest

from aiida_autopipe.report.page import render
from aiida_autopipe.report.trajectories import MAX_POINTS, trajectory_figures
from aiida_autopipe.report.trajectory_model import (
    LabelledFrames,
    PairStructure,
    Trajectory,
    TrajectorySegment,
)
from tests.report.conftest import node

R = (np.arange(160) + 0.5) * 0.05
PAIRS = ("all", "O-O", "O-Si", "Si-O", "Si-Si")


def pair(name: str, width: float, labelled: bool) -> PairStructure:
    g = np.where(R > 1.4, 1 + 3 * np.exp(-(((R - 1.6) / width) ** 2)), 0.0)
    return PairStructure(
        pair=name,
        g=g,
        labelled_g=g * 0.98 if labelled else [],
        first_minimum=2.05,
        coordination=3.987,
        labelled_coordination=4.123 if labelled else None,
    )


def segment(number: int, name: str, **values: object) -> TrajectorySegment:
    start = 1000 * (number - 1)
    common: dict[str, object] = {
        "number": number,
        "name": name,
        "generations": [number],
        "first_step": start,
        "last_step": start + 1000,
        "samples": 21,
        "pairs": [pair(one, 0.1 * number, number == 2) for one in PAIRS],
        "density_start": 2.65,
        "density_end": 2.201,
    }
    return TrajectorySegment.model_validate({**common, **values})


def trajectory(**changes: object) -> Trajectory:
    """Silica that is heated and held; the second potential took over in the middle."""
    time = np.linspace(0, 4, 1001)
    values: dict[str, object] = {
        "name": "3 schedule, bulk",
        "generations": [1, 2],
        "times_begun": 3,
        "steps_done": 2000,
        "steps_asked": 2000,
        "r": R,
        "time_ps": [*time, math.nan],
        "density": [*(2.65 - 0.1 * time), math.nan],
        "msd": [*(2 * time), math.nan],
        "temperature_time_ps": time,
        "temperature_K": 300 + 700 * time,
        "ends_ps": [2.0, 4.0],
        "segments": [
            segment(1, "npt 300-4000 K", diffusion_note="the temperature changes"),
            segment(
                2,
                "nvt 4000 K",
                diffusion=0.3333,
                labelled=2,
                energy_rmse_per_atom=0.0123,
                forces_rmse=0.25,
                forces_size=2.5,
            ),
        ],
        "frames": LabelledFrames(
            time_ps=[2.5, 3.0, 3.5],
            generation=[1, 1, 2],
            energy_error_per_atom=[0.01, -0.014, math.nan],
            forces_rmse=[0.3, 0.25, 0.2],
        ),
        "nodes": [node(4001, "LammpsCalculation"), node(4002, "LammpsCalculation")],
    }
    return Trajectory.model_validate(values | changes)


def test_the_section_holds_numbers_and_plots(report_factory) -> None:
    report = report_factory(trajectories=[trajectory()], trajectories_left_out=1)
    html = render(report)
    for name in ("rdf-0", "along-0", "unlearned-0"):
        assert f'id="plot-{name}"' in html
    text = re.sub(r"\s+", " ", re.sub(r"<script.*?</script>|<[^>]*>", " ", html, flags=re.S))
    for words in (
        "Structure along the simulation",
        "Simulation 3 schedule, bulk",
        "1: npt 300-4000 K",
        "run by the potentials of generations 1 , 2 , each going on",
        "begun 3 times",
        "the temperature changes",
        "0.333",
        "2.201",
        "3.987 4.123",
        "12.3",
        "250 (10.0 %)",
        "1 more simulation was recorded",
    ):
        assert words in text, words
    assert {4001, 4002} <= {ref.pk for ref in report.nodes()}
    assert not re.search(r"\b(nan|None|inf)\b", text)


@pytest.mark.parametrize(
    ("left_out", "words"),
    [(0, "No structure was recorded"), (3, "3 simulations recorded a structure")],
)
def test_nothing_to_show(report_factory, left_out: int, words: str) -> None:
    assert words in render(report_factory(trajectories_left_out=left_out))


def test_pairs_can_be_selected() -> None:
    figure = trajectory_figures([trajectory()])["rdf-0"]
    buttons = figure["layout"]["updatemenus"][0]["buttons"]
    # O-Si and Si-O have the same distribution.
    assert [button["label"] for button in buttons] == ["all", "O-O", "O-Si", "Si-Si"]
    # Of each pair the first segment, the second, and what was labelled in it.
    assert len(figure["data"]) == 3 * 4
    assert [trace["visible"] for trace in figure["data"]].count(True) == 3
    for button in buttons:
        assert button["args"][0]["visible"].count(True) == 3
    assert sum(trace["line"].get("dash") == "dot" for trace in figure["data"]) == 4


def test_one_element_has_nothing_to_select() -> None:
    alone = [one.model_copy(update={"pairs": one.pairs[:1]}) for one in trajectory().segments]
    figure = trajectory_figures([trajectory(segments=alone)])["rdf-0"]
    assert "updatemenus" not in figure["layout"]
    assert all(trace["visible"] for trace in figure["data"])


def test_plots_are_json_thinned_and_break_at_nan() -> None:
    figures = trajectory_figures([trajectory(), trajectory()])
    assert set(figures) == {f"{n}-{i}" for n in ("rdf", "along", "unlearned") for i in (0, 1)}
    json.dumps(figures, allow_nan=False)
    heat, density, msd = figures["along-0"]["data"]
    assert len(heat["x"]) <= MAX_POINTS and len(msd["y"]) <= MAX_POINTS
    assert density["y"][-1] is msd["y"][-1] is None
    broken = np.arange(2000.0)
    broken[777] = math.nan
    series = {"time_ps": np.arange(2000.0), "density": broken, "msd": broken}
    again = trajectory_figures([trajectory(**series)])["along-0"]["data"][2]
    assert None in again["y"] and len(again["y"]) <= MAX_POINTS
    assert len(figures["along-0"]["layout"]["shapes"]) == 1


def test_errors_are_shown_by_the_potential_that_made_them() -> None:
    data = trajectory_figures([trajectory()])["unlearned-0"]["data"]
    assert [trace["name"] for trace in data] == ["potential 1", "potential 2"] * 2
    assert data[0]["y"] == [300.0, 250.0]
    assert data[2]["y"] == [10.0, -14.0]
    assert data[3]["y"] == [None]


def test_what_is_missing_has_no_plot() -> None:
    bare = trajectory(
        segments=[], time_ps=[], density=[], msd=[], frames=LabelledFrames(), temperature_K=[],
        temperature_time_ps=[],
    )  # fmt: skip
    assert trajectory_figures([bare]) == {}


def test_hostile_names_are_escaped(report_factory) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    parts = [one.model_copy(update={"name": hostile}) for one in trajectory().segments]
    html = render(report_factory(trajectories=[trajectory(name=hostile, segments=parts)]))
    assert "<img" not in html.split("plotly.js v")[0]
    assert "<img" not in json.dumps(trajectory_figures([trajectory(segments=parts)]))


def test_series_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="arrays that belong together differ in length"):
        trajectory(msd=[1.0])
