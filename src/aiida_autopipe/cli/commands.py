"""Commands to type next, written so that they work when they are pasted into the user's shell."""

import os
import shlex
import shutil
import sys
from pathlib import Path

USER_PATH = os.environ.get("PATH", os.defpath)
"""PATH of the user's shell; `put_environment_on_path` extends that of this process later."""


def verdi_command(*arguments: object) -> str:
    """AiiDA's command in the loaded profile, such as `verdi -p autopipe process kill 12`."""
    from aiida.manage.configuration import get_profile

    profile = get_profile()
    named = [] if profile is None else ["-p", profile.name]
    return _command(["AIIDA_PATH"], _beside_python("verdi"), *named, *arguments)


def mlip_auto_command(*arguments: object) -> str:
    """Our own command, by the path it was called by unless the shell finds it by its name."""
    program = _beside_python("mlip-auto")
    if program != "mlip-auto" and Path(sys.argv[0]).name == "mlip-auto":
        program = sys.argv[0]
    return _command(["AIIDA_PATH", "AIIDA_PROFILE"], program, *arguments)


def _beside_python(name: str) -> str:
    """The name alone where the user's shell finds this environment's program by it."""
    program = Path(sys.executable).with_name(name)
    found = shutil.which(name, path=USER_PATH)
    same = found is not None and Path(found).resolve() == program.resolve()
    return name if same else str(program)


def _command(variables: list[str], *words: object) -> str:
    settings = [f"{name}={shlex.quote(os.environ[name])}" for name in variables if os.getenv(name)]
    return " ".join([*settings, *(shlex.quote(str(word)) for word in words)])
