"""Molecules, reactions, and melts with a real calculator."""

import json
from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.generate.melt import lindemann_temperature, melt
from aiida_autopipe.core.generate.molecules import bonds, molecules, rotatable
from aiida_autopipe.core.generate.rattle import smallest_distance
from aiida_autopipe.core.generate.reactions import reaction_path


def rng(seed=0):
    return np.random.default_rng(seed)


def test_conformers_keep_their_bonds():
    ethanol = molecule("CH3CH2OH")
    assert len(rotatable(ethanol)) == 8
    wanted = {tuple(bond) for bond in bonds(ethanol).tolist()}
    made = molecules(ethanol, rng(), n=6, charge=1)
    for atoms in made:
        assert wanted <= {tuple(bond) for bond in bonds(atoms, 1.5).tolist()}
        assert atoms.info["charge"] == 1
        assert smallest_distance(atoms) > 0.7
    # Only the hydrogens of benzene: its ring stays whole.
    assert len(rotatable(molecule("C6H6"))) == 6
    again = molecules(ethanol, rng(), n=6, charge=1)
    np.testing.assert_array_equal(made[3].positions, again[3].positions)


def test_path_of_chloromethane_and_fluoride():
    made = reaction_path(
        molecule("CH3Cl"), rng(), entering="F", leaving="Cl", images=7, copies=1, charge=-1
    )
    assert {a.get_chemical_formula() for a in made} == {"CH3ClF"}
    assert {a.info["charge"] for a in made} == {-1}
    kinds = Counter(a.info["origin"] for a in made)
    assert kinds["reaction:path"] == 14
    assert kinds["reaction:scan"] == 24
    ideal = [a for a in made if "coordinate" in a.info["parameters"]]
    ideal = [a for a in ideal if "copy" not in a.info["parameters"]]
    chlorine = [a.get_distance(0, 1) for a in ideal]
    fluorine = [a.get_distance(0, 5) for a in ideal]
    assert np.all(np.diff(chlorine) > 0) and np.all(np.diff(fluorine) < 0)
    # In between the hydrogens are in one plane, as in the transition state of an SN2 reaction.
    middle = ideal[len(ideal) // 2]
    assert middle.get_angle(1, 0, 2) == pytest.approx(90.0, abs=3.0)
    assert middle.get_angle(1, 0, 5) == pytest.approx(180.0, abs=1.0)
    assert chlorine[0] == pytest.approx(molecule("CH3Cl").get_distance(0, 1))


def test_path_between_given_ends():
    reactant = molecule("HCN")
    product = reactant.copy()
    hydrogen = int(np.flatnonzero(reactant.numbers == 1)[0])
    nitrogen = int(np.flatnonzero(reactant.numbers == 7)[0])
    product.positions[hydrogen] = product.positions[nitrogen] + [0.3, 0.0, -1.0]
    made = reaction_path(reactant, rng(), path=[product], images=3, copies=0, scan=0)
    assert [a.info["origin"] for a in made] == [
        "reaction:reactant", *["reaction:path"] * 3, "reaction:product"
    ]  # fmt: skip
    with pytest.raises(InputError, match="order must be the same"):
        reaction_path(reactant, rng(), path=[molecule("H2O")])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: molecules(bulk("Al"), rng()), "is periodic"),
        (lambda: molecules(Atoms("H"), rng()), "One atom is no molecule"),
        (lambda: molecules(molecule("H2O"), rng(), stretch=-0.1), "must not be negative"),
        (lambda: reaction_path(molecule("CH3Cl"), rng()), "needs its path"),
        (
            lambda: reaction_path(molecule("CH4"), rng(), entering="F", leaving="H"),
            "has 4 atoms H",
        ),
        (lambda: melt(bulk("Al"), rng()), "needs a calculator"),
        (lambda: melt(bulk("Al"), rng(), calculator="nosuch"), "nosuch"),
        (lambda: melt(bulk("Al"), rng(), calculator=EMT(), melt_steps=0), "at least 1"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_melt_of_aluminium():
    made = melt(
        bulk("Al"), rng(), calculator="ase.calculators.emt.EMT", repeat=(3, 3, 3), liquids=2,
        melt_steps=150, liquid_steps=40, quench_steps=60, timestep_fs=3.0,
    )  # fmt: skip
    assert [a.info["origin"] for a in made] == ["melt:liquid", "melt:liquid", "melt:amorphous"]
    perfect = bulk("Al").repeat(3)
    for atoms in made:
        assert len(atoms) == 27
        assert atoms.get_volume() == pytest.approx(1.06 * perfect.get_volume())
        # No crystal: neighbours at 1.2 to 1.35 of the first distance, where fcc has none.
        distances = atoms.get_all_distances(mic=True)[np.triu_indices(27, 1)]
        assert np.any((distances > 3.5) & (distances < 3.8))
        assert smallest_distance(atoms) > 1.7
    assert json.loads(made[0].info["parameters"])["melting_point_K"] == pytest.approx(
        lindemann_temperature(bulk("Al")), abs=0.1
    )


def test_what_does_not_melt_is_told():
    with pytest.raises(DataError, match="did not melt"):
        melt(
            bulk("Al"), rng(), calculator=EMT(), repeat=(2, 2, 2), melt_steps=5,
            melting_point_K=10.0,
        )  # fmt: skip
    with pytest.raises(InputError, match="keywords belong"):
        melt(bulk("Al"), rng(), calculator=LennardJones(), keywords={"rc": 3.0})
