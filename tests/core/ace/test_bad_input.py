"""Data a fit must handle or refuse: each refusal is one sentence with the structure's index."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.ace.fit import FitResult, FitSettings, fit_ace
from aiida_autopipe.core.ace.fit_data import LabelScales, TrainingSet
from aiida_autopipe.core.ace.references import resolve_reference_energies
from aiida_autopipe.core.ace.structure_checks import check_structures
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError, InputError
from tests.reference.copper import labelled

SMALL = FitSettings(cutoff=4.0, max_rank=2, max_functions=20, threads=1)
PLAIN = LabelScales(np.inf, np.inf)
NO_REFERENCE = {"Cu": 0.0}


def rattled(n: int, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    structures = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array * (1 + rng.uniform(-0.03, 0.03)), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.05, (4, 3))
        structures.append(labelled(atoms))
    return structures


@pytest.fixture(scope="module")
def copper() -> list[Atoms]:
    return rattled(8)


def fit(structures: list[Atoms], settings: FitSettings = SMALL) -> FitResult:
    data = Dataset.from_atoms(structures)
    return fit_ace(data, settings, rng=np.random.default_rng(0))


# ---------------------------------------------------------------- structures


BAD_STRUCTURES = {
    "one spot": (Atoms("Cu2", positions=np.ones((2, 3))), "Atoms 0 and 1 are less than"),
    "no element": (Atoms("CuX", positions=np.eye(3)[:2] * 3), r"Atom 1 \(X\) is no element"),
    "flat": (Atoms("Cu", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=True), "span no volume"),
    "tiny cell": (Atoms("Cu", cell=[0.01] * 3, pbc=True), "too narrow for a cutoff of 4 Å"),
    "small cell": (Atoms("Cu", cell=[0.2] * 3, pbc=True), r"Atom 0 \(Cu\) has more than 20000"),
    "far away": (Atoms("Cu2", positions=[[0, 0, 0], [1e12, 0, 0]]), r"coordinate of 1e\+12 Å"),
}


@pytest.mark.parametrize("name", BAD_STRUCTURES)
def test_structures_are_checked_with_their_index(copper: list[Atoms], name: str) -> None:
    bad, message = BAD_STRUCTURES[name]
    data = Dataset.from_atoms([copper[0].copy(), bad], columns={})
    for threads in (1, 2):
        with pytest.raises(DataError, match=f"^Structure 1: .*{message}"):
            check_structures(data, 4.0, threads)
    check_structures(data[:1], 4.0)


def test_both_sets_are_checked_before_anything_is_computed(copper: list[Atoms]) -> None:
    spot = copper[3].copy()
    spot.positions[1] = spot.positions[0]
    good, bad = (Dataset.from_atoms(some) for some in (copper, [*copper[:3], spot]))
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"^Structure 3: Atoms 0 and 1"):
        fit_ace(bad, replace(SMALL, zbl=True), rng=rng)
    with pytest.raises(InputError, match="test set cannot be used: Structure 3: Atoms 0 and 1"):
        fit_ace(good, SMALL, bad, rng=rng)


def test_cells_of_one_atom_smaller_than_the_cutoff_are_fitted() -> None:
    structures = [labelled(bulk("Cu", a=a)) for a in (3.4, 3.5, 3.6, 3.7, 3.8)]
    assert structures[0].cell.volume ** (1 / 3) < SMALL.cutoff
    result = fit(structures)
    assert result.metrics["train"]["energy_mae_per_atom"] < 1e-3
    assert result.metrics["train"]["forces_mae"] < 1e-10


def test_a_single_structure_has_nothing_to_be_searched_by(copper: list[Atoms]) -> None:
    """Without held-out labels the cheapest basis, which sees no neighbour, would look best."""
    result = fit([copper[0]] * 3, FitSettings(threads=1))
    assert len(result.chosen["candidates"]) == 1
    assert "validation" not in result.metrics
    assert any("nothing could be validated" in note for note in result.notes)
    assert result.metrics["train"]["forces_mae"] < 0.02


# ---------------------------------------------------------------- elements and isolated atoms


@pytest.mark.parametrize(
    "lonely",
    [
        Atoms("Cu"),
        Atoms("Cu", cell=[9.0] * 3, pbc=True),
        Atoms("Cu", cell=[0, 0, 9], pbc=[0, 0, 1]),
    ],
    ids=["free", "box", "chain"],
)
def test_isolated_atoms_are_the_reference(copper: list[Atoms], lonely: Atoms) -> None:
    atom = lonely.copy()
    atom.info["energy"] = 3.25
    atom.arrays["forces"] = np.zeros((1, 3))
    result = fit([*copper, atom])
    assert result.potential.reference_energies == {"Cu": 3.25}
    assert result.potential.evaluate(lonely).energy == 3.25
    assert result.metrics["train"]["energy_mae_per_atom"] < 1e-3


def test_a_cell_of_one_atom_is_no_isolated_atom(copper: list[Atoms]) -> None:
    data = Dataset.from_atoms([*copper, labelled(bulk("Cu"))])
    assert resolve_reference_energies(data, None)[1] == (
        "average of the data set and cohesive energies"
    )


def test_isolated_atoms_of_some_elements_only(copper: list[Atoms]) -> None:
    atom = Atoms("Al")
    atom.info["energy"], atom.arrays["forces"] = 1.5, np.zeros((1, 3))
    alloy = labelled(Atoms("CuAl", [[0, 0, 0], [0, 0, 2.4]], cell=[8, 8, 8], pbc=True))
    data = Dataset.from_atoms([*copper, alloy, atom])
    energies, source = resolve_reference_energies(data, None)
    assert source == (
        "single atoms in the data set (Al), else the average of the data set and cohesive energies"
    )
    assert energies["Al"] == 1.5
    # All atoms at their isolated energies would lie higher by what binds them.
    left = [
        (a.info["energy"] - (1.5 - 3.39) * (a.numbers == 13).sum()) / len(a)
        for a in [*copper, alloy]
    ]
    share = [(a.numbers == 29).mean() for a in [*copper, alloy]]
    assert energies["Cu"] == pytest.approx(np.dot(left, share) / np.dot(share, share) + 3.49)


def test_an_element_of_one_structure_is_fitted(copper: list[Atoms]) -> None:
    alloy = labelled(Atoms("CuAl", [[0, 0, 0], [0, 0, 2.4]], cell=[8, 8, 8], pbc=True))
    result = fit([*copper, alloy])
    assert result.potential.elements == ["Al", "Cu"]
    assert abs(result.potential.evaluate(alloy).energy - alloy.info["energy"]) < 0.1


# ---------------------------------------------------------------- labels


def test_contradictory_forces_are_refused_unless_masked(copper: list[Atoms]) -> None:
    other = copper[2].copy()
    other.arrays["forces"] = other.arrays["forces"] + [0.0, 0.5, 0.0]
    data = Dataset.from_atoms([*copper, other])
    message = r"Structures 2 and 8 are the same, but their forces differ by 0.50 eV/Å"
    with pytest.raises(DataError, match=message):
        TrainingSet(data, NO_REFERENCE, PLAIN)
    mask = np.ones(data.n_atoms)
    mask[-4:] = 0.0
    groups = TrainingSet(replace(data, force_mask=mask), NO_REFERENCE, PLAIN).groups
    assert groups[8] == groups[2]
    energy = np.array(data.energy)
    energy[2], forces = np.nan, np.array(data.forces)
    forces[-4:] = np.nan
    TrainingSet(replace(data, energy=energy, forces=forces), NO_REFERENCE, PLAIN)


@pytest.mark.parametrize("offset", [1e5, -1e8])
def test_an_offset_of_all_energies_cancels(copper: list[Atoms], offset: float) -> None:
    shifted = [atoms.copy() for atoms in copper]
    for atoms in shifted:
        atoms.info["energy"] += offset * len(atoms)
    # The search among weights and priors may turn on a rounding of energies.
    settings = replace(SMALL, energy_weight=10.0, regularisation=1e-6, smoothness=2.0)
    plain, moved = (fit(some, settings).metrics["validation"] for some in (copper, shifted))
    assert moved["forces_mae"] == pytest.approx(plain["forces_mae"], rel=1e-3)
    assert moved["energy_mae_per_atom"] == pytest.approx(plain["energy_mae_per_atom"], rel=1e-2)


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (1e6, "Structure 5 has an energy 250000 eV/atom above the median"),
        (-200.0, "Structure 5 has an energy 50.* eV/atom below the median"),
        (1e308, r"Structure 5 has an energy 2.5e\+307 eV/atom above"),
    ],
)
def test_an_offset_of_one_energy_is_refused(
    copper: list[Atoms], offset: float, message: str
) -> None:
    structures = [atoms.copy() for atoms in copper]
    structures[5].info["energy"] += offset
    with pytest.raises(DataError, match=message):
        fit(structures)


def test_reference_energies_of_another_method_are_refused(copper: list[Atoms]) -> None:
    data, rng = Dataset.from_atoms(copper), np.random.default_rng(0)
    with pytest.raises(InputError, match=r"are 5000\.\d+ eV/atom \(median\); the reference"):
        fit_ace(data, SMALL, reference_energies={"Cu": -5000.0}, rng=rng)


def drop(*names: str) -> Callable[[Atoms], Atoms]:
    def dropped(atoms: Atoms) -> Atoms:
        copy = atoms.copy()
        for name in names:
            copy.info.pop(name, None)
            copy.arrays.pop(name, None)
        return copy

    return dropped


@pytest.mark.parametrize("missing", ["energy", "forces"])
def test_one_kind_of_label_is_enough(copper: list[Atoms], missing: str) -> None:
    result = fit([drop(missing)(atoms) for atoms in copper])
    errors = result.metrics["train"]
    assert (errors["energy_mae_per_atom"] is None) == (missing == "energy")
    assert (errors["forces_mae"] is None) == (missing == "forces")


def test_a_structure_without_labels_is_named(copper: list[Atoms]) -> None:
    with pytest.raises(DataError, match="Structure 8 has no energy, forces or stress"):
        fit([*copper, drop("energy", "forces")(copper[0])])


def test_weights_of_nothing_are_refused(copper: list[Atoms]) -> None:
    structures = [atoms.copy() for atoms in copper]
    for atoms in structures:
        atoms.info["weight"] = 0.0
    with pytest.raises(DataError, match="All structures have the weight 0"):
        fit(structures)
    with pytest.raises(InputError, match="weights of all kinds of label"):
        fit(copper, replace(SMALL, energy_weight=0.0, force_weight=0.0))
    for atoms in structures:
        atoms.info |= {"weight": 1.0, "stress": np.zeros(6)}
    with pytest.raises(InputError, match="weights of all kinds of label"):
        fit(structures, replace(SMALL, energy_weight=0.0, force_weight=0.0))
