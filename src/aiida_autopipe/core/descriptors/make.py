"""Descriptors by name and plain settings, as they come from a command line or a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import h5py

from aiida_autopipe.core.descriptors.base import Descriptor
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.foreign_hdf5 import ForeignGroup

SETTINGS = {
    "soap": ("r_cut", "n_max", "l_max", "sigma", "rbf"),
    "ace": ("cutoff", "n_functions", "max_rank"),
    "mace": ("layers", "device", "dtype"),
}
"""Settings of each kind of descriptor, beside the elements and the model file."""
KINDS = tuple(SETTINGS)


def make_descriptor(
    kind: str,
    settings: Mapping[str, Any],
    elements: Sequence[str] = (),
    model: Path | None = None,
    trust: bool = False,
) -> Descriptor:
    """A descriptor from its name and settings; what is not given has its default.

    Args:
        kind: 'soap', 'ace' or 'mace'.
        settings: see `SETTINGS`.
        elements: chemical symbols, for SOAP and for ACE without a model file.
        model: file of a potential: of MACE always, of ACE instead of elements and settings.
        trust: open a MACE model, which is a pickle.

    Raises:
        InputError: an unknown kind or setting, a value out of range, or no model or elements.
        PotentialFileError: the model file cannot be used.
        EngineError: MACE is not installed.
    """
    check_settings(kind, settings)
    _check_model(kind, settings, model)
    if kind == "mace":
        from aiida_autopipe.core.descriptors.mace import MaceDescriptor

        if model is None:
            raise InputError("MACE descriptors need a model file; name it with --model.")
        return MaceDescriptor.from_file(model, trust=trust, **settings)
    if kind == "ace":
        from aiida_autopipe.core.descriptors.ace import AceDescriptor

        if model is not None:
            return AceDescriptor.from_file(model)
        return AceDescriptor.from_elements(_some(elements), **settings)
    from aiida_autopipe.core.descriptors.soap import SoapDescriptor

    return SoapDescriptor(tuple(_some(elements)), **settings)


def check_settings(kind: str, settings: Mapping[str, Any]) -> None:
    """Refuse an unknown descriptor, or a setting it does not have.

    Raises:
        InputError: with the name, and what there is.
    """
    if kind not in SETTINGS:
        raise InputError(f"There is no descriptor '{kind}'; there are {', '.join(KINDS)}.")
    for key in settings:
        if key not in SETTINGS[kind]:
            near = get_close_matches(key, SETTINGS[kind], n=1)
            hint = f"did you mean '{near[0]}'" if near else f"it has {', '.join(SETTINGS[kind])}"
            raise InputError(f"'{key}' is no setting of the descriptor '{kind}'; {hint}.")


def _check_model(kind: str, settings: Mapping[str, Any], model: Path | None) -> None:
    if model is not None and kind == "soap":
        raise InputError("SOAP needs no model file; leave --model out.")
    if model is not None and kind == "ace" and settings:
        raise InputError(
            f"{', '.join(settings)}: the basis of a potential file is what it is; leave its "
            "settings or the file out."
        )


def _some(elements: Sequence[str]) -> Sequence[str]:
    if not elements:
        raise InputError("The elements to describe are not known; name them with --elements.")
    return elements


def elements_of_groups(groups: Sequence[h5py.Group], **names: Any) -> list[str]:
    """Chemical symbols in all groups together; `names` as in `ForeignGroup.open`.

    Raises:
        DataError: as `ForeignGroup.open`.
    """
    found: set[str] = set()
    for group in groups:
        found.update(ForeignGroup.open(group, **names).elements())
    return sorted(found)
