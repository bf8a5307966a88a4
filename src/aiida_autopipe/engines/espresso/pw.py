"""pw.x of Quantum ESPRESSO: settings to input parameters, parsed output to labels.

One `PwSettings` is one *method*: every structure of a dataset is labelled with the same functional,
pseudopotentials, cutoffs, k-point spacing, smearing and spin treatment, otherwise the energies are
not comparable. The isolated atom is the one exception: it needs its own occupations and spin.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import ground_state_magnetic_moments
from numpy.typing import NDArray

from aiida_autopipe.core.errors import EngineError, InputError
from aiida_autopipe.core.kpoints import mesh_from_spacing

GPA = 1.0 / 160.21766208
"""eV/Å^3 in one GPa (CODATA 2014, as used by ASE)."""

SMEARING_NAMES = {
    "gaussian": "gaussian",
    "cold": "cold",
    "methfessel-paxton": "methfessel-paxton",
    "fermi-dirac": "fermi-dirac",
}
VACUUM = 10.0
"""Å between a molecule and its periodic image; the edge of the box of an isolated atom."""
ATOM_SECONDS = 600.0
ATOM_SMEARING_WIDTH_RY = 0.002
"""Small enough that a degenerate shell is filled evenly and nothing else is smeared."""


@dataclass(frozen=True)
class PwSettings:
    """The method of a set of labels.

    Attributes:
        cutoff_wfc_Ry: plane-wave cutoff of the wavefunctions, Ry.
        cutoff_rho_Ry: plane-wave cutoff of the density, Ry.
        kspacing_per_A: largest distance between k-points, 1/Å with the factor 2 pi.
        kpoints_shift: shift the mesh by half a step (Monkhorst-Pack) instead of centring it on
            Gamma.
        functional: name of the functional the pseudopotentials were made with.
        smearing: 'none' (fixed occupations) or a smearing of pw.x.
        smearing_width_Ry: width of the smearing, Ry.
        spin: collinear spin polarisation, starting ferromagnetic.
        scf_threshold_Ry_per_atom: convergence threshold of the self-consistent energy.
        force_threshold: largest force component of a relaxed structure, eV/Å.
    """

    cutoff_wfc_Ry: float
    cutoff_rho_Ry: float
    kspacing_per_A: float
    kpoints_shift: bool = False
    functional: str = "unknown"
    smearing: str = "cold"
    smearing_width_Ry: float = 0.01
    spin: bool = False
    scf_threshold_Ry_per_atom: float = 1e-9
    force_threshold: float = 0.01

    def __post_init__(self) -> None:
        if self.smearing != "none" and self.smearing not in SMEARING_NAMES:
            choices = ", ".join(["none", *SMEARING_NAMES])
            raise InputError(f"Unknown smearing '{self.smearing}'; choose one of {choices}.")
        if self.spin and self.smearing == "none":
            raise InputError(
                "Spin polarisation with fixed occupations needs the magnetisation in advance: "
                "choose a smearing, or set spin to false."
            )
        for field in fields(self):
            if field.type != "float":
                continue
            value = getattr(self, field.name)
            # Written 30 or 30.0, it is the same method and must give the same fingerprint.
            if isinstance(value, bool | str) or not 0 < float(value) < np.inf:
                raise InputError(
                    f"The pw.x setting {field.name} is {value!r}; it must be positive."
                )
            object.__setattr__(self, field.name, float(value))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PwSettings:
        """Settings from a plain dictionary.

        Raises:
            InputError: a key that is unknown or missing.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(
                f"Unknown pw.x setting '{unknown[0]}'; known are {', '.join(sorted(known))}."
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f"Incomplete pw.x settings: {error}.") from error


def is_isolated_atom(atoms: Atoms) -> bool:
    """True for a single atom without periodic directions: a reference energy, not a crystal."""
    return len(atoms) == 1 and not np.any(atoms.pbc)


def is_molecule(atoms: Atoms) -> bool:
    """True for a structure without periodic directions: an isolated atom or several."""
    return not np.any(atoms.pbc)


def in_box(atoms: Atoms) -> Atoms:
    """The structure as pw.x can treat it: a molecule is put into a periodic box.

    The box is orthogonal, so that forces need no rotation, and leaves VACUUM to the images on all
    sides; the one of an atom is a cube.
    """
    if not is_molecule(atoms):
        return atoms
    boxed: Atoms = atoms.copy()
    size = np.ptp(atoms.positions, axis=0) + VACUUM
    boxed.set_cell(np.diag(size))
    boxed.positions += size / 2 - (atoms.positions.min(axis=0) + atoms.positions.max(axis=0)) / 2
    boxed.pbc = True
    return boxed


def parameters(
    settings: PwSettings, atoms: Atoms, relax: bool = False
) -> dict[str, dict[str, Any]]:
    """Input parameters for pw.x, namelist by namelist.

    Args:
        settings: the method.
        atoms: the structure; an isolated atom gets its own occupations and spin.
        relax: relax the positions at fixed cell instead of a single point.
    """
    control = {"calculation": "scf", "tprnfor": True, "tstress": True}
    system: dict[str, Any] = {"ecutwfc": settings.cutoff_wfc_Ry, "ecutrho": settings.cutoff_rho_Ry}
    electrons = {
        "conv_thr": settings.scf_threshold_Ry_per_atom * len(atoms),
        "mixing_beta": 0.7,
        "electron_maxstep": 80,
    }
    result: dict[str, dict[str, Any]] = {
        "CONTROL": control,
        "SYSTEM": system,
        "ELECTRONS": electrons,
    }
    if is_isolated_atom(atoms):
        system |= _atom_occupations(atoms)
        return result
    if settings.smearing == "none":
        system["occupations"] = "fixed"
    else:
        system |= {
            "occupations": "smearing",
            "smearing": SMEARING_NAMES[settings.smearing],
            "degauss": settings.smearing_width_Ry,
        }
    if settings.spin:
        kinds = sorted(set(atoms.get_chemical_symbols()))
        system |= {"nspin": 2, "starting_magnetization": dict.fromkeys(kinds, 0.5)}
    if relax:
        control["calculation"] = "relax"
        control["forc_conv_thr"] = settings.force_threshold / (13.605693122994 / 0.529177210903)
        result["IONS"] = {"ion_dynamics": "bfgs"}
    return result


def _atom_occupations(atoms: Atoms) -> dict[str, Any]:
    """Spin of the atom's ground state (Hund), degenerate shells filled evenly by a tiny smearing.

    Integer occupations of one orbital of a degenerate shell do not converge; the fixed total
    magnetisation keeps the smearing from mixing the spins.
    """
    moment = float(ground_state_magnetic_moments[atoms.numbers[0]])
    symbol = atoms.get_chemical_symbols()[0]
    occupations: dict[str, Any] = {
        "occupations": "smearing",
        "smearing": "gaussian",
        "degauss": ATOM_SMEARING_WIDTH_RY,
    }
    if moment:
        occupations |= {
            "nspin": 2,
            "tot_magnetization": moment,
            "starting_magnetization": {symbol: 0.5},
        }
    return occupations


def kpoints(settings: PwSettings, atoms: Atoms) -> tuple[tuple[int, int, int], tuple[float, ...]]:
    """Mesh and offset for a structure.

    A structure that carries `info['kpoints_mesh']` ('k1 k2 k3') uses that mesh: strained copies of
    one crystal must share the mesh of the unstrained crystal, or their energies jump where a
    division does.

    Raises:
        InputError: a mesh that is not three positive whole numbers, or a cell without volume.
    """
    if is_molecule(atoms):
        return (1, 1, 1), (0.0, 0.0, 0.0)
    explicit = str(atoms.info.get("kpoints_mesh", "")).split()
    if explicit:
        mesh = _parse_mesh(explicit)
    else:
        mesh = mesh_from_spacing(atoms.cell.array, atoms.pbc, settings.kspacing_per_A)
    shift = 0.5 if settings.kpoints_shift else 0.0
    return mesh, tuple(shift if n > 1 else 0.0 for n in mesh)


def _parse_mesh(words: list[str]) -> tuple[int, int, int]:
    if len(words) != 3 or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(
            f"The k-point mesh '{' '.join(words)}' must be three positive whole numbers, "
            "such as '4 4 4'."
        )
    n1, n2, n3 = (int(word) for word in words)
    return n1, n2, n3


def estimated_seconds(settings: PwSettings, atoms: Atoms) -> float:
    """A guess at the CPU seconds of a label, good to a factor of a few.

    It grows like k-points times atoms squared, fitted to silicon and aluminium on one core; it
    decides only what is labelled together and what first. Atoms and molecules count as expensive:
    their box is mostly vacuum, and nothing can start without the energies of the atoms.
    """
    if is_molecule(atoms):
        return ATOM_SECONDS
    mesh, _ = kpoints(settings, atoms)
    basis = float((settings.cutoff_wfc_Ry / 20.0) ** 1.5) * (2.0 if settings.spin else 1.0)
    return 0.4 + 0.005 * float(np.prod(mesh)) * len(atoms) ** 2 * basis


def method(settings: PwSettings, pseudo_hashes: Mapping[str, str]) -> dict[str, Any]:
    """What makes energies comparable, with a fingerprint over all of it.

    Args:
        settings: the method's settings.
        pseudo_hashes: MD5 of the pseudopotential file by element.
    """
    content = {"program": "pw.x", "settings": asdict(settings), "pseudos": dict(pseudo_hashes)}
    text = json.dumps(content, sort_keys=True)
    return {**content, "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16]}


@dataclass(frozen=True)
class PwLabel:
    """One label.

    Attributes:
        energy: total energy in eV.
        forces: (n, 3) in eV/Å.
        stress: (6,) in eV/Å^3, ASE sign and Voigt order.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]


def label_from_output(
    output: Mapping[str, Any],
    forces: NDArray[np.float64],
    stress: NDArray[np.float64],
    isolated: bool,
) -> PwLabel:
    """Turn parsed pw.x output into a label.

    The energy is the one whose derivative the forces are: with smearing the free energy E - TS that
    pw.x prints behind '!'. For an isolated atom the smearing only fills a degenerate shell evenly,
    so its entropy term is taken out again.

    Args:
        output: 'energy' and, with smearing, 'energy_smearing' (-TS), both in eV.
        forces: (n, 3) in eV/Å.
        stress: (3, 3) in GPa with pw.x's sign (positive under compression).
        isolated: the structure is an isolated atom.

    Raises:
        EngineError: the energy is missing, or energy, forces or stress are not finite.
    """
    energy = output.get("energy")
    if energy is None:
        raise EngineError("pw.x printed no total energy.")
    total = float(energy)
    if isolated:
        total -= float(output.get("energy_smearing", 0.0))
    tensor = -np.asarray(stress, dtype=float) * GPA
    voigt = np.array(
        [tensor[0, 0], tensor[1, 1], tensor[2, 2], tensor[1, 2], tensor[0, 2], tensor[0, 1]]
    )
    label = PwLabel(total, np.asarray(forces, dtype=float), voigt)
    if not (np.isfinite(total) and np.all(np.isfinite(forces)) and np.all(np.isfinite(voigt))):
        raise EngineError("pw.x printed an energy, force or stress that is not a finite number.")
    return label
