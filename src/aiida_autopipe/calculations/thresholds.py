"""Calculation function on the thresholds of MD: from what a training found to numbers."""

from __future__ import annotations

from typing import Any

from aiida.engine import calcfunction
from aiida.orm import Dict

from aiida_autopipe.calculations.functions import stated
from aiida_autopipe.core.thresholds import choose_thresholds


@calcfunction
@stated
def set_thresholds(settings: Dict, metrics: Dict) -> dict[str, Dict]:
    """Put numbers in the place of thresholds that are 'auto'.

    Args:
        settings: of MD, with `gamma_select`, `gamma_halt` and `uncertainty`.
        metrics: output of the training whose potential is used.

    Returns:
        `settings` with numbers, and `thresholds`: `uncertainty`, `select`, `halt`, and the
        `sentence` that says where they come from.
    """
    values: dict[str, Any] = settings.get_dict()
    measure = values["uncertainty"]
    chosen = choose_thresholds(
        values["gamma_select"],
        values["gamma_halt"],
        measure,
        metrics.get_dict().get("calibration"),
    )
    numbers = {"gamma_select": chosen.select, "gamma_halt": chosen.halt}
    return {
        "settings": Dict({**values, **numbers}),
        "thresholds": Dict({"uncertainty": measure, **chosen._asdict()}),
    }
