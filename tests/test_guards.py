"""Guards on the repository itself: layers, entry points, exit codes, tracked files, hooks."""

import ast
import re
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GROUPS = ("aiida.calculations", "aiida.data", "aiida.parsers", "aiida.workflows")
LARGEST_BYTES = 500_000
BUILD_OUTPUT = re.compile(r"\.pyc$|(^|/)(__pycache__|_build|dist|build|\.venv[^/]*)/|\.egg-info/")


def ours(group: str) -> list[EntryPoint]:
    return [point for point in entry_points(group=group) if point.name.startswith("autopipe.")]


def tracked_files() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in done.stdout.split("\0") if name]


@pytest.mark.parametrize("package", ["core", "config", "engines", "report"])
def test_science_knows_neither_aiida_nor_click(package: str, tmp_path: Path) -> None:
    code = f"""
import importlib, pkgutil, sys
package = importlib.import_module("aiida_autopipe.{package}")
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print(sorted({{"aiida", "click"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "point", [point for group in GROUPS for point in ours(group)], ids=lambda point: point.value
)
def test_every_entry_point_loads(point: EntryPoint) -> None:
    assert point.load() is not None


@pytest.mark.parametrize("name", ["autopipe-lammps", "mlip-auto"])
def test_console_scripts_load(name: str) -> None:
    (point,) = (point for point in entry_points(group="console_scripts") if point.name == name)
    assert callable(point.load())


def test_entry_points_are_sorted() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for block in re.findall(
        r"^\[project\.(?:entry-points[^]]*|scripts)\]\n((?:.+\n)+)", text, re.M
    ):
        names = [line.split("=")[0].strip() for line in block.splitlines()]
        assert names == sorted(names)


@pytest.mark.parametrize(
    "point",
    [*ours("aiida.calculations"), *ours("aiida.workflows")],
    ids=lambda point: point.name,
)
def test_exit_codes_are_unique_named_and_in_range(point: EntryPoint) -> None:
    loaded: Any = point.load()
    spec = loaded.spec()
    # A calcfunction is a function that carries its process class.
    process = loaded if isinstance(loaded, type) else loaded.process_class
    statuses = [code.status for code in spec.exit_codes.values()]
    assert len(statuses) == len(set(statuses))
    inherited = {
        code.status
        for parent in process.__mro__[1:]
        if hasattr(parent, "spec") and not parent.__module__.startswith("aiida_autopipe.")
        for code in getattr(parent.spec(), "exit_codes", {}).values()
    }
    for label, code in spec.exit_codes.items():
        if code.status not in inherited:
            assert 200 <= code.status <= 499, label
            assert label.startswith(("ERROR_", "WARNING_"))
            assert code.message


def test_no_large_file_and_no_build_output_is_tracked() -> None:
    present = [name for name in tracked_files() if (ROOT / name).is_file()]
    assert [name for name in present if (ROOT / name).stat().st_size > LARGEST_BYTES] == []
    assert [name for name in present if BUILD_OUTPUT.search(name)] == []


def test_every_pre_commit_pattern_matches_a_file() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    names = tracked_files()
    assert names
    for repo in config["repos"]:
        for hook in repo["hooks"]:
            for key in ("files", "exclude"):
                if key in hook:
                    assert any(re.search(hook[key], name) for name in names), (hook["id"], key)


def test_constraints_pin_every_version() -> None:
    for name in ("constraints.txt", "constraints-qepy.txt"):
        lines = (ROOT / name).read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert pins
        assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==\S+", line)] == []


def test_work_chains_notice_when_a_calculation_function_fails() -> None:
    """A bare call of a function that ended with an exit code gives an empty dictionary."""
    workflows = ROOT / "src" / "aiida_autopipe" / "workflows"
    bare = []
    for path in sorted(workflows.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and node.module == "aiida_autopipe.calculations.functions"
            for alias in node.names
        }
        bare += [
            f"{path.name}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in functions
        ]
    assert not bare, f"use workflows.functions.call: {bare}"
