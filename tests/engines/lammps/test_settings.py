from typing import Any

import pytest

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.engines.lammps.settings import MdSettings, Segment

VALID: dict[str, Any] = {
    "segments": [
        {"ensemble": "nvt", "temperature_K": [300, 600], "steps": 100},
        {"ensemble": "npt", "temperature_K": 600, "pressure_GPa": 1.5, "steps": 50},
    ],
    "gamma_select": 2.0,
    "gamma_halt": 10,
}


def test_defaults_and_conversion() -> None:
    settings = MdSettings.from_dict(VALID)
    assert settings.segments == (
        Segment("nvt", 100, (300.0, 600.0)),
        Segment("npt", 50, (600.0, 600.0), (1.5, 1.5)),
    )
    assert settings.steps == 150
    assert (settings.interface, settings.gamma_every, settings.gamma_halt) == ("library", 10, 10.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma_hlt": 3.0}, "Unknown key 'gamma_hlt' in MD settings; did you mean 'gamma_halt'"),
        ({"colour": 3.0}, "Unknown key 'colour' in MD settings; known keys: gamma_every"),
        ({"segments": []}, "segments must be a list of at least one segment"),
        ({"segments": [7]}, "segment must be a mapping"),
        ({"interface": "pace"}, "interface must be 'library' or 'ml-pace', not 'pace'"),
        ({"timestep_fs": 0}, "timestep_fs must be above 0, not 0"),
        ({"timestep_fs": float("nan")}, "timestep_fs must be a finite number"),
        ({"timestep_fs": "fast"}, "timestep_fs must be a finite number, not 'fast'"),
        ({"gamma_every": 2.5}, "gamma_every must be a positive whole number, not 2.5"),
        ({"max_frames": 0}, "max_frames must be a positive whole number, not 0"),
        ({"gamma_halt": 1.0}, r"gamma_halt \(1.0\) must not be below gamma_select \(2.0\)"),
        ({"thermo_every": 15}, r"thermo_every \(15\) must be a multiple of gamma_every \(10\)"),
    ],
)
def test_wrong_settings_give_one_clear_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MdSettings.from_dict({**VALID, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ensemble": "nph"}, "ensemble must be nve, nvt or npt, not 'nph'"),
        ({"temperature_K": [300]}, r"temperature_K must be \[start, stop\], not \[300\]"),
        ({"temperature_K": [300, -5]}, "temperature_K must be above 0, not -5"),
        ({"steps": -1}, "steps must be a positive whole number, not -1"),
        ({"steps": True}, "steps must be a positive whole number, not True"),
        ({"stepz": 3}, "did you mean 'steps'"),
    ],
)
def test_wrong_segment_gives_one_clear_sentence(change: dict[str, Any], message: str) -> None:
    segment = {"ensemble": "nvt", "temperature_K": [300, 300], "steps": 10, **change}
    with pytest.raises(InputError, match=message):
        Segment.from_dict(segment)


@pytest.mark.parametrize("key", ["segments", "gamma_select", "gamma_halt"])
def test_missing_key_is_named(key: str) -> None:
    with pytest.raises(InputError, match=f"lacks the key '{key}'"):
        MdSettings.from_dict({k: v for k, v in VALID.items() if k != key})
