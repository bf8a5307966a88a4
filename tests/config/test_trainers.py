"""The `train` section for MACE."""

from pathlib import Path
from typing import Any

import pytest

from aiida_autopipe.config.expand import expand
from aiida_autopipe.core.errors import InputError


def expanded(train: dict[str, Any], base: Path = Path()) -> dict[str, Any]:
    user = {"material": "Si", "goal": "elastic", "protocol": "fast", "train": train}
    return expand(user, base, "run").model_dump()


def test_settings_of_mace_stand_in_the_section(tmp_path: Path) -> None:
    """The expanded section is its own expansion, and paths are those of the file."""
    train = {
        "trainer": "autopipe.mace",
        "settings": {"channels": 16, "max_epochs": 5, "trust": True},
        "committee": 3,
        "base_model": "old.model",
        "replay": "old.h5",
    }
    found = expanded(train, tmp_path)
    assert found["train"]["settings"]["channels"] == 16
    assert found["train"]["committee"] == 3
    assert found["train"]["base_model"] == str(tmp_path / "old.model")
    assert expanded(found["train"], tmp_path)["train"] == found["train"]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"trainer": "autopipe.mace", "settings": {"chanels": 3}}, "did you mean 'channels'"),
        ({"trainer": "autopipe.mace", "settings": {"channels": 0}}, "channels is 0"),
        ({"trainer": "autopipe.mace", "replay": "a.h5"}, "replay needs base_model"),
        ({"trainer": "autopipe.mace", "force_weight": 3.0}, r"there: forces_weight"),
        ({"trainer": "autopipe.mace", "cutoff": 6.3}, "train.cutoff: this is a key of autopipe.ac"),
        ({"settings": {"channels": 3}}, "settings is for other trainers"),
        ({"base_model": "a.model"}, "base_model is for other trainers"),
        ({"committee": 4}, "several seeds are for trainers such as autopipe.mace"),
        ({"committee": 0}, "committee: 0 must be at least 1"),
    ],
)
def test_keys_that_the_trainer_has_no_use_for(train: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        expanded(train)
