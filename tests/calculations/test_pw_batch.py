"""`autopipe.pw_batch` with real pw.x: many structures in one job, labelled as one by one."""

from typing import Any, ClassVar

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Computer, Dict, InstalledCode, Int, KpointsData, StructureData
from aiida.plugins import CalculationFactory
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.calculations.pw_batch import _command, slots_of_job
from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.data.dataset import DatasetData
from aiida_autopipe.engines.espresso.pw import (
    PwSettings,
    in_box,
    is_isolated_atom,
    kpoints,
    label_from_output,
    parameters,
)
from aiida_autopipe.testing import OracleContract

SETTINGS = {
    "cutoff_wfc_Ry": 10.0,
    "cutoff_rho_Ry": 40.0,
    "kspacing_per_A": 1.1,
    "kpoints_shift": True,
    "functional": "PZ",
    "scf_threshold_Ry_per_atom": 1e-7,
}
TWO = {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 2}}


def cells() -> list[Atoms]:
    """A rattled cell, one to be relaxed, an atom alone, and a cell without volume."""
    found = [bulk("Si", a=5.4), bulk("Si", a=5.3), Atoms("Si", pbc=False), bulk("Si")]
    for position, atoms in enumerate(found):
        atoms.rattle(0.1, seed=position)
        atoms.info |= {"relax": position == 1, "origin": f"cell {position}"}
    found[3].set_cell(np.zeros((3, 3)))
    return found


def silicon(seed: int) -> Atoms:
    atoms = bulk("Si", a=5.4)
    atoms.rattle(0.1, seed=seed)
    return atoms


class TestContract(OracleContract):
    """What `autopipe.label` relies on."""

    entry_point = "autopipe.pw_batch"
    settings: ClassVar = {**SETTINGS, "scf_threshold_Ry_per_atom": 1e-9}
    other_settings: ClassVar = {**SETTINGS, "smearing_width_Ry": 0.02}
    bad_settings = ({}, {**SETTINGS, "cutof": 3}, {**SETTINGS, "cutoff_wfc_Ry": -1.0})
    good = (silicon(1),)
    to_relax = silicon(3)
    force_components = 2
    # With so few plane waves the energy jumps under strain; test_pw.py has the derivative.
    stress_components = ()

    @pytest.fixture
    def oracle_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {key: inputs[key] for key in ("code", "pseudos", "metadata")}


@pytest.fixture
def inputs(pw_code: Any, pz_family: Any) -> dict[str, Any]:
    return {
        "dataset": DatasetData(Dataset.from_atoms(cells()[:1])),
        "settings": Dict(SETTINGS),
        "code": pw_code,
        "pseudos": pz_family.get_pseudos(elements=("Si",)),
        "metadata": {"options": dict(TWO)},
    }


def run(inputs: dict[str, Any]) -> Any:
    return run_get_node(CalculationFactory("autopipe.pw_batch"), **inputs)


def run_single(inputs: dict[str, Any], atoms: Atoms) -> tuple[Any, Any]:
    """The label of a calculation of its own, and its structure at the end."""
    settings = PwSettings.from_dict(SETTINGS)
    mesh, offset = kpoints(settings, atoms)
    points = KpointsData()
    points.set_kpoints_mesh(list(mesh), offset=list(offset))
    relax = bool(atoms.info["relax"])
    outputs, node = run_get_node(
        CalculationFactory("quantumespresso.pw"),
        code=inputs["code"],
        structure=StructureData(ase=in_box(atoms)),
        kpoints=points,
        parameters=Dict(parameters(settings, atoms, relax=relax)),
        pseudos=inputs["pseudos"],
        metadata={"options": {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1}}},
    )
    assert node.is_finished_ok, node.exit_message
    trajectory = outputs["output_trajectory"]
    label = label_from_output(
        outputs["output_parameters"].get_dict(),
        trajectory.get_array("forces")[-1],
        trajectory.get_array("stress")[-1],
        is_isolated_atom(atoms),
    )
    return label, outputs["output_structure"].get_ase() if relax else in_box(atoms)


def test_labels_are_those_of_single_calculations(inputs: dict[str, Any]) -> None:
    inputs["dataset"] = DatasetData(Dataset.from_atoms(cells()))
    outputs, node = run(inputs)
    assert node.is_finished_ok, node.exit_message
    outcomes = outputs["outcomes"]["outcomes"]
    assert [entry["outcome"] for entry in outcomes] == ["ok", "ok", "ok", "failed"]
    assert [entry["position"] for entry in outcomes] == [0, 1, 2, 3]
    assert "no volume" in outcomes[3]["reason"]
    assert all(entry["seconds"] > 0 for entry in outcomes[:3])

    labelled = outputs["labelled"].get_dataset()
    assert labelled.columns["position"].tolist() == [0, 1, 2]
    assert labelled.columns["origin"].tolist() == ["cell 0", "cell 1", "cell 2"]
    pseudos = {"Si": inputs["pseudos"]["Si"].md5}
    assert labelled.attributes["method"]["pseudos"] == pseudos
    for position, atoms in enumerate(cells()[:3]):
        expected, structure = run_single(inputs, atoms)
        found = labelled.labels(position)
        # The same digits: the same input, the same program, the same units. AiiDA keeps 14.
        assert found.energy == pytest.approx(expected.energy, rel=1e-13, abs=0)
        np.testing.assert_array_equal(found.forces, expected.forces)
        if is_isolated_atom(atoms):
            assert found.stress is None
            continue
        # Of a relaxation aiida-quantumespresso has only the stress that stdout prints.
        tolerance = 5e-7 if atoms.info["relax"] else 0.0
        np.testing.assert_allclose(found.stress, expected.stress, rtol=0, atol=tolerance)
        np.testing.assert_allclose(
            labelled.atoms(position).positions, structure.positions, rtol=0, atol=1e-13
        )
    # Each structure's files are kept, and no wavefunctions.
    names = outputs["retrieved"].list_object_names("results")
    assert names == ["000000.tgz", "000001.tgz", "000002.tgz"]
    assert "runs" in outputs["remote_folder"].listdir()
    assert "out" not in outputs["remote_folder"].listdir("runs/000000")


def test_a_job_that_is_too_short(inputs: dict[str, Any]) -> None:
    supercell = bulk("Si", cubic=True)
    supercell.rattle(0.1, seed=1)
    inputs["dataset"] = DatasetData(Dataset.from_atoms([supercell * (2, 2, 1)] * 3))
    inputs["metadata"]["options"]["max_wallclock_seconds"] = 2
    outputs, node = run(inputs)
    assert node.exit_status == 401
    assert "3 of 3 structures" in node.exit_message
    outcomes = outputs["outcomes"]["outcomes"]
    assert {entry["outcome"] for entry in outcomes} == {"not_run"}
    assert sum("was stopped while it ran" in entry["reason"] for entry in outcomes) == 2
    assert "labelled" not in outputs


def test_a_program_that_is_not_there(inputs: dict[str, Any], localhost: Any) -> None:
    inputs["code"] = InstalledCode(
        label="nowhere", computer=localhost, filepath_executable="/nowhere/pw.x"
    ).store()
    outputs, node = run(inputs)
    assert node.exit_status == 301
    assert "/nowhere/pw.x" in node.exit_message
    assert outputs["outcomes"]["outcomes"][0]["outcome"] == "not_run"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": Dict}, "Incomplete pw.x settings"),
        ({"pseudos": dict}, "no pseudopotential for Si"),
        ({"slots": lambda: Int(0)}, "must be at least 1, not 0"),
        ({"ranks": lambda: Int(2)}, "2 ranks per structure need MPI"),
        ({"structure_seconds": lambda: Int(-5)}, "must be at least 1, not -5"),
        ({"metadata": lambda: {"options": {**TWO, "append_text": "ls"}}}, "append_text would run"),
        ({"metadata": lambda: {"options": {"resources": {"num_machines": 2}}}}, "only srun"),
    ],
)
def test_bad_inputs_are_refused_before_submission(
    inputs: dict[str, Any], changes: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run({**inputs, **{name: make() for name, make in changes.items()}})


def test_an_empty_dataset_is_refused(inputs: dict[str, Any]) -> None:
    inputs["dataset"] = DatasetData(Dataset.from_atoms(cells())[:0])
    with pytest.raises(ValueError, match="contains no structures"):
        run(inputs)


def cluster(scheduler: str, mpirun: str) -> Computer:
    computer = Computer(
        label=f"cluster {scheduler}",
        hostname="cluster",
        transport_type="core.local",
        scheduler_type=scheduler,
        workdir="/scratch",
    )
    computer.set_mpirun_command(mpirun.split())
    return computer


def test_slots_and_commands_with_mpi(aiida_profile: Any) -> None:
    slurm = cluster("core.slurm", "srun -n {tot_num_mpiprocs}")
    code = InstalledCode(label="pw", computer=slurm, filepath_executable="/opt/it's/pw.x")
    options: dict[str, Any] = {
        "resources": {"num_machines": 2, "num_mpiprocs_per_machine": 9},
        "withmpi": True,
    }
    # Nine processes are two structures of four ranks on each machine.
    assert slots_of_job(slurm, code, options, 4) == 4
    assert _command(slurm, code, options, 4) == (
        "'srun' '--exact' '--nodes=1' '-n' '4' '/opt/it'\"'\"'s/pw.x' '-in' 'pw.in'"
    )
    with pytest.raises(InputError, match="10 ranks, but the job has 9 processes"):
        slots_of_job(slurm, code, options, 10)
    with pytest.raises(InputError, match=r"resources .* unusable"):
        slots_of_job(slurm, code, {"resources": {"num_machines": 0}}, 1)

    local = cluster("core.direct", "mpirun -np {tot_num_mpiprocs}")
    # The code's word on MPI counts more than the option.
    code = InstalledCode(label="pw", computer=local, filepath_executable="/opt/pw.x", with_mpi=True)
    assert _command(local, code, {**TWO, "withmpi": False}, 2) == (
        "'mpirun' '-np' '2' '/opt/pw.x' '-in' 'pw.in'"
    )
    assert slots_of_job(local, code, dict(TWO), 1) == 2
