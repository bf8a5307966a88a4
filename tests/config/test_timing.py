"""The timing model: where it starts, what it learns, how sure it is."""

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.config.timing import (
    START_SECONDS,
    PastLabel,
    Work,
    fit_timing,
    plane_waves,
    usual_valence,
    work_of,
)

SMALL = Work(electrons=8, kpoints=32, plane_waves=600, spin=False)


def _past(n: int, speed: float, exponent: float = 1.0, seed: int = 0) -> list[PastLabel]:
    """Labels of a machine of another speed, scattered as iterations of the density are."""
    rng = np.random.default_rng(seed)
    labels = []
    for _ in range(n):
        work = Work(
            electrons=float(rng.integers(4, 200)),
            kpoints=float(rng.integers(1, 60)),
            plane_waves=float(rng.uniform(300, 10000)),
            spin=False,
        )
        seconds = speed * 1.2e-5 * work.electrons**exponent * work.kpoints * work.plane_waves
        labels.append(PastLabel(work, START_SECONDS + seconds * math.exp(rng.normal(0, 0.3))))
    return labels


def test_without_a_past_silicon_takes_seconds() -> None:
    model = fit_timing([])
    assert model.n_labels == 0
    assert 0.5 < model.seconds(SMALL) < 10
    total, factor = model.total([(SMALL, 100.0)])
    assert total == pytest.approx(100 * model.seconds(SMALL))
    assert factor > 3


@pytest.mark.parametrize("speed", [0.2, 1.0, 8.0])
def test_a_machine_is_known_after_a_few_labels(speed: float) -> None:
    model = fit_timing(_past(20, speed))
    expected = START_SECONDS + speed * 1.2e-5 * 8 * 32 * 600
    assert model.seconds(SMALL) == pytest.approx(expected, rel=0.5)
    assert model.total([(SMALL, 10.0)])[1] < fit_timing([]).total([(SMALL, 10.0)])[1] / 2


def test_many_labels_overrule_the_prior() -> None:
    model = fit_timing(_past(2000, 1.0, exponent=1.6))
    assert model.mean[1] == pytest.approx(1.6, abs=0.1)
    assert model.n_labels == 2000


def test_nothing_costs_nothing() -> None:
    assert fit_timing([]).total([]) == (0.0, 1.0)


def test_the_work_of_structures() -> None:
    silicon = work_of(bulk("Si"), 8, 26.0, 0.25, spin=False)
    assert silicon.kpoints == math.ceil(9**3 / 2)
    # Quantum ESPRESSO has 537 plane waves at Gamma for this cell.
    assert silicon.plane_waves == pytest.approx(600, rel=0.15)
    molecule = work_of(Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]]), 2, 26.0, 0.25, spin=True)
    assert molecule.kpoints == 1
    assert molecule.plane_waves == pytest.approx(plane_waves(10 * 10 * 10.74, 26.0))


def test_valence_electrons() -> None:
    found = {s: usual_valence(s) for s in ("H", "Al", "Si", "Cl", "Fe", "Ni", "Ga", "W", "Pb")}
    assert found == {
        "H": 1, "Al": 3, "Si": 4, "Cl": 7, "Fe": 8, "Ni": 10, "Ga": 3, "W": 6, "Pb": 4,
    }  # fmt: skip
