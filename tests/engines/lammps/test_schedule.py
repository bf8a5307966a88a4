"""Schedules in real LAMMPS: strain, pressure ramps, and runs that go on where others ended."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.engines.lammps import deck, runner
from aiida_autopipe.engines.lammps.results import restart_arrays, restart_structure
from aiida_autopipe.engines.lammps.settings import MdSettings, Segment
from tests.engines.lammps.md_run import Run, md_settings, read_outputs, run_md, segment
from tests.reference.copper import copper, copper_potential

pytestmark = pytest.mark.usefixtures("run_folder")


@pytest.fixture(scope="module")
def potential() -> ACEPotential:
    return copper_potential()


def start() -> Any:
    """A rotated cell, so that nothing depends on LAMMPS' own axes."""
    atoms = copper(0.05, np.random.default_rng(2))
    atoms.rotate(20, (1, 1, 3), rotate_cell=True)
    return atoms


def go_on(run: Run, potential: ACEPotential, values: dict[str, Any]) -> Run:
    """Another run from the last safe frame."""
    settings = MdSettings.from_dict(values)
    arrays = restart_arrays(run.safe, settings)
    assert arrays is not None
    step, atoms = restart_structure(arrays)
    for path in Path().glob("*.dump"):
        path.unlink()
    elements = potential.elements
    rotation = deck.lammps_rotation(start().cell.array)
    text = deck.input_deck(settings, elements, 1, first_step=step)
    Path(deck.INPUT_FILE).write_text(text)
    Path(deck.POTENTIAL_FILE).write_text(
        deck.potential_include(settings, elements, potential.cutoff)
    )
    Path(deck.DATA_FILE).write_text(deck.data_file(atoms, elements, rotation))
    runner.run(Path(deck.INPUT_FILE), screen="none", load=lambda _: potential)
    return read_outputs(start())


def test_going_on_gives_the_trajectory_of_one_run(potential: ACEPotential) -> None:
    """Positions, velocities, clock and thermodynamics, in the axes of the first structure."""
    short, long = (md_settings(segment("nve", n)) for n in (40, 100))
    whole = run_md(start(), potential, long)
    first = run_md(start(), potential, short)
    second = go_on(first, potential, long)
    assert first.safe[-1].step == 40
    assert second.log.steps == 60
    np.testing.assert_array_equal(second.trace.step, np.arange(40, 101))
    np.testing.assert_allclose(second.trace.time_ps, np.arange(40, 101) * 1e-3)
    kept = slice(40, 101)
    for name in ("temperature_K", "potential_energy", "pressure"):
        both = getattr(second.trace, name), getattr(whole.trace, name)[kept]
        np.testing.assert_allclose(both[0], both[1], rtol=1e-4, atol=1e-6)
    ends = [max(run.safe, key=lambda f: f.step).atoms for run in (second, whole)]
    np.testing.assert_allclose(ends[0].positions, ends[1].positions, atol=1e-6)
    np.testing.assert_allclose(ends[0].get_velocities(), ends[1].get_velocities(), atol=1e-6)


def test_going_on_in_the_middle_of_a_ramp(potential: ACEPotential) -> None:
    """The thermostat's target is where the schedule has it at that step."""
    values = md_settings(
        segment("nvt", 50, temperature_K=[100.0, 100.0]),
        segment("nvt", 400, temperature_K=[100.0, 900.0]),
    )
    first = run_md(start(), potential, {**values, "gamma_halt": 1e9})
    half = [frame for frame in first.safe if frame.step == 450]
    assert half
    settings = MdSettings.from_dict(values)
    (rest,) = settings.remaining(250)
    assert rest.temperature_K == (500.0, 900.0) and rest.steps == 200
    assert settings.remaining(50) == settings.segments[1:]
    assert settings.remaining(0) == settings.segments
    text = deck.input_deck(settings, ["Cu"], 1, first_step=250)
    assert "# segment 2 of 2" in text and "# segment 1 of 2" not in text
    assert "velocity" not in text and "reset_timestep 250 time 0.25" in text


def test_uniaxial_strain_with_free_sides(potential: ACEPotential) -> None:
    """The strained axis follows its rate; the others answer the pressure."""
    pulled = segment("npt", 400, 50.0, coupling="aniso", strain_rate_per_ps={"x": 0.05})
    run = run_md(bulk("Cu", cubic=True) * (2, 2, 2), potential, md_settings(pulled))
    lengths = max(run.safe, key=lambda f: f.step).atoms.cell.lengths()
    before = 2 * bulk("Cu", cubic=True).cell.lengths()[0]
    assert lengths[0] / before - 1 == pytest.approx(0.02, rel=1e-3)
    assert not np.allclose(lengths[1:], before, rtol=1e-4)


def test_strain_at_constant_sides(potential: ACEPotential) -> None:
    sheared = segment("nvt", 100, 50.0, strain_rate_per_ps={"y": -0.1, "z": 0.1})
    run = run_md(bulk("Cu", cubic=True) * (2, 2, 2), potential, md_settings(sheared))
    lengths = max(run.safe, key=lambda f: f.step).atoms.cell.lengths()
    expected = 2 * bulk("Cu", cubic=True).cell.lengths() * [1.0, 0.99, 1.01]
    np.testing.assert_allclose(lengths, expected, rtol=1e-6)


def test_pressure_ramp_and_all_couplings(potential: ACEPotential) -> None:
    ramps = [
        segment("npt", 100, 50.0, coupling=how, pressure_GPa=[0.0, 5.0])
        for how in ("iso", "aniso", "tri")
    ]
    run = run_md(start(), potential, md_settings(*ramps))
    assert run.log.finished and run.log.error is None
    assert run.log.steps == 300


def test_a_strain_rate_refers_to_the_length_at_the_start_of_a_segment() -> None:
    """Cut anywhere, the axis grows as in one piece."""
    whole = Segment("nvt", 1000, (300.0, 300.0), strain_rate_per_ps={"x": 0.2})
    rest = whole.after(400, 1.0)
    first, second = 1 + 0.2 * 0.4, 1 + rest.strain_rate_per_ps["x"] * 0.6
    assert first * second == pytest.approx(1 + 0.2 * 1.0)


@pytest.mark.parametrize("step", [-1, 100, 1000])
def test_no_step_is_left(step: int) -> None:
    settings = MdSettings.from_dict(md_settings(segment("nve", 100)))
    with pytest.raises(InputError, match=f"of 100 steps cannot go on from step {step}"):
        settings.remaining(step)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coupling": "none"}, "coupling must be iso, aniso or tri, not 'none'"),
        ({"strain_rate_per_ps": {"w": 1}}, "a mapping of x, y or z to a rate"),
        ({"strain_rate_per_ps": 0.1}, "a mapping of x, y or z to a rate, not 0.1"),
        ({"strain_rate_per_ps": {"x": "a"}}, "strain_rate_per_ps must be a finite number"),
        ({"strain_rate_per_ps": {"x": 0.1}}, "needs the coupling aniso, not iso"),
        (
            {"coupling": "aniso", "strain_rate_per_ps": {"x": 0.1, "y": 0.1, "z": 0.1}},
            "leaves none to npt; take nvt",
        ),
        ({"pressure_GPa": [1, 2, 3]}, r"pressure_GPa must be \[start, stop\]"),
    ],
)
def test_wrong_segments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Segment.from_dict({**segment("npt", 10), **change})
