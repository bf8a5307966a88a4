import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.testing import OracleContract

EMT = "ase.calculators.emt.EMT"
LJ = "ase.calculators.lj.LennardJones"
ODD = "odd_calculators.Odd"
ARGON = {"sigma": 3.4, "epsilon": 0.0104, "rc": 7.0, "smooth": True}
REFERENCE = Path(__file__).parents[1] / "reference"


def copper(seed: int, amplitude: float = 0.1) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(amplitude, seed=seed)
    return atoms


argon = bulk("Ar", "fcc", a=5.1, cubic=True)
argon.rattle(0.1, seed=4)


class TestEmt(OracleContract):
    entry_point = "autopipe.ase"
    settings: ClassVar = {"calculator": EMT}
    other_settings: ClassVar = {"calculator": EMT, "keywords": {"asap_cutoff": True}}
    bad_settings = (
        {},
        {"calculator": "os; rm"},
        {"calculator": EMT, "keyword": {}},
        {"calculator": EMT, "force_threshold": 0.0},
    )
    good = (copper(1), copper(2), bulk("Cu") * (2, 1, 1))
    to_relax = copper(3)
    isolated = Atoms("Cu")

    @pytest.fixture
    def oracle_inputs(self, python_code: Any) -> dict[str, Any]:
        return {"code": python_code}


class TestLennardJones(OracleContract):
    """Two slots, a shear stress, and a relaxation of a molecule."""

    entry_point = "autopipe.ase"
    settings: ClassVar = {"calculator": LJ, "keywords": ARGON, "force_threshold": 0.001}
    other_settings: ClassVar = {"calculator": LJ, "keywords": {**ARGON, "epsilon": 0.02}}
    bad_settings = ({"calculator": LJ, "keywords": {"rc": "${HOME}", "a-b": 1}},)
    good = (argon,)
    to_relax = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.6]])
    relaxed_force = 0.001
    isolated = Atoms("Ar")
    stress_components = (2, 3)

    @pytest.fixture
    def oracle_inputs(self, python_code: Any) -> dict[str, Any]:
        from aiida.orm import Int

        return {"code": python_code, "slots": Int(2)}


def run(code: Any, structures: list[Atoms], settings: dict[str, Any], **inputs: Any) -> Any:
    from aiida.engine import run_get_node
    from aiida.orm import Dict
    from aiida.plugins import CalculationFactory

    from aiida_autopipe.data.dataset import DatasetData

    troubles = [str(atoms.info.get("trouble", "")) for atoms in structures]
    data = Dataset.from_atoms(structures, columns={"trouble": troubles})
    process = CalculationFactory("autopipe.ase")
    settings_node, dataset = Dict(settings), DatasetData(data)
    return run_get_node(process, code=code, dataset=dataset, settings=settings_node, **inputs)


def troubled(trouble: str, size: int) -> Atoms:
    atoms = Atoms(f"H{size}", positions=[[k, 0, 0] for k in range(1, size + 1)])
    atoms.info["trouble"] = trouble
    return atoms


def with_reference_path() -> dict[str, Any]:
    line = f"export PYTHONPATH={REFERENCE}"
    return {"options": {"prepend_text": line, "max_wallclock_seconds": 600}}


def test_a_job_that_is_killed_keeps_its_labels(python_code: Any) -> None:
    structures = [troubled("", 5), troubled("abort", 4), troubled("kill_job", 3), troubled("", 2)]
    outputs, node = run(
        python_code, structures, {"calculator": ODD}, metadata=with_reference_path()
    )
    assert node.exit_status == 401
    assert "2 of 4 structures" in node.exit_message
    outcomes = outputs["outcomes"]["outcomes"]
    assert [o["outcome"] for o in outcomes] == ["ok", "failed", "not_run", "not_run"]
    assert outcomes[1]["exit_status"] == -6
    assert "was being calculated when the job stopped" in outcomes[2]["reason"]
    assert outputs["labelled"].get_dataset().columns["position"].tolist() == [0]


def test_a_calculator_that_is_not_installed(python_code: Any) -> None:
    outputs, node = run(python_code, [Atoms("Cu")], {"calculator": "tblite_missing.ase.TBLite"})
    assert node.exit_status == 201
    assert "tblite_missing.ase.TBLite cannot be imported: No module" in node.exit_message
    assert [o["outcome"] for o in outputs["outcomes"]["outcomes"]] == ["not_run"]


def test_what_the_job_gets(python_code: Any, tmp_path: Path) -> None:
    """Slots from the resources, and an end of its own before the scheduler's."""
    from aiida.orm import Dict
    from aiida.plugins import CalculationFactory

    from aiida_autopipe.data.dataset import DatasetData

    process = CalculationFactory("autopipe.ase")
    inputs = {
        "code": python_code,
        "dataset": DatasetData(Dataset.from_atoms([copper(1)])),
        "settings": Dict({"calculator": EMT}),
    }
    options = {
        "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 2},
        "max_wallclock_seconds": 100,
    }
    job, files = prepared(process, {**inputs, "metadata": {"options": options}}, tmp_path / "a")
    assert (job["slots"], job["max_seconds"]) == (2, 95.0)
    programs = {"oracle_job.py", "oracle_pyscf.py", "oracle_worker.py"}
    assert files == {"job.json", "structures.jsonl", *programs}
    options = {"resources": {"num_machines": 2, "tot_num_mpiprocs": 8}}
    job, _ = prepared(process, {**inputs, "metadata": {"options": options}}, tmp_path / "b")
    assert (job["slots"], job["max_seconds"]) == (4, None)


def prepared(process: Any, inputs: dict[str, Any], path: Path) -> tuple[dict[str, Any], set[str]]:
    """The files that a CalcJob would upload."""
    from aiida.common.folders import Folder
    from aiida.engine.utils import instantiate_process
    from aiida.manage import get_manager

    path.mkdir()
    calculation = instantiate_process(get_manager().get_runner(), process, **inputs)
    calculation.prepare_for_submission(Folder(str(path)))
    job = json.loads((path / "job.json").read_text())
    return job, {found.name for found in path.iterdir()}


@pytest.mark.parametrize(("name", "value"), [("slots", 0), ("slots", -3)])
def test_slots_must_be_positive(python_code: Any, name: str, value: int) -> None:
    from aiida.orm import Int

    with pytest.raises(ValueError, match=f"slots must be at least 1, not {value}"):
        run(python_code, [Atoms("Cu")], {"calculator": EMT}, **{name: Int(value)})
