"""Numbers as readers see them."""

import pytest

from aiida_autopipe.report import formatting


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "n/a"),
        (float("nan"), "n/a"),
        (float("-inf"), "n/a"),
        (0.0, "0"),
        (5.40213, "5.402"),
        (-107.9234, "−107.9"),
        (159.64, "159.6"),
        (123456.0, "123456"),
        (1.5e-7, "1.500e−07"),
        (3e9, "3.000e+09"),
    ],
)
def test_number(value, expected):
    assert formatting.number(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "n/a"),
        (3.21, "3.2 s"),
        (59.99, "60.0 s"),
        (60, "1 min 00 s"),
        (1284.4, "21 min 24 s"),
        (7384, "2 h 03 min"),
    ],
)
def test_duration(seconds, expected):
    assert formatting.duration(seconds) == expected


def test_percentages_and_units():
    assert formatting.signed_percent(-0.1497) == "−15.0 %"
    assert formatting.signed_percent(0.004) == "+0.4 %"
    assert formatting.percent(None) == "n/a"
    assert formatting.tolerance(0.1) == "10 %"
    assert formatting.milli(0.00105) == "1.05"
    assert formatting.milli(float("nan")) == "n/a"
    assert formatting.setting(30.0) == "30"


@pytest.mark.parametrize(
    ("value", "noun", "expected"),
    [(1, "property", "1 property"), (6, "property", "6 properties"), (0, "label", "0 labels")],
)
def test_plural(value, noun, expected):
    assert formatting.plural(value, noun) == expected


def test_file_url_has_no_scheme():
    assert formatting.file_url("javascript:alert(1)") == "./javascript%3Aalert%281%29"
    assert formatting.file_url("sub/a b.yace") == "./sub/a%20b.yace"
