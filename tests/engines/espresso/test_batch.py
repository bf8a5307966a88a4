"""Inputs of a batch: the letters of aiida-quantumespresso, without its nodes."""

import io
import re
import tarfile
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.engines.espresso.batch import (
    input_text,
    inputs_archive,
    order_text,
    plan_batch,
)
from aiida_autopipe.engines.espresso.pw import PwSettings, in_box, kpoints, parameters

METALLIC = PwSettings(cutoff_wfc_Ry=30, cutoff_rho_Ry=240, kspacing_per_A=0.5, kpoints_shift=True)
MAGNETIC = PwSettings(cutoff_wfc_Ry=30, cutoff_rho_Ry=240, kspacing_per_A=0.4, spin=True)
FIXED = PwSettings(cutoff_wfc_Ry=16, cutoff_rho_Ry=64, kspacing_per_A=0.5, smearing="none")


def rattled(atoms: Atoms, relax: bool = False) -> Atoms:
    atoms.rattle(0.1, seed=1)
    atoms.info["relax"] = relax
    return atoms


CASES = {
    "metal": (METALLIC, rattled(bulk("Al", cubic=True))),
    "relaxed": (FIXED, rattled(bulk("Si"), relax=True)),
    "magnetic alloy": (MAGNETIC, rattled(bulk("NiFe", "cesiumchloride", a=2.9))),
    "isolated atom": (METALLIC, Atoms("Fe", pbc=False)),
}


@pytest.mark.parametrize("name", CASES)
def test_text_is_that_of_a_single_calculation(name: str, pz_family: Any) -> None:
    from aiida.orm import Dict, KpointsData, StructureData
    from aiida_quantumespresso.calculations.pw import PwCalculation

    settings, atoms = CASES[name]
    structure = StructureData(ase=in_box(atoms))
    mesh, offset = kpoints(settings, atoms)
    points = KpointsData()
    points.set_kpoints_mesh(list(mesh), offset=list(offset))
    relax = bool(atoms.info.get("relax", False))
    expected, _ = PwCalculation._generate_pwcp_inputdata(
        Dict(parameters(settings, atoms, relax=relax)),
        {},
        pz_family.get_pseudos(structure=structure),
        structure,
        points,
    )
    # Only the files of the pseudopotentials have other names, in another folder.
    expected = expected.replace("'./pseudo/'", "'../../pseudo/'")
    expected = re.sub(r"^(\w+)( +[\d.]+) \S+$", r"\1\2 \1.UPF", expected, flags=re.M)
    assert input_text(settings, atoms).splitlines() == expected.splitlines()


def test_the_longest_run_comes_first_and_nonsense_never() -> None:
    flat = bulk("Al")
    flat.set_cell(np.zeros((3, 3)))
    relaxing = bulk("Al")
    relaxing.info["relax"] = True
    mirrored = bulk("Al")
    mirrored.set_cell(mirrored.cell.array[::-1])
    squeezed = bulk("Al", cubic=True)
    squeezed.positions[1] = [0.0, 0.0, 0.3]
    structures = [bulk("Al"), flat, bulk("Al", cubic=True), relaxing, Atoms("Al", pbc=False)]
    structures += [mirrored, squeezed, bulk("Al", a=1.5), bulk("Al", a=20.0)]
    plan = plan_batch(METALLIC, structures)
    # The atom's box costs most; eight steps of one atom cost more than one step of four.
    assert plan.order == [4, 3, 2, 0]
    words = {1: "no volume", 5: "left-handed", 6: "0.300 Å apart", 7: "below", 8: "no crystal"}
    assert plan.refused.keys() == words.keys()
    for position, word in words.items():
        assert word in plan.refused[position]
    assert order_text(plan.order) == "000004\n000003\n000002\n000000\n"


def test_the_archive_is_reproducible() -> None:
    content = inputs_archive({3: "three", 0: "zero"})
    assert content == inputs_archive({0: "zero", 3: "three"})
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["000000/pw.in", "000003/pw.in"]
        member = archive.extractfile("000003/pw.in")
        assert member is not None and member.read() == b"three"
