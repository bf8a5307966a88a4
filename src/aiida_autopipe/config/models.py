"""The expanded configuration: one pydantic model per section of the input file.

The docstring under each field is its documentation: the input template (``mlip-auto init``) and the
reference page are generated from it. Units are ASE's (eV, Å) unless the name carries another one.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]
NaturalNumber = Annotated[int, Field(ge=0)]
Strain = Annotated[float, Field(gt=-0.5, lt=0.5)]
Repeats = Annotated[list[Count], Field(min_length=3, max_length=3)]
CodeLabel = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]

Goal = Literal["elastic"]
Oracle = Literal["autopipe.pw"]
Protocol = Literal["fast", "balanced", "stringent"]
Smearing = Literal["none", "gaussian", "cold", "methfessel-paxton", "fermi-dirac"]
Property = Literal[
    "lattice_constant", "bulk_modulus", "C11", "C12", "C44", "vacancy_formation_energy"
]


class Section(BaseModel):
    """A block of keys: unknown keys, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )


class Budget(Section):
    """Hard limits of the whole run."""

    labels: Count
    """Most label calculations of the active learning, isolated atoms and retries included."""
    hours: Positive
    """No new generation starts after this wall time in hours."""


class Generate(Section):
    """The first structures, made from the crystal before any potential exists."""

    volumetric_strains: list[Strain]
    """Relative volume changes of the primitive cell."""
    shear_strains: list[Strain]
    """Engineering strains, uniaxial and shear, along each independent direction of the crystal."""
    rattle_amplitudes: list[Positive]
    """Standard deviations of random displacements, Å."""
    rattle_cells: list[Repeats]
    """Supercells of the primitive cell that are rattled."""
    rattles_per_amplitude: NaturalNumber
    """Rattled structures for each amplitude and supercell."""
    rattle_strain: Annotated[float, Field(ge=0, lt=0.3)]
    """Standard deviation of the random strain applied together with a rattle."""
    vacancies: NaturalNumber
    """Structures with one atom removed, for each inequivalent site."""
    max_atoms: Count
    """No structure may have more atoms: its label would cost too much."""


class Label(Section):
    """How structures get reference energies, forces and stresses."""

    oracle: Oracle
    """Process that labels one structure (AiiDA entry point)."""
    code: CodeLabel
    """The pw.x code in AiiDA."""
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
    max_rank: Annotated[int, Field(ge=1, le=5)]
    """Largest number of neighbours in one basis function (body order minus one)."""
    max_functions: Count
    """Most basis functions for each element."""
    test_fraction: Annotated[float, Field(gt=0, le=0.5)]
    """Part of the labels kept out of the fit to measure the error."""
    environments_per_function: Annotated[float, Field(ge=0)]
    """Distinct training environments that pay for one function; 0 always takes max_functions."""
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
    active_set_tolerance: Annotated[float, Field(gt=1, le=2)]
    """Largest extrapolation grade of a training environment."""
    active_set_floor: Annotated[float, Field(gt=0, le=0.1)]
    """Relative size below which differences between environments count as noise."""
    threads: Annotated[int, Field(gt=0, le=256)]
    """Threads of the fit."""

    def fit_settings(self) -> dict[str, object]:
        """The fields of `aiida_autopipe.core.ace.settings.FitSettings` as plain values."""
        own = {"trainer", "code", "test_fraction"}
        return {key: value for key, value in self.model_dump().items() if key not in own}


class Md(Section):
    """Molecular dynamics with the potential, in search of structures it does not know."""

    code: CodeLabel
    """The LAMMPS code in AiiDA."""
    interface: Literal["auto", "library", "ml-pace"]
    """How LAMMPS gets the forces: its ML-PACE package, or the built-in evaluator as a library."""
    temperatures_K: Annotated[list[Positive], Field(min_length=1)]
    """Temperatures, K; one trajectory for each and each ensemble."""
    ensembles: Annotated[list[Literal["nve", "nvt", "npt"]], Field(min_length=1)]
    """Ensembles of the trajectories."""
    pressure_GPa: float
    """Pressure of the npt trajectories, GPa."""
    steps: Count
    """Steps of one trajectory."""
    timestep_fs: Annotated[float, Field(gt=0, le=20)]
    """Time step, fs."""
    gamma_select: Positive
    """Frames with an extrapolation grade above this become candidates for labels."""
    gamma_halt: Positive
    """A trajectory stops at an extrapolation grade above this."""
    gamma_every: Count
    """Steps between evaluations of the extrapolation grade."""
    max_frames: Count
    """Most candidate frames kept of one trajectory."""
    supercell: Repeats
    """Supercell of the primitive cell; its frames are labelled, so keep it small."""
    include_vacancy: bool
    """Also run each trajectory in the supercell with one atom removed."""

    @model_validator(mode="after")
    def _thresholds(self) -> Self:
        if self.gamma_halt <= self.gamma_select:
            raise ValueError(
                f"gamma_halt ({self.gamma_halt}) must be greater than "
                f"gamma_select ({self.gamma_select})"
            )
        if self.gamma_every > self.steps:
            raise ValueError(
                f"gamma_every ({self.gamma_every}) must not be greater than steps ({self.steps})"
            )
        return self


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


class Loop(Section):
    """The active learning: fit, explore with MD, label what is unknown, fit again."""

    min_generations: Count
    """Generations that always run, as long as the budget lasts."""
    max_generations: Count
    """Most generations."""
    candidates_per_generation: Count
    """Most structures labelled in one generation."""
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


class Validate(Section):
    """Properties of the finished potential against the oracle with the same settings."""

    properties: Annotated[list[Property], Field(min_length=1)]
    """Properties to compare."""
    tolerance: Positive
    """Largest relative error that passes."""
    eos_points: Annotated[int, Field(ge=5, le=21)]
    """Volumes of the equation of state (lattice constant, bulk modulus)."""
    eos_volume_range: Annotated[float, Field(gt=0, lt=0.3)]
    """Largest relative volume change of the equation of state, both ways."""
    elastic_strain: Annotated[float, Field(gt=0, le=0.05)]
    """Strain of the elastic constants, applied both ways."""
    vacancy_supercell: Repeats
    """Supercell of the primitive cell for the vacancy."""


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
    md: JobResources
    """One LAMMPS trajectory."""


class Config(Section):
    """A complete run: every key has a value."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the run and of its folder; default: the name of the input file."""
    material: Annotated[str, Field(min_length=1)]
    """An element with a known crystal (Si, Cu, Fe) or a structure file (CIF, POSCAR, extxyz)."""
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
