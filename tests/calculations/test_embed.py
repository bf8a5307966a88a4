"""`autopipe.embed`: cells around uncertain atoms, ready for labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.orm import Dict
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.calculations.embed import embed
from aiida_autopipe.calculations.functions import ERROR_STATUS
from aiida_autopipe.calculations.labels import collect_labels
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.kpoints import unstrained_cell
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from tests.reference.copper import copper_potential

pytestmark = pytest.mark.usefixtures("aiida_profile")

RADII = {"radius_A": 2.6, "buffer_A": 2.0}


@pytest.fixture
def potential(tmp_path: Path) -> PotentialData:
    files = {path.name: path for path in copper_potential().save(tmp_path / "copper")}
    return PotentialData.from_files(files, "ace", ["Cu"], 4.0, {"Cu": 0.0})


def frames(*structures: Atoms, atom: int = 7) -> DatasetData:
    columns = {
        "gamma_atom": [atom] * len(structures),
        "gamma_max": [4.0] * len(structures),
        "origin": ["md"] * len(structures),
        "step": [10 * k for k in range(len(structures))],
    }
    return DatasetData(Dataset.from_atoms(list(structures), columns=columns))


def hot(repeats: int, seed: int) -> Atoms:
    atoms = bulk("Cu", cubic=True) * (repeats, repeats, repeats)
    atoms.rattle(0.1, seed=seed)
    return atoms


def run(potential: PotentialData, pool: DatasetData, **changes: float) -> tuple[Any, Any]:
    crystal = DatasetData(Dataset.from_atoms([bulk("Cu")]))
    return embed.run_get_node(pool, crystal, potential, Dict({**RADII, **changes}))


def test_cells_with_masks(potential: PotentialData) -> None:
    """The surroundings of the uncertain atom are those of the frame, in a cell of the lattice."""
    large = [hot(4, 1), hot(4, 2)]
    outputs, process = run(potential, frames(*large))
    assert process.is_finished_ok, process.exit_message
    cells = outputs["cells"].get_dataset()
    notes = outputs["summary"]["cells"]
    assert outputs["summary"]["frame_atoms"] == 512
    assert outputs["summary"]["atoms"] == cells.n_atoms < 300
    assert cells.columns["frame"].tolist() == [0, 1]
    assert cells.columns["step"].tolist() == [0, 10]
    assert set(cells.columns["origin"]) == {"embed"}
    for index, frame in enumerate(large):
        atoms, mask = cells.atoms(index), cells.labels(index).force_mask
        assert notes[index]["cell"] == "lattice"
        assert mask is not None and mask[0] == 1
        assert mask.sum() == notes[index]["core"] < len(atoms)
        around = frame.get_all_distances(mic=True)[7]
        np.testing.assert_allclose(
            np.sort(atoms.get_distances(0, range(len(atoms)), mic=True)[mask > 0]),
            np.sort(around[around <= RADII["radius_A"]]),
        )
        assert unstrained_cell(atoms, bulk("Cu")) is not None


def test_a_small_frame_is_kept_whole(potential: PotentialData) -> None:
    """It has no boundary that the simulation did not have: all its forces are good."""
    frame = hot(2, 3)
    outputs, _ = run(potential, frames(frame), radius_A=4.0, buffer_A=4.0)
    cells = outputs["cells"].get_dataset()
    np.testing.assert_allclose(cells.atoms(0).positions, frame.positions)
    assert cells.force_mask is not None and cells.force_mask.all()
    assert cells.columns["gamma_atom"].tolist() == [7]
    assert cells.columns["origin"].tolist() == ["md"]


def test_frames_that_do_not_say_where_they_are_uncertain(potential: PotentialData) -> None:
    pool = DatasetData(Dataset.from_atoms([hot(2, 1)]))
    _, process = run(potential, pool)
    assert process.exit_status == ERROR_STATUS
    assert "no column gamma_atom" in process.exit_message


def test_masks_survive_the_label(potential: PotentialData) -> None:
    """No oracle knows them; they are put back where the labels are collected."""
    outputs, _ = run(potential, frames(hot(4, 1)))
    cells = outputs["cells"]
    atoms = cells.get_dataset().atoms(0)
    atoms.info |= {"energy": -1.0, "position": 0}
    atoms.arrays["forces"] = np.zeros((len(atoms), 3))
    mask = atoms.arrays.pop("force_mask")
    attributes = {"method": {"fingerprint": "x"}}
    batch = DatasetData(Dataset.from_atoms([atoms], attributes=attributes))
    outcome = {
        "ok": {"0": {"from": "b", "position": 0, "rescue": ""}},
        "rejected": {}, "pseudos": {}, "calculations": 1, "stopped": None, "oracle": "autopipe.ase",
    }  # fmt: skip
    collected = collect_labels(cells, Dict({}), Dict(outcome), labels_b=batch)
    found = collected["labelled"].get_dataset().force_mask
    np.testing.assert_array_equal(found, mask)
