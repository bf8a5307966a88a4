"""Fixtures that run the real programs: a temporary profile with a daemon, codes, pseudopotentials.

A program that is missing fails the tests that need it: nothing is skipped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiida_autopipe.cli import probe, setup_profile
from aiida_autopipe.cli.main import put_environment_on_path
from aiida_autopipe.engines.espresso.pseudos import candidate_folders, find_debian_folder

# Before anything of AiiDA looks for `verdi`.
put_environment_on_path()

pytest_plugins = "aiida.tools.pytest_fixtures"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of workflows first, which take minutes: of several processes none is left alone."""
    items.sort(key=lambda item: "workflows" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def aiida_profile(aiida_config: Any, aiida_profile_factory: Any) -> Iterator[Any]:
    """A temporary profile with a broker, so that processes can be submitted to a daemon."""
    with aiida_profile_factory(aiida_config, broker_backend="core.zeromq") as profile:
        for option, value in setup_profile.PROFILE_OPTIONS.items():
            # Caching would let one test answer for another.
            if not option.startswith("caching."):
                aiida_config.set_option(option, value, scope=profile.name)
        aiida_config.set_option("daemon.default_workers", 1, scope=profile.name)
        # A daemon whose workers were just killed takes a while to stop.
        aiida_config.set_option("daemon.timeout", 60, scope=profile.name)
        aiida_config.store()
        yield profile


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of the computer `localhost` of this session."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture
def localhost(aiida_profile: Any, scratch: Path) -> Any:
    """The computer `localhost`, polled often."""
    from aiida.orm import load_computer

    setup_profile.ensure_computer(workdir=scratch, poll_interval_s=0.1)
    return load_computer("localhost")


@pytest.fixture
def pw_code(localhost: Any) -> Any:
    """The code pw@localhost."""
    from aiida.orm import load_code

    return load_code(setup_profile.ensure_pw_code(probe.probe_pw().path).name)


@pytest.fixture
def lammps_code(localhost: Any) -> Any:
    """The code lammps@localhost."""
    from aiida.orm import load_code

    program = probe.probe_lammps()
    return load_code(setup_profile.ensure_lammps_code(program.path, program.interface).name)


@pytest.fixture
def python_code(localhost: Any) -> Any:
    """The code python@localhost, the interpreter of this session."""
    from aiida.orm import load_code

    return load_code(setup_profile.ensure_python_code(probe.probe_python().path).name)


@pytest.fixture(scope="session")
def pseudo_folder() -> Path:
    """The folder with Debian's pseudopotentials."""
    folder = find_debian_folder()
    assert folder is not None, f"no pseudopotentials in any of {candidate_folders()}"
    return folder


@pytest.fixture
def pz_family(aiida_profile: Any, pseudo_folder: Path) -> Any:
    """The pseudopotential family autopipe/debian/PZ with its recommended cutoffs."""
    setup_profile.ensure_pseudo_families(pseudo_folder)
    return setup_profile.find_family("autopipe/debian/PZ")
