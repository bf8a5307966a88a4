"""input.yaml from settings, and what real runs of Pacemaker tell of themselves."""

import math
from pathlib import Path

import pytest
import yaml

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.engines.pacemaker.output import Outcome, errors, judge, last_run, read_metrics
from aiida_autopipe.engines.pacemaker.settings import PacemakerSettings, fit_input

DATA = Path(__file__).parent / "data"


def recorded(name: str) -> Outcome:
    folder = DATA / name
    stderr = folder / "stderr_last_line.txt"
    return judge(
        (folder / "log.txt").read_text(),
        (folder / "metrics.txt").read_text(),
        stderr.read_text() if stderr.exists() else "",
    )


def test_success() -> None:
    found = recorded("ok")
    assert found.failure is None and found.message == ""
    assert found.version.startswith("0.2.7") and found.n_structures == 105
    assert (found.n_functions, found.iterations) == (36, 61)
    assert found.loss == pytest.approx(3.2030e-05)
    # It ran out of iterations, which its exit code 0 does not say.
    assert not found.converged


@pytest.mark.parametrize("name", ["weights", "initial_potential"])
def test_other_successes(name: str) -> None:
    found = recorded(name)
    assert found.failure is None and math.isfinite(found.loss) and found.n_functions in (11, 39)


@pytest.mark.parametrize(
    ("name", "failure", "message"),
    [
        ("nan_energy", "data", "not numbers: AssertionError: energy_corrected contains NaNs"),
        ("missing_file", "data", "missing.pckl.gzip"),
        ("huge_energy", "energies", "energies from -3.7 to 1e+12 eV/atom"),
        ("inf_force", "diverged", "The loss became inf"),
    ],
)
def test_failures(name: str, failure: str, message: str) -> None:
    found = recorded(name)
    assert found.failure == failure and message in found.message
    assert found.message.count("\n") == 0


def test_a_killed_fit_is_interrupted_and_half_a_row_does_not_count() -> None:
    log = (DATA / "ok" / "log.txt").read_text()
    metrics = (DATA / "ok" / "metrics.txt").read_text()
    found = judge(log[: log.rindex("Fitting done") - 2000], metrics[:-100])
    assert found.failure == "interrupted"
    assert len(read_metrics(metrics[:-100])["loss"]) == len(read_metrics(metrics)["loss"]) - 1
    assert judge("", "").failure == "interrupted"


def test_an_error_of_another_kind_is_told_in_its_own_words() -> None:
    found = judge("", "", "Traceback (most recent call last):\nValueError: no GPU\n")
    assert (found.failure, found.message) == (
        "crashed",
        "Pacemaker ended with an error: ValueError: no GPU",
    )


def test_only_the_last_start_of_a_log_counts() -> None:
    log = (DATA / "ok" / "log.txt").read_text()
    assert log.count("Start pacemaker") == 2
    assert last_run(log).startswith("2026-11-22 02:38:46") and last_run("nothing") == "nothing"


def test_metrics_have_our_names_and_units() -> None:
    table = read_metrics((DATA / "ok" / "ladder_metrics.txt").read_text())
    assert table["nfuncs"] == [10, 20, 30, 36]
    assert errors(table) == {
        "energy_rmse_per_atom": pytest.approx(0.006641946),
        "forces_rmse": pytest.approx(0.0017534, rel=1e-4),
        "forces_mae": pytest.approx(0.00076608, rel=1e-4),
    }
    assert errors(read_metrics((DATA / "ok" / "test_metrics.txt").read_text())) == {}
    assert read_metrics("") == {}


def test_input_has_what_recorded_inputs_have() -> None:
    settings = PacemakerSettings(cutoff=7, n_densities=2, ladder_step=10, radial="ChebExpCos")
    made = yaml.safe_load(fit_input(settings, ["Ni", "Al"], 42, "train.pckl.gzip"))
    assert made["potential"]["elements"] == ["Al", "Ni"] and made["seed"] == 42
    assert made["potential"]["embeddings"]["ALL"]["fs_parameters"] == [1, 1, 1, 0.5]
    assert made["potential"]["bonds"]["ALL"]["radbase"] == "ChebExpCos"
    assert made["fit"]["ladder_step"] == 10 and "initial_potential" not in made["potential"]
    assert made["data"] == {"filename": "train.pckl.gzip"}
    linear = PacemakerSettings(n_densities=1)
    made = yaml.safe_load(fit_input(linear, ["Al"], 1, "a", test_file="b", base_file="base.yaml"))
    assert made["potential"]["embeddings"]["ALL"]["fs_parameters"] == [1, 1]
    assert made["potential"]["initial_potential"] == "base.yaml"
    assert made["data"]["test_filename"] == "b" and "ladder_step" not in made["fit"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cutof": 5.0}, "'cutof'; did you mean 'cutoff'?"),
        ({"cutoff": 0.5}, "cutoff of Pacemaker is 0.5; it must be between 1 and 20"),
        ({"cutoff": "6"}, "cutoff of Pacemaker is '6'; it must be a number"),
        ({"n_functions": 3.5}, "n_functions of Pacemaker is 3.5; it must be a whole number"),
        ({"n_functions": True}, "n_functions of Pacemaker is True"),
        ({"radial": "Bessel"}, "radial of Pacemaker is 'Bessel'; it must be one of SBessel"),
        ({"kappa": float("nan")}, "kappa of Pacemaker is nan"),
    ],
)
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        PacemakerSettings.from_mapping(settings)
    assert message in str(error.value)


def test_unknown_elements() -> None:
    with pytest.raises(InputError, match="elements of the data"):
        fit_input(PacemakerSettings(), ["Xx"], 0, "a")
