"""Settings to pw.x input, and real pw.x output to labels."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_autopipe.core.errors import EngineError, InputError
from aiida_autopipe.engines.espresso.pw import (
    VACUUM,
    PwLabel,
    PwSettings,
    estimated_seconds,
    in_box,
    is_isolated_atom,
    kpoints,
    label_from_output,
    method,
    parameters,
)

SETTINGS = PwSettings(cutoff_wfc_Ry=30, cutoff_rho_Ry=120, kspacing_per_A=0.5)
# Recorded with Debian's pw.x 6.7 through aiida-quantumespresso: a distorted cell of two silicon
# atoms, and the same with one atom displaced, the cell sheared and the cell stretched, both ways.
RECORD = json.loads((Path(__file__).parent / "data" / "si2_pw.json").read_text())


def test_crystal() -> None:
    found = parameters(SETTINGS, bulk("Si"))
    assert found == {
        "CONTROL": {"calculation": "scf", "tprnfor": True, "tstress": True},
        "SYSTEM": {
            "ecutwfc": 30.0,
            "ecutrho": 120.0,
            "occupations": "smearing",
            "smearing": "cold",
            "degauss": 0.01,
        },
        "ELECTRONS": {"conv_thr": 2e-9, "mixing_beta": 0.7, "electron_maxstep": 80},
    }


def test_threshold_grows_with_the_cell() -> None:
    large = parameters(SETTINGS, bulk("Si") * (2, 2, 2))["ELECTRONS"]["conv_thr"]
    assert large == pytest.approx(16e-9)


def test_fixed_occupations() -> None:
    system = parameters(replace(SETTINGS, smearing="none"), bulk("Si"))["SYSTEM"]
    assert system["occupations"] == "fixed"
    assert "degauss" not in system and "smearing" not in system


def test_spin() -> None:
    system = parameters(replace(SETTINGS, spin=True), bulk("NaCl", "rocksalt", a=5.6))["SYSTEM"]
    assert system["nspin"] == 2
    assert system["starting_magnetization"] == {"Cl": 0.5, "Na": 0.5}


def test_relaxation_keeps_the_cell() -> None:
    found = parameters(SETTINGS, bulk("Si"), relax=True)
    assert found["CONTROL"]["calculation"] == "relax"
    assert found["IONS"] == {"ion_dynamics": "bfgs"}
    # 1 Ry/bohr = 25.711 eV/Å.
    assert found["CONTROL"]["forc_conv_thr"] == pytest.approx(0.01 / 25.711, rel=1e-4)


@pytest.mark.parametrize(("symbol", "moment"), [("Si", 2), ("O", 2), ("N", 3), ("Al", 1)])
def test_isolated_atom_has_the_spin_of_its_ground_state(symbol: str, moment: int) -> None:
    found = parameters(SETTINGS, Atoms(symbol), relax=True)
    system = found["SYSTEM"]
    assert system["tot_magnetization"] == moment
    assert (system["nspin"], system["starting_magnetization"]) == (2, {symbol: 0.5})
    assert (system["smearing"], system["degauss"]) == ("gaussian", 0.002)
    assert found["CONTROL"]["calculation"] == "scf"
    assert (system["ecutwfc"], system["ecutrho"]) == (30.0, 120.0)


def test_closed_shell_atom_has_no_spin() -> None:
    assert "nspin" not in parameters(SETTINGS, Atoms("Ar"))["SYSTEM"]


def test_molecules_are_put_into_a_box() -> None:
    boxed = in_box(Atoms("Si", positions=[[1, 2, 3]]))
    assert np.all(boxed.pbc)
    np.testing.assert_array_equal(boxed.cell.array, np.eye(3) * VACUUM)
    water = molecule("H2O")
    boxed = in_box(water)
    assert not is_isolated_atom(water)
    # Orthogonal, with the same shape and orientation inside, and vacuum all around.
    np.testing.assert_allclose(boxed.cell.array, np.diag(np.ptp(water.positions, axis=0) + VACUUM))
    np.testing.assert_allclose(
        boxed.positions - boxed.positions[0], water.positions - water[0].position
    )
    assert np.all(boxed.get_scaled_positions(wrap=False).min(axis=0) > 0.3)
    assert kpoints(SETTINGS, water) == ((1, 1, 1), (0.0, 0.0, 0.0))
    crystal = bulk("Cu")
    assert in_box(crystal) is crystal


# ------------------------------------------------------------------ k-points


def test_mesh_and_shift() -> None:
    atoms = bulk("Si")
    assert kpoints(SETTINGS, atoms) == ((5, 5, 5), (0.0, 0.0, 0.0))
    shifted = replace(SETTINGS, kpoints_shift=True)
    assert kpoints(shifted, atoms) == ((5, 5, 5), (0.5, 0.5, 0.5))
    # Half a step off Gamma makes no sense where there is one point.
    slab = atoms * (1, 1, 6)
    assert kpoints(shifted, slab) == ((5, 5, 1), (0.5, 0.5, 0.0))
    assert kpoints(shifted, Atoms("Si")) == ((1, 1, 1), (0.0, 0.0, 0.0))


def test_explicit_mesh_wins() -> None:
    atoms = bulk("Si")
    atoms.info["kpoints_mesh"] = "3 4 1"
    assert kpoints(replace(SETTINGS, kpoints_shift=True), atoms) == ((3, 4, 1), (0.5, 0.5, 0.0))
    atoms.info["kpoints_mesh"] = ""
    assert kpoints(SETTINGS, atoms)[0] == (5, 5, 5)


@pytest.mark.parametrize("mesh", ["4 4", "4 4 0", "4 4 -1", "4 4 4.0", "[4 4 4]"])
def test_unusable_mesh(mesh: str) -> None:
    atoms = bulk("Si")
    atoms.info["kpoints_mesh"] = mesh
    with pytest.raises(InputError, match="must be three positive whole numbers"):
        kpoints(SETTINGS, atoms)


def test_cost_orders_the_work() -> None:
    cell = bulk("Si")
    costs = [estimated_seconds(SETTINGS, a) for a in (cell, cell * (2, 2, 2), Atoms("Si"))]
    assert 1 < costs[0] < 10
    assert costs == sorted(costs)


# ------------------------------------------------------------------ settings and method


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cutof": 1}, "Unknown pw.x setting 'cutof'"),
        ({"cutoff_wfc_Ry": 1.0}, "Incomplete pw.x settings"),
        ({**asdict(SETTINGS), "smearing": "hot"}, "Unknown smearing 'hot'"),
        ({**asdict(SETTINGS), "spin": True, "smearing": "none"}, "Spin polarisation with fixed"),
        ({**asdict(SETTINGS), "cutoff_wfc_Ry": -1}, "cutoff_wfc_Ry is -1; it must be positive"),
        ({**asdict(SETTINGS), "kspacing_per_A": float("nan")}, "kspacing_per_A is nan"),
        ({**asdict(SETTINGS), "smearing_width_Ry": "wide"}, "smearing_width_Ry is 'wide'"),
    ],
)
def test_unusable_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        PwSettings.from_dict(values)


def test_settings_round_trip() -> None:
    assert PwSettings.from_dict(json.loads(json.dumps(asdict(SETTINGS)))) == SETTINGS


CHANGES: dict[str, Any] = {
    "cutoff_wfc_Ry": 31.0,
    "cutoff_rho_Ry": 121.0,
    "kspacing_per_A": 0.51,
    "kpoints_shift": True,
    "functional": "PBE",
    "smearing": "gaussian",
    "smearing_width_Ry": 0.02,
    "spin": True,
    "scf_threshold_Ry_per_atom": 1e-8,
    "force_threshold": 0.02,
}


def test_fingerprint_changes_with_every_setting() -> None:
    assert set(CHANGES) == set(asdict(SETTINGS))
    found = {method(replace(SETTINGS, **{k: v}), {"Si": "a"})["fingerprint"] for k, v in
             CHANGES.items()}  # fmt: skip
    found |= {method(SETTINGS, pseudos)["fingerprint"] for pseudos in ({"Si": "a"}, {"Si": "b"})}
    assert len(found) == len(CHANGES) + 2


def test_fingerprint_is_that_of_the_method_only() -> None:
    written = {**asdict(SETTINGS), "cutoff_wfc_Ry": 30, "cutoff_rho_Ry": 120}
    one = method(PwSettings.from_dict(written), {"Si": "a", "C": "b"})
    two = method(SETTINGS, {"C": "b", "Si": "a"})
    assert one["fingerprint"] == two["fingerprint"]
    assert one["settings"]["cutoff_wfc_Ry"] == 30.0
    assert one["pseudos"] == {"Si": "a", "C": "b"}


# ------------------------------------------------------------------ labels from real output


def label(name: str, isolated: bool = False) -> tuple[PwLabel, float]:
    """A recorded run as a label, and its volume."""
    run = next(r for r in RECORD["runs"] if r["name"] == name)
    assert run["output"]["energy_units"] == "eV"
    found = label_from_output(run["output"], run["forces"], run["stress"], isolated)
    return found, float(np.linalg.det(run["cell"]))


def slope(kind: str, step: float) -> float:
    """Central difference of the total energy."""
    return (label(f"{kind} +1")[0].energy - label(f"{kind} -1")[0].energy) / (2 * step)


def test_forces_are_minus_the_slope_of_the_energy() -> None:
    found, _ = label("base")
    assert found.forces.shape == (2, 3)
    assert found.forces[1, 0] == pytest.approx(-slope("displaced", 0.01), rel=2e-3)
    np.testing.assert_allclose(found.forces.sum(axis=0), 0, atol=1e-3)


def test_stress_is_the_slope_of_the_energy_over_the_volume() -> None:
    found, volume = label("base")
    assert found.stress.shape == (6,)
    assert found.stress[3] * volume == pytest.approx(slope("sheared", 0.005), rel=2e-3)
    # A basis that does not grow with the cell costs one per cent at this cutoff (Pulay stress).
    assert found.stress[0] * volume == pytest.approx(slope("stretched", 0.005), rel=2e-2)


def test_compressed_silicon_has_negative_stress() -> None:
    found, _ = label("base")
    assert np.all(found.stress[:3] < 0)
    raw = np.array(next(r for r in RECORD["runs"] if r["name"] == "base")["stress"])
    expected = -raw[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / 160.21766208
    np.testing.assert_allclose(found.stress, expected, rtol=1e-12)


def test_energy_is_the_free_energy_except_for_an_isolated_atom() -> None:
    output = next(r for r in RECORD["runs"] if r["name"] == "base")["output"]
    assert output["energy_smearing"] < 0
    assert label("base")[0].energy == output["energy"]
    internal = label("base", isolated=True)[0].energy
    assert internal == pytest.approx(output["energy"] - output["energy_smearing"])
    assert internal > output["energy"]


def test_unusable_output() -> None:
    forces, stress = np.zeros((1, 3)), np.zeros((3, 3))
    with pytest.raises(EngineError, match="no total energy"):
        label_from_output({}, forces, stress, False)
    for bad in ({"energy": np.nan}, {"energy": -1.0}):
        with pytest.raises(EngineError, match="not a finite number"):
            label_from_output(bad, np.full((1, 3), np.inf), stress, False)
    with pytest.raises(EngineError, match="not a finite number"):
        label_from_output({"energy": -1.0}, forces, np.full((3, 3), np.nan), False)
