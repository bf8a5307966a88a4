import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_autopipe.engines.lammps.parse import Frame, parse_dump, parse_log, parse_trace
from aiida_autopipe.engines.lammps.results import sampled_frames, summarise
from aiida_autopipe.engines.lammps.settings import MdSettings

RECORDED = Path(__file__).parents[2] / "parsers" / "fixtures" / "lammps"


def load(case: str) -> tuple[Any, Any, list[Frame], list[Frame], MdSettings]:
    folder = RECORDED / case
    dumps = [folder / "frames.dump", *sorted(folder.glob("safe.*.dump"))]
    frames = [parse_dump(p.read_text(), 8, np.eye(3)) for p in dumps if p.exists()]
    return (
        parse_log((folder / "log.lammps").read_text()),
        parse_trace((folder / "trace.dat").read_text()),
        frames[0],
        [f for part in frames[1:] for f in part],
        MdSettings.from_dict(json.loads((folder / "settings.json").read_text())),
    )


def test_frames_above_the_threshold_and_the_last_safe_one() -> None:
    _, trace, candidates, safe, settings = load("finished")
    frames = sampled_frames(candidates, safe, trace, settings)
    assert frames is not None
    columns = frames.columns
    assert columns["is_candidate"].sum() == settings.max_frames == 4
    assert (columns["gamma_max"] > settings.gamma_select).sum() == 4
    (last_safe,) = columns["step"][~columns["is_candidate"]]
    assert last_safe == max(f.step for f in safe) == 160
    assert columns["step"].tolist() == sorted(columns["step"])
    np.testing.assert_allclose(columns["time_ps"], columns["step"] * 1e-3)
    at = list(trace.step).index(160)
    assert columns["temperature_K"][~columns["is_candidate"]] == pytest.approx(
        trace.temperature_K[at]
    )


def test_worst_atom_is_named() -> None:
    _, trace, candidates, _, settings = load("halted")
    frames = sampled_frames(candidates, [], trace, settings)
    assert frames is not None
    for frame, atom in zip(candidates, frames.columns["gamma_atom"], strict=True):
        assert frame.gamma[atom] == frame.gamma.max()


def test_no_frames_is_none() -> None:
    _, trace, _, _, settings = load("halted")
    assert sampled_frames([], [], trace, settings) is None


def test_summary_of_a_finished_run() -> None:
    log, trace, candidates, safe, settings = load("finished")
    summary = summarise(log, trace, sampled_frames(candidates, safe, trace, settings), settings)
    assert summary["outcome"] == "finished"
    assert (summary["steps_done"], summary["steps_asked"], summary["survival"]) == (205, 205, 1.0)
    assert (summary["halted"], summary["halt_step"], summary["halt_reason"]) == (False, None, None)
    assert summary["gamma_max"] >= summary["gamma_mean"] > 0
    assert summary["seconds_per_atom_step"] == pytest.approx(log.loop_seconds / 205 / 8)
    json.dumps(summary)


def test_summary_of_a_halted_run() -> None:
    log, trace, candidates, safe, settings = load("halted")
    summary = summarise(log, trace, sampled_frames(candidates, safe, trace, settings), settings)
    assert (summary["halted"], summary["halt_step"], summary["steps_done"]) == (True, 30, 30)
    assert summary["survival"] == 30 / 200
    assert summary["halt_reason"] == "gamma 6.621 above gamma_halt 5"
    # The frame at the halt is not on a line of the trace.
    assert summary["gamma_max"] == pytest.approx(log.halt_value)


@pytest.mark.parametrize(("case", "steps"), [("lost_atoms", 20), ("killed", 17200)])
def test_summary_of_a_run_that_ended_badly_counts_the_steps_it_traced(
    case: str, steps: int
) -> None:
    log, trace, candidates, safe, settings = load(case)
    summary = summarise(log, trace, sampled_frames(candidates, safe, trace, settings), settings)
    assert summary["steps_done"] == steps == trace.step[-1]
    assert not summary["halted"]
    assert summary["seconds_per_atom_step"] is None
