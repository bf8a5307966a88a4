"""The contract of oracles notices each thing that an oracle can do wrong.

A right answer is made in this process, then spoilt in one way at a time.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.optimize import BFGS

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.testing import OracleContract
from aiida_autopipe.testing.batches import Batch
from aiida_autopipe.testing.oracle import Labelled

Spoil = Callable[[Labelled, Batch], Labelled]


def copper(seed: int) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


class Contract(OracleContract):
    """Not collected: the tests below call its methods."""

    entry_point = "autopipe.ase"
    settings: ClassVar = {}
    other_settings: ClassVar = {}
    bad_settings = ()
    good = (copper(1), copper(2))
    to_relax = copper(3)
    isolated = Atoms("Cu")
    stress_components = (0, 3, 5)


def right_answer(batch: Batch, fingerprint: str = "right") -> Labelled:
    """What an oracle with EMT should give for the batch."""
    source = batch.dataset({})
    senseless = batch.positions("senseless")
    ok = [i for i in range(len(source)) if i not in senseless]
    structures = []
    for position in ok:
        atoms = source.atoms(position)
        atoms.calc = EMT()
        if atoms.info["relax"]:
            BFGS(atoms, logfile=None).run(fmax=0.01, steps=100)
        atoms.info["energy"] = atoms.get_potential_energy()
        atoms.arrays["forces"] = atoms.get_forces()
        if atoms.pbc.all():
            atoms.info["stress"] = atoms.get_stress()
        structures.append(atoms)
    method = {"program": "emt", "settings": {}, "fingerprint": fingerprint}
    data = Dataset.from_atoms(
        structures,
        columns={"name": [a.info["name"] for a in structures]},
        attributes={"method": method},
    )
    outcomes = [
        {
            "position": position,
            "outcome": "failed" if position in senseless else "ok",
            "reason": "too close" if position in senseless else None,
            "exit_status": None,
            "seconds": 0.1,
        }
        for position in range(len(source))
    ]
    labels = data.with_columns(position=ok)
    return Labelled(0, None, source, labels, fingerprint, outcomes)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return Contract().make_batch()


@pytest.fixture(scope="module")
def right(batch: Batch) -> Labelled:
    return right_answer(batch)


def check(name: str, answer: Labelled, batch: Batch, second: Labelled) -> None:
    """Run one test of the contract on an answer."""
    contract = Contract()
    arguments: dict[str, tuple[Any, ...]] = {
        "the_job_ends_well": (answer,),
        "every_structure_has_one_outcome": (answer,),
        "labels_are_finite_and_complete": (answer,),
        "a_second_job_gives_the_same_labels": (answer, second),
        "the_method_tells_settings_apart": (answer, second),
        "nothing_labelled_is_no_output": (answer,),
    }
    getattr(contract, f"test_{name}")(*arguments.get(name, (answer, batch)))


PASSED = (
    "the_job_ends_well",
    "every_structure_has_one_outcome",
    "only_the_senseless_structure_fails",
    "labels_belong_to_their_structures",
    "labels_are_finite_and_complete",
    "forces_are_minus_the_gradient",
    "stress_is_the_derivative_by_strain",
    "relaxed_structures_have_small_forces",
    "a_second_job_gives_the_same_labels",
)


@pytest.mark.parametrize("name", PASSED)
def test_a_right_answer_passes(name: str, right: Labelled, batch: Batch) -> None:
    check(name, right, batch, right)


def test_another_method_passes(right: Labelled, batch: Batch) -> None:
    labels = right.labels
    assert labels is not None
    method = {**labels.attributes["method"], "fingerprint": "other"}
    other = replace(right, fingerprint="other", labels=labels.with_attributes(method=method))
    check("the_method_tells_settings_apart", right, batch, other)


def changed(answer: Labelled, **values: Any) -> Labelled:
    assert answer.labels is not None
    return replace(answer, labels=replace(answer.labels, **values))


def labels_of(answer: Labelled) -> Any:
    assert answer.labels is not None
    return answer.labels


def outcomes(answer: Labelled, position: int, **values: Any) -> Labelled:
    entries = [{**o, **(values if o["position"] == position else {})} for o in answer.outcomes]
    return replace(answer, outcomes=entries)


SPOILT: list[tuple[str, str, Spoil]] = [
    ("exit status", PASSED[0], lambda a, b: replace(a, exit_status=401)),
    ("an outcome less", PASSED[1], lambda a, b: replace(a, outcomes=a.outcomes[1:])),
    ("an outcome twice", PASSED[1], lambda a, b: replace(a, outcomes=a.outcomes + a.outcomes[:1])),
    ("unknown outcome", PASSED[1], lambda a, b: outcomes(a, 0, outcome="fine")),
    ("no reason", PASSED[1], lambda a, b: outcomes(a, 1, reason=None)),
    ("senseless labelled", PASSED[2], lambda a, b: outcomes(a, 1, outcome="ok")),
    ("good one failed", PASSED[2], lambda a, b: outcomes(a, 2, outcome="failed", reason="x")),
    ("label lost", PASSED[2], lambda a, b: replace(a, labels=labels_of(a)[1:])),
    (
        "positions shifted",
        PASSED[3],
        lambda a, b: replace(
            a,
            labels=labels_of(a).with_columns(position=np.roll(labels_of(a).columns["position"], 1)),
        ),
    ),
    ("no stress", PASSED[4], lambda a, b: changed(a, stress=None)),
    ("NaN energy", PASSED[4], lambda a, b: changed(a, energy=labels_of(a).energy * np.nan)),
    ("forces are gradients", PASSED[5], lambda a, b: changed(a, forces=-labels_of(a).forces)),
    ("energy in Hartree", PASSED[5], lambda a, b: changed(a, energy=labels_of(a).energy / 27.2)),
    ("stress sign", PASSED[6], lambda a, b: changed(a, stress=-labels_of(a).stress)),
    ("stress in GPa", PASSED[6], lambda a, b: changed(a, stress=labels_of(a).stress * 160.2)),
    (
        "stress order xy xz yz",
        PASSED[6],
        lambda a, b: changed(a, stress=labels_of(a).stress[:, [0, 1, 2, 5, 4, 3]]),
    ),
    ("not relaxed", PASSED[7], lambda a, b: changed(a, forces=labels_of(a).forces + 0.1)),
    ("energies drift", PASSED[8], lambda a, b: changed(a, energy=labels_of(a).energy + 1e-3)),
    ("one fingerprint", "the_method_tells_settings_apart", lambda a, b: a),
    ("labels of nothing", "nothing_labelled_is_no_output", lambda a, b: a),
]


@pytest.mark.parametrize(("name", "spoil"), [s[1:] for s in SPOILT], ids=[s[0] for s in SPOILT])
def test_a_spoilt_answer_is_noticed(name: str, spoil: Spoil, right: Labelled, batch: Batch) -> None:
    with pytest.raises(AssertionError):
        check(name, spoil(right, batch), batch, right)
