"""Generators by name: settings, errors, and the contract for each of ours."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate import registry
from aiida_autopipe.core.generate.registry import (
    call_generator,
    check_generator_settings,
    generator_names,
    generator_settings,
    generator_summary,
)

NAMES = [
    *("antisites", "dimers", "interstitials", "melt", "molecules", "normal_modes"),
    *("random_structures", "rattle", "reaction_path", "short_pairs", "sqs", "strain"),
    *("surfaces", "vacancies"),
]


def test_ours_are_registered_and_described():
    assert set(NAMES) <= set(generator_names())
    for name in NAMES:
        assert generator_summary(name).endswith((".", ","))
        assert all(
            setting.default is not setting.empty for setting in generator_settings(name).values()
        )


def test_values_become_what_the_generator_declares():
    chosen = check_generator_settings(
        "rattle", {"repeat": [2, 2, 2], "width": 5, "amplitudes": [1]}
    )
    assert chosen == {"repeat": (2, 2, 2), "width": 5.0, "amplitudes": [1.0]}
    assert isinstance(chosen["width"], float)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("rattel", {}, r"no generator 'rattel'; did you mean 'rattle'\?"),
        ("rattle", {"copy": 1}, r"'copy' is no setting of the generator 'rattle'; did you mean"),
        ("rattle", {"copies": 1.5}, "'copies' of the generator 'rattle' must be a whole number"),
        ("rattle", {"copies": True}, "must be a whole number, not True"),
        ("rattle", {"repeat": [2, 2]}, "a list of 3, each a whole number or null"),
        ("rattle", {"width": float("nan")}, "must be a number, not nan"),
        ("sqs", {"composition": {"Al": "half"}}, "a mapping of text to a number"),
    ],
)
def test_bad_settings(name, settings, message):
    with pytest.raises(InputError, match=message):
        call_generator(name, bulk("Si"), np.random.default_rng(0), settings)


def untyped(crystal: Atoms, rng: np.random.Generator, *, n=3):
    return [crystal]


def unmarked(crystal: Atoms, rng: np.random.Generator, *, n: int = 1):
    return [crystal.copy()] * n


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("untyped", "each with a type and a default"),
        ("unmarked", "without info"),
        ("missing", "cannot be loaded"),
    ],
)
def test_generators_of_others_are_checked(function, message, monkeypatch):
    point = EntryPoint("theirs", f"{__name__}:{function}", registry.GROUP)
    monkeypatch.setattr(registry, "_points", lambda: {"theirs": point})
    monkeypatch.setattr(EntryPoint, "load", lambda self: _load(function))
    with pytest.raises(InputError, match=message):
        call_generator("theirs", bulk("Si"), np.random.default_rng(0), {})


def _load(name):
    if name not in globals():
        raise AttributeError(name)
    return globals()[name]
