"""MACE features against MACE's own calculator, on small models with random weights."""

import hashlib
import json
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_autopipe.core.descriptors.mace import MaceDescriptor
from aiida_autopipe.core.errors import DataError, EngineError, InputError, PotentialFileError
from tests.core.descriptors.mace_models import save_model

# Warnings of MACE's dependencies; our own code silences them where it calls MACE.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model file; scalars and vectors, so that invariants must be picked out."""
    return save_model(tmp_path_factory.mktemp("mace") / "small.model")


@pytest.fixture(scope="module")
def descriptor(model):
    return MaceDescriptor.from_file(model, trust=True, device="cpu")


@pytest.fixture(scope="module")
def structures():
    """Periodic and not, small and skewed cells, an atom alone."""
    carbide = bulk("SiC", "zincblende", a=4.36) * (2, 1, 1)
    carbide.rattle(0.1, seed=1)
    slab = bulk("Si", cubic=True)
    slab.pbc = (True, True, False)
    chain = molecule("C2H2")
    del chain[[atom.symbol == "H" for atom in chain]]
    return [carbide, bulk("Si"), Atoms("C"), slab, chain]


def test_equals_mace_itself(model, descriptor, structures):
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(model), device="cpu", default_dtype="float64")
    expected = [calculator.get_descriptors(s, invariants_only=True) for s in structures]
    found = descriptor.compute(structures, threads=2)
    assert found.shape == (sum(map(len, structures)), descriptor.n_features) == (17, 8)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1e-10)
    assert np.abs(found).max() > 1e-3
    first = MaceDescriptor.from_file(model, trust=True, layers=[1], device="cpu")
    expected = [calculator.get_descriptors(s, True, num_layers=1) for s in structures]
    np.testing.assert_allclose(first.compute(structures), np.concatenate(expected), atol=1e-10)
    second = MaceDescriptor.from_file(model, trust=True, layers=[2], device="cpu")
    np.testing.assert_allclose(second.compute(structures), found[:, 4:], atol=1e-12)


def test_features_are_invariant(descriptor, structures):
    moved = structures[0].copy()
    moved.rotate(37, (1, 2, 3), rotate_cell=True)
    moved.positions = -moved.positions
    moved.cell = -moved.cell.array
    np.testing.assert_allclose(
        descriptor.compute([moved]), descriptor.compute(structures[:1]), atol=1e-10
    )


def test_batches_change_nothing(descriptor, structures, monkeypatch):
    together = descriptor.compute(structures)
    monkeypatch.setattr("aiida_autopipe.core.descriptors.mace.BATCH_PAIRS", 1)
    np.testing.assert_allclose(descriptor.compute(structures), together, atol=1e-12)
    assert descriptor.compute([]).shape == (0, 8)


def test_settings_tell_descriptors_apart(model, descriptor):
    settings = descriptor.settings()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert settings["dtype"] == "float64"
    assert settings["layers"] == [1, 2]
    single = MaceDescriptor.from_file(model, trust=True, dtype="float32", device="cpu")
    assert single.settings() != settings
    assert single.compute([bulk("Si")]).dtype == np.float64


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("Cu"), "contains Cu, but the model knows only C, Si"),
        (Atoms(), "no atoms"),
        (Atoms("C", positions=[[np.nan, 0, 0]]), "finite"),
    ],
)
def test_unusable_structures(descriptor, atoms, message):
    with pytest.raises(DataError, match=message):
        descriptor.compute([bulk("Si"), atoms])


def test_pickles_are_not_opened_unless_trusted(tmp_path):
    bomb = tmp_path / "bomb.model"
    bomb.write_bytes(b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(InputError, match="--trust"):
        MaceDescriptor.from_file(bomb, trust=False)
    assert not (tmp_path / "ran").exists()


def test_other_files_and_settings(model, tmp_path):
    import torch

    with pytest.raises(PotentialFileError, match=r"no model file '.*none"):
        MaceDescriptor.from_file(tmp_path / "none.model", trust=True)
    other = tmp_path / "other.model"
    other.write_text("hello")
    with pytest.raises(PotentialFileError, match="cannot be opened as a MACE model"):
        MaceDescriptor.from_file(other, trust=True)
    torch.save(torch.nn.Linear(2, 2), other)
    with pytest.raises(PotentialFileError, match="Linear, not a MACE"):
        MaceDescriptor.from_file(other, trust=True)
    for layers in ([3], [0, 1], []):
        with pytest.raises(InputError, match="layers 1 to 2"):
            MaceDescriptor.from_file(model, trust=True, layers=layers)


def test_missing_packages(tmp_path, monkeypatch):
    path = tmp_path / "a.model"
    path.touch()
    monkeypatch.setitem(sys.modules, "mace", None)
    with pytest.raises(EngineError, match=r"aiida-autopipe\[mace\]"):
        MaceDescriptor.from_file(path, trust=True)
