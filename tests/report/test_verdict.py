"""The verdict in words: honest about failures and gaps."""

import pytest

from aiida_autopipe.report.verdict import has_passed, verdict, worst_row


def _replace_row(report, index, **changes):
    rows = list(report.validation)
    rows[index] = rows[index].model_copy(update=changes)
    return rows


def test_failing_property_is_named_with_its_numbers(report):
    judged = verdict(report)
    assert judged.level == "mixed"
    assert judged.sentences[0] == (
        "5 of 6 properties agree with pw.x within 10 %; the largest difference is −15.0 % (C44)."
    )
    assert judged.sentences[1] == "Outside the tolerance: C44 (−15.0 %: 65.30 against 76.80 GPa)."


def test_all_passed(report_factory, report):
    rows = [row for row in report.validation if row.passed]
    judged = verdict(report_factory(validation=rows))
    assert (judged.level, judged.headline) == ("good", "Validated")
    assert judged.sentences[0].startswith("5 of 5 properties agree with pw.x within 10 %")


def test_all_failed(report_factory, report):
    rows = [row.model_copy(update={"passed": False}) for row in report.validation]
    judged = verdict(report_factory(validation=rows))
    assert (judged.level, judged.headline) == ("bad", "Validation failed")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_missing_value_never_passes(report_factory, report, value):
    rows = _replace_row(report, 0, potential=value, passed=True)
    assert not has_passed(rows[0])
    judged = verdict(report_factory(validation=rows))
    assert judged.sentences[0].startswith("4 of 6 properties")
    assert "Could not be checked: Lattice constant." in judged.sentences


def test_different_tolerances_are_not_summed_up_in_one_number(report_factory, report):
    rows = _replace_row(report, 4, tolerance=0.2, passed=True)
    assert "within their tolerances" in verdict(report_factory(validation=rows)).sentences[0]


def test_worst_row_skips_values_that_are_missing(report):
    rows = _replace_row(report, 4, relative_error=float("nan"))
    assert worst_row(rows).name == "vacancy_formation_energy"
    assert worst_row([]) is None


def test_no_validation_gives_its_reason(report_factory):
    judged = verdict(report_factory(validation=[], validation_missing="the budget was spent"))
    assert (judged.level, judged.headline) == ("unknown", "Trained, not validated")
    assert judged.sentences[0] == "No property was checked against pw.x: the budget was spent."


def test_failed_run_says_why(report_factory):
    judged = verdict(report_factory(status="failed", failure="exit code 410", generations=[]))
    assert (judged.level, judged.headline) == ("bad", "The run failed")
    assert judged.sentences[0] == "Reason: exit code 410."


def test_running_and_untrained(report_factory):
    assert verdict(report_factory(status="running")).headline == "The run is not finished"
    assert verdict(report_factory(generations=[])).headline == "No potential was trained"


def test_halted_simulations_are_counted(report_factory, report):
    judged = verdict(report_factory(generations=report.generations[:1]))
    assert judged.sentences[-1] == (
        "In the last generation 2 of 3 MD simulations at 300 to 900 K ran to the end; "
        "1 halted because the potential extrapolated."
    )


def test_final_potential_without_md_or_held_out_set(report_factory, report):
    last = report.final.model_copy(update={"simulations": [], "n_test": 0})
    judged = verdict(report_factory(generations=[last]))
    assert judged.sentences[-2:] == (
        "No errors on held-out labels are available.",
        "The final potential was not tested in MD.",
    )
