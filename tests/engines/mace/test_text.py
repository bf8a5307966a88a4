"""Settings to input and output to values, without MACE."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase.io import read

from aiida_autopipe.core.errors import DataError, EngineError, InputError
from aiida_autopipe.core.mace_settings import MaceSettings
from aiida_autopipe.engines.mace.arguments import Facts, arguments, config_text
from aiida_autopipe.engines.mace.checkpoints import Checkpoints
from aiida_autopipe.engines.mace.files import held_out, usable, write_xyz
from aiida_autopipe.engines.mace.output import explain_crash, read_log, read_results
from aiida_autopipe.engines.mace.watch import Ended, Watch
from tests.engines.mace.small import silicon

RECORDED = Path(__file__).parents[2] / "parsers" / "fixtures" / "mace"


def facts(**changes: Any) -> Facts:
    given: dict[str, Any] = {
        "n_train": 20,
        "n_replay": 0,
        "has_stress": True,
        "reference_energies": {"Si": -5.0, "C": -3.0},
        "device": "cpu",
    }
    return Facts(**(given | changes))


# ------------------------------------------------------------------ settings and arguments


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"chanels": 3}, "Unknown MACE setting 'chanels'; did you mean 'channels'?"),
        ({"channels": 2.5}, "The MACE setting channels must be a whole number, not 2.5."),
        ({"loss": "l2"}, "one of weighted, universal"),
        ({"radial_layers": [8, 0]}, "radial_layers is (8, 0); it must be between 1 and 1024"),
        ({"learning_rate": float("nan")}, "must be a number or null"),
        ({"energy_weight": 0.0, "forces_weight": 0.0}, "both 0"),
    ],
)
def test_settings_that_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        MaceSettings.from_dict(values)
    assert message in str(error.value)


def test_settings_travel_as_json() -> None:
    settings = MaceSettings(radial_layers=(8, 8), learning_rate=0.1)
    assert MaceSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_from_scratch() -> None:
    options = arguments(MaceSettings(channels=16, max_L=0), facts(), 7)
    assert options["E0s"] == "{6: -3.0, 14: -5.0}"
    assert (options["num_channels"], options["max_L"], options["r_max"]) == (16, 0, 5.0)
    assert (options["loss"], options["compute_stress"]) == ("stress", True)
    assert options["lr"] == 0.01
    assert not options["multiheads_finetuning"]
    assert yaml.safe_load(config_text(options)) == options


def test_without_stresses_the_loss_has_none() -> None:
    for changed in (facts(has_stress=False), facts()):
        settings = MaceSettings(stress_weight=10.0 if not changed.has_stress else 0.0)
        options = arguments(settings, changed, 0)
        assert (options["loss"], options["compute_stress"]) == ("weighted", False)


def test_fine_tuning() -> None:
    naive = arguments(MaceSettings(), facts(base="base.model"), 0)
    assert (naive["foundation_model"], naive["multiheads_finetuning"]) == ("base.model", False)
    assert naive["lr"] == 0.001
    assert "num_channels" not in naive
    replay = arguments(MaceSettings(), facts(base="base.model", n_replay=3), 0)
    assert (replay["multiheads_finetuning"], replay["force_mh_ft_lr"]) == (True, True)
    assert (replay["pt_train_file"], replay["lr"]) == ("replay.xyz", 0.0001)
    # MACE leaves out incomplete batches of each head.
    assert replay["batch_size"] == 3
    with pytest.raises(InputError, match="need the model"):
        arguments(MaceSettings(), facts(n_replay=3), 0)


# ------------------------------------------------------------------ files


def test_labels_and_weights_are_written_under_the_names_of_mace(tmp_path: Path) -> None:
    data = silicon(3, weight=np.array([1.0, 2.0, 1.0]))
    data.energy[2] = np.nan
    data.stress[2] = np.nan
    write_xyz(data, tmp_path / "train.xyz")
    first, second, third = read(tmp_path / "train.xyz", ":")
    assert first.info["REF_energy"] == pytest.approx(data.energy[0])
    np.testing.assert_allclose(first.arrays["REF_forces"], data.forces[:2], atol=1e-7)
    np.testing.assert_allclose(np.ravel(first.info["REF_stress"]), data.stress[0])
    assert second.info["config_weight"] == 2.0
    assert {"REF_energy", "REF_stress"}.isdisjoint(third.info)
    assert "config_weight" not in first.info


def test_what_mace_has_no_word_for_is_left_out_with_a_note() -> None:
    from ase import Atoms

    from aiida_autopipe.core.dataset import Dataset

    mask = np.ones(8)
    mask[0] = 0.0
    lonely = Atoms("Si", cell=[20.0] * 3, pbc=True, info={"energy": -5.0})
    data = Dataset.concatenate([silicon(4, force_mask=mask), Dataset.from_atoms([lonely])])
    found = usable(data, "drop", 4.0, "training")
    assert len(found.dataset) == 3
    assert found.notes == (
        "1 structures of the training data with a force mask are left out.",
        "1 structures of the training data with a single atom are left out.",
    )
    with pytest.raises(InputError, match="Structure 0 of the training data has a force mask"):
        usable(data, "refuse", 4.0, "training")
    with pytest.raises(DataError, match="MACE can use 1, it needs at least 2"):
        usable(data[:2], "drop", 4.0, "training")


def test_forces_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    data = silicon(2)
    data.forces[3, 1] = np.inf
    with pytest.raises(DataError, match="Structure 1 has forces that are not finite"):
        write_xyz(data, tmp_path / "a.xyz")


@pytest.mark.parametrize(("n", "fraction", "size"), [(2, 0.5, 1), (10, 0.2, 2), (10, 0.01, 1)])
def test_both_parts_have_something(n: int, fraction: float, size: int) -> None:
    learn, validate = held_out(n, fraction, np.random.default_rng(1))
    assert len(validate) == size
    assert sorted([*learn, *validate]) == list(range(n))


# ------------------------------------------------------------------ output


def test_recorded_results() -> None:
    """Of a fine-tuning with replay, from MACE 0.3.16."""
    curve = read_results((RECORDED / "replay" / "mace_run-3_train.txt").read_text())
    assert curve.epoch.tolist() == [-1, 0, 1]
    assert np.isfinite(curve.replay_loss).all()
    assert np.isfinite(curve.errors["forces_rmse"]).all()
    assert curve.n_epochs == 2
    assert curve.loss_after(1) == curve.validation_loss[2]
    assert curve.loss_after(9) is None
    assert set(curve.arrays()) >= {"epoch", "train_loss", "validation_stress_rmse"}


def test_recorded_log() -> None:
    log = read_log((RECORDED / "replay" / "mace.log").read_text())
    assert (log.version, log.last_epoch) == ("0.3.16", 1)
    assert log.model_epoch in (0, 1)
    assert log.last_loss is not None and log.last_loss > 0
    assert read_log("") == type(log)(None, None, None, None)


def line(mode: str, epoch: int | None, loss: float) -> str:
    return json.dumps({"mode": mode, "epoch": epoch, "loss": loss, "head": "Default"})


def test_a_restart_goes_back() -> None:
    """What came after the checkpoint in the run before does not count; the first record does."""
    lines = [line("eval", None, 9.0)]
    for epoch in range(4):
        lines += [line("opt", epoch, 1.0), line("eval", epoch, float(epoch))]
    lines += [line("eval", None, 5.0), line("opt", 2, 3.0), line("eval", 2, 0.5)]
    curve = read_results("\n".join(lines) + "\n")
    assert curve.epoch.tolist() == [-1, 0, 1, 2]
    assert curve.validation_loss.tolist() == [9.0, 0.0, 1.0, 0.5]
    assert curve.train_loss[3] == 3.0


def test_results_that_were_cut_off() -> None:
    text = line("opt", 0, 1.0) + "\n" + line("eval", 0, 2.0) + '\n{"mode": "op'
    assert read_results(text).epoch.tolist() == [0]
    with pytest.raises(EngineError, match="Line 1 of MACE's results"):
        read_results("nonsense\n" + line("eval", 0, 2.0) + "\n")
    assert read_results("").n_epochs == 0


@pytest.mark.parametrize(
    ("text", "code", "kind", "words"),
    [
        (
            "Traceback (most recent call last):\nRuntimeError: [enforce fail at alloc_cpu.cpp:127] "
            "err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
            "400000000000000 bytes. Error code 12 (Cannot allocate memory)",
            1,
            "memory",
            "you tried to allocate 400000000000000 bytes",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", 1, "memory", "2 G"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=1", None, "memory", "oom_kill"),
        ("/var/spool/x: line 9: 123 Killed   python -m x", None, "memory", "SIGKILL"),
        ("", -9, "memory", "SIGKILL"),
        ("", -15, "interrupted", "signal 15"),
        ("", None, "interrupted", "neither a result"),
        ("x: Error (No module named 'aiida_autopipe')", 1, "interpreter", "No module named"),
        (
            "Traceback (most recent call last):\nModuleNotFoundError: No module named 'mace'",
            1,
            "interpreter",
            "'mace'",
        ),
        (
            "Traceback (most recent call last):\n  x\nValueError: 6 is not in list",
            1,
            "crash",
            "6 i",
        ),
        ("some words", 3, "crash", "some words"),
        ("", 3, "crash", "exit status 3"),
    ],
)
def test_why_a_training_died(text: str, code: int | None, kind: str, words: str) -> None:
    found, message = explain_crash(text, code)
    assert found == kind
    assert words in message


# ------------------------------------------------------------------ watch and checkpoints


def step(epoch: int, loss: float = 1.0) -> dict[str, Any]:
    return {"mode": "opt", "epoch": epoch, "loss": np.array(loss)}


def valid(epoch: int | None, loss: float, head: str = "Default") -> dict[str, Any]:
    return {"mode": "eval", "epoch": epoch, "loss": loss, "head": head}


def test_steps_become_one_record_of_their_epoch() -> None:
    watch = Watch(5)
    assert watch.see(valid(None, 4.0)) == [valid(None, 4.0)]
    assert watch.see(step(0, 1.0)) == [] == watch.see(step(0, 3.0))
    mean, shown = watch.see(valid(0, 2.0))
    assert (mean, shown["loss"]) == ({"mode": "opt", "epoch": 0, "loss": 2.0}, 2.0)
    assert watch.lowest == 2.0


def test_patience_counts_the_new_data_only() -> None:
    watch = Watch(2)
    for epoch, loss in enumerate((3.0, 2.0, 2.5)):
        watch.see(step(epoch))
        watch.see(valid(epoch, 0.1, "pt_head"))
        watch.see(valid(epoch, loss))
    watch.see(step(3))
    watch.see(valid(3, 2.0))
    with pytest.raises(Ended, match="for 2 epochs") as ended:
        watch.see(step(4))
    assert (ended.value.kind, ended.value.epoch) == ("patience", 3)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e9])
def test_a_validation_loss_that_is_none(loss: float) -> None:
    watch = Watch(2)
    watch.see(valid(None, 10.0))
    watch.see(step(0))
    with pytest.raises(Ended, match="after epoch 0") as ended:
        watch.see(valid(0, loss))
    assert ended.value.kind == "diverged"


def test_a_step_that_is_no_number() -> None:
    with pytest.raises(Ended, match="a step of epoch 4 is nan"):
        Watch(2).see(step(4, math.nan))


def test_time_for_another_epoch() -> None:
    """An epoch takes 10 s; with 12 s left none is begun, for it might take longer."""
    left = iter([42.0, 32.0, 22.0, 12.0])
    watch = Watch(9, lambda: next(left))
    for epoch in range(3):
        watch.see(step(epoch))
        watch.see(valid(epoch, 1.0))
    with pytest.raises(Ended) as ended:
        watch.see(step(3))
    assert (ended.value.kind, ended.value.epoch) == ("time", 2)


def checkpoint(folder: Path, epoch: int, content: str) -> Path:
    path = folder / "checkpoints" / f"mace_run-3_epoch-{epoch}.pt"
    path.write_text(content)
    return path


def load(path: Path) -> None:
    if path.read_text() == "cut off":
        raise RuntimeError("PytorchStreamReader failed")


def test_the_best_checkpoint_of_all_runs_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.resume(load, lambda _: None) is None
    checkpoint(tmp_path, 4, "best")
    found = checkpoints.resume(load, {4: 1.0}.get)
    assert found is not None and found.epoch == 5
    assert found.path.name == "mace_run-3_epoch-5.pt"
    found.path.unlink()
    checkpoint(tmp_path, 7, "worse")
    assert checkpoints.take_back(0.9) is None
    back = checkpoints.take_back(1.5)
    assert back is not None and (back.epoch, back.path.read_text()) == (4, "best")
    # A later restart from a worse one does not push the best aside.
    back.path.unlink()
    checkpoint(tmp_path, 9, "worse")
    checkpoints.resume(load, {9: 1.5}.get)
    again = checkpoints.take_back(1.2)
    assert again is not None and again.path.read_text() == "best"


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoint(tmp_path, 3, "good")
    checkpoint(tmp_path, 6, "cut off")
    found = checkpoints.resume(load, lambda _: 1.0)
    assert found is not None and found.epoch == 4
