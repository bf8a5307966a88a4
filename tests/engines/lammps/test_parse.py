"""Recorded output of LAMMPS, whole and cut off."""

from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.io import read

from aiida_autopipe.core.errors import EngineError
from aiida_autopipe.engines.lammps import deck
from aiida_autopipe.engines.lammps.parse import (
    Outcome,
    outcome,
    parse_dump,
    parse_help,
    parse_log,
    parse_trace,
    spread,
)

RECORDED = Path(__file__).parents[2] / "parsers" / "fixtures" / "lammps"
EYE = np.eye(3)


def text(case: str, name: str) -> str:
    return (RECORDED / case / name).read_text()


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("finished", Outcome.FINISHED),
        ("halted", Outcome.HALTED),
        ("lost_atoms", Outcome.LOST_ATOMS),
        ("unstable", Outcome.UNSTABLE),
        ("out_of_walltime", Outcome.OUT_OF_WALLTIME),
        ("interrupted", Outcome.INTERRUPTED),
        ("killed", Outcome.INTERRUPTED),
    ],
)
def test_outcome(case: str, expected: Outcome) -> None:
    log, trace = parse_log(text(case, "log.lammps")), parse_trace(text(case, "trace.dat"))
    assert outcome(log, trace) is expected


def test_log_of_a_finished_run() -> None:
    log = parse_log(text("finished", "log.lammps"))
    assert (log.version, log.steps, log.n_atoms) == ("22 Jul 2025 - Update 4", 205, 8)
    assert log.finished and log.error is None and log.halt_step is None
    assert log.loop_seconds > 0


def test_log_of_a_halted_run() -> None:
    log = parse_log(text("halted", "log.lammps"))
    assert (log.halt_step, log.steps, log.finished) == (30, 30, True)
    assert log.halt_value == pytest.approx(6.62138916)


def test_error_in_lammps_own_words_without_its_source_line() -> None:
    assert parse_log(text("lost_atoms", "log.lammps")).error == ("Lost atoms: original 8 current 5")
    log = parse_log(text("error", "log.lammps"))
    assert log.error == (
        "Unrecognized pair style 'pace/extrapolation' is part of the ML-PACE package which is not "
        "enabled in this LAMMPS binary."
    )
    assert outcome(log, parse_trace("")) is Outcome.ERROR


def test_error_that_reached_only_the_standard_error() -> None:
    log = parse_log("LAMMPS (22 Jul 2025)\n", "ERROR: potential.yaml is not YAML.\n")
    assert log.error == "potential.yaml is not YAML."


@pytest.mark.parametrize("case", ["finished", "halted", "lost_atoms"])
def test_a_log_cut_off_anywhere_never_counts_as_finished(case: str) -> None:
    whole = text(case, "log.lammps")
    end = whole.find("\nautopipe: end of input\n")
    for length in range(0, end if end > 0 else len(whole), 97):
        assert not parse_log(whole[:length]).finished


def test_trace() -> None:
    trace = parse_trace(text("finished", "trace.dat"))
    np.testing.assert_array_equal(trace.step, np.arange(0, 201, 20))
    np.testing.assert_allclose(trace.time_ps, trace.step * 1e-3)
    words = text("finished", "trace.dat").splitlines()[1].split()
    assert trace.pressure[0] == pytest.approx(float(words[3]) * 1e-4 * units.GPa)
    assert trace.temperature_K[0] == pytest.approx(900.0)
    assert trace.is_finite


def test_trace_cut_off_in_its_last_line_loses_only_that() -> None:
    whole = text("finished", "trace.dat")
    assert len(parse_trace(whole[:-10]).step) == len(parse_trace(whole).step) - 1
    assert len(parse_trace("").step) == 0


def test_repeated_and_nan_lines_of_a_trace() -> None:
    trace = parse_trace("title\n0 0 300 1 2 3 4\n0 0 300 1 2 3 4\n10 1 -nan nan 2 inf 4\n")
    np.testing.assert_array_equal(trace.step, [0, 10])
    assert not trace.is_finite


def test_frames_are_rotated_back_to_the_input() -> None:
    start = read(RECORDED / "finished" / "structure.extxyz")
    rotation = deck.lammps_rotation(start.cell.array)
    assert not np.allclose(rotation, EYE)
    frame = parse_dump(text("finished", "frames.dump"), 8, rotation)[0]
    # Some steps of MD later every atom is still near its place, in the cell of the input.
    np.testing.assert_allclose(frame.atoms.cell.array, start.cell.array, atol=1e-10)
    assert np.abs(frame.atoms.positions - start.positions).max() < 0.5
    np.testing.assert_array_equal(frame.atoms.numbers, start.numbers)


def test_dump_cut_off_in_a_frame_loses_only_that() -> None:
    whole = text("finished", "frames.dump")
    frames = parse_dump(whole, 8, EYE)
    assert [f.step for f in parse_dump(whole[:-20], 8, EYE)] == [f.step for f in frames][:-1]
    assert parse_dump("", 8, EYE) == []
    assert parse_dump("ITEM: TIMESTEP\n10\n", 8, EYE) == []


def test_frames_that_lost_atoms_are_left_out() -> None:
    # As seen from a run of nine atoms.
    assert parse_dump(text("lost_atoms", "frames.dump"), 9, EYE) == []


def test_frames_with_nan_are_left_out() -> None:
    whole = text("halted", "frames.dump")
    first = whole.split("ITEM: ATOMS")[1].split("\n")[1].split()
    broken = whole.replace(" ".join(first), " ".join([*first[:2], "nan", *first[3:]]), 1)
    assert len(parse_dump(broken, 8, EYE)) == len(parse_dump(whole, 8, EYE)) - 1


def test_another_dump_is_refused() -> None:
    other = text("halted", "frames.dump").replace("xu yu zu", "xs ys zs")
    with pytest.raises(EngineError, match="xs ys zs"):
        parse_dump(other, 8, EYE)


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_spread_keeps_the_last_and_never_too_many(most: int) -> None:
    frames = parse_dump(text("finished", "frames.dump"), 8, EYE)
    kept = spread(frames, most)
    assert kept[-1] is frames[-1]
    assert len(kept) == min(most, len(frames))
    assert [f.step for f in kept] == sorted(f.step for f in kept)


def test_what_is_not_lammps_has_no_version() -> None:
    with pytest.raises(EngineError, match="not the help text of LAMMPS"):
        parse_help("pw.x v.7.2")
