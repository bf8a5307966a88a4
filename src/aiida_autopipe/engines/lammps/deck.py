"""MD settings, structure and potential -> the files LAMMPS reads.

`in.lammps` is the same whatever evaluates the potential. It includes `potential.lmp`, which defines
the forces and two names the rest relies on: `v_autopipe_gamma_atom` (per atom) and
`v_autopipe_gamma` (the largest). Two kinds of it exist: ML-PACE's `pace/extrapolation`, and
`fix external`, where `autopipe-lammps` fills in forces from the built-in evaluator. A ZBL repulsion
comes from the potential file in the second, and from LAMMPS (`hybrid/overlay`) in the first.

Reference energies are in neither: B-basis files have no place for them, so `pe` is the interaction
energy in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms, units
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from aiida_autopipe.core.ace.lammps_text import pair_commands
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.core.strain_rate import AXES
from aiida_autopipe.engines.lammps.sampling import (
    SKIN,
    sampling_begin,
    sampling_end,
    sampling_setup,
)
from aiida_autopipe.engines.lammps.settings import MdSettings, Segment

if TYPE_CHECKING:
    from aiida_autopipe.core.ace.zbl import ZBL

INPUT_FILE = "in.lammps"
POTENTIAL_FILE = "potential.lmp"
DATA_FILE = "structure.data"
LOG_FILE = "log.lammps"
TRACE_FILE = "trace.dat"
FRAMES_FILE = "frames.dump"
SAFE_PATTERN = "safe.*.dump"
KEPT_FILE = "trajectory.dump"

EXTERNAL_FIX = "autopipe_external"
GAMMA_PROPERTY = "d_autopipe_gamma"
MARKER = "# autopipe:"
END_MESSAGE = "autopipe: end of input"

# What both kinds of potential.lmp read. The B-basis form, because gamma is defined by B functions.
POTENTIAL_FILES = ("potential.yaml", "potential.asi")

VACUUM = 20.0
"""Room between a molecule and its images at the start, Å."""

_BAR_PER_GPA = 1.0e4
_PS_PER_FS = 1.0e-3
_A_PER_PS = 1.0e3 * units.fs
"""ASE's unit of velocity in Å/ps."""
# LAMMPS' own recommendation for damping times, in time steps.
_THERMOSTAT_STEPS = 100
_BAROSTAT_STEPS = 1000
# The largest seed every LAMMPS random number generator accepts.
_LARGEST_SEED = 900_000_000


def lammps_rotation(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation (3, 3) that makes `cell @ rotation` lower triangular with positive diagonal.

    LAMMPS wants its boxes so. For a left-handed cell it is a rotation and a reflection; energies do
    not notice. Vectors go to LAMMPS as `v @ rotation` and come back as `v @ rotation.T`.
    """
    q, r = np.linalg.qr(np.asarray(cell, dtype=np.float64).T)
    signs = np.where(np.diag(r) < 0.0, -1.0, 1.0)
    rotation: NDArray[np.float64] = q * signs
    return rotation


def in_vacuum(atoms: Atoms) -> Atoms:
    """The structure as LAMMPS can run it: a molecule in a periodic box, anything else as it is.

    The box leaves VACUUM to the images on all sides, more than the range of any potential here.
    """
    if np.any(atoms.pbc):
        return atoms
    boxed: Atoms = atoms.copy()
    size = np.ptp(atoms.positions, axis=0) + VACUUM
    boxed.set_cell(np.diag(size))
    boxed.positions += size / 2 - (atoms.positions.min(axis=0) + atoms.positions.max(axis=0)) / 2
    boxed.pbc = True
    return boxed


def check_structure(atoms: Atoms, elements: Sequence[str]) -> None:
    """Raise InputError when the structure cannot be run with a potential for these elements."""
    unknown = sorted(set(atoms.symbols) - set(elements))
    if unknown:
        raise InputError(
            f"The potential knows {', '.join(elements)} but the structure contains "
            f"{', '.join(unknown)}; train a potential for them."
        )
    if not all(atoms.pbc) or abs(atoms.cell.volume) < 1e-6:
        raise InputError(
            "MD needs a molecule without periodic directions, or a structure that is periodic in "
            "three; put a slab into a cell with vacuum."
        )
    if len(atoms) < 2:
        raise InputError(
            "MD of one atom has no degrees of freedom once its momentum is removed; "
            "repeat the cell."
        )


def data_file(
    atoms: Atoms,
    elements: Sequence[str],
    rotation: NDArray[np.float64] | None = None,
) -> str:
    """LAMMPS data file (atom_style atomic, units metal); type i is `elements[i - 1]`.

    A molecule is put into a box, see `in_vacuum`.

    Args:
        atoms: the structure; its velocities are written where it has any.
        elements: of each atom type.
        rotation: that of the structure a run began with, when it goes on from another; None makes
            one for the cell.

    Raises:
        InputError: see `check_structure`.
    """
    atoms = in_vacuum(atoms)
    check_structure(atoms, elements)
    if rotation is None:
        rotation = lammps_rotation(atoms.cell.array)
    cell = atoms.cell.array @ rotation
    tilts = (cell[1, 0], cell[2, 0], cell[2, 1])
    lines = [
        "# written by aiida-autopipe: units metal, atom_style atomic",
        "",
        f"{len(atoms)} atoms",
        f"{len(elements)} atom types",
        "",
        *(f"0.0 {cell[i, i]:.15g} {axis}lo {axis}hi" for i, axis in enumerate("xyz")),
    ]
    if np.any(np.abs(tilts) > 1e-10):
        lines.append("{:.15g} {:.15g} {:.15g} xy xz yz".format(*tilts))
    lines += ["", "Masses", ""]
    for index, element in enumerate(elements, start=1):
        lines.append(f"{index} {atomic_masses[atomic_numbers[element]]:.10g} # {element}")
    lines += ["", "Atoms # atomic", ""]
    types = [elements.index(symbol) + 1 for symbol in atoms.symbols]
    rows = zip(types, atoms.positions @ rotation, strict=True)
    for index, (kind, (x, y, z)) in enumerate(rows, start=1):
        lines.append(f"{index} {kind} {x:.15g} {y:.15g} {z:.15g}")
    if atoms.has("momenta"):
        lines += ["", "Velocities", ""]
        velocities = atoms.get_velocities() * _A_PER_PS @ rotation
        for index, (x, y, z) in enumerate(velocities, start=1):
            lines.append(f"{index} {x:.15g} {y:.15g} {z:.15g}")
    return "\n".join(lines) + "\n"


def potential_include(
    settings: MdSettings, elements: Sequence[str], cutoff: float, zbl: ZBL | None = None
) -> str:
    """Text of `potential.lmp` for the interface in the settings.

    elements: of each atom type, in any order; cutoff: in Å; zbl: the repulsion of the potential.
    """
    if settings.interface == "library":
        lines = [
            f"{MARKER} potential={POTENTIAL_FILES[0]} gamma_every={settings.gamma_every} "
            f"elements={','.join(elements)}"
            + ("" if settings.uncertainty == "gamma" else f" uncertainty={settings.uncertainty}"),
            f"pair_style zero {cutoff:.10g} full",
            "pair_coeff * *",
            f"fix autopipe_gamma all property/atom {GAMMA_PROPERTY}",
            f"fix {EXTERNAL_FIX} all external pf/callback 1 1",
            f"fix_modify {EXTERNAL_FIX} energy yes virial yes",
            f"variable autopipe_gamma_atom atom {GAMMA_PROPERTY}",
            f"variable autopipe_gamma equal f_{EXTERNAL_FIX}[1]",
        ]
    else:
        lines = [
            *pair_commands("pace/extrapolation", POTENTIAL_FILES, elements, zbl),
            f"fix autopipe_gamma all pair {settings.gamma_every} pace/extrapolation gamma 1",
            "compute autopipe_gamma_max all reduce max f_autopipe_gamma",
            "variable autopipe_gamma_atom atom f_autopipe_gamma",
            "variable autopipe_gamma equal c_autopipe_gamma_max",
        ]
    return "\n".join(lines) + "\n"


def input_deck(
    settings: MdSettings,
    elements: Sequence[str],
    seed: int,
    timeout_seconds: int | None = None,
    first_step: int | None = None,
    sampled: Sequence[str] = (),
) -> str:
    """Text of `in.lammps`.

    Args:
        settings: what to run.
        elements: element of each atom type.
        seed: any integer; it decides the initial velocities.
        timeout_seconds: LAMMPS ends the run by itself, with its files complete, after this time.
        first_step: go on from this step, with the velocities of the data file; None begins.
        sampled: elements of the structure, whose distributions, density and displacement are
            recorded; none for a molecule, which has no density.

    Raises:
        InputError: no step is left after `first_step`.
    """
    every = settings.gamma_every
    dump = f"all custom {every}"
    columns = "id element xu yu zu v_autopipe_gamma_atom"
    timestep = settings.timestep_fs * _PS_PER_FS
    segments = settings.remaining(first_step or 0)
    dump_format = f"element {' '.join(elements)} sort id format float %.15g"
    trace = "$(step) $(time) $(temp) $(press) $(vol) $(pe) $(v_autopipe_gamma)"
    lines = [
        "units metal",
        "atom_style atomic",
        "boundary p p p",
        "box tilt large",
        f"read_data {DATA_FILE}",
        *([] if first_step is None else [_clock(first_step, timestep)]),
        f"neighbor {SKIN} bin",
        "neigh_modify every 1 delay 0 check yes",
        f"include {POTENTIAL_FILE}",
        *(sampling_setup(elements, sampled) if sampled else []),
        "",
        f"timestep {timestep:.10g}",
        *([_velocities(segments[0], seed)] if first_step is None else []),
        f"thermo {settings.thermo_every}",
        "thermo_style custom step time temp press vol pe etotal",
        "thermo_modify lost error flush yes",
        "",
        f'fix autopipe_trace all print {settings.thermo_every} "{trace}" file {TRACE_FILE} '
        'screen no title "step time_ps temperature_K pressure_bar volume potential_energy gamma"',
        "",
        f'variable autopipe_is_safe equal "v_autopipe_gamma <= {settings.gamma_select:.10g}"',
        f'variable autopipe_is_candidate equal "v_autopipe_gamma > {settings.gamma_select:.10g}"',
        f"dump autopipe_frames {dump} {FRAMES_FILE} {columns}",
        f"dump_modify autopipe_frames {dump_format} skip v_autopipe_is_safe",
        # Two files in turn: a run that is killed while it writes one still has the other.
        f"dump autopipe_safe {dump} {SAFE_PATTERN} {columns} vx vy vz",
        f"dump_modify autopipe_safe {dump_format} skip v_autopipe_is_candidate maxfiles 2",
        *(_kept(settings.keep_every, columns, dump_format) if settings.keep_every else []),
        "",
        # A soft halt also skips every later run command.
        f"fix autopipe_halt all halt {every} v_autopipe_gamma > {settings.gamma_halt:.10g} "
        "error soft message yes",
    ]
    if timeout_seconds is not None:
        lines.append(f"timer timeout {timeout_seconds} every {every}")
    begun = len(settings.segments) - len(segments)
    for index, segment in enumerate(segments, start=begun + 1):
        lines += ["", f"# segment {index} of {len(settings.segments)}"]
        run = _segment(segment, timestep)
        if sampled:
            begin = sampling_begin(settings, index, elements, sampled)
            run = [*begin, *run, *sampling_end(sampled)]
        lines += run
    lines += ["", f'print "{END_MESSAGE}"']
    return "\n".join(lines) + "\n"


def _kept(every: int, columns: str, dump_format: str) -> list[str]:
    """Every frame, for whoever asks for a trajectory."""
    return [
        f"dump autopipe_kept all custom {every} {KEPT_FILE} {columns} vx vy vz",
        f"dump_modify autopipe_kept {dump_format}",
    ]


def _clock(first_step: int, timestep: float) -> str:
    return f"reset_timestep {first_step} time {first_step * timestep:.10g}"


def _velocities(segment: Segment, seed: int) -> str:
    kelvin = f"{segment.temperature_K[0]:.10g}"
    return f"velocity all create {kelvin} {lammps_seed(seed)} mom yes rot no dist gaussian"


def _segment(segment: Segment, timestep: float) -> list[str]:
    start, stop = segment.temperature_K
    ramp = f"temp {start:.10g} {stop:.10g} {_THERMOSTAT_STEPS * timestep:.10g}"
    fixes = {
        "nve": ["nve"],
        "nvt": ["nvt", ramp],
        "npt": ["npt", ramp, _barostat(segment, timestep)],
    }[segment.ensemble]
    lines = [f"fix autopipe_md all {' '.join(fixes)}"]
    if segment.strain_rate_per_ps:
        rates = (f"{axis} erate {rate:.10g}" for axis, rate in segment.strain_rate_per_ps.items())
        # Atoms move with the box.
        lines.append(f"fix autopipe_strain all deform 1 {' '.join(rates)} remap x")
    lines += [f"run {segment.steps}", "unfix autopipe_md"]
    return [*lines, "unfix autopipe_strain"] if segment.strain_rate_per_ps else lines


def _barostat(segment: Segment, timestep: float) -> str:
    start, stop = (f"{pressure * _BAR_PER_GPA:.10g}" for pressure in segment.pressure_GPa)
    target = f"{start} {stop} {_BAROSTAT_STEPS * timestep:.10g}"
    if not segment.strain_rate_per_ps:
        return f"{segment.coupling} {target}"
    return " ".join(f"{a} {target}" for a in AXES if a not in segment.strain_rate_per_ps)


def lammps_seed(seed: int) -> int:
    """A seed LAMMPS accepts (1 to 900 million) from any integer, the same for the same integer."""
    entropy = np.random.SeedSequence([abs(seed), int(seed < 0)])
    return 1 + int(entropy.generate_state(1)[0]) % _LARGEST_SEED
