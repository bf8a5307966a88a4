"""The command as a user types it: help, one-line errors, exit status, lazy imports."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from aiida_autopipe import __version__
from aiida_autopipe.cli import main
from aiida_autopipe.core.errors import InputError


@pytest.fixture
def failing_command(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """Make `mlip-auto setup` raise the error put into the list."""
    errors: list[BaseException] = []

    @click.command()
    def setup() -> None:
        raise errors[0]

    from aiida_autopipe.cli import setup as module

    monkeypatch.setattr(module, "setup", setup)
    yield errors


def test_help_lists_every_command_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.invoke(["--help"]) == 0
    text = capsys.readouterr().out
    for command in main.COMMANDS:
        assert f"\n  {command} " in text


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.invoke([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "mlip-auto" in text and "xample" in text
    assert "--debug" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.invoke(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_help_imports_neither_aiida_nor_numba(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from aiida_autopipe.cli.main import invoke\n"
        "assert invoke(['--help']) == 0\n"
        "print(sorted({'aiida', 'numba', 'plotly'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [["nonsense"], ["setup", "--nonsense"]])
def test_wrong_command_line_exits_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.invoke(arguments) == 2
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [InputError("Temperature  -3 K is negative."), FileNotFoundError(2, "No such file", "x")],
)
def test_expected_error_is_one_line_and_exit_1(
    error: Exception,
    failing_command: list[BaseException],
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing_command.append(error)
    assert main.invoke(["setup"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("Error: ") and text.count("\n") == 1


def test_several_problems_are_one_line_each(
    failing_command: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_command.append(InputError("no pw.x\nno pseudopotential for Ba"))
    assert main.invoke(["setup"]) == 1
    assert capsys.readouterr().err == "Error: no pw.x\nError: no pseudopotential for Ba\n"


def test_aiida_error_is_one_line(
    failing_command: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    from aiida.common.exceptions import NotExistent

    failing_command.append(NotExistent("no such node"))
    assert main.invoke(["setup"]) == 1
    assert capsys.readouterr().err == "Error: no such node\n"


@pytest.mark.parametrize("arguments", [["--debug", "setup"], ["setup", "--debug"]])
def test_debug_shows_the_traceback(
    arguments: list[str], failing_command: list[BaseException]
) -> None:
    failing_command.append(InputError("wrong"))
    with pytest.raises(InputError, match="wrong"):
        main.invoke(arguments)


def test_a_bug_is_not_hidden(failing_command: list[BaseException]) -> None:
    failing_command.append(ZeroDivisionError("bug"))
    with pytest.raises(ZeroDivisionError):
        main.invoke(["setup"])


def test_interrupt_exits_130(
    failing_command: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_command.append(KeyboardInterrupt())
    assert main.invoke(["setup"]) == main.EXIT_INTERRUPTED
    assert capsys.readouterr().err.strip() == "Interrupted."
