"""Real LAMMPS watched by the spread of the forces over the posterior."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_autopipe.core.ace.fit import FitResult
from aiida_autopipe.core.ace.posterior import posterior_path
from aiida_autopipe.core.errors import InputError, PotentialFileError
from aiida_autopipe.engines.lammps import deck, runner
from aiida_autopipe.engines.lammps.parse import Outcome, outcome
from aiida_autopipe.engines.lammps.results import restart_arrays, sampled_frames, summarise
from aiida_autopipe.engines.lammps.settings import MdSettings
from tests.engines.lammps.md_run import Run, md_settings, read_outputs, segment, write_inputs
from tests.reference.copper import copper, copper_fit, labelled_copper

pytestmark = pytest.mark.usefixtures("run_folder")

START = copper(0.05, np.random.default_rng(3))
WATCHED = md_settings(
    segment("nvt", 1000) | {"temperature_K": [300.0, 6000.0]},
    uncertainty="committee",
    gamma_every=5,
    thermo_every=5,
)


@pytest.fixture(scope="module")
def fitted() -> FitResult:
    return copper_fit(test=labelled_copper(20, np.random.default_rng(21)))


def heated(fitted: FitResult, **change: Any) -> Run:
    """From 300 to 6000 K, with the files of the potential in the run directory."""
    name = Path(deck.POTENTIAL_FILES[0])
    fitted.potential.save(name.with_suffix(""))
    fitted.posterior.save(posterior_path(name))
    settings = WATCHED | change
    write_inputs(START, ["Cu"], fitted.potential.cutoff, settings)
    runner.run(Path(deck.INPUT_FILE), screen="none")
    return read_outputs(START)


def test_halted_by_the_calibrated_threshold(fitted: FitResult) -> None:
    assert fitted.calibration is not None
    found = fitted.calibration["committee"]
    asked = {"gamma_select": found["select"], "gamma_halt": found["halt"]}
    run = heated(fitted, **asked)
    assert outcome(run.log, run.trace) is Outcome.HALTED
    assert run.log.halt_value is not None and run.log.halt_value > found["halt"]
    assert run.trace.gamma_max[:-1].max() <= found["halt"]
    for frame in [*run.frames, *run.safe]:
        rows = fitted.potential.basis.design_block(frame.atoms).force_rows
        np.testing.assert_allclose(frame.gamma, fitted.posterior.force_std(rows), rtol=1e-6)
    settings = MdSettings.from_dict(WATCHED | asked)
    frames = sampled_frames(run.frames, run.safe, run.trace, settings)
    assert frames is not None and frames.columns["is_candidate"].sum() > 0
    summary = summarise(run.log, run.trace, frames, settings)
    assert (summary["uncertainty"], summary["uncertainty_unit"]) == ("committee", "eV/Å")
    assert "eV/Å above gamma_halt" in summary["halt_reason"]
    restart = restart_arrays(run.safe, settings)
    assert restart is not None and 0 < restart["step"] < run.log.halt_step


def test_trajectory_is_the_same_whatever_watches(fitted: FitResult) -> None:
    spread, grade = heated(fitted), heated(fitted, uncertainty="gamma")
    np.testing.assert_array_equal(spread.trace.potential_energy, grade.trace.potential_energy)
    assert not np.allclose(spread.trace.gamma_max, grade.trace.gamma_max)


def test_a_posterior_of_another_potential(fitted: FitResult) -> None:
    heated(fitted)
    copper_fit(6).posterior.save(posterior_path(deck.POTENTIAL_FILES[0]))
    with pytest.raises(PotentialFileError, match="another potential"):
        runner.run(Path(deck.INPUT_FILE), screen="none")
    posterior_path(deck.POTENTIAL_FILES[0]).unlink()
    with pytest.raises(InputError, match="has no posterior"):
        runner.run(Path(deck.INPUT_FILE), screen="none")


def test_an_unknown_uncertainty(fitted: FitResult) -> None:
    heated(fitted)
    include = Path(deck.POTENTIAL_FILE)
    include.write_text(include.read_text().replace("=committee", "=guess"))
    with pytest.raises(InputError, match="'guess' is unknown"):
        runner.run(Path(deck.INPUT_FILE), screen="none")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"uncertainty": "variance"}, "must be 'gamma' or 'committee', not 'variance'"),
        ({"uncertainty": "committee", "interface": "ml-pace"}, "ML-PACE has no committee"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        MdSettings.from_dict(md_settings(segment("nve", 10), **change))
