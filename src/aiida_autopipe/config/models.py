"""The expanded configuration: one pydantic model per section of the input file.

The docstring under each field is its documentation: the input template (``mlip-auto init``) and the
reference page are generated from it. Units are ASE's (eV, Å) unless the name carries another one.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from aiida_autopipe.config.explore import Explore
from aiida_autopipe.config.md import Md, check_committee
from aiida_autopipe.config.section import CodeLabel, Count, Positive
from aiida_autopipe.config.section import Section as Section
from aiida_autopipe.config.trainers import COMMON_KEYS, check_train
from aiida_autopipe.config.validation import Validate
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.generate.recipe import check_recipe
from aiida_autopipe.core.select.selectors import check_method

Fraction = Annotated[float, Field(ge=0, le=1)]
NaturalNumber = Annotated[int, Field(ge=0)]

Goal = Literal[
    "elastic",
    "thermoelastic",
    "phonons",
    "defects",
    "melt",
    "melt-quench",
    "alloy",
    "surface",
    "molecule",
    "reaction",
]
EntryPoint = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.-]*$")]
PW_ORACLE = "autopipe.pw"
Protocol = Literal["fast", "balanced", "stringent"]
Smearing = Literal["none", "gaussian", "cold", "methfessel-paxton", "fermi-dirac"]


class Budget(Section):
    """Hard limits of the whole run."""

    labels: Count
    """Most label calculations of the active learning, isolated atoms and retries included."""
    hours: Positive
    """No new generation starts after this wall time in hours."""


class Generate(Section):
    """The first structures, made from the crystal before any potential exists."""

    max_atoms: Count
    """No structure may have more atoms: its label would cost too much."""
    recipe: dict[str, Any]
    """Settings of each generator, by its name; null leaves out one that the goal asks for."""

    @field_validator("recipe")
    @classmethod
    def _known_generators(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        try:
            check_recipe(recipe)
        except InputError as error:
            raise ValueError(str(error)) from error
        return recipe


def _check_installed(oracle: str) -> None:
    """Raise ValueError for a name under which no package has registered a process."""
    groups = ("aiida.calculations", "aiida.workflows")
    known = {entry.name for group in groups for entry in entry_points(group=group)}
    if oracle not in known:
        near = get_close_matches(oracle, sorted(known), n=1)
        hint = f"did you mean '{near[0]}'?" if near else "install the package that brings it"
        raise ValueError(f"there is no oracle '{oracle}'; {hint}")


class Label(Section):
    """How structures get reference energies, forces and stresses."""

    oracle: EntryPoint
    """Process that labels structures (AiiDA entry point)."""
    code: CodeLabel
    """The program of the oracle in AiiDA: pw.x, or a Python interpreter for autopipe.ase."""
    settings: dict[str, Any] | None
    """Settings of an oracle other than autopipe.pw, in its own words; null for pw.x."""
    batching: Literal["auto", "batch", "single"]
    """Whether small structures share jobs; 'auto' decides by estimated cost."""
    pseudopotentials: Annotated[str, Field(min_length=1)]
    """'auto', the label of an installed pseudopotential family, or a folder of UPF files."""
    functional: Literal["auto", "PZ", "PBE"]
    """Exchange-correlation functional; 'auto' takes that of the pseudopotentials."""
    cutoff_wfc_Ry: Positive | None
    """Plane-wave cutoff of wavefunctions, Ry; null takes the family's recommendation."""
    cutoff_rho_Ry: Positive | None
    """Plane-wave cutoff of the density, Ry; null takes the family's recommendation."""
    kspacing_per_A: Positive
    """Largest distance between k-points, 1/Å, with the factor 2 pi."""
    kpoints_shift: bool
    """Shift the k-point mesh by half a step; in strained cells stresses lose symmetry."""
    smearing: Smearing
    """Smearing of the occupations; the small default is safe for gaps that close during MD."""
    smearing_width_Ry: Positive
    """Width of the smearing, Ry."""
    spin: bool
    """Spin-polarised calculations, starting ferromagnetic."""
    scf_threshold_Ry_per_atom: Positive
    """Convergence of the self-consistent energy, Ry per atom."""
    max_attempts: Count
    """Most pw.x runs for one structure before it is rejected."""

    @model_validator(mode="after")
    def _settings_of_other_oracles(self) -> Self:
        if self.oracle == PW_ORACLE and self.settings is not None:
            raise ValueError("settings are those of other oracles; pw.x has keys of its own")
        if self.oracle != PW_ORACLE and self.settings is None:
            _check_installed(self.oracle)
            raise ValueError(
                f"settings are needed for the oracle '{self.oracle}', such as "
                "{calculator: tblite.ase.TBLite, keywords: {method: GFN1-xTB}} for autopipe.ase"
            )
        return self

    @model_validator(mode="after")
    def _density_cutoff(self) -> Self:
        wfc, rho = self.cutoff_wfc_Ry, self.cutoff_rho_Ry
        if wfc is not None and rho is not None and rho < 4 * wfc:
            raise ValueError(
                f"cutoff_rho_Ry ({rho}) must be at least 4 times cutoff_wfc_Ry ({wfc})"
            )
        return self


class Train(Section):
    """The fit of the potential."""

    trainer: str
    """Process that fits the potential (AiiDA entry point)."""
    code: CodeLabel
    """A Python interpreter with this package, as an AiiDA code."""
    cutoff: Annotated[float, Field(gt=1)]
    """Range of the potential, Å; the default is a multiple of the nearest-neighbour distance."""
    max_rank: Annotated[int, Field(ge=1, le=6)] | None
    """Most neighbours in one basis function (body order minus one); null: cross validation."""
    max_functions: Count
    """Most basis functions for each element."""
    search: Annotated[int, Field(ge=1, le=1000)]
    """Most bases that are compared for their rank and number of functions; 1 takes the first."""
    time_limit: Positive | None
    """Seconds after which a fit compares no further bases."""
    test_fraction: Annotated[float, Field(gt=0, le=0.5)]
    """Part of the labels kept out of the fit to measure the error."""
    environments_per_function: Annotated[float, Field(ge=0)]
    """Distinct training environments that pay for one function; 0 always takes max_functions."""
    candidates_per_function: Annotated[int, Field(ge=1, le=10)]
    """The functions are chosen from so many times as many; 1 takes the first ones."""
    energy_weight: Positive | None
    """Weight of energies per atom; null chooses it by cross validation."""
    force_weight: Annotated[float, Field(ge=0)]
    """Weight of force components."""
    stress_weight: Annotated[float, Field(ge=0)] | None
    """Weight of the virial per atom; null takes 0.05 of the energy weight, 0 leaves it out."""
    regularisation: Positive | None
    """Ridge parameter of the fit; null chooses it by cross validation."""
    smoothness: Annotated[float, Field(ge=0, le=10)] | None
    """How fast the prior width falls with the degree of a function; null: cross validation."""
    n_folds: Annotated[int, Field(ge=2, le=20)]
    """Parts of the cross validation."""
    zbl: bool
    """Add a ZBL core repulsion; in LAMMPS with ML-PACE as `pair_style hybrid/overlay`."""
    cutout_energies: bool
    """Also learn energies and stresses of cut-outs, whose boundary they contain."""
    active_set_tolerance: Annotated[float, Field(gt=1, le=2)]
    """Largest extrapolation grade of a training environment."""
    active_set_floor: Annotated[float, Field(gt=0, le=0.1)]
    """Relative size below which differences between environments count as noise."""
    posterior: bool
    """Keep the posterior of the coefficients, as md.uncertainty: committee asks for by itself."""
    threads: Annotated[int, Field(gt=0, le=256)]
    """Threads of the fit."""
    settings: dict[str, Any] | None
    """Settings of a trainer other than autopipe.ace, in its own words; null: its defaults."""
    committee: Annotated[int, Field(ge=1, le=64)]
    """Potentials trained from different seeds for their spread; not for autopipe.ace."""
    base_model: Annotated[str, Field(min_length=1)] | None
    """Model file that autopipe.mace fine-tunes; null: training from scratch."""
    replay: Annotated[str, Field(min_length=1)] | None
    """File with data that base_model was trained on and must not forget; null: none."""

    @model_validator(mode="after")
    def _keys_of_the_trainer(self) -> Self:
        check_train(self.model_dump())
        return self

    def fit_settings(self) -> dict[str, object]:
        """The fields of `aiida_autopipe.core.ace.settings.FitSettings` as plain values."""
        return {k: value for k, value in self.model_dump().items() if k not in COMMON_KEYS}


class Stop(Section):
    """When the active learning is finished: all of these hold (null: not asked for)."""

    survival: Fraction | None
    """Least mean fraction of the asked MD time that ran before a halt."""
    max_new_candidates: NaturalNumber | None
    """Most candidates found in a generation."""
    energy_rmse_per_atom: Positive | None
    """Largest error of the held-out energies, eV per atom."""
    forces_rmse: Positive | None
    """Largest error of the held-out forces, eV/Å."""


def _known_method(method: str) -> str:
    """A selection method that is installed."""
    try:
        check_method(method)
    except InputError as error:
        raise ValueError(str(error)) from error
    return method


class Loop(Section):
    """The active learning: fit, explore with MD, label what is unknown, fit again."""

    min_generations: Count
    """Generations that always run, as long as the budget lasts."""
    max_generations: Count
    """Most generations."""
    candidates_per_generation: Count
    """Most structures labelled in one generation."""
    select_method: Annotated[str, AfterValidator(_known_method)]
    """How they are chosen: fps, direct, or a selector that another package registers."""
    stop: Stop
    """When the active learning is finished: all of these hold (null: not asked for)."""

    @model_validator(mode="after")
    def _generations(self) -> Self:
        if self.max_generations < self.min_generations:
            raise ValueError(
                f"max_generations ({self.max_generations}) must not be smaller than "
                f"min_generations ({self.min_generations})"
            )
        return self


class JobResources(Section):
    """What one job asks of the scheduler."""

    num_machines: Count
    """Nodes."""
    num_mpiprocs_per_machine: Count
    """MPI processes on each node."""
    num_cores_per_mpiproc: Count
    """Threads of each MPI process."""
    max_wallclock_seconds: Count
    """Time limit of the job, s."""


class Resources(Section):
    """How much runs at once, and what each kind of job asks for."""

    max_concurrent: Count
    """Most jobs at the same time."""
    daemon_workers: Count
    """AiiDA daemon workers that `mlip-auto run` starts."""
    label: JobResources
    """One label calculation (pw.x)."""
    train: JobResources
    """One fit."""
    explore: JobResources
    """The exploration with a surrogate; its processes run trajectories at the same time."""
    md: JobResources
    """One LAMMPS trajectory."""


class Config(Section):
    """A complete run: every key has a value."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the run and of its folder; default: the name of the input file."""
    material: Annotated[str, Field(min_length=1)] | dict[str, Any]
    """Element, formula, composition ({Fe: 0.5, Ni: 0.5}), file, molecule or reaction."""
    goal: Goal
    """What the potential is for; decides structures, temperatures and validation."""
    protocol: Protocol
    """How much effort: the defaults of everything below."""
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    """Seed of everything random; the same file and seed give the same run."""
    budget: Budget
    """Hard limits of the whole run."""
    generate: Generate
    """The first structures, made from the crystal before any potential exists."""
    explore: Explore
    """Molecular dynamics with a universal model, before there is anything to learn from."""
    label: Label
    """How structures get reference energies, forces and stresses."""
    train: Train
    """The fit of the potential."""
    md: Md
    """Molecular dynamics with the potential, in search of structures it does not know."""
    loop: Loop
    """The active learning: fit, explore with MD, label what is unknown, fit again."""
    validation: Validate = Field(alias="validate")
    """Properties of the finished potential against the oracle with the same settings."""
    resources: Resources
    """How much runs at once, and what each kind of job asks for."""

    @model_validator(mode="after")
    def _committee(self) -> Self:
        problem = check_committee(self.md.uncertainty, self.train.trainer, self.train.posterior)
        if problem:
            raise ValueError(problem)
        return self
