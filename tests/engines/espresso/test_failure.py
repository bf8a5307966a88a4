"""Failures of pw.x from what a run leaves behind.

The layout is that of pw.x 6.7, whose own words are used where it could be made to say them.
"""

import math

import pytest

from aiida_autopipe.engines.espresso.failure import (
    Evidence,
    Kind,
    error_boxes,
    last_estimate,
    last_moments,
    recognise,
    scf_accuracies,
)

LINE = " " + "%" * 78


def box(routine: str, code: int, words: str) -> str:
    """An error as pw.x prints it to stdout."""
    return f"\n{LINE}\n     Error in routine {routine} ({code}):\n     {words}\n{LINE}\n"


def crash(routine: str, code: int, words: str) -> str:
    """The same error in the file CRASH."""
    where = f"     from {routine} : error #{code:10d}"
    return f"\n{LINE}\n     task #         0\n{where}\n     {words}\n{LINE}\n"


ERRORS = [
    ("electrons", 1, "charge is wrong: smearing is needed", Kind.SMEARING_NEEDED),
    ("electrons", 1, "charge is wrong", Kind.CHARGE_WRONG),
    ("iosys", 1, "fixed occupations and lsda need tot_magnetization", Kind.MOMENT_NEEDED),
    ("iosys", 1, "some starting_magnetization MUST be set", Kind.START_MOMENT_MISSING),
    ("setup", 1, "too few bands", Kind.TOO_FEW_BANDS),
    ("setup", 1, "too few spin up bands", Kind.TOO_FEW_BANDS),
    ("check_para_diag", 1, "Too few bands for required ndiag", Kind.TOO_FEW_BANDS),
    ("memory_report", 1, "more bands than PWs!", Kind.TOO_MANY_BANDS),
    ("cdiaghg", 35, "S matrix not positive definite", Kind.S_MATRIX),
    ("cdiaghg", 198, "problems computing cholesky", Kind.S_MATRIX),
    ("c_bands", 1, "too many bands are not converged", Kind.DIAGONALISATION),
    ("cdiaghg", 12, "eigenvectors failed to converge", Kind.DIAGONALISATION),
    ("paro_k_new", 1, "error in scratch space", Kind.DIAGONALISATION),
    ("broyden", 1, "factorization", Kind.MIXING),
    ("mix_rho", 1, "n_iter too big", Kind.MIXING),
    ("check_atoms", 1, "atoms # 1 and # 2 overlap!", Kind.OVERLAP),
    ("divide_et_impera", 1, "some nodes have no k-points", Kind.POOLS),
    ("mp_start_pools", 1, "invalid number of pools, out of range", Kind.POOLS),
    ("allocate_fft", 1, "cannot allocate psic", Kind.OUT_OF_MEMORY),
    ("checkallsym", 3, "not orthogonal operation", Kind.SYMMETRY),
    ("kpoint_grid", 1, "something wrong in the checking algorithm", Kind.SYMMETRY),
    ("kpoint_grid", 1, "too many k-points", Kind.INPUT),
    ("readpp", 1, "file ./pseudo/Si.nothere.UPF not found", Kind.PSEUDO),
    ("set_dft_from_name", 1, "conflicting values for icorr", Kind.PSEUDO),
    ("read_namelists", 1, "bad line in namelist &system", Kind.INPUT),
    ("check_tempdir", 1, "temporary directory ./out/ cannot be created", Kind.OTHER),
    ("davcio", 10, "error while writing from file", Kind.OTHER),
]


@pytest.mark.parametrize(("routine", "code", "words", "kind"), ERRORS)
def test_an_error_in_stdout_and_in_crash_alone(
    routine: str, code: int, words: str, kind: Kind
) -> None:
    """The reason is found where stdout was lost and only CRASH is left."""
    shown = recognise(Evidence(exit_status=305, stdout=box(routine, code, words)))
    left = recognise(Evidence(exit_status=305, crash=crash(routine, code, words)))
    assert shown is not None
    assert left is not None
    assert shown.kind is left.kind is kind
    assert words in shown.seen
    assert words in left.seen


@pytest.mark.parametrize(
    ("evidence", "kind"),
    [
        (Evidence(312, "  iteration #  3", stderr="line 9: 71 Killed   pw.x -in x"), Kind.KILLED),
        (Evidence(312, "  iteration #  3", return_code=137), Kind.KILLED),
        (Evidence(312, "x", stderr="slurmstepd: error: Detected 1 oom-kill"), Kind.OUT_OF_MEMORY),
        (Evidence(305, stderr="out of dynamic memory in opal_show_help"), Kind.OUT_OF_MEMORY),
        (Evidence(305, "x", stderr="Error allocating 1073741824 bytes"), Kind.OUT_OF_MEMORY),
        (Evidence(305, "x", scheduler="OUT OF MEMORY"), Kind.OUT_OF_MEMORY),
        (Evidence(110, "x"), Kind.OUT_OF_MEMORY),
        (Evidence(120, "x"), Kind.WALLTIME),
        (Evidence(312, "x", scheduler="CANCELLED DUE TO TIME LIMIT"), Kind.WALLTIME),
        (Evidence(400, "     Maximum CPU time exceeded"), Kind.WALLTIME),
        (Evidence(302), Kind.LOST_OUTPUT),
        (Evidence(312, "     Program PWSCF v.6.7MaX starts"), Kind.LOST_OUTPUT),
        (Evidence(305, "x", stderr="No space left on device"), Kind.LOST_OUTPUT),
        (Evidence(302, stderr="At line 761 of file xmltools.f90\nEnd of file"), Kind.PSEUDO),
        (Evidence(464, "x"), Kind.S_MATRIX),
        (Evidence(531, "x"), Kind.CHARGE_WRONG),
        (Evidence(502, "x"), Kind.IONIC),
        (Evidence(710, "convergence NOT achieved"), Kind.ALLOWED),
        (Evidence(350, "x"), Kind.OTHER),
        (Evidence(0, "     total energy              =             NaN Ry"), Kind.NOT_A_NUMBER),
        (Evidence(0, "JOB DONE", stderr="Killed"), None),
    ],
)
def test_words_of_the_system_and_exit_codes(evidence: Evidence, kind: Kind | None) -> None:
    failure = recognise(evidence)
    assert (None if failure is None else failure.kind) is kind


SCF = """
     Self-consistent Calculation
     estimated scf accuracy    <       9.00000000 Ry
     Self-consistent Calculation
     total energy              =     -55.71000000 Ry
     estimated scf accuracy    <       0.50000000 Ry
     total energy              =     -55.72000000 Ry
     estimated scf accuracy    <       0.00100000 Ry
     total magnetization       =     2.97 Bohr mag/cell
     absolute magnetization    =     3.04 Bohr mag/cell
     convergence NOT achieved after   2 iterations: stopping
"""


def test_what_an_scf_cycle_shows() -> None:
    """Only the last cycle of a relaxation counts."""
    assert scf_accuracies(SCF) == (0.5, 0.001)
    assert last_estimate(SCF) == -55.72
    assert last_moments(SCF) == (2.97, 3.04)
    assert last_moments("nothing") is None
    failure = recognise(Evidence(410, SCF))
    assert failure is not None
    assert str(failure) == "SCF not converged (accuracy 1.0e-03 Ry after 2 iterations)"


def test_what_is_not_a_number_makes_the_next_diagonalisation_fail() -> None:
    """pw.x 6.7 with a pseudopotential that holds a NaN."""
    energy = "     total energy              =              NaN Ry\n"
    failure = recognise(
        Evidence(305, energy + box("cdiaghg", 3, "eigenvectors failed to converge"))
    )
    assert failure is not None
    assert failure.kind is Kind.NOT_A_NUMBER


def test_what_pw_says_before_it_stops_without_an_error() -> None:
    """In an electric field, with k-points that end on no reciprocal lattice vector; exit code 0."""
    words = "probably because G_par is NOT a reciprocal lattice vector"
    failure = recognise(Evidence(360, f"  {words} \n  Possible choices as smallest  G_par:\n"))
    assert failure is not None
    assert failure.kind is Kind.SYMMETRY
    assert failure.seen == words


def test_a_box_is_read_once() -> None:
    assert error_boxes(2 * box("setup", 1, "too few bands")) == (
        "Error in routine setup (1): too few bands"
    )


def test_a_number_that_did_not_fit_its_field_is_no_number() -> None:
    overflow = "Self-consistent Calculation\n     estimated scf accuracy    <   ********** Ry\n"
    assert math.isnan(scf_accuracies(overflow)[0])
