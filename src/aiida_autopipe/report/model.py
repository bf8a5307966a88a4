"""Everything the report page and `summary.json` show, as plain validated values.

The numbers are computed elsewhere and collected from the provenance graph; this module only fixes
their names, units and shapes, so that the page can be rendered and tested without AiiDA.
Units are ASE's (eV, Å, eV/Å, eV/Å^3) unless a name says otherwise.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, model_validator

from aiida_autopipe.report.calibration_model import Calibration, Uncertainty, UsedThresholds
from aiida_autopipe.report.trajectory_model import Trajectory
from aiida_autopipe.report.validation_model import ValidationPlot
from aiida_autopipe.report.validation_model import ValidationRow as ValidationRow
from aiida_autopipe.report.values import PLAIN, FloatList, NodeRef, require_same_length

Status = Literal["finished", "failed", "running"]


def _relative_path(value: str) -> str:
    parts = value.replace("\\", "/").split("/")
    if not value or value.startswith(("/", "\\")) or ".." in parts:
        raise ValueError(f"{value!r} is not a path inside the report folder: use a relative path")
    return value


RelativePath = Annotated[str, AfterValidator(_relative_path)]


class _Model(BaseModel):
    model_config = PLAIN


class ErrorMetrics(_Model):
    """Errors of a potential on one set of labels; None where the labels are missing."""

    energy_mae_per_atom: float | None = None
    """eV/atom"""
    energy_rmse_per_atom: float | None = None
    """eV/atom"""
    forces_mae: float | None = None
    """eV/Å, over components"""
    forces_rmse: float | None = None
    """eV/Å, over components"""
    stress_mae: float | None = None
    """eV/Å^3, over components"""


class Trace(_Model):
    """Time series of one simulation; all arrays of the same length (empty = not recorded)."""

    step: FloatList = []
    time_ps: FloatList = []
    gamma_max: FloatList = []
    temperature_K: FloatList = []

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        require_same_length(self, ("step", "time_ps", "gamma_max", "temperature_K"))
        return self


class Simulation(_Model):
    """One MD simulation made with the potential of one generation."""

    temperature_K: float
    ensemble: str
    start: str = ""
    """what the simulation started from, e.g. `bulk`, `vacancy`"""
    steps_done: int
    steps_asked: int
    halted: bool = False
    halt_reason: str = ""
    trace: Trace = Trace()
    node: NodeRef | None = None


class Generation(_Model):
    """One turn of the loop: the potential trained in it and the simulations made with it."""

    index: int
    n_train: int
    """structures trained on"""
    n_test: int
    """held-out structures"""
    labels_total: int
    """label calculations spent so far, failed ones included"""
    train: ErrorMetrics = ErrorMetrics()
    test: ErrorMetrics = ErrorMetrics()
    n_functions: int | None = None
    survival: float | None = None
    """fraction of the requested MD steps that ran before a halt"""
    new_candidates: int | None = None
    gamma_max: float | None = None
    potential: NodeRef | None = None
    dataset: NodeRef | None = None
    """what the potential was trained on"""
    metrics_node: NodeRef | None = None
    md_node: NodeRef | None = None
    """the process that ran the simulations"""
    simulations: list[Simulation] = []


class RejectedReason(_Model):
    """How many label calculations failed for one reason."""

    reason: str
    count: int
    example: NodeRef | None = None


class LabelCounts(_Model):
    """Label calculations requested, and what became of them."""

    requested: int
    ok: int
    rejected: int
    budget: int | None = None
    labelled_node: NodeRef | None = None
    rejected_node: NodeRef | None = None
    reasons: list[RejectedReason] = []


class ParitySplit(_Model):
    """Reference and predicted values of one set of labels: all of them, the page thins them."""

    energy_reference: FloatList = []
    """eV/atom, one value per structure"""
    energy_potential: FloatList = []
    """eV/atom, same order"""
    forces_reference: FloatList = []
    """eV/Å, flat components; arrays of any shape are flattened"""
    forces_potential: FloatList = []
    """eV/Å, same order"""
    dataset: NodeRef | None = None

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        require_same_length(self, ("energy_reference", "energy_potential"))
        require_same_length(self, ("forces_reference", "forces_potential"))
        return self


class Parity(_Model):
    """Reference against prediction of the final potential."""

    train: ParitySplit | None = None
    test: ParitySplit | None = None


class EnergyVolumeCurve(_Model):
    """Energy over volume; both arrays have shape (n,)."""

    volume_per_atom: FloatList
    """Å^3/atom"""
    energy_per_atom: FloatList
    """eV/atom"""
    node: NodeRef | None = None

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        require_same_length(self, ("volume_per_atom", "energy_per_atom"))
        return self


class Method(_Model):
    """How the labels were computed; None where a quantity does not apply."""

    oracle: str = "DFT"
    functional: str | None = None
    pseudopotentials: dict[str, str] = {}
    """element -> file name"""
    cutoff_wfc_Ry: float | None = None
    cutoff_rho_Ry: float | None = None
    kspacing_per_A: float | None = None
    smearing: str | None = None
    smearing_width_Ry: float | None = None
    spin: bool | None = None
    fingerprint: str | None = None
    other: dict[str, str] = {}


class ReferenceEnergy(_Model):
    """Energy of the isolated atom, computed with the method of the labels."""

    element: str
    energy: float
    """eV"""
    node: NodeRef | None = None


class OriginCount(_Model):
    """How many labelled structures came from one origin (generator or MD generation)."""

    origin: str
    n_structures: int
    n_atoms: int | None = None


class Report(_Model):
    """One run, from what was asked to what came out."""

    name: str
    material: str
    goal: str
    protocol: str
    seed: int
    created: AwareDatetime
    autopipe_version: str
    process: NodeRef
    status: Status = "finished"
    failure: str = ""
    """why the run failed, in a sentence; only with status `failed`"""
    stop_reason: str = ""
    wall_seconds: float
    time_shares: dict[str, float] = {}
    """what -> seconds; may add up to more than the wall time where work ran side by side"""
    software: dict[str, str] = {}
    """program or package -> version"""
    config_yaml: str = ""
    """the expanded configuration"""
    config_node: NodeRef | None = None
    labels: LabelCounts
    generations: list[Generation] = []
    uncertainty: Uncertainty = "gamma"
    """what watches the simulations; all that is called gamma is this, in its unit"""
    gamma_select: float | None = None
    """the threshold of all generations; None where they differ"""
    gamma_halt: float | None = None
    thresholds: list[UsedThresholds] = []
    """those of each generation"""
    calibration: Calibration | None = None
    trajectories: list[Trajectory] = []
    trajectories_left_out: int = 0
    """simulations whose structure was recorded and is not shown"""
    parity: Parity = Parity()
    validation: list[ValidationRow] = []
    validation_plots: list[ValidationPlot] = []
    validation_missing: str = ""
    """why there is no (complete) validation, in a sentence"""
    eos_reference: EnergyVolumeCurve | None = None
    eos_potential: EnergyVolumeCurve | None = None
    composition: list[OriginCount] = []
    method: Method = Method()
    reference_energies: list[ReferenceEnergy] = []
    files: dict[str, RelativePath] = {}
    """what -> path relative to the report's folder"""
    warnings: list[str] = []

    @property
    def n_generations(self) -> int:
        """Generations of active learning: fits that were sent into MD; a last fit may follow."""
        return sum(bool(g.simulations) for g in self.generations)

    @property
    def final(self) -> Generation | None:
        """The last generation, whose potential is the result; None if nothing was trained."""
        return self.generations[-1] if self.generations else None

    def nodes(self) -> list[NodeRef]:
        """Every node the report refers to, once, by increasing pk."""
        unique = {node.uuid: node for node in _walk(self)}
        return sorted(unique.values(), key=lambda node: (node.pk, node.uuid))


def _walk(value: object) -> Iterator[NodeRef]:
    if isinstance(value, NodeRef):
        yield value
    elif isinstance(value, BaseModel):
        for _, child in value:
            yield from _walk(child)
    elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
        for child in value:
            yield from _walk(child)
