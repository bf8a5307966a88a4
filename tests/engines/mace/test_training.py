"""Real trainings, in the process of the tests: PyTorch is imported once."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.mace_evaluate import MaceModel, evaluate_committee, heads_of
from aiida_autopipe.core.mace_model import load_model
from aiida_autopipe.engines.mace import training
from aiida_autopipe.engines.mace.watch import Ended
from tests.engines.mace.small import E0, FINE, SETTINGS, silicon, write_job

pytestmark = pytest.mark.filterwarnings("ignore")  # of MACE and its dependencies

FOREVER = 1e18


@pytest.fixture(autouse=True, scope="module")
def mace() -> Iterator[None]:
    """MACE and PyTorch, whose default precision a training changes."""
    import torch

    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


def train(folder: Path, monkeypatch: Any, deadline: float = FOREVER) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    training.run(folder, deadline)
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model from scratch."""
    folder = tmp_path_factory.mktemp("mace") / "scratch"
    write_job(folder, {"train": silicon(10), "test": silicon(3, seed=8)})
    with pytest.MonkeyPatch.context() as patch:
        train(folder, patch)
    return folder


def test_from_scratch(trained: Path) -> None:
    """Metrics of all parts, E0 of the labels, a learning curve, and a model that gives them."""
    summary = json.loads((trained / "metrics.json").read_text())
    assert set(summary["metrics"]) == {"train", "validation", "test"}
    chosen = summary["chosen"]
    assert chosen["mode"] == "scratch"
    assert chosen["reference_energies"] == "data set"
    assert (chosen["epochs"], chosen["ended"], chosen["mace"][:3]) == (2, "finished", "0.3")
    assert summary["reference_energies"] == {"Si": E0}
    assert (summary["elements"], summary["cutoff"]) == (["Si"], 4.0)
    curve = training.curve_of(trained)
    assert curve.epoch.tolist() == [-1, 0, 1]
    assert np.isfinite(curve.validation_loss).all()
    assert np.isfinite(curve.train_loss[1:]).all() and math.isnan(curve.train_loss[0])
    with np.load(trained / "parity.npz") as parity:
        model = MaceModel.from_file(trained / "potential.model", trust=True)
        atoms = silicon(3, seed=8).atoms(1)
        (found,) = model.evaluate([atoms])
        assert found.energy / 2 == pytest.approx(parity["test_energy_predicted"][1], abs=1e-10)
        np.testing.assert_allclose(found.forces, parity["test_forces_predicted"][2:4], atol=1e-10)
        assert parity["test_stress_predicted"].shape == (3, 6)


def test_the_evaluation_is_that_of_mace_itself(trained: Path) -> None:
    """Energies, forces and stress as MACE's own calculator gives them; atoms one by one or not."""
    from mace.calculators import MACECalculator

    path = trained / "potential.model"
    own = MACECalculator(model_paths=str(path), device="cpu", default_dtype="float64")
    structures = [silicon(4).atoms(i) for i in range(4)]
    model = MaceModel.from_file(path, trust=True)
    for atoms, found in zip(structures, model.evaluate(structures), strict=True):
        bare = atoms.copy()
        bare.calc = own
        assert found.energy == pytest.approx(bare.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(found.forces, bare.get_forces(), atol=1e-9)
        np.testing.assert_allclose(found.stress, bare.get_stress(), atol=1e-9)
        assert found.energies.sum() == pytest.approx(found.energy, abs=1e-9)
    with pytest.raises(InputError, match="at least 2 models"):
        evaluate_committee([model], structures)


def test_an_unknown_element_is_refused(trained: Path) -> None:
    from ase.build import bulk

    model = MaceModel.from_file(trained / "potential.model", trust=True)
    with pytest.raises(DataError, match="Structure 0 contains Cu, but the model knows only Si"):
        model.evaluate([bulk("Cu")])


def test_the_same_seed_gives_the_same_model(
    trained: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    write_job(tmp_path, {"train": silicon(10), "test": silicon(3, seed=8)})
    again = train(tmp_path, monkeypatch)
    assert again["metrics"] == json.loads((trained / "metrics.json").read_text())["metrics"]


def test_naive_fine_tuning(trained: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """It starts from the other model: E0 of the labels, which have none, follow from it."""
    data = silicon(8, seed=9, attributes={})
    (tmp_path / "prior.model").write_bytes((trained / "potential.model").read_bytes())
    write_job(tmp_path, {"train": data}, prior="prior.model")
    (tmp_path / "job.json").write_text(
        json.dumps({"train": "train.h5", "seed": 1, "settings": FINE, "prior": "prior.model"})
    )
    summary = train(tmp_path, monkeypatch)
    assert summary["chosen"]["mode"] == "naive"
    assert summary["chosen"]["learning_rate"] == 0.001
    assert summary["reference_energies"]["Si"] == pytest.approx(E0, abs=1.0)
    before = json.loads((trained / "metrics.json").read_text())["metrics"]["train"]
    assert summary["metrics"]["train"]["forces_mae"] < 2 * before["forces_mae"]


def test_fine_tuning_with_replay(trained: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Replayed structures without labels get those of the model; the result has one head."""
    replay = silicon(6, seed=10, energy=None, forces=None, stress=None)
    (tmp_path / "prior.model").write_bytes((trained / "potential.model").read_bytes())
    write_job(tmp_path, {"train": silicon(6, seed=9), "replay": replay})
    job = json.loads((tmp_path / "job.json").read_text())
    (tmp_path / "job.json").write_text(
        json.dumps(job | {"settings": FINE, "prior": "prior.model", "trusted": True})
    )
    summary = train(tmp_path, monkeypatch)
    chosen = summary["chosen"]
    assert (chosen["mode"], chosen["n_replay"], chosen["learning_rate"]) == ("multihead", 4, 1e-4)
    assert heads_of(load_model(tmp_path / "potential.model", trust=True)) == ["Default"]
    assert summary["reference_energies"] == {"Si": E0}
    curve = training.curve_of(tmp_path)
    assert np.isfinite(curve.replay_loss).all()


def test_out_of_time_and_on_from_the_checkpoint(tmp_path: Path, monkeypatch: Any) -> None:
    """Each run without time ends after the epoch it is in; the next goes on behind it."""
    write_job(tmp_path, {"train": silicon(10)}, {"max_epochs": 3})
    with pytest.raises(Ended, match="time") as ended:
        train(tmp_path, monkeypatch, time.time())
    assert (ended.value.kind, ended.value.epoch) == ("time", 0)
    with pytest.raises(Ended) as ended:
        train(tmp_path, monkeypatch, time.time())
    assert ended.value.epoch == 1
    summary = train(tmp_path, monkeypatch)
    assert summary["chosen"]["epochs"] == 3
    curve = training.curve_of(tmp_path)
    assert curve.epoch.tolist() == [-1, 0, 1, 2]
    # What is kept is the best of all runs.
    best = curve.validation_loss[1:].argmin()
    assert summary["chosen"]["best_epoch"] == best


def test_early_stopping(tmp_path: Path, monkeypatch: Any) -> None:
    """A rate at which nothing gets better ends the training, and the best model is kept."""
    settings = {"max_epochs": 200, "patience": 2, "learning_rate": 0.3, "ema_decay": 0.0}
    write_job(tmp_path, {"train": silicon(10)}, settings)
    summary = train(tmp_path, monkeypatch)
    chosen, curve = summary["chosen"], training.curve_of(tmp_path)
    assert chosen["ended"] == "patience"
    assert chosen["epochs"] == chosen["best_epoch"] + 3 < 200
    rmse = curve.errors["forces_rmse"][curve.epoch == chosen["best_epoch"]][0]
    assert summary["metrics"]["validation"]["forces_rmse"] == pytest.approx(rmse, rel=1e-6)


def test_diverged(tmp_path: Path, monkeypatch: Any) -> None:
    """A loss that is no number ends the training with its epoch."""
    settings = {"learning_rate": 1000.0, "clip_gradient": 1e6, "ema_decay": 0.0, "max_epochs": 50}
    write_job(tmp_path, {"train": silicon(10)}, settings)
    with pytest.raises(Ended, match="loss") as ended:
        train(tmp_path, monkeypatch)
    assert ended.value.kind == "diverged"
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": "prior.model"}, "opening it runs whatever"),
        ({"settings": SETTINGS | {"reference_energies": "base"}}, "needs a model to start from"),
        ({"replay": "train.h5"}, "need the model that was trained"),
        ({"test": "other.h5"}, "no data file"),
    ],
)
def test_what_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: Any, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "prior.model").write_bytes((trained / "potential.model").read_bytes())
    write_job(tmp_path, {"train": silicon(4)})
    job = json.loads((tmp_path / "job.json").read_text())
    (tmp_path / "job.json").write_text(json.dumps(job | change))
    with pytest.raises(InputError, match=message):
        train(tmp_path, monkeypatch)


def test_other_elements_are_refused(trained: Path, tmp_path: Path, monkeypatch: Any) -> None:
    germanium = silicon(4)
    germanium.numbers[:] = 32
    write_job(tmp_path / "a", {"train": silicon(4), "test": germanium})
    with pytest.raises(DataError, match="test data contain Ge, which the training part lacks"):
        train(tmp_path / "a", monkeypatch)
    write_job(
        tmp_path / "b",
        {"train": germanium.with_attributes(reference_energies={"Ge": 0.0})},
        {"trust": True},
        prior="prior.model",
    )
    (tmp_path / "b" / "prior.model").write_bytes((trained / "potential.model").read_bytes())
    with pytest.raises(DataError, match="start from knows only Si"):
        train(tmp_path / "b", monkeypatch)
