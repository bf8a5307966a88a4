"""`mlip-auto evaluate` on files: the JSON that programs rely on, and one sentence for bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from aiida_autopipe.cli.main import invoke
from aiida_autopipe.core.ace.basis import BasisSettings, build_basis
from aiida_autopipe.core.ace.potential import ACEPotential

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
    assert (
        invoke(["evaluate", *(str(potential) if a == "POTENTIAL" else a for a in arguments)]) == 1
    )
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error
    assert len(error.splitlines()) == 1
