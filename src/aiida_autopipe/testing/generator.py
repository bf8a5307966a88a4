"""What every generator must do, as tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms

from aiida_autopipe.core.errors import AutopipeError, InputError
from aiida_autopipe.core.generate.rattle import smallest_distance
from aiida_autopipe.core.generate.registry import (
    call_generator,
    generator_names,
    generator_settings,
    generator_summary,
)


class GeneratorContract:
    """Subclass it as `Test...` and fill in the attributes."""

    name: ClassVar[str]
    """In the entry-point group `autopipe.generators`."""
    crystal: ClassVar[Atoms]
    """What the generator starts from."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Settings with which it is fast."""
    least_distance: ClassVar[float] = 0.5
    """No two atoms of its structures are closer, Å."""

    def make(self, seed: int = 0, **changes: Any) -> list[Atoms]:
        """The structures of the generator."""
        rng = np.random.default_rng(seed)
        return call_generator(self.name, self.crystal, rng, {**self.settings, **changes})

    def test_is_registered_with_typed_settings_and_a_sentence(self) -> None:
        """The command lists them."""
        assert self.name in generator_names()
        assert generator_summary(self.name).strip()
        assert set(self.settings) <= set(generator_settings(self.name))

    def test_structures_are_sane_and_say_where_they_come_from(self) -> None:
        """Origin, parameters as JSON without NaN, finite positions, atoms that do not overlap."""
        made = self.make()
        assert made
        for atoms in made:
            assert atoms.info["origin"]
            text = atoms.info["parameters"]
            assert isinstance(json.loads(text), dict)
            assert "NaN" not in text and "Infinity" not in text
            assert np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()
            assert smallest_distance(atoms) >= self.least_distance
            assert atoms.calc is None

    def test_the_seed_decides_everything(self) -> None:
        """The same seed gives the same numbers; numpy's global generator is left alone."""
        before = str(np.random.get_state())
        first, second = self.make(seed=7), self.make(seed=7)
        assert str(np.random.get_state()) == before
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert one.info == other.info
            assert one.numbers.tolist() == other.numbers.tolist()
            np.testing.assert_array_equal(one.positions, other.positions)
            np.testing.assert_array_equal(one.cell.array, other.cell.array)

    def test_the_crystal_is_left_as_it_is(self) -> None:
        """Generators share it."""
        before = self.crystal.copy()
        self.make()
        assert self.crystal == before

    def test_unknown_settings_are_refused(self) -> None:
        """In one sentence that names the setting."""
        with pytest.raises(InputError, match="no_such_setting"):
            self.make(no_such_setting=1)

    def test_an_empty_structure_is_refused(self) -> None:
        """With one of our errors, or nothing is made of it."""
        rng = np.random.default_rng(0)
        try:
            made = call_generator(self.name, Atoms(), rng, self.settings)
        except AutopipeError as error:
            assert str(error).strip()
        else:
            assert not made
