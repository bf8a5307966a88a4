"""Runs in any state, made from real inputs without being calculated."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiida_autopipe.cli import setup_profile

SILICON = "material: Si\ngoal: elastic\nprotocol: fast\n"


@pytest.fixture
def programs(localhost: Any, request: pytest.FixtureRequest) -> None:
    """Everything a run needs from AiiDA; what an earlier test has made is not probed again."""
    for label in ("pw", "lammps", "python"):
        if setup_profile.find_code(label) is None:
            request.getfixturevalue(f"{label}_code")
    if setup_profile.find_family("autopipe/debian/PZ") is None:
        request.getfixturevalue("pz_family")


@pytest.fixture
def input_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Path:
    """An input of its own for each test, by its name in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = Path(f"{request.node.originalname.removeprefix('test_')}.yaml")
    seed = sum(map(ord, request.node.name))
    path.write_text(f"{SILICON}seed: {seed}\n")
    return path


@pytest.fixture
def make_run(programs: None, input_file: Path) -> Iterator[Callable[..., Any]]:
    """A run of the input file that is in a state, without having been there."""
    from aiida.engine.utils import instantiate_process
    from aiida.manage import get_manager

    from aiida_autopipe.config.expand import load_config
    from aiida_autopipe.workflows.launch import prepare

    made = []

    def make(state: str, status: int | None = None, message: str | None = None) -> Any:
        launch = prepare(*load_config(input_file))
        node = instantiate_process(get_manager().get_runner(), launch.builder).node
        set_state(node, state, status, message)
        made.append(node)
        return node

    yield make
    for node in made:
        if not node.is_terminated:
            node.set_process_state("killed")


def set_state(node: Any, state: str, status: int | None = None, message: str | None = None) -> None:
    """Put a process into a state; an excepted one has the message as its exception."""
    node.set_process_state(state)
    if status is not None:
        node.set_exit_status(status)
    if message is not None:
        (node.set_exception if state == "excepted" else node.set_exit_message)(message)
