"""`mlip-auto doctor`: real codes that work, and codes that do not."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from aiida.manage.caching import enable_caching, get_use_cache
from aiida.orm import CalcJobNode, InstalledCode, QueryBuilder, load_node

from aiida_autopipe.cli import main
from aiida_autopipe.workflows.past_labels import past_labels


def invoke(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main.invoke(["doctor", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def broken_pw(tmp_path: Path, localhost: Any, pz_family: Any) -> InstalledCode:
    """A pw.x that ends at once."""
    program = tmp_path / "pw.x"
    program.write_text("#!/bin/sh\necho 'error while loading shared libraries' >&2\nexit 127\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return InstalledCode(
        label=f"broken-{tmp_path.name}",
        computer=localhost,
        filepath_executable=str(program),
        default_calc_job_plugin="quantumespresso.pw",
        with_mpi=False,
    ).store()


def test_codes_that_work(
    pw_code: Any, lammps_code: Any, python_code: Any, pz_family: Any, capsys: Any
) -> None:
    labels = [code.full_label for code in (pw_code, lammps_code, python_code)]
    known = len(past_labels())
    status, out, _ = invoke(capsys, "--json", *labels)
    findings = json.loads(out)["codes"]
    assert [(f["code"], f["ok"]) for f in findings] == [(label, True) for label in labels], findings
    assert status == 0
    details = [f["detail"] for f in findings]
    assert "eV/atom" in details[0] and "20 steps" in details[1] and "functions" in details[2]
    # Done by each code itself, and not taken from a calculation of before.
    for finding, code in zip(findings, (pw_code, lammps_code, python_code), strict=True):
        node = load_node(finding["pk"])
        jobs = [n for n in [node, *node.called_descendants] if isinstance(n, CalcJobNode)]
        assert [job.inputs.code.uuid for job in jobs] == [code.uuid]
        assert not jobs[0].base.caching.is_created_from_cache
    # Two atoms say nothing about the cost of real labels.
    assert len(past_labels()) == known


def test_a_code_that_does_not_work(broken_pw: InstalledCode, capsys: Any) -> None:
    label = str(broken_pw.full_label)
    status, out, err = invoke(capsys, label)
    assert (status, err) == (1, "")
    line, hint = out.splitlines()
    assert line.startswith(f"[FAILED] {label}: ")
    assert "process report" in hint
    # What failed leaves the cache of this process as it was.
    with enable_caching(identifier="aiida.calculations:quantumespresso.pw"):
        assert get_use_cache(identifier="aiida.calculations:quantumespresso.pw")


def test_a_program_that_is_gone(broken_pw: InstalledCode, capsys: Any) -> None:
    Path(str(broken_pw.filepath_executable)).unlink()
    before = QueryBuilder().append(CalcJobNode).count()
    status, out, _ = invoke(capsys, str(broken_pw.full_label))
    assert status == 1
    assert "is not an executable file" in out and out.count("\n") == 1
    assert QueryBuilder().append(CalcJobNode).count() == before


def test_wrong_names(aiida_profile: Any, localhost: Any, capsys: Any) -> None:
    status, _, err = invoke(capsys, "pw@nowhere")
    assert status == 1 and "no code 'pw@nowhere'" in err and err.count("\n") == 1
    InstalledCode(label="echo", computer=localhost, filepath_executable="/bin/echo").store()
    status, _, err = invoke(capsys, "echo@localhost")
    assert status == 1 and "is for no plugin; there is a check for codes of" in err
