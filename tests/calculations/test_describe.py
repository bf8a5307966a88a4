"""`autopipe.describe` with real nodes."""

from typing import Any

import h5py
import numpy as np
import pytest
from aiida.orm import Dict
from aiida.plugins import CalculationFactory
from ase.build import bulk

from aiida_autopipe.calculations.describe import describe
from aiida_autopipe.calculations.functions import ERROR_STATUS
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.descriptors.ace import AceDescriptor
from aiida_autopipe.core.descriptors.soap import SoapDescriptor
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.data.potential import PotentialData
from tests.reference.copper import copper_potential

pytestmark = pytest.mark.usefixtures("aiida_profile")

SOAP = {"descriptor": "soap", "settings": {"r_cut": 4.0, "n_max": 3, "l_max": 2}}


@pytest.fixture(scope="module")
def potential(tmp_path_factory: pytest.TempPathFactory) -> PotentialData:
    paths = copper_potential().save(tmp_path_factory.mktemp("potential") / "copper")
    return PotentialData.from_files(
        {path.name: path for path in paths}, "ace", ["Cu"], 4.0, {"Cu": 0.0}
    )


@pytest.fixture(scope="module")
def frames() -> list[Any]:
    structures = [bulk("Cu"), bulk("Cu", cubic=True)]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.1, seed=seed)
    return structures


def test_soap_averages(potential: PotentialData, frames: list[Any]) -> None:
    dataset = DatasetData(Dataset.from_atoms(frames, columns={"gamma_max": [1.5, 2.5]}))
    described = describe(dataset, potential, Dict(SOAP))
    assert described.creator.process_label == "describe"
    expected = SoapDescriptor(["Cu"], r_cut=4.0, n_max=3, l_max=2).averages(frames)
    np.testing.assert_allclose(described.get_features("soap"), expected, rtol=1e-12)
    assert described.base.attributes.get("features") == {"soap": {"type": "soap", "average": True}}
    original, kept = dataset.get_dataset(), described.get_dataset()
    assert kept.content_hash() == original.content_hash()
    assert described.base.attributes.get("content_hash") == original.content_hash()
    with pytest.raises(InputError, match="no features 'ace'"):
        described.get_features("ace")


def test_basis_of_the_potential_or_another(potential: PotentialData, frames: list[Any]) -> None:
    dataset = DatasetData(Dataset.from_atoms(frames))
    function = CalculationFactory("autopipe.describe")
    described = function(dataset, potential, Dict({"descriptor": "ace", "average": False}))
    ace = potential.get_potential()
    expected = np.concatenate([ace.descriptors(atoms) for atoms in frames])
    np.testing.assert_allclose(described.get_features("ace"), expected, rtol=1e-12)
    settings = {"cutoff": 3.5, "n_functions": 10, "max_rank": 2}
    other = function(
        described, potential, Dict({"descriptor": "ace", "average": False, "settings": settings})
    )
    expected = AceDescriptor.from_elements(["Cu"], **settings).compute(frames)
    np.testing.assert_allclose(other.get_features("ace"), expected, rtol=1e-12)


def test_features_have_a_known_place_in_the_file(
    potential: PotentialData, frames: list[Any], tmp_path: Any
) -> None:
    described = describe(DatasetData(Dataset.from_atoms(frames)), potential, Dict(SOAP))
    described.copy_to(tmp_path / "dataset.h5")
    with h5py.File(tmp_path / "dataset.h5") as file:
        assert file["features/soap"].attrs["frames"] == 2


def test_what_cannot_be_described(potential: PotentialData) -> None:
    dataset = DatasetData(Dataset.from_atoms([bulk("Si")]))
    outputs, process = describe.run_get_node(dataset, potential, Dict(SOAP))
    assert not outputs
    assert process.exit_status == ERROR_STATUS
    assert "contains Si, but the descriptor knows only Cu" in process.exit_message
