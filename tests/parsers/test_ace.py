import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aiida_autopipe.core.ace.fit import FitSettings, fit_ace
from aiida_autopipe.core.ace.job import summary
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.dataset import Dataset

Files = dict[str, bytes]
Parse = Callable[..., tuple[dict[str, Any], Any]]


def silicon(n: int) -> Dataset:
    from ase.build import bulk

    structures = []
    for k in range(n):
        atoms = bulk("Si", a=5.3 + 0.05 * k, cubic=True)
        atoms.rattle(0.1, seed=k)
        atoms.info["energy"] = -40.0 + 0.1 * k
        structures.append(atoms)
    return Dataset.from_atoms(structures)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a real, small fit."""
    folder = tmp_path_factory.mktemp("fit")
    settings = FitSettings(cutoff=4.0, max_rank=2, max_functions=20)
    result = fit_ace(silicon(6), settings, rng=np.random.default_rng(0))
    found = {path.name: path.read_bytes() for path in result.potential.save(folder / "potential")}
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **result.parity_arrays())
    found["parity.npz"] = stream.getvalue()
    found["metrics.json"] = json.dumps(summary(result, 1.5)).encode()
    return found


@pytest.fixture
def parse(parse_job: Any) -> Parse:
    """Parse retrieved files as the engine would; returns outputs and the exit code."""
    from aiida.orm import Dict

    from aiida_autopipe.data.dataset import DatasetData

    def run(
        files: Files, scheduler_status: int | None = None, posterior: bool = False
    ) -> tuple[dict[str, Any], Any]:
        inputs = {"train": DatasetData(silicon(2)), "settings": Dict({"posterior": posterior})}
        found: tuple[dict[str, Any], Any] = parse_job(
            "autopipe.ace", inputs, files, scheduler_status
        )
        return found

    return run


def changed_summary(files: Files, **changes: Any) -> Files:
    content = {**json.loads(files["metrics.json"]), **changes}
    return {**files, "metrics.json": json.dumps(content).encode()}


def test_complete_files_become_nodes(parse: Parse, files: Files) -> None:
    outputs, code = parse(files)
    assert code is None
    assert set(outputs) == {"potential", "metrics", "parity"}
    assert outputs["metrics"]["seconds"] == 1.5
    assert outputs["potential"].metrics == outputs["metrics"]["metrics"]
    assert "train_energy_reference" in outputs["parity"].get_arraynames()
    assert isinstance(outputs["potential"].get_potential(), ACEPotential)


def test_posterior_and_calibration_are_passed_on(parse: Parse, files: Files) -> None:
    calibrated = changed_summary(files, calibration={"gamma": {"select": 2.0}})
    _, code = parse(calibrated, posterior=True)
    assert (code.status, "potential.posterior.npz" in code.message) == (302, True)
    kept = {**calibrated, "potential.posterior.npz": b"PK"}
    outputs, code = parse(kept, posterior=True)
    assert code is None
    assert "potential.posterior.npz" in outputs["potential"].filenames
    assert outputs["metrics"]["calibration"] == {"gamma": {"select": 2.0}}
    assert "potential.posterior.npz" not in parse(kept)[0]["potential"].filenames


def test_the_schedulers_word_comes_first(parse: Parse) -> None:
    error = json.dumps({"type": "FitError", "message": "killed"}).encode()
    assert parse({"error.json": error}, scheduler_status=120) == ({}, None)


@pytest.mark.parametrize(
    ("kind", "status"), [("InputError", 201), ("DataError", 201), ("FitError", 301)]
)
def test_the_sentence_of_the_job_is_passed_on(parse: Parse, kind: str, status: int) -> None:
    error = json.dumps({"type": kind, "message": "Structure 3 is odd."}).encode()
    outputs, code = parse({"error.json": error})
    assert (outputs, code.status) == ({}, status)
    assert code.message.endswith(": Structure 3 is odd.")


@pytest.mark.parametrize("missing", ["potential.asi", "parity.npz"])
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
    ],
)
def test_unreadable_output(parse: Parse, files: Files, name: str, content: bytes) -> None:
    outputs, code = parse({**files, name: content})
    assert code.status == 303
    assert name in code.message
    assert "potential" not in outputs


def test_unreadable_error_file(parse: Parse) -> None:
    assert parse({"error.json": b"[]"})[1].status == 303


def test_metrics_that_are_not_finite(parse: Parse, files: Files) -> None:
    metrics = {"train": {"forces_mae": float("nan"), "stress_mae": None}}
    _, code = parse(changed_summary(files, metrics=metrics))
    assert code.status == 304
    assert "train.forces_mae = nan" in code.message


def test_interpreter_without_the_package(parse: Parse) -> None:
    stderr = b"/usr/bin/python3: Error while finding module specification (No module named 'x')\n"
    _, code = parse({"_scheduler-stderr.txt": stderr})
    assert code.status == 305
    assert "No module named 'x'" in code.message


def test_crash(parse: Parse) -> None:
    stderr = b"Traceback (most recent call last):\n  File x\nMemoryError: too big\n"
    _, code = parse({"_scheduler-stderr.txt": stderr})
    assert code.status == 306
    assert code.message == "The fit crashed: MemoryError: too big"


def test_interruption(parse: Parse) -> None:
    assert parse({"_scheduler-stderr.txt": b"Terminated\n"})[1].status == 401
    assert parse({})[1].status == 401
