"""What every selector must do, as tests to subclass.

A selector is a plain function ``(features, n, already, seed) -> indices``, registered in the group
``autopipe.selectors``; see `aiida_autopipe.core.select.selectors`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.select.selectors import select_rows


class SelectorContract:
    """Subclass it as `Test...` and name the method."""

    method: ClassVar[str]
    """Name of the selector in the group `autopipe.selectors`."""
    leaves_known: ClassVar[bool] = True
    """Whether rows equal to known ones are never chosen while there are others."""

    @pytest.fixture
    def pool(self) -> NDArray[np.float64]:
        """200 rows of 6 features in clumps."""
        rng = np.random.default_rng(0)
        centres = 5 * rng.normal(size=(8, 6))
        points: NDArray[np.float64] = centres[rng.integers(8, size=200)] + rng.normal(size=(200, 6))
        return points

    def select(self, pool: NDArray[Any], n: int, **options: Any) -> NDArray[np.int64]:
        """Select by the name, as the command does; what is no selection is an error."""
        return select_rows(self.method, pool, n, **options)

    @pytest.mark.parametrize("n", [0, 1, 17, 200])
    def test_exactly_n_different_rows(self, pool: NDArray[np.float64], n: int) -> None:
        """All of them rows of the pool."""
        chosen = self.select(pool, n)
        assert len(np.unique(chosen)) == n
        assert n == 0 or (chosen.min() >= 0 and chosen.max() < len(pool))

    def test_same_seed_same_choice(self, pool: NDArray[np.float64]) -> None:
        """Randomness comes from the seed alone."""
        first = self.select(pool, 20, seed=5)
        np.random.default_rng().random()
        assert self.select(pool, 20, seed=5).tolist() == first.tolist()

    def test_the_pool_is_not_changed(self, pool: NDArray[np.float64]) -> None:
        """Nor are the known rows."""
        known, copy = pool[:10].copy(), pool.copy()
        self.select(pool, 20, already=known)
        assert np.array_equal(pool, copy) and np.array_equal(known, copy[:10])

    def test_known_rows_are_left(self, pool: NDArray[np.float64]) -> None:
        """What is labelled already is not worth a second label."""
        chosen = self.select(pool, 30, already=pool[:100])
        assert len(chosen) == 30 and (not self.leaves_known or chosen.min() >= 100)

    def test_single_precision(self, pool: NDArray[np.float64]) -> None:
        """Features may be float32."""
        assert len(self.select(pool.astype(np.float32), 12)) == 12

    def test_too_many_are_refused(self, pool: NDArray[np.float64]) -> None:
        """In one sentence."""
        with pytest.raises(InputError, match="Cannot choose 201 points from a pool of 200"):
            self.select(pool, 201)
