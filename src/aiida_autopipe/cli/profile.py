"""Load the AiiDA profile that the commands work in."""

import os

from aiida_autopipe.cli.setup_profile import DEFAULT_PROFILE
from aiida_autopipe.core.errors import EngineError


def load(name: str | None = None) -> str:
    """Load a profile and return its name: the one asked for, else ours, else the default.

    The environment variable AIIDA_PROFILE counts as asked for. Raises EngineError where there is no
    such profile, with what to type.
    """
    from aiida.common.exceptions import AiidaException
    from aiida.manage.configuration import get_config, load_profile

    asked = name or os.environ.get("AIIDA_PROFILE")
    try:
        config = get_config(create=False)
        if asked is None:
            ours = DEFAULT_PROFILE in config.profile_names
            asked = DEFAULT_PROFILE if ours else config.default_profile_name
        if asked is None:
            raise EngineError("There is no AiiDA profile yet: type 'mlip-auto setup' first.")
        return str(load_profile(asked, allow_switch=True).name)
    except AiidaException as error:
        raise EngineError(
            f"AiiDA cannot open the profile '{asked or DEFAULT_PROFILE}' "
            f"({' '.join(str(error).split())}): type 'mlip-auto setup' first."
        ) from error
