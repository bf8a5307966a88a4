"""The parser of `autopipe.pw_batch`, on the files of real runs of pw.x, complete and damaged."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.dataset import Dataset
from aiida_autopipe.engines.espresso import batch
from aiida_autopipe.engines.espresso.pw import PwSettings

Files = dict[str, bytes]
Parse = Callable[..., tuple[dict[str, Any], Any]]

# With fixed occupations the aluminium atom, with its three electrons, cannot be run.
SETTINGS = {
    "cutoff_wfc_Ry": 10.0,
    "cutoff_rho_Ry": 40.0,
    "kspacing_per_A": 1.2,
    "smearing": "none",
    "scf_threshold_Ry_per_atom": 1e-6,
}


def structures() -> list[Atoms]:
    cells = [bulk("Si", a=5.4), bulk("Al"), bulk("Si", a=5.3)]
    for seed, atoms in enumerate(cells):
        atoms.rattle(0.1, seed=seed)
        atoms.info["origin"] = f"cell {seed}"
    return cells


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, pseudo_folder: Path) -> Files:
    """What a job retrieves whose second of three structures fails."""
    folder = tmp_path_factory.mktemp("batch")
    plan = batch.plan_batch(PwSettings.from_dict(SETTINGS), structures())
    (folder / batch.INPUTS_FILE).write_bytes(batch.inputs_archive(plan.inputs))
    (folder / batch.ORDER_FILE).write_text(batch.order_text(plan.order))
    (folder / batch.PSEUDO_FOLDER).mkdir()
    for name in ("Si.pz-vbc.UPF", "Al.pz-vbc.UPF"):
        target = folder / batch.PSEUDO_FOLDER / batch.pseudo_file(name[:2])
        target.write_bytes((pseudo_folder / name).read_bytes())
    command = ["sh", str(batch.SCRIPT), "1", "0", "0", "--", "pw.x", "-in", batch.INPUT_FILE]
    subprocess.run(command, cwd=folder, check=True)
    names = [folder / batch.LOG_FILE, *folder.glob(batch.RESULTS)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


@pytest.fixture
def parse(parse_job: Any, pz_family: Any) -> Parse:
    """Parse retrieved files as the engine would; returns outputs and the exit code."""
    from aiida.orm import Dict, Int

    from aiida_autopipe.data.dataset import DatasetData

    def run(
        files: Files,
        scheduler_status: int | None = None,
        refused: dict[str, str] | None = None,
        cells: list[Atoms] | None = None,
    ) -> tuple[dict[str, Any], Any]:
        inputs = {
            "dataset": DatasetData(Dataset.from_atoms(structures() if cells is None else cells)),
            "settings": Dict(SETTINGS),
            "structure_seconds": Int(7),
        }
        for element, pseudo in pz_family.get_pseudos(elements=("Si", "Al")).items():
            inputs[f"pseudos__{element}"] = pseudo
        own = {batch.REFUSED_FILE: json.dumps(refused or {}).encode()}
        found: tuple[dict[str, Any], Any] = parse_job(
            "autopipe.pw_batch", inputs, files, scheduler_status, own
        )
        return found

    return run


def kinds(outputs: dict[str, Any]) -> list[str]:
    outcomes = outputs["outcomes"]["outcomes"]
    assert [entry["position"] for entry in outcomes] == list(range(len(outcomes)))
    return [entry["outcome"] for entry in outcomes]


def test_a_failed_structure_does_not_fail_the_job(parse: Parse, files: Files) -> None:
    outputs, code = parse(files)
    assert code is None
    assert kinds(outputs) == ["ok", "failed", "ok"]
    good, bad, _ = outputs["outcomes"]["outcomes"]
    assert good["reason"] is None and good["exit_status"] == 0 and good["seconds"] > 0
    assert "smearing is needed" in bad["reason"] and bad["exit_status"]
    labelled = outputs["labelled"].get_dataset()
    assert labelled.columns["position"].tolist() == [0, 2]
    assert labelled.columns["origin"].tolist() == ["cell 0", "cell 2"]
    assert labelled.labelled and np.isfinite(labelled.stress).all()
    assert set(labelled.attributes["method"]["pseudos"]) == {"Al", "Si"}


def test_a_job_killed_in_the_middle_keeps_what_was_complete(parse: Parse, files: Files) -> None:
    left = {name: content for name, content in files.items() if "000002" not in name}
    left["results/000001.tgz"] = files["results/000001.tgz"][:100]
    outputs, code = parse(left)
    assert code.status == 401
    assert "2 of 3 structures" in code.message
    assert kinds(outputs) == ["ok", "not_run", "not_run"]
    _, cut, missing = outputs["outcomes"]["outcomes"]
    assert "cannot be read" in cut["reason"] and "ended before its turn" in missing["reason"]
    assert len(outputs["labelled"].get_dataset()) == 1


def test_the_schedulers_word_comes_first(parse: Parse, files: Files) -> None:
    outputs, code = parse({}, scheduler_status=120)
    assert code.status == 120
    assert kinds(outputs) == ["not_run"] * 3 and "labelled" not in outputs
    outputs, code = parse(files, scheduler_status=110)
    assert code.status == 110 and kinds(outputs) == ["ok", "failed", "ok"]


def test_a_job_that_left_nothing(parse: Parse) -> None:
    outputs, code = parse({"_scheduler-stderr.txt": b"sh: tar:\n not found"})
    assert code.status == 302
    assert "batch.log is missing. sh: tar: not found" in code.message
    assert kinds(outputs) == ["not_run"] * 3


def test_a_program_that_never_started_is_not_the_structures_fault(
    parse: Parse, files: Files
) -> None:
    broken = rewritten(files, **{"pw.out": b"", "pw.err": b"pw.x: not found", "status": b"127"})
    outputs, code = parse(broken)
    assert code.status == 301
    assert "any of 3 structures" in code.message and "pw.x: not found" in code.message
    assert kinds(outputs) == ["not_run"] * 3


def test_refused_structures_fail_and_the_job_does_not(parse: Parse, files: Files) -> None:
    outputs, code = parse(files, refused={"1": "It has no volume."})
    assert code is None and kinds(outputs) == ["ok", "failed", "ok"]
    assert outputs["outcomes"]["outcomes"][1]["reason"] == "It has no volume."
    all_refused = {str(position): "No." for position in range(3)}
    outputs, code = parse({batch.LOG_FILE: b"finished"}, refused=all_refused)
    assert code is None and kinds(outputs) == ["failed"] * 3


@pytest.mark.parametrize(
    ("changes", "outcome", "status", "reason"),
    [
        ({"data-file-schema.xml": b"<espresso>"}, "failed", 321, "is damaged"),
        ({"data-file-schema.xml": None}, "failed", 303, "output lost"),
        ({"pw.out": b"Program PWSCF", "data-file-schema.xml": None}, "failed", 305, "output lost"),
        ({"pw.out": b"Program PWSCF"}, "failed", 312, "output lost"),
        ({"status": b"137", "pw.out": b"Program PWSCF"}, "failed", 312, "killed (return code 137)"),
        ({"ended": b"timeout", "pw.out": b"Program PWSCF"}, "failed", 400, "the limit of 7 s"),
        ({"ended": b"stopped", "pw.out": b"Program PWSCF"}, "not_run", None, "was stopped"),
        # It was done just before the job was ended.
        ({"ended": b"stopped"}, "ok", 0, ""),
    ],
)
def test_what_a_single_run_may_leave(
    parse: Parse, files: Files, changes: Any, outcome: str, status: int | None, reason: str
) -> None:
    outputs, _ = parse(rewritten(files, only="000002", **changes))
    entry = outputs["outcomes"]["outcomes"][2]
    assert (entry["outcome"], entry["exit_status"]) == (outcome, status), entry
    assert reason in (entry["reason"] or "")


def test_scf_that_does_not_converge(parse: Parse, files: Files) -> None:
    changes = ("convergence has been achieved in", "convergence NOT achieved after")
    outputs, _ = parse(rewritten(files, only="000002", replace=changes))
    assert outputs["outcomes"]["outcomes"][2]["exit_status"] == 410


def test_a_relaxation_that_ended_with_forces(parse: Parse, files: Files) -> None:
    cells = structures()
    for atoms in cells:
        atoms.info["relax"] = True
    outputs, _ = parse(files, cells=cells)
    assert outputs["outcomes"]["outcomes"][2]["exit_status"] == 500


def test_labels_that_are_no_numbers(parse: Parse, files: Files) -> None:
    outputs, _ = parse(rewritten(files, only="000002", replace=("<etot>", "<etot>nan ")))
    entry = outputs["outcomes"]["outcomes"][2]
    assert entry["outcome"] == "failed" and "not a finite number" in entry["reason"]


def rewritten(
    files: Files, only: str = "", replace: tuple[str, str] | None = None, **changes: bytes | None
) -> Files:
    """The archives with other contents; `ended` and `status` change the record of the run."""
    import io
    import tarfile

    result = dict(files)
    for name in (n for n in files if n.startswith("results/") and only in n):
        buffer = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(files[name])) as source,
            tarfile.open(fileobj=buffer, mode="w:gz") as target,
        ):
            for member in source.getmembers():
                handle = source.extractfile(member)
                content = changes.get(member.name, b"" if handle is None else handle.read())
                if content is None:
                    continue
                if member.name == "outcome":
                    lines = (line.split(b" ", 1) for line in content.splitlines())
                    content = b"".join(
                        key + b" " + (changes.get(key.decode()) or value) + b"\n"
                        for key, value in lines
                    )
                if replace is not None:
                    content = content.replace(replace[0].encode(), replace[1].encode())
                member.size = len(content)
                target.addfile(member, io.BytesIO(content))
        result[name] = buffer.getvalue()
    return result
