"""PotentialData with a real profile."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.orm import load_node

from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.zbl import ZBL
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.data.potential import PotentialData
from tests.reference.copper import copper, copper_potential

pytestmark = pytest.mark.usefixtures("aiida_profile")


@pytest.fixture(scope="module")
def potential() -> ACEPotential:
    return copper_potential()


@pytest.fixture(scope="module")
def files(potential: ACEPotential, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    saved = potential.save(tmp_path_factory.mktemp("potential") / "potential")
    return {path.name: path for path in saved}


def make(files: dict[str, Path], **changes: Any) -> PotentialData:
    values: dict[str, Any] = {
        "kind": "ace",
        "elements": ["Cu"],
        "cutoff": 4.0,
        "reference_energies": {"Cu": -3.5},
        "metrics": {"train": {"forces_mae": 0.1, "stress_mae": None}},
        "fit": {"n_functions": 30},
    }
    return PotentialData.from_files(files, **{**values, **changes})


def test_properties(files: dict[str, Path]) -> None:
    node = load_node(make(files, elements=["Si", "Cu"]).store().pk)
    assert isinstance(node, PotentialData)
    assert (node.kind, node.elements, node.cutoff) == ("ace", ["Cu", "Si"], 4.0)
    assert node.reference_energies == {"Cu": -3.5}
    assert node.metrics == {"train": {"forces_mae": 0.1, "stress_mae": None}}
    assert node.fit == {"n_functions": 30}
    assert node.filenames == [f"potential.{suffix}" for suffix in ("asi", "in", "yace", "yaml")]


def test_export_gives_the_files_back(files: dict[str, Path], tmp_path: Path) -> None:
    for path in make(files).store().export(tmp_path):
        assert path.read_bytes() == files[path.name].read_bytes()


def test_potential_with_active_set_and_reference_energies(
    files: dict[str, Path], potential: ACEPotential
) -> None:
    atoms = copper(0.1, np.random.default_rng(0))
    found = make(files).store().get_potential().evaluate(atoms, gamma=True)
    expected = potential.evaluate(atoms, gamma=True)
    assert potential.reference_energies == {"Cu": 0.0}
    assert found.energy == pytest.approx(expected.energy - 3.5 * len(atoms))
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-9)
    np.testing.assert_allclose(found.gamma, expected.gamma, rtol=1e-6)


def test_potential_of_the_yace_alone(files: dict[str, Path], potential: ACEPotential) -> None:
    atoms = copper(0.1, np.random.default_rng(0))
    only = {"p.yace": files["potential.yace"]}
    found = make(only, reference_energies={"Cu": 0.0}).store().get_potential()
    assert found.evaluate(atoms).energy == pytest.approx(potential.evaluate(atoms).energy)


def test_repulsion_that_lammps_must_be_told_of(
    files: dict[str, Path], potential: ACEPotential, tmp_path: Path
) -> None:
    assert make(files).get_zbl() == potential.zbl
    both, without = replace(potential, zbl=ZBL(0.9, 1.8)), replace(potential, zbl=None)
    assert make({path.name: path for path in without.save(tmp_path / "p")}).get_zbl() is None
    saved = {path.name: path for path in both.save(tmp_path / "potential")}
    node = make(saved).store()
    assert node.get_zbl() == node.get_potential().zbl == both.zbl
    assert make({"p.yace": saved["potential.yace"]}).get_zbl() == both.zbl
    assert make({"p.asi": saved["potential.asi"]}).get_zbl() is None
    assert make(saved, kind="mace").get_zbl() is None


def test_clear_errors(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one file"):
        make({})
    with pytest.raises(InputError, match=r"none\.yace' does not exist"):
        make({"none.yace": tmp_path / "none.yace"})
    for name in ("../x.yace", "a/x.yace", ""):
        with pytest.raises(InputError, match="not a plain file name"):
            make({name: files["potential.yace"]})
    with pytest.raises(InputError, match="kind 'mace' cannot be evaluated"):
        make(files, kind="mace").get_potential()
    with pytest.raises(InputError, match=r"no \.yaml or \.yace file, only potential\.asi"):
        make({"potential.asi": files["potential.asi"]}).get_potential()
