import json
from collections.abc import Callable
from typing import Any

import pytest
from ase import Atoms

from aiida_autopipe.core.dataset import Dataset

Files = dict[str, str]
Parse = Callable[..., tuple[dict[str, Any], Any]]
EMT = "ase.calculators.emt.EMT"


def line(position: int, outcome: str = "ok") -> dict[str, Any]:
    label = {"energy": -1.0, "forces": [[0.0, 0.0, 0.0]], "stress": None, "positions": None}
    reason = None if outcome == "ok" else "RuntimeError: no"
    return {
        "kind": "result",
        "position": position,
        "outcome": outcome,
        "reason": reason,
        "seconds": 1.0,
        **(label if outcome == "ok" else {}),
    }


def results(*entries: dict[str, Any], ended: str | None = None) -> Files:
    first = {"kind": "versions", "versions": {"ase": "3.29.0"}}
    last = [] if ended is None else [{"kind": "end", "ended": ended}]
    text = "".join(json.dumps(entry) + "\n" for entry in (first, *entries, *last))
    return {"results.jsonl": text}


def error(kind: str, message: str) -> Files:
    return {"error.json": json.dumps({"kind": kind, "message": message})}


@pytest.fixture
def parse(parse_job: Any) -> Parse:
    """Parse retrieved files of a job on three structures; returns outputs and the exit code."""
    from aiida.orm import Dict

    from aiida_autopipe.data.dataset import DatasetData

    def run(files: Files, scheduler_status: int | None = None) -> tuple[dict[str, Any], Any]:
        data = Dataset.from_atoms([Atoms("Cu")] * 3, columns={"origin": ["a", "b", "c"]})
        inputs = {"dataset": DatasetData(data), "settings": Dict({"calculator": EMT})}
        content = {name: text.encode() for name, text in files.items()}
        found: tuple[dict[str, Any], Any] = parse_job(
            "autopipe.ase", inputs, content, scheduler_status
        )
        return found

    return run


def told(outputs: dict[str, Any]) -> list[str]:
    return [outcome["outcome"] for outcome in outputs["outcomes"]["outcomes"]]


def test_a_job_that_ended_well(parse: Parse) -> None:
    outputs, code = parse(results(line(2), line(0), line(1, "failed"), ended="done"))
    assert code is None
    assert told(outputs) == ["ok", "failed", "ok"]
    labelled = outputs["labelled"]
    assert labelled.get_dataset().columns["position"].tolist() == [0, 2]
    assert labelled.get_dataset().columns["origin"].tolist() == ["a", "c"]
    method = labelled.base.attributes.get("method")
    assert method["program"] == EMT
    assert method["versions"] == {"ase": "3.29.0"}
    assert method["fingerprint"] == labelled.method_fingerprint


def test_nothing_succeeded(parse: Parse) -> None:
    outputs, code = parse(results(*(line(i, "failed") for i in range(3)), ended="done"))
    assert code is None
    assert told(outputs) == ["failed"] * 3
    assert "labelled" not in outputs


@pytest.mark.parametrize(
    ("files", "status", "message"),
    [
        (error("import", "No module named 'x'"), 201, "EMT cannot be imported: No module"),
        (error("keywords", "unknown keyword"), 202, "EMT cannot be made with its keywords"),
        (error("interpreter", "No module named 'ase'"), 301, "cannot run the job: No module"),
        ({"_scheduler-stderr.txt": "python: not found\n"}, 301, "job: python: not found"),
        (error("start", "it died"), 302, "EMT cannot be started: it died"),
        (error("gossip", "?"), 303, "error.json is unusable"),
        ({"error.json": "no json"}, 303, "error.json is unusable"),
        (results({"kind": "gossip"}), 303, "results.jsonl is unusable: line 2"),
        ({"_scheduler-stderr.txt": "Traceback (most\nOSError: disk full\n"}, 304, "disk full"),
        ({}, 401, "interrupted when 0 of 3"),
    ],
)
def test_jobs_that_gave_nothing(parse: Parse, files: Files, status: int, message: str) -> None:
    outputs, code = parse(files)
    assert code.status == status
    assert message in code.message
    assert told(outputs) == ["not_run"] * 3
    assert {o["reason"] for o in outputs["outcomes"]["outcomes"]} == {code.message}
    assert "labelled" not in outputs


@pytest.mark.parametrize(
    ("files", "status", "message"),
    [
        (results(line(1)), 401, "interrupted when 1 of 3"),
        (results(line(1), ended="time"), 402, "over when 1 of 3"),
        ({**results(line(1)), **error("start", "it died")}, 302, "it died"),
    ],
)
def test_what_was_complete_is_kept(parse: Parse, files: Files, status: int, message: str) -> None:
    outputs, code = parse(files)
    assert code.status == status
    assert message in code.message
    assert told(outputs) == ["not_run", "ok", "not_run"]
    assert outputs["labelled"].get_dataset().columns["position"].tolist() == [1]


def test_the_schedulers_word_comes_first(parse: Parse) -> None:
    outputs, code = parse(results(line(1)), scheduler_status=110)
    assert code is None
    assert told(outputs) == ["not_run", "ok", "not_run"]
    assert outputs["outcomes"]["outcomes"][0]["reason"] == "The job ran out of memory."
