from itertools import permutations

import numpy as np
import pytest

from aiida_autopipe.core.ace.equations import Choice, Equations, FewRows, RowWeights
from aiida_autopipe.core.ace.stress_screen import Contents, StressScreen, screen_stress

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


def contents(share: float = 1.0) -> Contents:
    """Two elements, 20 Å^3 per atom; the share of the first alternates with 1."""
    first = np.where(np.arange(N_STRUCTURES) % 2, share, 1.0)
    return Contents(np.column_stack([first, 1.0 - first]), np.full(N_STRUCTURES, 20.0))


def screened(equations: Equations) -> tuple[StressScreen, np.ndarray]:
    screen = screen_stress(equations, CHOICE, contents())
    rows = equations.kept["stress"]
    corrected = screen.corrected(rows.matrix, rows.targets, contents().composition)
    return screen, screen.used(rows.matrix, corrected).reshape(-1, 6)


def test_good_labels_are_all_used(rng: np.random.Generator) -> None:
    screen, used = screened(problem(rng))
    assert used.all()
    assert screen.order is None
    assert not screen.excess.any()
    assert screen.notes(0, used.size) == []


@pytest.mark.parametrize("share", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("order", list(permutations((3, 4, 5)))[1:])
def test_another_order_of_the_components_is_put_right(
    rng: np.random.Generator, order: tuple[int, int, int], share: float
) -> None:
    equations, two = problem(rng), contents()
    rows = equations.kept["stress"]
    before = rows.targets.copy()
    labels = rows.targets.reshape(-1, 6)
    wrong = rng.random(N_STRUCTURES) < share
    # Where `order` says a component is found, it is written.
    labels[wrong] = labels[wrong][:, [0, 1, 2, *(3 + np.argsort(order))]]
    labels[:, :3] += 0.2
    screen, used = screened(equations)
    assert screen.order == order
    corrected = screen.corrected(rows.matrix, rows.targets, two.composition)
    # The constant of the diagonal is found as well.
    np.testing.assert_allclose(corrected, before, atol=0.005)
    assert used.all()
    _, sentence = screen.notes(0, used.size)
    moved = [name for k, name in enumerate(("yz", "xz", "xy")) if order[k] != k + 3]
    assert sentence == (
        f"The stress components {' and '.join(moved)} are exchanged in about {wrong.mean():.0%} of "
        "the labels and were put back: check the order in the file."
    )


def test_single_outliers_go_alone(rng: np.random.Generator) -> None:
    equations = problem(rng)
    labels = equations.kept["stress"].targets.reshape(-1, 6)
    labels[4, 1] += 2.0
    labels[9, 5] -= 2.0
    screen, used = screened(equations)
    assert screen.order is None
    assert np.argwhere(~used).tolist() == [[4, 1], [9, 5]]
    assert "exchanged" not in screen.notes(2, used.size)[0]


def test_a_label_elsewhere_is_judged_alike(rng: np.random.Generator) -> None:
    equations = problem(rng)
    screen, _ = screened(equations)
    rows = equations.kept["stress"].matrix[:6]
    label = equations.kept["stress"].targets[:6].copy()
    assert screen.used(rows, label).all()
    label[2] += 2.0
    assert screen.used(rows, label).tolist() == [True, True, False, True, True, True]


def shifted(equations: Equations, shifts: np.ndarray) -> np.ndarray:
    """Add constants (structures,) to the diagonal of the labels; returns the labels before."""
    labels = equations.kept["stress"].targets
    before = labels.copy()
    labels.reshape(-1, 6)[:, :3] += shifts[:, None]
    return before


def test_constants_of_the_elements_are_found(rng: np.random.Generator) -> None:
    equations, two = problem(rng), contents(0.25)
    before = shifted(equations, two.composition @ [0.2, 0.4])
    screen = screen_stress(equations, CHOICE, two)
    rows = equations.kept["stress"]
    np.testing.assert_allclose(screen.excess, [0.2, 0.4], atol=0.005)
    corrected = screen.corrected(rows.matrix, rows.targets, two.composition)
    np.testing.assert_allclose(corrected, before, atol=0.005)
    assert screen.used(rows.matrix, corrected).all()
    # (0.2 + 0.25 0.2 + 0.75 0.4) / 2 eV in 20 Å^3.
    assert screen.pressure == pytest.approx(0.275 / 20 * 160.2177, rel=0.02)
    (note,) = screen.notes(0, len(corrected))
    assert note.startswith("The pressures of the stresses are 2.21 GPa lower than the")


def test_a_surplus_of_pressure_is_called_one(rng: np.random.Generator) -> None:
    equations = problem(rng)
    shifted(equations, np.full(N_STRUCTURES, -0.2))
    screen, used = screened(equations)
    assert used.all()
    assert "1.6 GPa higher than" in screen.notes(0, used.size)[0]


def test_constants_within_the_scatter_are_not_taken_off(rng: np.random.Generator) -> None:
    equations = problem(rng)
    # 0.005 is the noise of the labels: certain with 180 of them, but none of them is wrong.
    shifted(equations, np.full(N_STRUCTURES, 0.01))
    screen, used = screened(equations)
    assert not screen.excess.any()
    assert used.all()


def test_what_only_stresses_know_is_no_constant(rng: np.random.Generator) -> None:
    """Where energies and forces say nothing about the pressure, stresses are believed."""
    equations = problem(rng)
    rows = equations.kept["stress"]
    rows.matrix[:, 19] = np.tile([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], N_STRUCTURES)
    sums = Equations(np.ones(20), 1)
    known = rng.normal(size=(300, 20)) * np.append(np.ones(19), 1e-4)
    truth = rng.normal(size=20)
    sums.sums["forces"][0].add_rows(
        known, known @ truth + 0.05 * rng.normal(size=300), np.ones(300)
    )
    rows.targets[:] = rows.matrix @ truth + 0.005 * rng.normal(size=len(rows.targets))
    sums.kept["stress"] = rows
    shifted(sums, np.full(N_STRUCTURES, 0.3))
    screen, used = screened(sums)
    assert not screen.excess.any()
    assert used.all()
