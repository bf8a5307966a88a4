"""`summary.json` and the files on disk."""

import json

import pytest

from aiida_autopipe.report.summary import summary
from aiida_autopipe.report.write import write_report


def test_summary_file(report, tmp_path, file_regression):
    paths = write_report(report, tmp_path / "runs" / "silicon")
    assert {name: path.name for name, path in paths.items()} == {
        "report": "report.html",
        "summary": "summary.json",
    }
    file_regression.check(paths["summary"].read_text(encoding="utf-8"), extension=".json")


def test_promised_keys(report):
    result = summary(report)
    assert result["generations"] == 3
    assert {"requested", "ok", "rejected"} <= result["labels"].keys()
    assert {"stop_reason", "wall_seconds", "files"} <= result.keys()
    errors = {
        "energy_mae_per_atom",
        "energy_rmse_per_atom",
        "forces_mae",
        "forces_rmse",
        "stress_mae",
    }
    assert {split: set(values) for split, values in result["metrics"].items()} == {
        "train": errors,
        "test": errors,
    }
    row = {"name", "potential", "reference", "unit", "relative_error", "passed"}
    assert all(row <= entry.keys() for entry in result["validation"])


def test_nan_is_null_and_never_passes(report_factory, report, tmp_path):
    rows = [report.validation[0].model_copy(update={"potential": float("nan"), "passed": True})]
    bad = report_factory(validation=rows, wall_seconds=float("inf"), generations=[])
    text = write_report(bad, tmp_path)["summary"].read_text(encoding="utf-8")
    result = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert result["wall_seconds"] is None
    assert result["metrics"]["test"]["forces_rmse"] is None
    assert result["validation"][0]["potential"] is None
    assert result["validation"][0]["passed"] is False
    assert result["validation"][0]["checked"] is False


def test_files_name_report_and_summary(report, tmp_path):
    paths = write_report(report, tmp_path)
    files = json.loads(paths["summary"].read_text(encoding="utf-8"))["files"]
    assert files["yace"] == "potential.yace"
    assert files["report"] == "report.html"
    assert 'href="./summary.json"' in paths["report"].read_text(encoding="utf-8")


def test_writing_again_replaces_and_leaves_nothing_behind(report, report_factory, tmp_path):
    write_report(report, tmp_path)
    write_report(report_factory(name="second"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["name"] == "second"


def test_failed_write_leaves_no_temporary_file(report, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError):
        write_report(report, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
