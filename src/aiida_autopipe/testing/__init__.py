"""Contract tests that a plugin of another package runs on its own implementation.

::

    from aiida_autopipe.testing import OracleContract

    class TestMyOracle(OracleContract):
        entry_point = "mypackage.oracle"
        ...

They need pytest and AiiDA's fixtures, as `aiida_autopipe[tests]` installs them.
"""

import pytest

pytest.register_assert_rewrite(
    "aiida_autopipe.testing.generator",
    "aiida_autopipe.testing.oracle",
    "aiida_autopipe.testing.selector",
    "aiida_autopipe.testing.surrogate",
)

from aiida_autopipe.testing.generator import GeneratorContract  # noqa: E402
from aiida_autopipe.testing.oracle import OracleContract  # noqa: E402
from aiida_autopipe.testing.selector import SelectorContract  # noqa: E402
from aiida_autopipe.testing.surrogate import SurrogateContract  # noqa: E402

__all__ = ["GeneratorContract", "OracleContract", "SelectorContract", "SurrogateContract"]
