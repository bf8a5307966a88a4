"""The `train` section for other trainers than the built-in fit: whose keys are whose."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.mace_settings import MaceSettings

ACE_TRAINER, MACE_TRAINER = "autopipe.ace", "autopipe.mace"
COMMON_KEYS = (
    "trainer",
    "code",
    "test_fraction",
    "settings",
    "committee",
    "base_model",
    "replay",
)
"""Keys of `train` that mean the same for every trainer; the others are the built-in fit's."""
_PATHS = ("base_model", "replay")


def check_train(train: dict[str, Any]) -> None:
    """Refuse keys that the trainer has no use for, and settings it does not understand.

    Raises:
        ValueError: one sentence.
    """
    if train["trainer"] == ACE_TRAINER:
        for key in ("settings", *_PATHS):
            if train[key] is not None:
                raise ValueError(
                    f"{key} is for other trainers, such as {MACE_TRAINER}; {ACE_TRAINER} has keys "
                    "of its own in this section"
                )
        if train["committee"] > 1:
            raise ValueError(
                f"committee: {ACE_TRAINER} has its uncertainty in closed form (`mlip-auto fit "
                f"--committee`); several seeds are for trainers such as {MACE_TRAINER}"
            )
    elif train["trainer"] == MACE_TRAINER:
        try:
            MaceSettings.from_dict(train["settings"] or {})
        except InputError as error:
            raise ValueError(f"settings: {error}") from error
        if train["replay"] is not None and train["base_model"] is None:
            raise ValueError("replay needs base_model, the model that was trained on these data")


def foreign_keys(user: Any, default: dict[str, Any]) -> list[str]:
    """Keys of the built-in fit that were set for MACE, which would not look at them.

    An expanded file has every key, those of the other trainer with their defaults.

    Args:
        user: the `train` section of the user.
        default: the section with all its defaults.
    """
    if not isinstance(user, dict) or user.get("trainer") != MACE_TRAINER:
        return []
    problems = []
    for key, value in user.items():
        if key not in COMMON_KEYS and key in default and value != default[key]:
            near = get_close_matches(key, list(MaceSettings().to_dict()), n=1)
            hint = f" (there: {near[0]})" if near else ""
            problems.append(
                f"train.{key}: this is a key of {ACE_TRAINER}; the settings of {MACE_TRAINER} "
                f"stand in train.settings{hint}"
            )
    return problems


def make_paths_absolute(values: dict[str, Any], base_dir: Path) -> None:
    """Files named in the section must mean the same for processes that run elsewhere."""
    train = values.get("train")
    if isinstance(train, dict):
        found = {
            key: str((base_dir / Path(train[key]).expanduser()).resolve())
            for key in _PATHS
            if isinstance(train.get(key), str) and train[key]
        }
        values["train"] = {**train, **found}
