"""DatasetData with a real profile."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.orm import QueryBuilder, load_node
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset, read_dataset
from aiida_autopipe.data.dataset import DatasetData

pytestmark = pytest.mark.usefixtures("aiida_profile")


def dataset(**attributes: Any) -> Dataset:
    structures = [bulk("Si"), bulk("SiC", "zincblende", a=4.3)]
    for k, atoms in enumerate(structures):
        atoms.info["energy"] = -1.0 - k
        atoms.arrays["forces"] = np.full((2, 3), 0.1 * k)
    columns = {"origin": ["rattle", "md"], "generation": [0, 1]}
    return Dataset.from_atoms(structures, columns=columns, attributes=attributes)


def test_round_trip_through_the_database(tmp_path: Path) -> None:
    data = dataset(method={"fingerprint": "abcd", "settings": {"cutoff": 30.0}})
    node = load_node(DatasetData(data).store().pk)
    assert isinstance(node, DatasetData)
    assert node.get_dataset().content_hash() == data.content_hash()
    node.copy_to(tmp_path / "data.h5")
    assert read_dataset(tmp_path / "data.h5").content_hash() == data.content_hash()


def test_summary_is_in_the_database() -> None:
    node = DatasetData(dataset(method={"fingerprint": "abcd"})).store()
    assert (node.n_structures, node.elements, node.labelled) == (2, ["C", "Si"], True)
    assert node.method_fingerprint == "abcd"
    attributes = node.base.attributes.all
    assert attributes["composition"] == {"C": 1, "Si": 3}
    assert attributes["origins"] == {"md": 1, "rattle": 1}
    assert attributes["content_hash"] == dataset(method={"fingerprint": "abcd"}).content_hash()
    query = QueryBuilder().append(
        DatasetData,
        filters={"attributes.n_structures": 2, "attributes.method_fingerprint": "abcd"},
    )
    assert node.pk in [found.pk for (found,) in query.all()]


def test_unlabelled() -> None:
    node = DatasetData(Dataset.from_atoms([bulk("Cu")])).store()
    assert not node.labelled
    assert node.method_fingerprint is None
    assert node.base.attributes.get("method") == {}


def test_same_content_gives_the_same_hash() -> None:
    one = DatasetData(dataset()).store()
    # HDF5's own time stamps have a resolution of one second.
    time.sleep(1.1)
    two = DatasetData(dataset()).store()
    assert one.base.caching.get_hash() == two.base.caching.get_hash()
    other = DatasetData(dataset(method={"fingerprint": "x"})).store()
    assert one.base.caching.get_hash() != other.base.caching.get_hash()


def test_missing_labels_and_empty_sets() -> None:
    joined = Dataset.concatenate([dataset(), Dataset.from_atoms([bulk("Cu")])])
    node = DatasetData(joined).store()
    assert not node.labelled
    assert node.get_dataset().labels(2).energy is None
    empty = DatasetData(dataset()[:0]).store()
    assert (empty.n_structures, empty.elements, empty.labelled) == (0, [], False)
    assert len(empty.get_dataset()) == 0
