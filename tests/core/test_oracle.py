"""Settings of an oracle, a dataset as the lines of a job, and the lines a job writes."""

import json
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.oracle.results import labelled, read_results
from aiida_autopipe.core.oracle.settings import AseSettings
from aiida_autopipe.core.oracle.structures import structure_lines

EMT = "ase.calculators.emt.EMT"


def fingerprint(**values: Any) -> str:
    return str(AseSettings(**{"calculator": EMT, **values}).method()["fingerprint"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "need 'calculator'"),
        ({"calculator": EMT, "keyword": {}}, "'keyword' .* did you mean 'keywords'"),
        ({"calculator": EMT, "zzz": 1}, "'zzz' .* known are calculator, keywords"),
        ({"calculator": "EMT"}, "'EMT' must be the import path"),
        ({"calculator": "os.system('rm')"}, "must be the import path"),
        ({"calculator": "a..B"}, "must be the import path"),
        ({"calculator": "a.class"}, "must be the import path"),
        ({"calculator": 3}, "3 must be the import path"),
        ({"calculator": EMT, "keywords": [1]}, "keywords must be a mapping"),
        ({"calculator": EMT, "keywords": {"a b": 1}}, "keyword 'a b' is not a name"),
        ({"calculator": EMT, "keywords": {"a": float("nan")}}, "keyword a is nan; only finite"),
        ({"calculator": EMT, "keywords": {"a": {"b": object}}}, "keyword a is .* only finite"),
        ({"calculator": EMT, "initial_magmoms": {"Xx": 1}}, "'Xx', which is no element"),
        ({"calculator": EMT, "initial_magmoms": {"Fe": "up"}}, "of Fe is 'up'"),
        ({"calculator": EMT, "initial_magmoms": 2.2}, "must map elements to numbers"),
        ({"calculator": EMT, "force_threshold": 0}, "force_threshold must be a positive"),
        ({"calculator": EMT, "relax_steps": 1.5}, "relax_steps must be a whole number"),
        ({"calculator": EMT, "seconds_per_structure": -1}, "seconds_per_structure must be"),
        ({"calculator": EMT, "reuse_calculator": 1}, "must be true or false, not 1"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AseSettings.from_dict(values)


def test_the_method_is_what_makes_energies_comparable() -> None:
    same = fingerprint(keywords={"rc": 10, "grid": [1, 2]})
    assert same == fingerprint(keywords={"grid": [1.0, 2], "rc": 10.0}, seconds_per_structure=5)
    assert same != fingerprint(keywords={"rc": 11, "grid": [1, 2]})
    assert fingerprint() != fingerprint(initial_magmoms={"Fe": 2.2})
    assert fingerprint() != fingerprint(calculator="ase.calculators.lj.LennardJones")
    told = AseSettings(EMT).method({"ase": "3.29.0"})
    assert told["versions"] == {"ase": "3.29.0"}
    assert told["fingerprint"] == fingerprint()


def lines(structures: list[Atoms], settings: AseSettings | None = None, **columns: Any) -> Any:
    data = Dataset.from_atoms(structures, columns=columns)
    read = [json.loads(line) for line in structure_lines(data, settings or AseSettings(EMT))]
    return {entry["position"]: entry for entry in read}, [entry["position"] for entry in read]


def test_structures_carry_what_a_calculator_may_want() -> None:
    iron = bulk("Fe") * (2, 1, 1)
    moments = AseSettings(EMT, initial_magmoms={"Fe": 2.2})
    found, order = lines(
        [Atoms("O"), iron, iron],
        moments,
        initial_magmoms=["", "", "2 -2"],
        initial_charges=["-1", "", ""],
        charge=[-1, 0, 0],
        relax=[False, True, False],
    )
    assert order == [1, 2, 0]
    assert [found[i]["magmoms"] for i in range(3)] == [[0.0], [2.2, 2.2], [2.0, -2.0]]
    assert [found[i]["charges"] for i in range(3)] == [[-1.0], None, None]
    assert [found[i]["relax"] for i in range(3)] == [False, True, False]
    assert found[0]["info"]["charge"] == -1
    np.testing.assert_array_equal(found[1]["cell"], iron.cell.array)


@pytest.mark.parametrize("text", ["2.0", "up down", "nan 1"])
def test_numbers_that_do_not_fit_the_atoms_are_a_problem_of_their_structure(text: str) -> None:
    found, _ = lines([bulk("Fe") * (2, 1, 1)], initial_magmoms=[text])
    assert "must hold 2 numbers" in found[0]["problem"]


def test_senseless_structures_carry_their_problem() -> None:
    close = Atoms("Cu2", [[0, 0, 0], [0, 0, 0.1]])
    flat = Atoms("Cu", cell=[2, 2, 0], pbc=True)
    lost = Atoms("Cu", [[np.nan, 0, 0]])
    found, _ = lines([close, flat, lost, Atoms("Cu")])
    assert "Atoms 0 and 1 are 0.1 Å apart" in found[0]["problem"]
    assert "no volume" in found[1]["problem"]
    assert "must be finite" in found[2]["problem"]
    assert "problem" not in found[3]


def result(position: int, **values: Any) -> dict[str, Any]:
    label = {"energy": -1.0, "forces": [[0.0, 0.0, 0.5]], "stress": None, "positions": None}
    base = {"kind": "result", "position": position, "outcome": "ok", "reason": None, "seconds": 2.0}
    return {**base, **label, **values}


def text(*entries: dict[str, Any]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def test_what_is_complete_counts_however_the_job_ended() -> None:
    source = Dataset.from_atoms(
        [Atoms("Cu", [[0, 0, k]]) for k in range(4)],
        columns={"origin": ["a", "b", "c", "d"]},
        attributes={"reference_energies": {"Cu": 5.0}, "note": "kept"},
    )
    written = text(
        {"kind": "versions", "versions": {"ase": "3"}},
        {"kind": "started", "position": 2},
        result(2, positions=[[1.0, 2.0, 3.0]]),
        {"kind": "started", "position": 0},
        {"kind": "result", "position": 3, "outcome": "failed", "reason": "nan", "exit_status": -6},
    )
    cut = written + json.dumps(result(1))[:-1]
    results = read_results(cut, dict.fromkeys(range(4), 1))
    assert results.ended is None
    outcomes = results.outcomes(4, "killed.")
    assert [o["outcome"] for o in outcomes] == ["not_run", "not_run", "ok", "failed"]
    assert outcomes[0]["reason"] == "It was being calculated when the job stopped: killed."
    assert outcomes[1]["reason"] == "killed."
    assert outcomes[2] == {
        "position": 2,
        "outcome": "ok",
        "reason": None,
        "exit_status": None,
        "seconds": 2.0,
    }
    assert outcomes[3]["exit_status"] == -6
    found = labelled(source, results, {"fingerprint": "f"})
    assert found is not None
    assert found.columns["position"].tolist() == [2]
    assert found.columns["origin"].tolist() == ["c"]
    assert found.positions.tolist() == [[1.0, 2.0, 3.0]]
    assert found.attributes == {"note": "kept", "method": {"fingerprint": "f"}}
    assert found.labels(0).energy == -1.0


@pytest.mark.parametrize(
    "entry",
    [
        result(7),
        result(0, energy="low"),
        result(0, forces=[[0.0, 0.0]]),
        result(0, energy=float("nan")),
        result(0, outcome="perhaps"),
        {"kind": "gossip"},
        {"position": 0},
    ],
)
def test_lines_that_no_job_writes_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="line 2 is not what the job writes"):
        read_results(text({"kind": "started", "position": 0}, entry), {0: 1})


def test_no_label_is_no_dataset() -> None:
    assert labelled(Dataset.from_atoms([Atoms("Cu")]), read_results("", {0: 1}), {}) is None
