"""`autopipe.pacemaker` with recorded runs of Pacemaker: no package index offers the program."""

import gzip
import json
import pickle
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from aiida.engine import run_get_node
from aiida.orm import Dict, InstalledCode, Int
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.calculations.pacemaker import PacemakerCalculation
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import DataError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.pacemaker.dataset import write_table

DATA = Path(__file__).parents[1] / "engines" / "pacemaker" / "data"


def copper(energy: float = -3.5) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.info["energy"] = 4 * energy
    atoms.arrays["forces"] = np.ones((4, 3))
    return atoms


def dataset(*structures: Atoms) -> Dataset:
    found = Dataset.from_atoms(list(structures) or [copper()])
    return found.with_attributes(reference_energies={"Cu": 0.2})


@pytest.fixture
def fit(localhost: Any, tmp_path: Path) -> Any:
    """Run the job with a program that leaves what Pacemaker left in a recorded run."""

    def run(name: str, without: str = "", **inputs: Any) -> Any:
        folder, program = DATA / name, tmp_path / "pacemaker"
        said = folder / "stderr_last_line.txt"
        lines = ["#!/bin/sh", f"cp {folder}/*.txt {folder}/*.yaml . 2>/dev/null"]
        lines += [f"rm -f {without}"] if without else []
        lines += [f"cat {said} >&2", "exit 1"] if said.exists() else ["exit 0"]
        program.write_text("\n".join(lines) + "\n")
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        code = InstalledCode(computer=localhost, filepath_executable=str(program))
        code.label = "pacemaker"
        return run_get_node(
            PacemakerCalculation,
            code=code,
            train=DatasetData(dataset()),
            settings=Dict({"cutoff": 7.0, "n_functions": 36}),
            seed=Int(42),
            **inputs,
        )

    return run


def test_success_gives_a_potential_of_every_kind_of_file(fit: Any) -> None:
    outputs, node = fit("ok", test=DatasetData(dataset(copper(-3.4))))
    assert node.is_finished_ok, node.exit_message
    potential = outputs["potential"]
    assert potential.kind == "ace" and potential.elements == ["Cu"] and potential.cutoff == 7.0
    assert {Path(n).suffix for n in potential.filenames} >= {".yace", ".yaml"}
    assert potential.reference_energies == {"Cu": 0.2}
    energy = potential.get_potential().evaluate(bulk("Cu", cubic=True)).energy
    assert energy / 4 - 0.2 == pytest.approx(-3.7, abs=0.02)
    metrics = outputs["metrics"].get_dict()
    assert metrics["metrics"]["train"]["energy_rmse_per_atom"] == pytest.approx(0.00664, abs=1e-5)
    assert metrics["chosen"]["n_functions"] == 36 and metrics["chosen"]["converged"] is False
    assert [step["nfuncs"] for step in metrics["steps"]] == [10, 20, 30, 36]
    files = node.base.repository
    made = yaml.safe_load(files.get_object_content("input.yaml"))
    assert made["data"] == {"filename": "train.pckl.gzip", "test_filename": "test.pckl.gzip"}
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "without", "status", "message"),
    [
        ("nan_energy", "", 201, "energy_corrected contains NaNs"),
        ("missing_file", "", 201, "missing.pckl.gzip"),
        ("huge_energy", "", 201, "energies from -3.7 to 1e+12 eV/atom"),
        ("inf_force", "", 301, "The loss became inf"),
        ("ok", "output_potential.yaml", 303, "output_potential.yaml"),
        ("ok", "log.txt", 401, "interrupted"),
    ],
)
def test_failures_are_exit_codes(
    fit: Any, name: str, without: str, status: int, message: str
) -> None:
    outputs, node = fit(name, without)
    assert node.exit_status == status and message in node.exit_message
    assert "potential" not in outputs and "metrics" in outputs


def test_an_unreadable_potential_and_an_unknown_error(fit: Any, tmp_path: Path) -> None:
    _, node = fit("ok", "x; echo nonsense > output_potential.yaml")
    assert node.exit_status == 304 and "output_potential.yaml" in node.exit_message
    _, node = fit("ok", "x; echo 'MemoryError: no more' >&2")
    assert node.exit_status == 302 and "MemoryError: no more" in node.exit_message


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"cutof": 5.0}, "did you mean 'cutoff'"), ({"kappa": 2.0}, "between 0 and 1")],
)
def test_wrong_settings_are_refused_before_anything_runs(
    fit: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PacemakerCalculation.get_builder().settings = Dict(settings)


def test_tables_have_weights_masks_and_cohesive_energies(tmp_path: Path) -> None:
    masked = copper(-3.6)
    masked.arrays["force_mask"] = np.array([1.0, 1.0, 0.0, 0.0])
    masked.info["weight"] = 2.0
    whole = copper()
    whole.arrays["force_mask"] = np.ones(4)
    whole.info["weight"] = 1.0
    data = dataset(whole, masked)
    write_table(tmp_path / "a.gz", data, {"Cu": 0.2})
    content = gzip.decompress((tmp_path / "a.gz").read_bytes())
    # A Pacemaker of older days has a NumPy that does not know this name.
    assert b"numpy._core" not in content
    table = pickle.loads(content)
    assert list(table.columns) == [
        "ase_atoms",
        "energy_corrected",
        "forces",
        "w_energy",
        "w_forces",
    ]
    assert table.energy_corrected[0] == pytest.approx(4 * -3.7)
    assert table.w_energy.tolist() == [1.0, 0.0]
    assert table.w_forces[1].tolist() == [2.0, 2.0, 0.0, 0.0]
    np.testing.assert_array_equal(table.forces[1][2:], 0)
    write_table(tmp_path / "b.gz", data, {"Cu": 0.2})
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    write_table(tmp_path / "c.gz", data, {"Cu": 0.2}, cutout_energies=True)
    asked = pickle.loads(gzip.decompress((tmp_path / "c.gz").read_bytes()))
    assert asked.w_energy.tolist() == [1.0, 2.0]


def test_data_that_pacemaker_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Structure 0 has an energy of -500\.2"):
        write_table(tmp_path / "a.gz", dataset(copper(-500.0)), {"Cu": 0.2})
    bare = copper()
    del bare.arrays["forces"]
    with pytest.raises(DataError, match="Structure 0 has no forces"):
        write_table(tmp_path / "a.gz", dataset(bare), {"Cu": 0.2})
    assert not (tmp_path / "a.gz").exists()
