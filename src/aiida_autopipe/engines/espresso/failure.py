"""What went wrong in a pw.x run, recognised from everything the run left behind.

Exit codes alone are not enough: a run that is killed or aborts under MPI loses the end of its
stdout and then looks like any other lost run. CRASH, stderr, the scheduler's words and the return
code are read as well, the most specific evidence first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """The failures that are told apart; the value is used in results and reports."""

    NOT_CONVERGED = "SCF not converged"
    SMEARING_NEEDED = "smearing is needed"
    MOMENT_NEEDED = "fixed occupations with spin need tot_magnetization"
    START_MOMENT_MISSING = "starting_magnetization is missing"
    TOO_FEW_BANDS = "too few bands"
    TOO_MANY_BANDS = "more bands than plane waves"
    S_MATRIX = "S matrix not positive definite"
    DIAGONALISATION = "diagonalisation failed"
    MIXING = "charge mixing failed"
    CHARGE_WRONG = "charge is wrong"
    WALLTIME = "out of walltime"
    OUT_OF_MEMORY = "out of memory"
    KILLED = "killed"
    POOLS = "too many pools"
    OVERLAP = "atoms overlap"
    PSEUDO = "pseudopotential unusable"
    SYMMETRY = "symmetry or k-points"
    INPUT = "wrong input"
    LOST_OUTPUT = "output lost"
    NOT_A_NUMBER = "not a number"
    IONIC = "ions not relaxed"
    ALLOWED = "SCF not converged, which the input allows"
    OTHER = "unknown failure"


@dataclass(frozen=True)
class Evidence:
    """What a run left behind; missing files are empty.

    Attributes:
        exit_status: of the parsed calculation, 0 for success, None where there was no parser.
        stdout: of pw.x.
        crash: the file CRASH.
        stderr: of the job, the shell's words about a killed program included.
        scheduler: the scheduler's own words.
        return_code: of pw.x where it is known; negative or above 128 for a signal.
    """

    exit_status: int | None = None
    stdout: str = ""
    crash: str = ""
    stderr: str = ""
    scheduler: str = ""
    return_code: int | None = None


@dataclass(frozen=True)
class Failure:
    """A recognised failure and the words it was recognised by."""

    kind: Kind
    seen: str = ""
    accuracies: tuple[float, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return f"{self.kind.value} ({self.seen})" if self.seen else self.kind.value


ROUTINE = r"(?:Error in routine|from)\s+(?:{})\b"
"""How stdout and CRASH name the routine that gave up."""


def _in(*routines: str) -> str:
    return ROUTINE.format("|".join(routines))


MAX_SECONDS = r"Maximum CPU time exceeded"
G_PAR = r"G_par is NOT a reciprocal lattice"
UNBOXED = (MAX_SECONDS, G_PAR)
"""What pw.x says in the middle of stdout, before it stops without an error."""

# In the order in which they are looked for: "charge is wrong: smearing is needed" is no cutoff
# problem, and a file that is not found is not an input error.
WORDS: tuple[tuple[str, Kind], ...] = (
    (r"smearing is needed", Kind.SMEARING_NEEDED),
    (r"fixed occupations and lsda (?:need tot_magnetization|not impl)", Kind.MOMENT_NEEDED),
    (r"starting_magnetization MUST be set", Kind.START_MOMENT_MISSING),
    (r"too few (?:spin (?:up|dw) )?bands|not enough (?:wfcs|bands)", Kind.TOO_FEW_BANDS),
    (r"more bands than PWs", Kind.TOO_MANY_BANDS),
    (r"S matrix not positive definite|problems computing cholesky", Kind.S_MATRIX),
    (r"charge is wrong", Kind.CHARGE_WRONG),
    (r"atoms\s*#?\s*\d+\s*and\s*#?\s*\d+\s*overlap", Kind.OVERLAP),
    (r"some nodes have no k-points|invalid number of pools", Kind.POOLS),
    (r"(?:can|could) ?not allocate|Allocation would exceed|error allocating", Kind.OUT_OF_MEMORY),
    (r"insufficient memory|oom-kill|out[- ]of[- ](?:dynamic )?memory", Kind.OUT_OF_MEMORY),
    (r"failed to map segment|bad_alloc|exceeded memory limit", Kind.OUT_OF_MEMORY),
    (r"too many bands are not converged", Kind.DIAGONALISATION),
    (r"eigenvectors failed to converge|zhegvd failed|qr\(X, 0\) failed", Kind.DIAGONALISATION),
    (
        _in(r"[cr]diaghg", "c_bands", r"[cr]egterg", r"rotate_wfc\w*", r"p?ppcg\w*", r"paro\w*"),
        Kind.DIAGONALISATION,
    ),
    (_in("broyden", "mix_rho"), Kind.MIXING),
    # Switching symmetry off would make even more of them.
    (r"too many k[- ]points", Kind.INPUT),
    (G_PAR, Kind.SYMMETRY),
    (r"not orthogonal operation", Kind.SYMMETRY),
    (
        _in("kpoint_grid", "divide_et_impera", "set_sym_bl", "sgama", "checkallsym", "rotate_grid"),
        Kind.SYMMETRY,
    ),
    (_in("readpp", r"read_upf\w*", r"read_pseudo\w*", "upf_to_internal"), Kind.PSEUDO),
    (r"At line \d+ of file (?:xmltools|(?:read_)?(?:upf|ps)\w*)\.f90", Kind.PSEUDO),
    (_in("set_dft_from_name", "enforce_dft", "read_ncpp", "read_uspp"), Kind.PSEUDO),
    (r"pseudo\w*.*not found|conflicting values for i(?:exch|corr|gcx|gcc|nlc|meta)", Kind.PSEUDO),
    (_in("iosys", "read_namelists", "read_cards", r"card_\w+", r"\w+_checkin"), Kind.INPUT),
    (
        _in("cell_base_init", "latgen", "lattice", r"check_(?!tempdir)\w+", r"set_occupations"),
        Kind.INPUT,
    ),
    (MAX_SECONDS, Kind.WALLTIME),
)
"""Patterns in the errors of stdout, in CRASH and in stderr, in this order."""

SIGNAL_WORDS = r"\bKilled\b|signal 9|SIGKILL|Terminated|signal 15|SIGTERM"
STATUS_KINDS = {
    110: Kind.OUT_OF_MEMORY,
    120: Kind.WALLTIME,
    340: Kind.WALLTIME,
    400: Kind.WALLTIME,
    360: Kind.SYMMETRY,
    410: Kind.NOT_CONVERGED,
    462: Kind.S_MATRIX,
    463: Kind.DIAGONALISATION,
    464: Kind.S_MATRIX,
    465: Kind.DIAGONALISATION,
    466: Kind.DIAGONALISATION,
    467: Kind.DIAGONALISATION,
    468: Kind.MIXING,
    481: Kind.POOLS,
    510: Kind.NOT_CONVERGED,
    511: Kind.NOT_CONVERGED,
    531: Kind.CHARGE_WRONG,
    541: Kind.SYMMETRY,
}
"""Exit codes of the parser of pw.x (and AiiDA's own for schedulers) for what words do not show."""

IONIC_WORDS = {
    500: "the forces are above the threshold",
    502: "the maximum number of steps has been reached",
    503: "it was interrupted",
    520: "two BFGS steps in a row failed",
}
STATUS_KINDS |= dict.fromkeys((*IONIC_WORDS, 501, 521, 542), Kind.IONIC)

ALLOWED_STATUS = 710
"""The parser's code for `scf_must_converge = .false.`"""
LOST_STATUSES = (302, 303, 305, 310, 311, 312)


def recognise(evidence: Evidence) -> Failure | None:
    """The failure of a run, None where it did not fail.

    The order is: not a number, words of pw.x, the convergence of the SCF, words of the system, the
    exit code. A run that finished cannot have been killed, and a run that was killed may have
    printed a warning before.
    """
    accuracies = scf_accuracies(evidence.stdout)
    if evidence.exit_status == ALLOWED_STATUS:
        return Failure(Kind.ALLOWED, "", accuracies)
    # It makes the next diagonalisation fail, or cg run for ever.
    if re.search(r"total energy\s*=\s*NaN|scf accuracy\s*<\s*NaN", evidence.stdout):
        return Failure(Kind.NOT_A_NUMBER, "the energy became NaN", accuracies)
    said = "\n".join((evidence.crash, error_boxes(evidence.stdout), evidence.stderr))
    for pattern, kind in WORDS:
        text = evidence.stdout if pattern in UNBOXED else said
        found = re.search(pattern, text, re.IGNORECASE)
        if found and evidence.exit_status != 0:
            boxes = error_boxes(evidence.stdout) or error_boxes(evidence.crash)
            inside = re.search(pattern, boxes, re.IGNORECASE)
            return Failure(kind, boxes if inside else _line_of(text, found), accuracies)
    if evidence.exit_status == 0:
        return None
    if "convergence NOT achieved" in evidence.stdout:
        last = f"accuracy {accuracies[-1]:.1e} Ry" if accuracies else "no accuracy printed"
        return Failure(Kind.NOT_CONVERGED, f"{last} after {len(accuracies)} iterations", accuracies)
    return _system_failure(evidence, accuracies)


def _system_failure(evidence: Evidence, accuracies: tuple[float, ...]) -> Failure:
    """A failure that pw.x itself has no words for."""
    words = f"{evidence.stderr}\n{evidence.scheduler}"
    found = re.search(r"oom|out of memory|memory limit", evidence.scheduler, re.IGNORECASE)
    if found:
        return Failure(Kind.OUT_OF_MEMORY, _line_of(evidence.scheduler, found), accuracies)
    if re.search(r"time limit|walltime", evidence.scheduler, re.IGNORECASE):
        return Failure(Kind.WALLTIME, "the scheduler's time limit", accuracies)
    signal = re.search(SIGNAL_WORDS, words)
    if signal:
        return Failure(Kind.KILLED, _line_of(words, signal), accuracies)
    code = evidence.return_code
    if code in (-9, 137, -15, 143):
        return Failure(Kind.KILLED, f"return code {code}", accuracies)
    box = error_boxes(f"{evidence.crash}\n{evidence.stdout}")
    kind = STATUS_KINDS.get(evidence.exit_status or 0)
    if kind is not None:
        return Failure(kind, box or IONIC_WORDS.get(evidence.exit_status or 0, ""), accuracies)
    if box:
        return Failure(Kind.OTHER, box, accuracies)
    if evidence.exit_status in LOST_STATUSES or not evidence.stdout.strip():
        seen = " ".join(evidence.stderr.split())[-200:] or "no message in stdout, CRASH or stderr"
        return Failure(Kind.LOST_OUTPUT, seen, accuracies)
    return Failure(Kind.OTHER, f"exit status {evidence.exit_status}", accuracies)


def error_boxes(text: str) -> str:
    """The messages between the lines of % in which pw.x reports an error, joined."""
    boxes = re.findall(r"%{20,}\s*\n(.*?)\n\s*%{20,}", text, re.DOTALL)
    unique = dict.fromkeys(" ".join(box.replace("%", " ").split()) for box in boxes)
    return "; ".join(box for box in unique if box)


def _line_of(text: str, found: re.Match[str]) -> str:
    start = text.rfind("\n", 0, found.start()) + 1
    end = text.find("\n", found.end())
    return " ".join(text[start : end if end >= 0 else None].split())[-200:]


def scf_accuracies(stdout: str) -> tuple[float, ...]:
    """The estimated accuracy (Ry) of every iteration of the last SCF cycle."""
    cycle = stdout[stdout.rfind("Self-consistent Calculation") :]
    return tuple(_numbers(r"estimated scf accuracy\s*<\s*(\S+)", cycle))


def last_estimate(stdout: str) -> float | None:
    """The last total energy (Ry) an SCF cycle printed, converged or not."""
    found = _numbers(r"^!?\s+total energy\s*=\s*(\S+)", stdout)
    return found[-1] if found else None


def last_moments(stdout: str) -> tuple[float, float] | None:
    """Total and absolute magnetisation (Bohr magnetons per cell), None without spin."""
    total = _numbers(r"total magnetization\s*=\s*(\S+)", stdout)
    absolute = _numbers(r"absolute magnetization\s*=\s*(\S+)", stdout)
    return (total[-1], absolute[-1]) if total and absolute else None


def _numbers(pattern: str, text: str) -> list[float]:
    values = []
    for word in re.findall(pattern, text, re.MULTILINE):
        try:
            values.append(float(word))
        except ValueError:  # a field too narrow for its number is printed as ****
            values.append(float("nan"))
    return values
