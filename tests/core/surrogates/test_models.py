"""The surrogates beside other models in one process."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from ase.build import bulk

from aiida_autopipe.core.explore.runner import quietly_in_one_thread
from aiida_autopipe.core.surrogates.models import chgnet


@contextmanager
def double_precision() -> Iterator[None]:
    """As a MACE model of double precision leaves the process."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("loaded_in_double", [False, True])
def test_chgnet_does_not_follow_the_precision_that_others_set(loaded_in_double: bool) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = chgnet(device="cpu")
    with quietly_in_one_thread():
        expected = atoms.get_potential_energy()
    with double_precision(), quietly_in_one_thread():
        if loaded_in_double:
            atoms.calc = chgnet(device="cpu")
        atoms.calc.reset()
        assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-6)
        assert torch.get_default_dtype() == torch.float64
