"""The verdict: a potential's properties next to the reference's."""

from __future__ import annotations

from collections.abc import Mapping

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.validate.families import family_of
from aiida_autopipe.core.validate.values import Comparison as Comparison
from aiida_autopipe.core.validate.values import Plot, PropertyValue


def compare(
    potential: Mapping[str, PropertyValue],
    reference: Mapping[str, PropertyValue],
    tolerance: float = 0.1,
) -> list[Comparison]:
    """Rows in the order of the reference.

    Each family has its rule. Most rows pass when |potential - reference| <= tolerance |reference|.
    A property that either side could not determine does not pass; a reference of zero passes only
    when the potential gives zero too and has no relative error.

    Raises:
        InputError: a tolerance that is not positive, or a property the potential side lacks.
    """
    if not tolerance > 0:
        raise InputError(f"The tolerance of the validation must be positive, not {tolerance}.")
    missing = sorted(set(reference) - set(potential))
    if missing:
        raise InputError(
            f"The potential's properties lack '{missing[0]}', which the reference has."
        )
    return [
        family_of(name).compare(name, potential[name], reference[name], tolerance)
        for name in reference
    ]


def plots(
    potential: Mapping[str, PropertyValue], reference: Mapping[str, PropertyValue]
) -> list[Plot]:
    """What the families draw, in the order of the reference."""
    drawn = (family_of(n).plot(n, potential[n], reference[n]) for n in reference)
    return [plot for plot in drawn if plot is not None]
