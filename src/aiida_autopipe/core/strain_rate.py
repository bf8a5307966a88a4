"""Which MD segments may strain the cell at a given rate."""

from __future__ import annotations

from collections.abc import Collection

from aiida_autopipe.core.errors import InputError

AXES = ("x", "y", "z")


def check_strained_axes(ensemble: str, coupling: str, strained: Collection[str]) -> None:
    """Raise InputError where the barostat of a segment would act on an axis that is strained.

    Args:
        ensemble: nve, nvt or npt.
        coupling: of npt: iso, aniso or tri.
        strained: the axes that change at a rate.
    """
    if not strained or ensemble != "npt":
        return
    if coupling != "aniso":
        raise InputError(
            f"A segment with strain_rate_per_ps and npt needs the coupling aniso, not {coupling}: "
            "the other axes must be free to change alone."
        )
    if len(strained) == len(AXES):
        raise InputError("A segment that strains all three axes leaves none to npt; take nvt.")
