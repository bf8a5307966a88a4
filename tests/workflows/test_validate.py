"""`autopipe.validate` with real pw.x as the reference."""

from typing import Any

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, Int, Str
from ase.build import bulk

from aiida_autopipe.core.ace.fit import FitSettings, fit_ace
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from aiida_autopipe.workflows.validate import ValidateWorkChain
from tests.reference.copper import copper_potential
from tests.reference.silicon import tersoff_silicon

SETTINGS = {
    "properties": ["lattice_constant", "bulk_modulus", "C44"],
    "tolerance": 0.2,
    "eos_points": 5,
    "eos_volume_range": 0.06,
    "elastic_strain": 0.02,
    "vacancy_supercell": [2, 1, 1],
    "kspacing_per_A": 1.1,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Files of an ACE potential that learned silicon from Tersoff's potential."""
    rng = np.random.default_rng(3)
    structures = []
    for i in range(30):
        atoms = bulk("Si", a=5.43) * ((2, 1, 1) if i % 2 else (1, 1, 1))
        strain = np.eye(3) + 0.03 * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.positions += 0.06 * rng.normal(size=atoms.positions.shape)
        atoms.calc = tersoff_silicon()
        atoms.info["energy"] = atoms.get_potential_energy()
        atoms.arrays["forces"] = atoms.get_forces()
        atoms.info["stress"] = atoms.get_stress()
        atoms.calc = None
        structures.append(atoms)
    settings = FitSettings(cutoff=4.0, max_functions=40, environments_per_function=0.0)
    dataset = Dataset.from_atoms(structures, attributes={"reference_energies": {"Si": 0.0}})
    potential = fit_ace(dataset, settings, rng=np.random.default_rng(1)).potential
    paths = potential.save(tmp_path_factory.mktemp("potential") / "silicon")
    return {path.name: path for path in paths}


@pytest.fixture
def run_validate(
    saved: dict[str, Any], crystal: Any, method: Any, pw_code: Any, silicon_pseudos: Any
) -> Any:
    """Run `ValidateWorkChain` with changed settings or method."""
    potential = PotentialData.from_files(saved, "ace", ["Si"], 4.0, {"Si": 0.0})

    def run(changes: dict[str, Any] | None = None, coarse: dict[str, Any] | None = None) -> Any:
        return run_get_node(
            ValidateWorkChain,
            potential=potential,
            crystal=crystal,
            settings=Dict({**SETTINGS, **(changes or {})}),
            label={
                "settings": Dict({**method.get_dict(), **(coarse or {})}),
                "code": pw_code,
                "pseudos": silicon_pseudos,
                "max_concurrent": Int(2),
                "max_attempts": Int(1),
            },
        )

    return run


def test_table_compares_potential_and_reference(run_validate: Any) -> None:
    """Each property has both values, the error between them and a verdict."""
    outputs, node = run_validate()
    assert node.is_finished_ok
    rows = {row["name"]: row for row in outputs["table"]["rows"]}
    assert list(rows) == SETTINGS["properties"]
    lattice = rows["lattice_constant"]
    # Tersoff's silicon has 5.43 Å; LDA with these coarse settings is near that.
    assert lattice["potential"] == pytest.approx(5.43, abs=0.05)
    assert lattice["reference"] == pytest.approx(5.4, abs=0.2)
    for row in rows.values():
        error = abs(row["potential"] - row["reference"]) / abs(row["reference"])
        assert row["relative_error"] == pytest.approx(error)
        assert row["passed"] == (error <= SETTINGS["tolerance"])
    equilibrium = outputs["equilibrium"].get_dataset()
    assert set(equilibrium.columns["role"]) == {"elastic"}
    # The sheared cell has room to relax, and was relaxed.
    relaxed = [i for i in range(len(equilibrium)) if equilibrium.columns["relax"][i]]
    assert relaxed
    for i in relaxed:
        assert np.abs(equilibrium.labels(i).forces).max() < 0.05
    assert len(outputs["table"]["eos_reference"]["volume_per_atom"]) == 5


def test_families_with_another_oracle(python_code: Any, tmp_path: Any) -> None:
    """Curves, slabs and pairs through the same chain; limits stand in for a reference."""
    paths = copper_potential().save(tmp_path / "copper")
    names = [
        "lattice_constant",
        "eos_curve",
        "phonon_frequencies",
        "phase:hcp",
        "surface_energy:111",
        "dimer:Cu-Cu",
        "nve_stability",
        "max_stable_temperature",
    ]
    small = {
        "phonon_supercell": [2, 2, 2],
        "simulation_supercell": [2, 2, 2],
        "simulation_steps": 200,
        "stable_temperature_K": 600.0,
        "surface_thickness": 6.0,
    }
    outputs, node = run_get_node(
        ValidateWorkChain,
        potential=PotentialData.from_files({p.name: p for p in paths}, "ace", ["Cu"], 4.0, {}),
        crystal=DatasetData(Dataset.from_atoms([bulk("Cu")])),
        settings=Dict({**SETTINGS, **small, "properties": names, "seed": 7}),
        label={
            "oracle": Str("autopipe.ase"),
            "settings": Dict({"calculator": "ase.calculators.emt.EMT", "keywords": {}}),
            "code": python_code,
            "max_concurrent": Int(2),
            "max_attempts": Int(1),
        },
    )
    assert node.is_finished_ok, node.exit_message
    table = outputs["table"].get_dict()
    rows = {row["name"]: row for row in table["rows"]}
    assert list(rows) == names
    close = ("lattice_constant", "eos_curve", "phonon_frequencies", "nve_stability")
    assert [name for name in close if not rows[name]["passed"]] == []
    assert rows["surface_energy:111"]["reference"] == pytest.approx(1.04, abs=0.05)
    # It never saw two atoms alone, and the table says so.
    assert not rows["dimer:Cu-Cu"]["passed"]
    drift = rows["nve_stability"]
    assert drift["reference"] is None and (drift["rule"], drift["limit"]) == ("at_most", 1.0)
    drawn = [plot["name"] for plot in table["plots"]]
    assert drawn == [
        n for n in names if n.endswith(("curve", "frequencies", "-Cu", "stability", "_temperature"))
    ]
    # Both sides are at the same volumes: those of the reference.
    curve = table["plots"][0]["series"]
    assert curve[0]["side"] == "reference" and curve[0]["x"] == pytest.approx(curve[1]["x"])
    roles = outputs["equilibrium"].get_dataset().columns["role"]
    assert {"phonon", "phase:hcp", "surface_energy:111:bulk", "dimer:Cu-Cu"} <= set(roles)


def test_unreachable_minimum_is_an_exit_code(run_validate: Any) -> None:
    """A range of volumes without the minimum gives no equation of state, and says so."""
    changes = {"properties": ["lattice_constant"], "eos_volume_range": 1e-4}
    _, node = run_validate(changes, {"cutoff_wfc_Ry": 6.0, "cutoff_rho_Ry": 24.0})
    assert node.exit_status == ValidateWorkChain.exit_codes.ERROR_REFERENCE_EOS.status
    assert "volume" in node.exit_message.lower()
