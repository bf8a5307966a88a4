import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.ace.basis import build_basis
from aiida_autopipe.core.ace.fit import FitResult, FitSettings, fit_ace
from aiida_autopipe.core.ace.functions import BasisSettings
from aiida_autopipe.core.ace.job import main
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.dataset import Dataset, read_dataset
from aiida_autopipe.core.errors import DataError, FitError, InputError

DATA = Path(__file__).parent / "data" / "mlearn" / "Si.extxyz"
SMALL = FitSettings(cutoff=4.5, max_rank=3, max_functions=40)


@pytest.fixture(scope="module")
def silicon() -> Dataset:
    return read_dataset(DATA)


@pytest.fixture(scope="module")
def fitted(silicon: Dataset) -> FitResult:
    held_out = np.arange(len(silicon)) % 5 == 2
    return fit_ace(
        silicon[~held_out],
        replace(SMALL, max_functions=80),
        silicon[held_out],
        rng=np.random.default_rng(3),
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(17)


def labelled_by(potential: ACEPotential, structures: list[Atoms]) -> Dataset:
    """Structures with exact labels of a potential."""
    for atoms in structures:
        result = potential.evaluate(atoms)
        atoms.info["energy"] = result.energy
        atoms.arrays["forces"] = result.forces
        if result.stress is not None:
            atoms.info["stress"] = result.stress
    return Dataset.from_atoms(structures)


def rattled_alloys(rng: np.random.Generator, count: int = 12) -> list[Atoms]:
    structures = []
    for k in range(count):
        atoms = bulk("Si", cubic=True)
        atoms.symbols[rng.choice(8, size=k % 7 + 1, replace=False)] = "Ge"
        atoms.set_cell(
            atoms.cell[:] @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True
        )
        atoms.positions += 0.15 * rng.normal(size=(8, 3))
        structures.append(atoms)
    return structures


@pytest.fixture
def alloy_potential(rng: np.random.Generator) -> ACEPotential:
    settings = BasisSettings(
        elements=("Ge", "Si"), cutoff=4.0, max_rank=3, max_functions=30,
        radial="SBessel", lambda_=2.0, l_weight=0.5,
    )  # fmt: skip
    basis = build_basis(settings)
    return ACEPotential(basis, rng.normal(size=basis.n_functions), {"Ge": -4.0, "Si": -5.0})


def test_a_potential_of_the_same_basis_is_recovered(
    alloy_potential: ACEPotential, rng: np.random.Generator
) -> None:
    data = labelled_by(alloy_potential, rattled_alloys(rng))
    settings = FitSettings(
        cutoff=4.0, max_rank=3, max_functions=30, environments_per_function=0, regularisation=0.0,
        smoothness=0.0, energy_weight=10.0, degree_l_weight=0.5, rank_cost=0.0, energy_scale=0.0,
        force_scale=0.0,
    )  # fmt: skip
    result = fit_ace(data, settings, reference_energies={"Si": -5.0, "Ge": -4.0}, rng=rng)
    new = labelled_by(alloy_potential, rattled_alloys(rng, 3))
    for index in range(3):
        found = result.potential.evaluate(new.atoms(index), gamma=True)
        expected = new.labels(index)
        assert found.energy == pytest.approx(expected.energy, abs=1e-5)
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-5)
        np.testing.assert_allclose(found.stress, expected.stress, atol=1e-6)


def test_accuracy_on_real_labels(fitted: FitResult) -> None:
    # Bounds are twice what was found when this was written.
    assert fitted.metrics["train"]["energy_mae_per_atom"] < 0.02
    assert fitted.metrics["train"]["forces_mae"] < 0.2
    assert fitted.metrics["test"]["forces_mae"] < 0.4
    assert set(fitted.metrics) == {"train", "validation", "test"}
    for errors in fitted.metrics.values():
        assert all(np.isfinite(value) for value in errors.values())


def test_every_training_environment_is_covered(silicon: Dataset, fitted: FitResult) -> None:
    train = silicon[np.arange(len(silicon)) % 5 != 2]
    gamma = [fitted.potential.evaluate(a, gamma=True).gamma.max() for a in train.iter_atoms()]
    assert max(gamma) <= 1.001 + 1e-6
    assert fitted.active_sets["Si"].n_seen == train.n_atoms
    squeezed = bulk("Si", a=4.2)
    assert fitted.potential.evaluate(squeezed, gamma=True).gamma.max() > 10


def test_parity_belongs_to_the_metrics(fitted: FitResult) -> None:
    arrays = fitted.parity_arrays()
    for part in ("train", "validation", "test"):
        for kind, key in (("energy", "energy_mae_per_atom"), ("forces", "forces_mae")):
            difference = arrays[f"{part}_{kind}_predicted"] - arrays[f"{part}_{kind}_reference"]
            assert np.abs(difference).mean() == pytest.approx(fitted.metrics[part][key])


def test_same_seed_same_potential_and_threads_change_nothing(silicon: Dataset) -> None:
    results = [
        fit_ace(silicon, replace(SMALL, threads=t), rng=np.random.default_rng(1)) for t in (1, 1, 3)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(
            results[0].potential.coefficients, other.potential.coefficients
        )
        assert results[0].chosen == other.chosen


def test_masked_forces_are_not_learnt_from(silicon: Dataset, rng: np.random.Generator) -> None:
    mask = (rng.random(silicon.n_atoms) > 0.3).astype(float)
    spoiled = np.where(mask[:, None] > 0, silicon.forces, np.nan)
    settings = replace(SMALL, energy_weight=100.0, regularisation=1e-8, smoothness=0.0)
    results = [
        fit_ace(replace(silicon, forces=f, force_mask=mask), settings, rng=np.random.default_rng(0))
        for f in (silicon.forces, spoiled)
    ]
    np.testing.assert_array_equal(
        results[0].potential.coefficients, results[1].potential.coefficients
    )
    assert results[0].parity["train"].forces[0].shape == (int(mask.sum()), 3)


def test_energies_of_cut_outs_are_learnt_only_when_asked(silicon: Dataset) -> None:
    """Of the first half of the structures one atom each is a buffer atom."""
    mask = np.ones(silicon.n_atoms)
    cut = len(silicon) // 2
    mask[silicon.offsets[:cut]] = 0
    masked = replace(silicon, force_mask=mask)
    energy = np.array(silicon.energy)
    energy[:cut] += 5.0
    spoiled = replace(masked, energy=energy)
    settings = replace(SMALL, energy_weight=100.0, regularisation=1e-8, smoothness=0.0)

    def coefficients(data: Dataset, settings: FitSettings) -> np.ndarray:
        fitted = fit_ace(
            data, settings, reference_energies={"Si": 0.0}, rng=np.random.default_rng(0)
        )
        return fitted.potential.coefficients

    np.testing.assert_array_equal(coefficients(masked, settings), coefficients(spoiled, settings))
    asked = replace(settings, cutout_energies=True)
    assert np.abs(coefficients(masked, asked) - coefficients(spoiled, asked)).max() > 1e-3


def test_what_is_masked_is_not_known(silicon: Dataset) -> None:
    """The extrapolation grade of an odd environment is large when its force was masked."""
    odd = silicon.atoms(0)
    odd.positions[0] += [0.6, 0.3, 0.2]
    mask = np.concatenate([np.ones(silicon.n_atoms), np.zeros(len(odd))])
    mask[-1] = 1.0
    odd.arrays["forces"] = np.zeros((len(odd), 3))
    together = Dataset.concatenate([silicon, Dataset.from_atoms([odd])])
    grades = []
    for data in (together, replace(together, force_mask=mask)):
        fitted = fit_ace(data, SMALL, rng=np.random.default_rng(0))
        grades.append(fitted.potential.evaluate(odd, gamma=True).gamma[0])
    assert grades[0] < 1.01 and grades[1] > 1.5


def test_weight_zero_is_absence_and_doubling_is_weight(silicon: Dataset) -> None:
    settings = replace(
        SMALL, energy_weight=100.0, regularisation=1e-8, smoothness=1.0, environments_per_function=0
    )
    energies = {"Si": -5.0}

    def coefficients(data: Dataset) -> np.ndarray:
        rng = np.random.default_rng(0)
        return fit_ace(data, settings, reference_energies=energies, rng=rng).potential.coefficients

    n = len(silicon)
    weight = np.ones(n)
    weight[3] = 0.0
    expected = coefficients(silicon[np.arange(n) != 3])
    np.testing.assert_allclose(coefficients(replace(silicon, weight=weight)), expected, rtol=1e-5)
    weight[3] = 2.0
    expected = coefficients(silicon[[*range(n), 3]])
    np.testing.assert_allclose(coefficients(replace(silicon, weight=weight)), expected, rtol=1e-5)


def test_basis_grows_with_the_data(silicon: Dataset) -> None:
    settings = FitSettings(cutoff=4.5, max_rank=4, max_functions=200, search=1)
    sizes = []
    for n in (1, 2, 5, 12):
        rng = np.random.default_rng(0)
        sizes.append(fit_ace(silicon[:n], settings, rng=rng).chosen["functions_per_element"])
    assert sizes == sorted(sizes)
    assert sizes[0] >= 20
    assert sizes[-1] > sizes[0]


def test_perfect_crystals_alone_leave_pseudo_rows_and_finite_gamma(
    rng: np.random.Generator,
) -> None:
    crystals = [bulk("Si", a=a) for a in np.linspace(5.2, 5.7, 6)]
    for atoms in crystals:
        atoms.info["energy"] = 2 * (-5.4 + (atoms.cell.volume / 40.0 - 1) ** 2)
        atoms.arrays["forces"] = np.zeros((2, 3))
    result = fit_ace(Dataset.from_atoms(crystals), FitSettings(), rng=rng)
    assert result.chosen["functions_per_element"] == 20
    assert result.chosen["pseudo_rows"]["Si"] >= 14
    atoms = crystals[0].copy()
    assert result.potential.evaluate(atoms, gamma=True).gamma.max() <= 1.001 + 1e-6
    atoms.rattle(0.2, seed=1)
    gamma = result.potential.evaluate(atoms, gamma=True).gamma
    assert np.isfinite(gamma).all()
    assert gamma.max() > 10


def test_a_single_structure_and_lonely_atoms_can_be_fitted(silicon: Dataset) -> None:
    lonely = Atoms("Si", positions=[[0, 0, 0]], cell=[20, 20, 20], pbc=False)
    lonely.info["energy"] = -1.0
    lonely.arrays["forces"] = np.zeros((1, 3))
    one = fit_ace(silicon[:1], SMALL, rng=np.random.default_rng(0))
    assert set(one.metrics) == {"train"}
    both = Dataset.concatenate([silicon[:6], Dataset.from_atoms([lonely])])
    result = fit_ace(both, SMALL, rng=np.random.default_rng(0))
    assert result.potential.reference_energies == {"Si": -1.0}
    assert result.chosen["reference_energies_from"] == "single atoms in the data set"
    assert result.potential.evaluate(lonely).energy == pytest.approx(-1.0)


def test_only_lonely_atoms_cannot(rng: np.random.Generator) -> None:
    lonely = Atoms("Si", positions=[[0, 0, 0]])
    lonely.info["energy"] = -1.0
    data = Dataset.from_atoms([lonely])
    with pytest.raises(DataError, match="give a cutoff"):
        fit_ace(data, FitSettings(), rng=rng)
    with pytest.raises(FitError, match="No label depends"):
        fit_ace(data, SMALL, rng=rng)


def test_energies_alone_or_forces_alone(silicon: Dataset) -> None:
    for missing in ({"forces": None, "stress": None}, {"energy": None, "stress": None}):
        result = fit_ace(replace(silicon, **missing), SMALL, rng=np.random.default_rng(0))
        assert result.metrics["train"]["stress_mae"] is None
        name = "energy_mae_per_atom" if "energy" in missing else "forces_mae"
        assert result.metrics["train"][name] is None


def spoil(data: Dataset, name: str, index: int, value: float) -> Dataset:
    values = np.array(getattr(data, name), dtype=float)
    values[index] = value
    return replace(data, **{name: values})


def test_bad_labels_are_refused_with_the_index(silicon: Dataset, rng: np.random.Generator) -> None:
    row = int(silicon.offsets[4]) + 1
    cases = [
        (spoil(silicon, "forces", row, np.nan), "Structure 4 has NaN or infinite forces"),
        (spoil(silicon, "energy", 2, np.inf), "Structure 2 has an infinite energy"),
        (spoil(silicon, "stress", 2, np.inf), "Structure 2 has an infinite stress"),
        (replace(silicon, weight=np.full(len(silicon), -1.0)), "Structure 0 has the weight -1"),
        (replace(silicon, forces=silicon.forces[:, :2]), "Structure 0 has .* forces of shape"),
        (replace(silicon, energy=None, forces=None, stress=None), "Structure 0 has no energy"),
        (silicon[:0], "contains no structures"),
    ]
    for data, message in cases:
        with pytest.raises(DataError, match=message):
            fit_ace(data, SMALL, rng=rng)


def test_missing_energies_are_left_out(silicon: Dataset) -> None:
    data = spoil(silicon, "energy", 2, np.nan)
    result = fit_ace(data, SMALL, rng=np.random.default_rng(0))
    assert len(result.parity["train"].energy[0]) == len(silicon) - 1


def test_reference_energies_and_test_set_must_fit(
    silicon: Dataset, rng: np.random.Generator
) -> None:
    with pytest.raises(InputError, match="no reference energy for Si"):
        fit_ace(silicon, SMALL, reference_energies={"Ge": 1.0}, rng=rng)
    with pytest.raises(InputError, match="reference energy of Si is nan"):
        fit_ace(silicon, SMALL, reference_energies={"Si": np.nan}, rng=rng)
    germanium = bulk("Ge")
    germanium.info["energy"] = -1.0
    with pytest.raises(InputError, match="test set contains Ge"):
        fit_ace(silicon, SMALL, Dataset.from_atoms([germanium]), rng=rng)
    with pytest.raises(InputError, match="test set contains no structures"):
        fit_ace(silicon, SMALL, silicon[:0], rng=rng)
    given = fit_ace(silicon.with_attributes(reference_energies={"Si": -0.8}), SMALL, rng=rng)
    assert given.potential.reference_energies == {"Si": -0.8}
    assert given.chosen["reference_energies_from"] == "data set"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cutof": 5.0}, "Unknown fit setting 'cutof'; did you mean 'cutoff'"),
        ({"xyz": 5.0}, "Unknown fit setting 'xyz'; known are cutoff"),
        ({"cutoff": -1.0}, "cutoff is -1.0; it must be between 1 and 20"),
        ({"cutoff": "5"}, "cutoff is '5'; it must be a number"),
        ({"max_rank": 2.5}, "max_rank is 2.5; it must be a whole number"),
        ({"max_rank": True}, "max_rank is True"),
        ({"max_functions": None}, "max_functions cannot be empty"),
        ({"energy_weight": float("nan")}, "energy_weight is nan"),
        ({"radial": "Bessel"}, "radial is 'Bessel'; it must be one of SBessel"),
        ({"radial": 3}, "radial is 3"),
    ],
)
def test_bad_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FitSettings.from_dict(values)


def test_settings_survive_json() -> None:
    settings = FitSettings(cutoff=4.5, smoothness=1.0)
    assert FitSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.fixture
def job_folder(tmp_path: Path, silicon: Dataset) -> Path:
    silicon[:12].write_hdf5(tmp_path / "train.h5")
    silicon[12:15].write_hdf5(tmp_path / "test.h5")
    return tmp_path


def write_job(folder: Path, **changes: object) -> str:
    settings = {"cutoff": 4.5, "max_rank": 3, "max_functions": 40}
    job = {"train": "train.h5", "test": "test.h5", "settings": settings, "seed": 1}
    path = folder / "job.json"
    path.write_text(json.dumps({**job, **changes}))
    return str(path)


def test_job_writes_potential_metrics_and_parity(job_folder: Path, silicon: Dataset) -> None:
    assert main([write_job(job_folder)]) == 0
    summary = json.loads((job_folder / "metrics.json").read_text())
    assert summary["elements"] == ["Si"]
    assert summary["cutoff"] == 4.5
    potential = ACEPotential.load(job_folder / "potential.yace")
    assert potential.has_active_set
    atoms = silicon.atoms(13)
    with np.load(job_folder / "parity.npz") as parity:
        predicted = parity["test_energy_predicted"][1] * len(atoms)
    assert potential.evaluate(atoms).energy == pytest.approx(predicted, abs=1e-7)
    assert not (job_folder / "error.json").exists()


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"settings": {"cutof": 5}}, "InputError", "Unknown fit setting"),
        ({"train": "nothing.h5"}, "InputError", "no data file"),
        ({"seed": -1}, "InputError", "seed -1"),
        ({"seeds": 1}, "InputError", "unknown: seeds"),
    ],
)
def test_job_failures_are_one_line_and_a_file(
    job_folder: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict,
    kind: str,
    message: str,
) -> None:
    assert main([write_job(job_folder, **changes)]) == 1
    error = json.loads((job_folder / "error.json").read_text())
    assert error["type"] == kind
    assert message in error["message"]
    assert capsys.readouterr().err == f"{error['message']}\n"
    assert not (job_folder / "metrics.json").exists()


def test_job_file_itself_can_be_bad(tmp_path: Path) -> None:
    assert main([str(tmp_path / "job.json")]) == 1
    (tmp_path / "job.json").write_text("{")
    assert main([str(tmp_path / "job.json")]) == 1
    assert "not JSON" in json.loads((tmp_path / "error.json").read_text())["message"]
    (tmp_path / "job.json").write_text("[]")
    assert main([str(tmp_path / "job.json")]) == 1


def test_functions_are_chosen_from_more(silicon: Dataset, tmp_path: Path) -> None:
    """The best of twice as many predict labels that took no part in it better than the first."""
    errors = {}
    for factor in (1, 2):
        settings = replace(SMALL, candidates_per_function=factor, search=1)
        result = fit_ace(silicon, settings, rng=np.random.default_rng(1))
        assert result.chosen["n_functions"] == 40
        assert result.chosen["chosen_from"] == 40 * factor
        assert result.potential.basis.n_functions == 40
        errors[factor] = result.metrics["validation"]
    assert errors[2]["forces_mae"] < 0.9 * errors[1]["forces_mae"]
    assert errors[2]["energy_mae_per_atom"] < errors[1]["energy_mae_per_atom"]
    path = result.potential.save(tmp_path / "si")[0]
    read, atoms = ACEPotential.load(path), silicon.atoms(3)
    one, other = (p.evaluate(atoms, gamma=True) for p in (result.potential, read))
    assert other.energy == pytest.approx(one.energy, rel=1e-12)
    np.testing.assert_allclose(other.forces, one.forces, atol=1e-10)
    np.testing.assert_allclose(other.gamma, one.gamma, rtol=1e-8)


@pytest.mark.parametrize("search_atoms", [100, 15000])
def test_the_choice_does_not_depend_on_threads(silicon: Dataset, search_atoms: int) -> None:
    """Also where a part of the structures decides and all are fitted."""
    settings = replace(SMALL, search=1, search_atoms=search_atoms, candidates_per_function=2)
    one, two = (
        fit_ace(silicon, replace(settings, threads=n), rng=np.random.default_rng(1)) for n in (1, 2)
    )
    assert one.potential.basis.functions == two.potential.basis.functions
    np.testing.assert_array_equal(one.potential.coefficients, two.potential.coefficients)
    assert one.metrics == two.metrics
