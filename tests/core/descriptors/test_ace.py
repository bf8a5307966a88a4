import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.descriptors.ace import AceDescriptor
from aiida_autopipe.core.errors import DataError, InputError, PotentialFileError


@pytest.fixture(scope="module")
def descriptor():
    return AceDescriptor.from_elements(["Si", "C"], cutoff=4.0, n_functions=30)


def carbide(seed):
    atoms = bulk("SiC", "zincblende", a=4.36) * (2, 1, 1)
    atoms.rattle(0.1, seed=seed)
    return atoms


def test_features_do_not_change_under_rotation_shift_and_renumbering(descriptor):
    atoms = carbide(1)
    features = descriptor.compute([atoms])
    assert features.shape == (4, descriptor.n_features) == (4, 60)
    assert descriptor.elements == ("C", "Si")
    moved = atoms.copy()
    moved.rotate(37, (1, 2, 3), rotate_cell=True)
    moved.positions += 0.3
    np.testing.assert_allclose(descriptor.compute([moved]), features, atol=1e-9)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(descriptor.compute([atoms[order]]), features[order], atol=1e-9)


def test_threads_and_blocks_change_nothing(descriptor):
    structures = [carbide(1), Atoms("C"), carbide(2), carbide(3)]
    alone = np.concatenate([descriptor.compute([atoms]) for atoms in structures])
    for threads in (1, 2):
        np.testing.assert_array_equal(descriptor.compute(structures, threads=threads), alone)
    assert descriptor.compute([]).shape == (0, 60)


def test_files_of_a_potential(sic_files, tmp_path):
    """A .yace has the B functions of the .yaml beside it, or alone the products of its own."""
    potential = ACEPotential.load(sic_files / "SiC_linear.yaml")
    atoms = carbide(4)
    from_yaml = AceDescriptor.from_file(sic_files / "SiC_linear.yaml")
    from_yace = AceDescriptor.from_file(sic_files / "SiC_linear.yace")
    np.testing.assert_array_equal(from_yaml.compute([atoms]), potential.descriptors(atoms))
    assert from_yace.settings() == from_yaml.settings()
    alone = tmp_path / "moved.yace"
    alone.write_bytes((sic_files / "SiC_linear.yace").read_bytes())
    lonely = AceDescriptor.from_file(alone)
    assert lonely.settings()["functions"] == "C-tilde"
    assert lonely.settings()["model_sha256"] != from_yaml.settings()["model_sha256"]
    energies = potential.evaluate(atoms).energies
    np.testing.assert_allclose(lonely.compute([atoms]).sum(axis=1), energies, rtol=1e-8)


def test_settings_tell_descriptors_apart(descriptor):
    settings = descriptor.settings()
    assert json.loads(json.dumps(settings)) == json.loads(
        json.dumps(AceDescriptor.from_elements(["C", "Si"], 4.0, 30).settings())
    )
    assert settings["descriptor"] == "ace"
    assert AceDescriptor.from_elements(["C", "Si"], 4.1, 30).settings() != settings


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("Cu"), "contains Cu"),
        (Atoms(), "no atoms"),
        (Atoms("C", positions=[[np.nan, 0, 0]]), "finite"),
        (Atoms("C2"), "apart"),
    ],
)
def test_unusable_structures(descriptor, atoms, message):
    with pytest.raises(DataError, match=message):
        descriptor.compute([carbide(1), atoms])


def test_bad_settings(tmp_path):
    with pytest.raises(InputError, match="Xx"):
        AceDescriptor.from_elements(["Xx"])
    with pytest.raises(PotentialFileError, match=r"none\.yaml"):
        AceDescriptor.from_file(tmp_path / "none.yaml")
