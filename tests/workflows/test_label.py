"""`autopipe.label` and `autopipe.pw` with real pw.x."""

from typing import Any

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import CalcJobNode, Int, Str
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.workflows.label import LabelWorkChain


@pytest.fixture
def run_labels(method: Any, pw_code: Any, silicon_pseudos: Any) -> Any:
    """Run `LabelWorkChain` on structures."""

    def run(structures: list[Atoms], budget: int = 20, **inputs: Any) -> Any:
        dataset = DatasetData(Dataset.from_atoms(structures))
        return run_get_node(
            LabelWorkChain,
            **{
                "dataset": dataset,
                "settings": method,
                "code": pw_code,
                "pseudos": silicon_pseudos,
                "budget": Int(budget),
                "max_concurrent": Int(2),
                "batching": Str("single"),
                **inputs,
            },
        )

    return run


def jobs(node: Any) -> list[CalcJobNode]:
    """All pw.x jobs below a work chain."""
    return [n for n in node.called_descendants if isinstance(n, CalcJobNode)]


def test_labels_and_rejections(run_labels: Any, rattled: list[Atoms], overlapping: Atoms) -> None:
    """A bad structure is rejected with its reason, an isolated atom gets its own treatment."""
    relaxing = rattled[0].copy()
    for atoms in (rattled[1], overlapping, relaxing):
        atoms.info["relax"] = atoms is relaxing
    atom = Atoms("Si", pbc=False)
    atom.info["relax"] = False
    outputs, node = run_labels([rattled[1], overlapping, atom, relaxing])
    assert node.is_finished_ok
    labelled = outputs["labelled"].get_dataset()
    assert labelled.columns["source_index"].tolist() == [0, 2, 3]
    assert outputs["labelled"].method_fingerprint
    # The crystal is bound, its forces add up to zero, the relaxed one has next to none.
    energies = labelled.energy
    assert energies[0] < 2 * energies[1]
    assert np.abs(labelled.labels(0).forces.sum(axis=0)).max() < 1e-3
    assert np.abs(labelled.labels(0).forces).max() > 0.1
    assert np.abs(labelled.labels(2).forces).max() < 0.03
    assert labelled.labels(1).stress is None
    rejected = outputs["rejected"].get_dataset()
    assert rejected.columns["source_index"].tolist() == [1]
    assert "Atoms 0 and 1 are 0.017 Å apart" in str(rejected.columns["reason"][0])
    assert outputs["summary"].get_dict() == {
        "requested": 4,
        "ok": 3,
        "rescued": 0,
        "rejected": 1,
        "not_run": 0,
        "calculations": len(jobs(node)),
        "stopped": None,
    }


def test_small_structures_share_jobs(
    run_labels: Any, rattled: list[Atoms], overlapping: Atoms
) -> None:
    """In batches the labels are those of single jobs; a failure there is tried by itself."""
    outputs, node = run_labels([*rattled, overlapping], batching=Str("auto"))
    assert node.is_finished_ok
    labelled = outputs["labelled"].get_dataset()
    assert labelled.columns["source_index"].tolist() == list(range(len(rattled)))
    assert "position" not in labelled.columns
    batches = [job for job in jobs(node) if job.process_label == "PwBatchCalculation"]
    assert len(batches) == 2
    alone = run_labels(rattled[:1])[0]["labelled"]
    assert alone.method_fingerprint == outputs["labelled"].method_fingerprint
    one, other = alone.get_dataset().labels(0), labelled.labels(0)
    assert one.energy == pytest.approx(other.energy, abs=1e-6)
    assert one.forces == pytest.approx(other.forces, abs=1e-4)
    assert one.stress == pytest.approx(other.stress, abs=1e-5)
    reasons = outputs["rejected"].get_dataset().columns["reason"]
    assert "Atoms 0 and 1" in str(reasons[0])


def test_time_is_a_hard_limit(run_labels: Any, rattled: list[Atoms]) -> None:
    """What cannot be begun in time is not run; the campaign ends well with what it has."""
    outputs, node = run_labels(
        rattled * 20, budget=200, max_wall_time=Int(15), batching=Str("batch")
    )
    assert (node.mtime - node.ctime).total_seconds() < 40
    summary = outputs["summary"].get_dict()
    assert summary["stopped"] == "the time is over"
    assert 0 < summary["ok"] < 120
    assert summary["ok"] + summary["rejected"] + summary["not_run"] == 120


def test_a_senseless_cell_costs_nothing(run_labels: Any, rattled: list[Atoms]) -> None:
    """A cell without volume is rejected before anything runs; the others are labelled."""
    flat = rattled[0].copy()
    flat.set_cell(np.zeros((3, 3)))
    outputs, node = run_labels([flat, rattled[1]], budget=1)
    assert node.is_finished_ok
    assert len(jobs(node)) == 1
    assert outputs["labelled"].get_dataset().columns["source_index"].tolist() == [1]
    assert "no volume" in str(outputs["rejected"].get_dataset().columns["reason"][0])


def test_budget_is_never_exceeded(run_labels: Any, rattled: list[Atoms]) -> None:
    """More structures than budget: exactly the budget is spent, the first structures first."""
    outputs, node = run_labels(rattled, budget=3)
    summary = outputs["summary"].get_dict()
    assert len(jobs(node)) == summary["calculations"] == 3
    assert summary["not_run"] == 3
    assert outputs["labelled"].get_dataset().columns["source_index"].tolist() == [0, 1, 2]


def test_retries_count_against_the_budget(
    run_labels: Any, rattled: list[Atoms], method: Any, pz_family: Any
) -> None:
    """A method that cannot converge fails every attempt; attempts stop at the budget."""
    from aiida.orm import Dict

    impossible = Dict({**method.get_dict(), "scf_threshold_Ry_per_atom": 1e-40})
    outputs, node = run_labels(rattled[:2], budget=3, settings=impossible, max_attempts=Int(5))
    assert node.exit_status == LabelWorkChain.exit_codes.ERROR_NOTHING_LABELLED.status
    assert len(jobs(node)) <= 3
    assert outputs["summary"]["calculations"] == len(jobs(node))
    assert "[410]" in str(outputs["rejected"].get_dataset().columns["reason"][0])


def test_missing_pseudopotential(run_labels: Any) -> None:
    """An element without pseudopotential is an exit code before anything runs."""
    _, node = run_labels([bulk("Ge")])
    assert node.exit_status == LabelWorkChain.exit_codes.ERROR_MISSING_PSEUDOPOTENTIAL.status
    assert "Ge" in node.exit_message
    assert not jobs(node)


def test_nothing_labelled(run_labels: Any, overlapping: Atoms) -> None:
    """When every structure fails the reason of the first one is in the message."""
    outputs, node = run_labels([overlapping])
    assert node.exit_status == LabelWorkChain.exit_codes.ERROR_NOTHING_LABELLED.status
    assert "apart" in node.exit_message
    assert outputs["summary"]["calculations"] == 0


@pytest.mark.parametrize("budget", [0, -1])
def test_budget_must_be_positive(run_labels: Any, rattled: list[Atoms], budget: int) -> None:
    """A budget of nothing is refused by the input port."""
    with pytest.raises(ValueError, match="at least 1"):
        run_labels(rattled[:1], budget=budget)


def test_unknown_setting_is_named(run_labels: Any, rattled: list[Atoms], method: Any) -> None:
    """A typo in the method is refused by the input port."""
    from aiida.orm import Dict

    with pytest.raises(ValueError, match=r"Unknown pw\.x setting 'cutof'"):
        run_labels(rattled[:1], settings=Dict({**method.get_dict(), "cutof": 1}))
