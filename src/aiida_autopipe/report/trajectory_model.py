"""Structure along a simulation, as plain validated values; units are ASE's unless a name says."""

from typing import Self

from pydantic import BaseModel, model_validator

from aiida_autopipe.report.values import PLAIN, FloatList, NodeRef, require_same_length


class _Model(BaseModel):
    model_config = PLAIN


class PairStructure(_Model):
    """Radial distribution of one pair of elements in one segment, next to labelled frames."""

    pair: str
    """`all` atoms, or the element in the middle and that of its partners, as `Si-O`"""
    g: FloatList
    """g(r) of the simulation, on the trajectory's `r`"""
    labelled_g: FloatList = []
    """the same of the whole frames that were labelled; empty without any"""
    first_minimum: float | None = None
    """Å, of the simulation"""
    coordination: float | None = None
    """partners up to there"""
    labelled_coordination: float | None = None
    """partners up to there in the labelled frames"""


class TrajectorySegment(_Model):
    """One stretch of a simulation."""

    number: int
    """from 1"""
    name: str
    """such as `npt 300-900 K`"""
    generations: list[int]
    """whose potentials ran it, one after the other"""
    first_step: int
    last_step: int
    samples: int
    """of the distributions"""
    pairs: list[PairStructure] = []
    density_start: float | None = None
    """g/cm^3"""
    density_end: float | None = None
    """g/cm^3"""
    diffusion: float | None = None
    """coefficient in Å^2/ps, where the temperature is held and the displacement grows linearly"""
    diffusion_note: str = ""
    """why there is none"""
    labelled: int = 0
    """frames of this segment that were labelled whole"""
    energy_rmse_per_atom: float | None = None
    """eV/atom, of potentials that had not learned these frames"""
    forces_rmse: float | None = None
    """eV/Å, over components; of cut-outs as well"""
    forces_size: float | None = None
    """eV/Å, root mean square of the reference forces"""


class LabelledFrames(_Model):
    """Errors on frames of a simulation before they were learned; arrays of one length.

    An energy that is not known (a cut-out) is NaN.
    """

    time_ps: FloatList = []
    generation: list[int] = []
    """whose potential was judged"""
    energy_error_per_atom: FloatList = []
    """eV/atom, potential - reference"""
    forces_rmse: FloatList = []
    """eV/Å, over components"""

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        names = ("time_ps", "generation", "energy_error_per_atom", "forces_rmse")
        require_same_length(self, names)
        return self


class Trajectory(_Model):
    """One simulation from its beginning to where it came, with all its potentials.

    In the time series a NaN stands where the displacement begins anew.
    """

    name: str
    generations: list[int]
    """whose potentials ran it, one after the other"""
    times_begun: int = 1
    """how often it was begun; what is here is of the time it came furthest, frames are of all"""
    steps_done: int
    steps_asked: int
    r: FloatList = []
    """Å"""
    time_ps: FloatList = []
    density: FloatList = []
    """g/cm^3"""
    msd: FloatList = []
    """Å^2, all atoms"""
    temperature_time_ps: FloatList = []
    temperature_K: FloatList = []
    ends_ps: FloatList = []
    """where segments end"""
    segments: list[TrajectorySegment] = []
    frames: LabelledFrames = LabelledFrames()
    nodes: list[NodeRef] = []
    """the simulations it consists of"""

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        require_same_length(self, ("time_ps", "density", "msd"))
        require_same_length(self, ("temperature_time_ps", "temperature_K"))
        return self
