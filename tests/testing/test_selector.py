"""The contract of selectors, on ours and on one that is registered."""

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.select import selectors
from aiida_autopipe.testing import SelectorContract


class TestDirect(SelectorContract):
    method = "direct"


class TestFarthestPoints(SelectorContract):
    method = "fps"


def at_random(
    features: NDArray[Any], n: int, already: NDArray[Any], seed: int
) -> NDArray[np.int64]:
    """A selector another package might register."""
    return np.random.default_rng(seed).choice(len(features), n, replace=False)


def twice_the_same(features: NDArray[Any], n: int, already: NDArray[Any], seed: int) -> list[int]:
    """A selector that does not do what it should."""
    return [0] * n


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points as an installed package would have them."""
    ours = [
        EntryPoint("random", f"{__name__}:at_random", selectors.GROUP),
        EntryPoint("broken", f"{__name__}:twice_the_same", selectors.GROUP),
        EntryPoint("missing", "no_such_package:select", selectors.GROUP),
    ]
    functions = {"random": at_random, "broken": twice_the_same}
    real = EntryPoint.load
    monkeypatch.setattr(EntryPoint, "load", lambda self: functions.get(self.name) or real(self))
    monkeypatch.setattr(selectors, "entry_points", lambda **by: EntryPoints(ours).select(**by))


@pytest.mark.usefixtures("registered")
class TestRegistered(SelectorContract):
    method = "random"
    leaves_known = False

    @pytest.mark.parametrize(
        ("method", "said"),
        [
            ("broken", "did not return 4 different indices of the 200 rows"),
            ("missing", "cannot be loaded: No module named 'no_such_package'"),
            ("other", "known are direct, fps, broken, missing, random"),
        ],
    )
    def test_what_is_wrong_is_said(self, pool: NDArray[np.float64], method: str, said: str) -> None:
        with pytest.raises(InputError, match=said):
            selectors.select_rows(method, pool, 4)
        with pytest.raises(InputError, match="'random' has no clusters"):
            selectors.select_rows("random", pool, 4, k=2)
