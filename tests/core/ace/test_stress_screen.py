import numpy as np
import pytest

from aiida_autopipe.core.ace.equations import Choice, Equations, FewRows, RowWeights
from aiida_autopipe.core.ace.stress_screen import StressScreen, screen_stress

CHOICE = Choice(RowWeights(energy=100.0, forces=1.0, stress=5.0), 1e-9, 0.0)
N_STRUCTURES = 60


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(23)


def problem(rng: np.random.Generator, labels: np.ndarray | None = None) -> Equations:
    """20 functions, forces and stresses of 60 structures with a little noise."""
    truth = rng.normal(size=20)
    equations = Equations(np.ones(20), 1)
    rows = rng.normal(size=(300, 20))
    equations.sums["forces"][0].add_rows(
        rows, rows @ truth + 0.05 * rng.normal(size=300), np.ones(300)
    )
    rows = 0.1 * rng.normal(size=(6 * N_STRUCTURES, 20))
    targets = rows @ truth + 0.005 * rng.normal(size=len(rows))
    kept = FewRows(
        rows,
        targets if labels is None else labels,
        np.ones(len(rows)),
        np.zeros(len(rows), dtype=np.int64),
        np.repeat(np.arange(N_STRUCTURES), 6),
    )
    equations.kept["stress"] = kept
    return equations


def screened(equations: Equations) -> tuple[StressScreen, np.ndarray]:
    screen = screen_stress(equations, CHOICE)
    return screen, screen.used_rows(equations.kept["stress"]).reshape(-1, 6)


def test_good_labels_are_all_used(rng: np.random.Generator) -> None:
    screen, used = screened(problem(rng))
    assert used.all()
    assert screen.order is None
    assert screen.sentence(0, used.size) is None


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_exchanged_components_are_found(rng: np.random.Generator, share: float) -> None:
    equations = problem(rng)
    labels = equations.kept["stress"].targets.reshape(-1, 6)
    wrong = rng.random(N_STRUCTURES) < share
    labels[wrong] = labels[wrong][:, [0, 1, 2, 4, 3, 5]]
    screen, used = screened(equations)
    assert screen.order == (4, 3, 5)
    assert not used[:, [3, 4]].any()
    assert used[:, [0, 1, 2, 5]].all()
    left_out = int((~used).sum())
    sentence = screen.sentence(left_out, used.size)
    assert "the components yz and xz look exchanged" in sentence
    assert sentence.startswith(f"{left_out} of {used.size} stress components contradict")


def test_single_outliers_go_alone(rng: np.random.Generator) -> None:
    equations = problem(rng)
    labels = equations.kept["stress"].targets.reshape(-1, 6)
    labels[4, 1] += 2.0
    labels[9, 5] -= 2.0
    screen, used = screened(equations)
    assert screen.order is None
    assert np.argwhere(~used).tolist() == [[4, 1], [9, 5]]
    assert "exchanged" not in screen.sentence(2, used.size)


def test_a_label_elsewhere_is_judged_alike(rng: np.random.Generator) -> None:
    equations = problem(rng)
    screen, _ = screened(equations)
    rows = equations.kept["stress"].matrix[:6]
    label = equations.kept["stress"].targets[:6].copy()
    assert screen.used(rows, label).all()
    label[2] += 2.0
    assert screen.used(rows, label).tolist() == [True, True, False, True, True, True]
