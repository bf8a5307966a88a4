"""The history of one label: what was run, what came of it, and what may be done next.

Everything is plain data, so that a work chain can keep it in its context and a test can write it
down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from aiida_autopipe.engines.espresso.failure import Kind

Parameters = dict[str, dict[str, Any]]

METHOD_KEYS = ("occupations", "smearing", "degauss", "nspin", "ecutwfc", "ecutrho", "input_dft")
"""Keys of SYSTEM that decide which energy is computed, not how it is found."""

SMEARING_ALIASES = {
    "mv": "cold",
    "m-v": "cold",
    "marzari-vanderbilt": "cold",
    "gauss": "gaussian",
    "mp": "methfessel-paxton",
    "m-p": "methfessel-paxton",
    "fd": "fermi-dirac",
    "f-d": "fermi-dirac",
}


@dataclass(frozen=True)
class Situation:
    """What does not change between the attempts.

    Attributes:
        symbols: chemical symbol by kind.
        n_electrons: valence electrons in the cell.
        ultrasoft: a pseudopotential is ultrasoft or PAW.
        long_cell: the longest lattice vector is much longer than the shortest: charge sloshes.
        one_kpoint: the Gamma point only, a molecule or an atom in a box.
        suggested_wfc_Ry: the largest cutoff the pseudopotentials' headers ask for, 0 for none.
        wallclock_s: the limit of one run, None for none.
        tries_left: runs that may still be started.
    """

    symbols: Mapping[str, str]
    n_electrons: float
    ultrasoft: bool = False
    long_cell: bool = False
    one_kpoint: bool = False
    suggested_wfc_Ry: float = 0.0
    wallclock_s: float | None = None
    tries_left: int = 8


@dataclass(frozen=True)
class Attempt:
    """One run of pw.x.

    Attributes:
        number: of the attempt, from 1.
        parameters: namelists it ran with.
        failure: a `Kind`, None where it finished.
        seen: the words it was recognised by.
        energy: converged total energy, eV; None where there is none.
        estimate: the last energy printed, converged or not, eV.
        moment: total magnetisation, None without spin.
        absolute: absolute magnetisation.
        accuracies: of the last SCF cycle, Ry.
        fractional: a level at the Fermi energy is partly filled, None where it is not known.
        last_band: the largest occupation (0 to 1) of the highest band, None where it is not known.
        n_bands: number of bands it ran with.
        ranks: MPI processes, on all machines.
        machines: on which they ran.
        memory_kb: asked of the scheduler for each machine, None where nothing was.
        pools: k-point pools.
        elsewhere: it was not run here, so there is nothing to restart from.
    """

    number: int
    parameters: Parameters
    failure: Kind | None = None
    seen: str = ""
    energy: float | None = None
    estimate: float | None = None
    moment: float | None = None
    absolute: float | None = None
    accuracies: tuple[float, ...] = ()
    fractional: bool | None = None
    last_band: float | None = None
    n_bands: int | None = None
    ranks: int = 1
    machines: int = 1
    memory_kb: int | None = None
    pools: int = 1
    elsewhere: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        values = asdict(self)
        values["failure"] = None if self.failure is None else self.failure.value
        values["accuracies"] = list(self.accuracies)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Attempt:
        """The attempt that `to_dict` wrote."""
        failure = values["failure"]
        return cls(
            **{
                **values,
                "failure": None if failure is None else Kind(failure),
                "accuracies": tuple(values["accuracies"]),
            }
        )

    def get(self, namelist: str, key: str, default: Any = None) -> Any:
        """One value of its parameters."""
        return self.parameters.get(namelist, {}).get(key, default)

    @property
    def beta(self) -> float:
        """Its mixing factor."""
        return float(self.get("ELECTRONS", "mixing_beta", 0.7))

    @property
    def diagonalisation(self) -> str:
        """Its iterative solver."""
        return str(self.get("ELECTRONS", "diagonalization", "david")).lower()

    @property
    def spin(self) -> bool:
        """Collinear spin polarisation."""
        return int(self.get("SYSTEM", "nspin", 1)) == 2

    @property
    def free_moment(self) -> bool:
        """The moment is found by the SCF, not given."""
        return self.spin and float(self.get("SYSTEM", "tot_magnetization", -1)) < 0


@dataclass(frozen=True)
class Step:
    """The next attempt.

    Attributes:
        action: one sentence for the report.
        changes: value by key by namelist; None removes the key.
        restart: 'scratch', 'density' or 'full'.
        parent: number of the attempt to restart from, 0 without one.
        ranks: MPI processes on each machine, None to keep them.
        pools: k-point pools, None to keep them.
        memory_kb: memory of each machine to ask the scheduler for, None to keep it.
    """

    action: str
    changes: Parameters = field(default_factory=dict)
    restart: str = "scratch"
    parent: int = 0
    ranks: int | None = None
    pools: int | None = None
    memory_kb: int | None = None


@dataclass(frozen=True)
class Accept:
    """The label is the one of an attempt."""

    number: int
    reason: str = ""


@dataclass(frozen=True)
class Reject:
    """No label: the name of the exit code and the reason."""

    code: str
    reason: str


Decision = Step | Accept | Reject


def changed(parameters: Parameters, changes: Parameters) -> Parameters:
    """Parameters with changes made to them; None removes a key.

    Starting moments are replaced as a whole, whichever way they were written.
    """
    result = {name: dict(values) for name, values in parameters.items()}
    for name, values in changes.items():
        target = result.setdefault(name, {})
        if "starting_magnetization" in values:
            for key in [k for k in target if k.startswith("starting_magnetization")]:
                del target[key]
        for key, value in values.items():
            if value is None:
                target.pop(key, None)
            else:
                target[key] = value
    return result


def occupations(parameters: Parameters) -> str:
    """How levels are filled; pw.x fixes the occupations where nothing is said."""
    system = parameters.get("SYSTEM", {})
    return str(system.get("occupations", "fixed")).lower()


def method_of(parameters: Parameters) -> dict[str, Any]:
    """What the energy depends on, in one spelling."""
    system = parameters.get("SYSTEM", {})
    result = {key: system.get(key) for key in METHOD_KEYS}
    result["occupations"] = occupations(parameters)
    result["nspin"] = int(system.get("nspin", 1))
    result["ecutrho"] = system.get("ecutrho", 4 * float(system.get("ecutwfc", 0)))
    if result["occupations"] == "smearing":
        name = str(system.get("smearing", "gaussian")).lower()
        result["smearing"] = SMEARING_ALIASES.get(name, name)
    else:
        result["smearing"] = result["degauss"] = None
    return result


def method_change(own: Parameters, used: Parameters) -> str | None:
    """What differs from the dataset's method in words, None where nothing does."""
    before, after = method_of(own), method_of(used)
    words = [
        f"{key} {_word(before[key])} -> {_word(after[key])}"
        for key in METHOD_KEYS
        if before[key] != after[key]
    ]
    return ", ".join(words) or None


def _word(value: Any) -> str:
    return "unset" if value is None else str(value)
