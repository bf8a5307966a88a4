"""The section `explore`: scouting with a surrogate before the first labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from aiida_autopipe.config.section import Section
from aiida_autopipe.core.errors import AutopipeError
from aiida_autopipe.core.explore.settings import ExploreSettings
from aiida_autopipe.core.material import Material
from aiida_autopipe.core.select.selectors import check_method
from aiida_autopipe.core.surrogates.registry import (
    AUTO,
    FILES,
    SurrogateSpec,
    installed_universal,
)

_OWN = ("surrogate", "code", "keywords", "device", "trust", "select", "supercell")
"""Keys that are no settings of the trajectories."""


class ExploreSelect(Section):
    """Which frames of the exploration get labels."""

    method: Annotated[str, Field(min_length=1)]
    """direct, fps, or a selector that a package has registered."""
    n: Annotated[int, Field(gt=0)]
    """Most frames; the label budget may leave room for fewer."""

    @model_validator(mode="after")
    def _known_method(self) -> Self:
        try:
            check_method(self.method)
        except AutopipeError as error:
            raise ValueError(str(error)) from error
        return self


class Explore(Section):
    """Molecular dynamics with a universal model, before there is anything to learn from."""

    surrogate: Annotated[str, Field(min_length=1)] | None
    """Name or file of the surrogate; 'auto': a universal model that is installed; null: none."""
    code: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    """A Python interpreter with this package and that of the surrogate, as an AiiDA code."""
    keywords: dict[str, Any]
    """Keywords of the surrogate."""
    device: Literal["auto", "cpu", "cuda"]
    """Where it computes; 'auto' takes a GPU where there is one."""
    trust: bool
    """Open a .model file of MACE, which can run any program its author put inside."""
    supercell: Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=3, max_length=3)]
    """Supercell of the primitive cell the trajectories start from; its frames are labelled."""
    temperatures_K: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """Temperatures, K."""
    pressures_GPa: list[float]
    """Pressures of the npt trajectories, GPa."""
    ensembles: Annotated[list[Literal["nvt", "npt"]], Field(min_length=1)]
    """Ensembles of the trajectories; npt keeps the shape of the cell."""
    steps: Annotated[int, Field(gt=0)]
    """Steps of one trajectory."""
    timestep_fs: Annotated[float, Field(gt=0, le=20)] | None
    """Time step, fs; null: 0.5 with hydrogen, else 2."""
    every: Annotated[int, Field(gt=0)]
    """Steps between frames."""
    seeds: Annotated[int, Field(gt=0)]
    """Trajectories for each start and condition."""
    max_force: Annotated[float, Field(gt=0)]
    """A larger force on an atom ends a trajectory, eV/Å."""
    select: ExploreSelect
    """Which frames get labels."""

    def settings(self) -> ExploreSettings:
        """The settings of the trajectories."""
        values = {k: v for k, v in self.model_dump().items() if k not in _OWN}
        return ExploreSettings.from_dict(values)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            self.settings()
            if self.surrogate is not None:
                SurrogateSpec(self.surrogate, self.keywords).resolved()
        except AutopipeError as error:
            raise ValueError(str(error)) from error
        return self


def choose_surrogate(values: dict[str, Any], material: Material, base_dir: Path) -> None:
    """Replace 'auto' by what is installed, null where that is nothing, and make a path absolute.

    :param values: the merged input, changed in place.
    :param material: universal models need a crystal.
    :param base_dir: folder that a file is relative to.
    """
    section = values.get("explore")
    if not isinstance(section, dict) or not isinstance(section.get("surrogate"), str):
        return
    chosen = section["surrogate"]
    if chosen == AUTO:
        new = installed_universal() if material.periodic else None
    elif Path(chosen).suffix.lower() in FILES:
        new = str((base_dir / Path(chosen).expanduser()).resolve())
    else:
        return
    values["explore"] = {**section, "surrogate": new}
