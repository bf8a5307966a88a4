"""The command `mlip-auto`: one file per subcommand, loaded when it is asked for.

A subcommand `NAME` is the click command `NAME` in `aiida_autopipe.cli.NAME`. Errors a user can do
something about end in one line and exit status 1 (2 for a wrong command line, 130 for Ctrl-C);
`--debug` shows the traceback.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import click

from aiida_autopipe import __version__
from aiida_autopipe.cli.commands import USER_PATH
from aiida_autopipe.core.errors import AutopipeError

COMMANDS = (
    "setup",
    "doctor",
    "init",
    "check",
    "run",
    "status",
    "report",
    "generate",
    "data",
    "describe",
    "explore",
    "select",
    "label",
    "fit",
    "evaluate",
    "md",
    "embed",
    "validate",
)

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


class DebugSwitch:
    """Remembers whether `--debug` was given, before or after the subcommand."""

    def __init__(self) -> None:
        self.on = False


def _switch_on(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(DebugSwitch).on = True


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_switch_on,
        help="Show the full traceback of an error.",
    )


class LazyGroup(click.Group):
    """A group that imports a subcommand's module only when the subcommand is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one subcommand, with `--debug` added to its options."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"aiida_autopipe.cli.{cmd_name}")
        command = getattr(module, cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"aiida_autopipe.cli.{cmd_name}.{cmd_name} is not a click command.")
        _add_debug(command, ctx)
        return command


def _add_debug(command: click.Command, ctx: click.Context) -> None:
    """Give a command, and the subcommands of a group, the option `--debug`."""
    if not any(parameter.name == "debug" for parameter in command.params):
        command.params.append(_debug_option())
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            subcommand = command.get_command(ctx, name)
            if subcommand is not None:
                _add_debug(subcommand, ctx)


@click.group(cls=LazyGroup, params=[_debug_option()])
@click.version_option(__version__, prog_name="mlip-auto")
def cli() -> None:
    """From a material and a goal to a validated interatomic potential.

    \b
    Example:
      mlip-auto setup
      mlip-auto run examples/silicon.yaml
    """


def _expected_errors() -> tuple[type[BaseException], ...]:
    """Return the errors that are told in one line; AiiDA's only where AiiDA was imported at all."""
    expected: list[type[BaseException]] = [AutopipeError, OSError]
    exceptions = sys.modules.get("aiida.common.exceptions")
    if exceptions is not None:
        expected.append(exceptions.AiidaException)
    return tuple(expected)


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    `arguments` defaults to the process's own. Errors that are not expected are bugs and propagate.
    """
    switch = DebugSwitch()
    try:
        status = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="mlip-auto",
            standalone_mode=False,
            obj=switch,
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return EXIT_INTERRUPTED
    except _expected_errors() as error:
        if switch.on:
            raise
        for line in _lines(error):
            click.echo(f"Error: {line}", err=True)
        return EXIT_ERROR
    return status if isinstance(status, int) else 0


def _lines(error: BaseException) -> list[str]:
    """One line; our own errors may carry several problems, one a line."""
    texts = str(error).splitlines() if isinstance(error, AutopipeError) else [str(error)]
    lines = [" ".join(text.split()) for text in texts]
    return [line for line in lines if line] or [type(error).__name__]


def put_environment_on_path() -> None:
    """Let AiiDA find `verdi` when the command was called by its path, without activation."""
    scripts = str(Path(sys.executable).parent)
    if scripts not in USER_PATH.split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + USER_PATH


def main() -> None:
    """Entry point of the console script `mlip-auto`."""
    put_environment_on_path()
    # AiiDA makes its folder when it is imported; to the user that is no news.
    warnings.filterwarnings("ignore", "Creating AiiDA configuration folder", UserWarning)
    sys.exit(invoke())
