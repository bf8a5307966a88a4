"""`mlip-auto evaluate` on files: the JSON that programs rely on, and one sentence for bad input."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from aiida_autopipe.cli.main import invoke
from aiida_autopipe.core.ace.basis import BasisSettings, build_basis
from aiida_autopipe.core.ace.posterior import Posterior
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.dataset import Dataset

E0 = {"Cu": -1.5}


@pytest.fixture(scope="module")
def potential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A potential without meaning: rank 2, random coefficients, with an active set."""
    basis = build_basis(BasisSettings(elements=["Cu"], cutoff=4.0, max_rank=2, max_functions=8))
    n = basis.n_functions
    coefficients = np.random.default_rng(0).normal(0, 0.01, n)
    path = tmp_path_factory.mktemp("potential") / "cu.yace"
    ACEPotential(basis, coefficients, E0, {"Cu": np.eye(n)}).save(path.with_suffix(""))
    return path


def test_json_has_what_programs_rely_on(
    potential: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    loaded = ACEPotential.load(potential)
    structures, expected = [], []
    for _ in range(3):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(0, 0.1, (4, 3))
        found = loaded.evaluate(atoms)
        expected.append(found)
        atoms.info["REF_energy"] = found.energy + 0.4
        atoms.arrays["REF_forces"] = found.forces - 0.2
        atoms.info["REF_stress"] = found.stress + 0.3
        structures.append(atoms)
    write(tmp_path / "cu.extxyz", structures, format="extxyz")
    out = tmp_path / "out.json"
    assert (
        invoke(["evaluate", str(potential), str(tmp_path / "cu.extxyz"), "--json", str(out)]) == 0
    )
    assert "energy_mae_per_atom = 0.1 eV/atom" in capsys.readouterr().out
    answer = json.loads(out.read_text())
    assert set(answer) == {"structures", "errors"}
    for one, want in zip(answer["structures"], expected, strict=True):
        assert set(one) == {"energy", "energies", "forces", "stress", "gamma"}
        assert one["energy"] == pytest.approx(want.energy)
        assert one["energies"] == pytest.approx(want.energies)
        assert np.allclose(one["forces"], want.forces)
        assert np.allclose(one["stress"], want.stress)
        assert np.shape(one["gamma"]) == (4,)
    # Positions and labels carry eight decimals in extxyz.
    assert answer["errors"] == pytest.approx(
        {
            "energy_mae_per_atom": 0.1,
            "energy_rmse_per_atom": 0.1,
            "forces_mae": 0.2,
            "forces_rmse": 0.2,
            "stress_mae": 0.3,
        },
        abs=1e-6,
    )


def test_without_labels_active_set_or_periodicity(
    potential: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.pbc = False
    write(tmp_path / "cu.xyz", atoms, format="extxyz")
    alone = tmp_path / "alone.yace"
    alone.write_bytes(potential.read_bytes())
    assert invoke(["evaluate", str(alone), str(tmp_path / "cu.xyz"), "--json", "-"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"structures"}
    assert set(answer["structures"][0]) == {"energy", "energies", "forces", "stress"}
    assert answer["structures"][0]["stress"] is None


def labelled(potential: Path, path: Path) -> list[Atoms]:
    """Three structures with labels that are off by 0.4 eV, 0.2 eV/Å and 0.3 eV/Å^3, one force
    masked, the last structure without periodicity and stress."""
    rng, loaded, structures = np.random.default_rng(1), ACEPotential.load(potential), []
    for index in range(3):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(0, 0.1, (4, 3))
        atoms.pbc = index < 2
        found = loaded.evaluate(atoms)
        atoms.info |= {"energy": found.energy + 0.4, "kind": "slab" if index == 1 else "bulk"}
        atoms.arrays["forces"] = found.forces - 0.2
        atoms.arrays["force_mask"] = np.array([1.0, 1.0, 0.0, 1.0])
        if found.stress is not None:
            atoms.info["stress"] = found.stress + 0.3
        structures.append(atoms)
    Dataset.from_atoms(structures).write_hdf5(path)
    return structures


def test_parity_files(potential: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    structures = labelled(potential, tmp_path / "cu.h5")
    names = [tmp_path / "parity.npz", tmp_path / "parity.csv"]
    for name in names:
        arguments = ["evaluate", str(potential), str(tmp_path / "cu.h5"), "--parity", str(name)]
        assert invoke(arguments) == 0
    assert "forces_mae = 0.2 eV/Å" in capsys.readouterr().out
    with np.load(names[0]) as arrays:
        found = dict(arrays)
    keys = ("structure", "atom", "reference", "predicted")
    assert set(found) == {f"{name}_{k}" for name in ("energy", "forces", "stress") for k in keys}
    assert found["energy_reference"].shape == (3, 1)
    assert found["energy_reference"][1, 0] == structures[1].info["energy"] / 4
    np.testing.assert_allclose(found["energy_reference"] - found["energy_predicted"], 0.1)
    np.testing.assert_array_equal(found["forces_atom"], [0, 1, 3] * 3)
    np.testing.assert_array_equal(found["forces_structure"], np.repeat([0, 1, 2], 3))
    np.testing.assert_allclose(found["forces_reference"] - found["forces_predicted"], -0.2)
    np.testing.assert_array_equal(found["stress_structure"], [0, 1])
    np.testing.assert_allclose(found["stress_reference"] - found["stress_predicted"], 0.3)

    with names[1].open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 + 27 + 12
    assert [row["component"] for row in rows[-6:]] == ["xx", "yy", "zz", "yz", "xz", "xy"]
    for name in ("energy", "forces", "stress"):
        chosen = [row for row in rows if row["quantity"] == name]
        for k in ("reference", "predicted"):
            values = [float(row[k]) for row in chosen]
            np.testing.assert_array_equal(values, found[f"{name}_{k}"].ravel())
        width = found[f"{name}_reference"].shape[1]
        structure = np.repeat(found[f"{name}_structure"], width)
        assert [int(row["structure"]) for row in chosen] == structure.tolist()
        atoms = [int(row["atom"] or -1) for row in chosen]
        assert atoms == np.repeat(found[f"{name}_atom"], width).tolist()


def test_errors_of_groups(
    potential: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled(potential, tmp_path / "cu.h5")
    arguments = ["evaluate", str(potential), str(tmp_path / "cu.h5"), "--group"]
    assert invoke([*arguments, "kind"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].split() == ["kind", "structures", "energy", "MAE", "forces", "MAE"]
    assert lines[-2].split() == ["bulk", "2", "0.1", "0.2"]
    assert lines[-1].split() == ["slab", "1", "0.1", "0.2"]
    assert invoke([*arguments, "sort"]) == 1
    assert "has no 'sort' to group by; it has: kind" in capsys.readouterr().err


def test_largest_gamma_is_told(
    potential: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded, structures = ACEPotential.load(potential), []
    for scale in (1.0, 0.6, 0.9):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.positions[2] += [0.3, 0.2, 0.0]
        structures.append(atoms)
    write(tmp_path / "cu.extxyz", structures, format="extxyz")
    assert invoke(["evaluate", str(potential), str(tmp_path / "cu.extxyz")]) == 0
    grades = [loaded.evaluate(atoms, gamma=True).gamma for atoms in structures]
    above = sum(int((gamma > 1).sum()) for gamma in grades)
    assert above > 0
    expected = (
        f"largest gamma = {grades[1].max():.3f} (structure 1, atom {grades[1].argmax()}); "
        f"above 1: {above} of 12 atoms"
    )
    assert expected in capsys.readouterr().out


@pytest.fixture
def with_posterior(potential: Path, tmp_path: Path) -> tuple[Path, Posterior]:
    """The potential in a folder of its own with a posterior without meaning."""
    loaded = ACEPotential.load(potential)
    path = tmp_path / "own" / "cu.yace"
    path.parent.mkdir()
    loaded.save(path.with_suffix(""))
    mean = loaded.coefficients[:, 0]
    factor = np.random.default_rng(3).normal(0, 1e-3, (len(mean), len(mean)))
    posterior = Posterior(mean, factor, energy_noise=0.01, force_noise=0.02)
    posterior.save(path.with_name("cu.posterior.npz"))
    return path, posterior


@pytest.mark.parametrize("suffix", [".yace", ".yaml"])
def test_uncertainties(
    with_posterior: tuple[Path, Posterior],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
) -> None:
    path, posterior = with_posterior
    structures = labelled(path, tmp_path / "cu.h5")
    arguments = ["evaluate", str(path.with_suffix(suffix)), str(tmp_path / "cu.h5")]
    out = tmp_path / "out.json"
    assert invoke([*arguments, "--uncertainty", "--json", str(out)]) == 0
    answer = json.loads(out.read_text())
    basis = ACEPotential.load(path).basis
    spreads = [posterior.uncertainty(basis, atoms) for atoms in structures]
    for one, spread in zip(answer["structures"], spreads, strict=True):
        assert one["energy_std"] == pytest.approx(spread.energy)
        assert one["energy_std_total"] == pytest.approx(np.hypot(spread.energy, 4 * 0.01))
        assert np.shape(one["forces_std"]) == (4, 3)
        np.testing.assert_allclose(one["forces_std"], spread.forces)
        np.testing.assert_allclose(one["forces_std_total"], np.hypot(spread.forces, 0.02))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-2:] == ["std", "(eV)"]
    assert float(lines[2].split()[-1]) == pytest.approx(spreads[1].energy, rel=1e-3)
    energies = [spread.energy / 4 for spread in spreads]
    forces = np.array([spread.forces.max(axis=1) for spread in spreads])
    structure, atom = np.unravel_index(forces.argmax(), forces.shape)
    expected = (
        f"largest standard deviation of the model: energy {max(energies):.4g} eV/atom "
        f"(structure {np.argmax(energies)}), force {forces.max():.4g} eV/Å "
        f"(structure {structure}, atom {atom})"
    )
    assert expected in lines
    assert invoke([*arguments, "--json", "-"]) == 0
    assert "energy_std" not in capsys.readouterr().out


def test_posteriors_that_cannot_be_used(
    with_posterior: tuple[Path, Posterior], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, posterior = with_posterior
    write(tmp_path / "cu.extxyz", bulk("Cu"), format="extxyz")
    arguments = ["evaluate", str(path), str(tmp_path / "cu.extxyz"), "--uncertainty"]
    file, n = path.with_name("cu.posterior.npz"), len(posterior.mean)
    other = replace(posterior, mean=posterior.mean + 1e-6)
    smaller = replace(posterior, mean=np.zeros(n - 1), factor=np.zeros((n - 1, n - 1)))
    for change, message in (
        (lambda: other.save(file), "this posterior belongs to another potential"),
        (lambda: smaller.save(file), "it belongs to another potential"),
        (lambda: file.write_bytes(b"x" * 100), "not a readable posterior"),
        (file.unlink, "has no posterior 'cu.posterior.npz' beside it"),
    ):
        change()
        assert invoke(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("Error: ") and message in error
        assert len(error.splitlines()) == 1


def test_extreme_structures_are_evaluated(
    potential: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One atom in vacuum, a cell smaller than the cutoff, two atoms that all but overlap."""
    structures = [
        Atoms("Cu"),
        Atoms("Cu", cell=[20, 20, 20], pbc=True),
        Atoms("Cu", cell=[1.2, 1.3, 30], pbc=[True, True, False]),
        Atoms("Cu2", [[0, 0, 0], [0, 0, 1e-3]]),
    ]
    write(tmp_path / "cu.extxyz", structures, format="extxyz")
    assert invoke(["evaluate", str(potential), str(tmp_path / "cu.extxyz"), "--json", "-"]) == 0
    answer = json.loads(capsys.readouterr().out)["structures"]
    assert [one["energy"] for one in answer[:2]] == [E0["Cu"]] * 2
    assert [one["stress"] is None for one in answer] == [True, False, True, True]
    assert all(np.isfinite(one["energy"]) for one in answer)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Atoms("Cu2", positions=np.zeros((2, 3))), "structure 1: Atoms 1 and 0 are less than"),
        (Atoms("CuAu", [[0, 0, 0], [0, 0, 2]]), "structure 1: The structure contains Au"),
        (Atoms("Cu2", [[0, 0, 0], [0, 0, np.nan]]), "Structure 1 has NaN"),
        (Atoms("Cu", cell=[[2, 0, 0], [4, 0, 0], [0, 0, 2]], pbc=True), "Structure 1 is periodic"),
        (Atoms("Cu", cell=[1e200, 1e200, 1e200], pbc=True), "Structure 1 has a NaN or infinite"),
        (Atoms("Cu", cell=[0.002, 0.002, 9], pbc=True), "structure 1: The periodic cell"),
        (Atoms("Cu", cell=[0.2, 0.2, 0.2], pbc=True), "structure 1: Atom 0 (Cu) has more than"),
    ],
    ids=["overlap", "element", "nan", "flat", "huge", "tiny", "small"],
)
def test_structures_that_cannot_be_evaluated(
    potential: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    bad: Atoms,
    message: str,
) -> None:
    write(tmp_path / "cu.extxyz", [bulk("Cu"), bad], format="extxyz")
    assert invoke(["evaluate", str(potential), str(tmp_path / "cu.extxyz")]) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.yace", "si.extxyz"], "none.yace"),
        (["POTENTIAL", "none.extxyz"], "none.extxyz"),
        (["POTENTIAL", "si.extxyz"], "contains Si"),
        (["POTENTIAL", "empty.extxyz"], "is empty"),
        (["empty.extxyz", "si.extxyz"], "empty.extxyz"),
        (["POTENTIAL", "cu.extxyz", "--energy-key", "typo"], "no energy under the key 'typo'"),
        (["POTENTIAL", "cu.extxyz", "--json", "no/out.json"], "does not exist"),
        (["POTENTIAL", "cu.extxyz", "--parity", "no/parity.npz"], "does not exist"),
        (["POTENTIAL", "cu.extxyz", "--parity", "parity.txt"], "must end in .npz or .csv"),
        (["POTENTIAL", "cu.extxyz", "--parity", "parity.npz"], "no labels"),
        (["POTENTIAL", "cu.extxyz", "--parity", "folder.npz"], "is a folder"),
        (["POTENTIAL", "cu.extxyz", "--json", "/proc/out.json"], "cannot be written"),
        (["POTENTIAL", "cu.extxyz", "--uncertainty"], "fit it again with --posterior"),
        (["cu.extxyz", "POTENTIAL"], "a potential file ends in .yace or .yaml"),
        (["POTENTIAL", "POTENTIAL"], "UnknownFileTypeError yace"),
    ],
)
def test_bad_input(
    potential: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write("si.extxyz", bulk("Si"), format="extxyz")
    write("cu.extxyz", bulk("Cu"), format="extxyz")
    Path("empty.extxyz").write_text("")
    Path("folder.npz").mkdir()
    assert (
        invoke(["evaluate", *(str(potential) if a == "POTENTIAL" else a for a in arguments)]) == 1
    )
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error
    assert len(error.splitlines()) == 1
