"""Each ending of `autopipe.mace`, on the files of a real fine-tuning with replay."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engines.mace.small import silicon

FIXTURE = Path(__file__).parent / "fixtures" / "mace" / "replay"
CURVE = "mace_run-3_train.txt"
Files = dict[str, bytes]
Parse = Callable[..., tuple[dict[str, Any], Any]]


@pytest.fixture
def files() -> Files:
    """What a training retrieves; the model itself is not opened by the parser."""
    found = {path.name: path.read_bytes() for path in FIXTURE.iterdir()}
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, test_energy_reference=np.zeros(2))
    return {**found, "parity.npz": stream.getvalue(), "potential.model": b"weights"}


@pytest.fixture
def parse(parse_job: Any) -> Parse:
    """Parse retrieved files as the engine would; returns outputs and the exit code."""
    from aiida_autopipe.data.dataset import DatasetData

    def run(files: Files, scheduler_status: int | None = None) -> tuple[dict[str, Any], Any]:
        inputs = {"train": DatasetData(silicon(2))}
        found: tuple[dict[str, Any], Any] = parse_job(
            "autopipe.mace", inputs, files, scheduler_status
        )
        return found

    return run


def error(kind: str, message: str = "some words", **more: Any) -> Files:
    return {"error.json": json.dumps({"type": kind, "message": message, **more}).encode()}


def changed(files: Files, **changes: Any) -> Files:
    content = {**json.loads(files["metrics.json"]), **changes}
    return {**files, "metrics.json": json.dumps(content).encode()}


def test_complete_files_become_nodes(parse: Parse, files: Files) -> None:
    outputs, code = parse(files)
    assert code is None
    assert set(outputs) == {"potential", "metrics", "parity", "learning_curve"}
    potential = outputs["potential"]
    assert (potential.kind, potential.filenames) == ("mace", ["potential.model"])
    assert potential.fit["mode"] == outputs["metrics"]["chosen"]["mode"] == "multihead"
    assert outputs["learning_curve"].get_array("epoch").tolist() == [-1, 0, 1]


def test_the_schedulers_word_comes_first(parse: Parse, files: Files) -> None:
    """What was learnt until then is an output all the same: a restart needs to know."""
    outputs, code = parse({CURVE: files[CURVE], **error("crash")}, scheduler_status=120)
    assert (set(outputs), code) == ({"learning_curve"}, None)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("InputError", 201),
        ("DataError", 201),
        ("PotentialFileError", 201),
        ("EngineError", 301),
        ("interpreter", 305),
        ("crash", 306),
        ("memory", 308),
    ],
)
def test_the_sentence_of_the_job_is_passed_on(parse: Parse, kind: str, status: int) -> None:
    outputs, code = parse(error(kind, "Structure 3 is odd."))
    assert (outputs, code.status) == ({}, status)
    assert "Structure 3 is odd" in code.message


def test_diverged_with_the_epoch(parse: Parse) -> None:
    _, code = parse(error("diverged", "the validation loss after epoch 7 is nan", epoch=7))
    assert code.status == 307
    assert "diverged in epoch 7: the validation loss after epoch 7 is nan" in code.message


def test_out_of_time(parse: Parse, files: Files) -> None:
    outputs, code = parse({CURVE: files[CURVE], **error("time", new_epochs=2)})
    assert code.status == 402
    assert "after 2 epochs" in code.message
    assert "learning_curve" in outputs


def test_not_one_epoch_in_time(parse: Parse) -> None:
    assert parse(error("time", new_epochs=0))[1].status == 309


@pytest.mark.parametrize("missing", ["potential.model", "parity.npz"])
def test_missing_output(parse: Parse, files: Files, missing: str) -> None:
    _, code = parse({name: files[name] for name in files if name != missing})
    assert code.status == 302
    assert missing in code.message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", b"{"),
        ("metrics.json", b"[]"),
        ("metrics.json", b'{"metrics": {}}'),
        ("parity.npz", b"PK nonsense"),
        (CURVE, b"nonsense\n{}\n"),
    ],
)
def test_unreadable_output(parse: Parse, files: Files, name: str, content: bytes) -> None:
    outputs, code = parse({**files, name: content})
    assert code.status == 303
    assert "potential" not in outputs


def test_unreadable_error_file(parse: Parse) -> None:
    assert parse({"error.json": b"[]"})[1].status == 303


def test_metrics_that_are_not_finite(parse: Parse, files: Files) -> None:
    metrics = {"train": {"forces_mae": float("nan"), "stress_mae": None}}
    _, code = parse(changed(files, metrics=metrics))
    assert code.status == 304
    assert "train.forces_mae = nan" in code.message


@pytest.mark.parametrize(
    ("stderr", "status"),
    [
        (b"/usr/bin/python3: Error while finding module (No module named 'aiida_autopipe')\n", 305),
        (b"Traceback (most recent call last):\n  File x\nOSError: disk full\n", 306),
        (b"_aiidasubmit.sh: line 9: 4711 Killed   python -m aiida_autopipe\n", 308),
        (b"", 401),
    ],
)
def test_lost_output(parse: Parse, stderr: bytes, status: int) -> None:
    """The job itself died: what the shell and the interpreter said is all there is."""
    assert parse({"_scheduler-stderr.txt": stderr})[1].status == status


def test_nothing_at_all(parse: Parse) -> None:
    assert parse({})[1].status == 401
