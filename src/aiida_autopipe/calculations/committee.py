"""Calculation functions on the members of a committee."""

from __future__ import annotations

import numpy as np
from aiida.engine import calcfunction
from aiida.orm import ArrayData, Dict

from aiida_autopipe.calculations.functions import stated
from aiida_autopipe.core.committee import calibrate
from aiida_autopipe.core.errors import DataError


@calcfunction
@stated
def calibrate_committee(**parities: ArrayData) -> Dict:
    """How spreads of the forces become errors, from the held-out part of every member.

    Args:
        parities: the output `parity` of each trainer, all of the same `test` data.

    Returns:
        the fields of `aiida_autopipe.core.committee.Calibration`.
    """
    members = [parities[name] for name in sorted(parities)]
    lacking = [n for n in sorted(parities) if "test_forces_predicted" not in _names(parities[n])]
    if lacking:
        raise DataError(f"{lacking[0]} has no forces of held-out structures.")
    predicted = np.array([member.get_array("test_forces_predicted") for member in members])
    reference = members[0].get_array("test_forces_reference")
    return Dict(calibrate(predicted, reference).to_dict())


def _names(node: ArrayData) -> list[str]:
    return list(node.get_arraynames())
