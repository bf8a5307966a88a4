"""The page: self-contained, escaped, complete, and honest about gaps."""

import json
import re
from html.parser import HTMLParser

import pytest

from aiida_autopipe.report.model import LabelCounts, Simulation
from aiida_autopipe.report.page import cards, render, time_shares

HOSTILE = """</script><script>alert("1")</script><img src=x onerror='alert(2)'>&{{ 7*7 }}"""


class _Page(HTMLParser):
    """Tags with attributes, text outside scripts, and the embedded figures."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.figures = [], "", None
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        self._is_json = dict(attrs).get("type") == "application/json"

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open == "script":
            if self._is_json:
                self.figures = json.loads(data)
        elif self._open != "style":
            self.text += data

    def values(self, attribute):
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]


@pytest.fixture
def page(report):
    return _Page(render(report))


def test_nothing_is_loaded_from_elsewhere(page):
    assert not page.values("src")
    assert not {"link", "iframe", "object", "embed", "base", "form", "img"} & {
        tag for tag, _ in page.tags
    }
    assert all(href.startswith(("#", "./")) for href in page.values("href"))
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_own_style_and_script_name_no_url(report):
    # plotly.js holds addresses of map services that it uses only for maps, so it is set aside.
    html = render(report)
    own = "".join(
        part
        for part in re.split(r"(<script>.*?</script>)", html, flags=re.S)
        if len(part) < 1_000_000
    )
    assert len(own) < 1_000_000
    assert not re.search(r"https?:|url\(|@import|//cdn", own)


def test_plotly_is_embedded_once(report):
    assert len(re.findall(r"plotly\.js v\d", render(report))) == 1


def test_every_section_has_a_link_and_every_link_a_target(page):
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = {href[1:] for href in page.values("href") if href.startswith("#")}
    assert targets <= set(ids)


def test_every_node_is_listed_with_its_command(page, report):
    for node in report.nodes():
        assert f"verdi node show {node.uuid}" in page.text
        assert f"node-{node.uuid}" in page.values("id")


def test_every_figure_has_a_place(page):
    assert set(page.figures) == {"learning", "parity", "gamma", "eos", "time"}
    assert {f"plot-{name}" for name in page.figures} <= set(page.values("id"))


def test_tables_hold_the_numbers(page):
    for number in ("5.402", "5.399", "76.80", "−15.0 %", "68.0", "1.05", "SCF did not converge"):
        assert number in page.text


def test_hostile_text_is_escaped_everywhere(report_factory, report):
    def spoil(value):
        if isinstance(value, dict):
            return {
                spoil(k) if k in {"pw.x", "numba", "Si"} else k: spoil(v) for k, v in value.items()
            }
        if isinstance(value, list):
            return [spoil(item) for item in value]
        return HOSTILE if isinstance(value, str) else value

    values = report.model_dump()
    for key in (
        "name",
        "material",
        "goal",
        "protocol",
        "stop_reason",
        "software",
        "config_yaml",
        "time_shares",
        "method",
        "warnings",
        "autopipe_version",
        "validation_missing",
    ):
        values[key] = spoil(values[key])
    values["labels"]["reasons"][0]["reason"] = HOSTILE
    values["validation"][0] |= {"label": HOSTILE, "unit": HOSTILE, "note": HOSTILE}
    values["generations"][0]["simulations"][0] |= {
        "ensemble": HOSTILE,
        "halt_reason": HOSTILE,
        "halted": True,
    }
    values["composition"][0]["origin"] = HOSTILE
    values["reference_energies"][0]["element"] = HOSTILE
    values["process"] |= {"label": HOSTILE, "kind": HOSTILE}
    values["files"] = {HOSTILE: "javascript:alert(1)"}
    html = render(report_factory(**values))
    assert "<script>alert" not in html
    page = _Page(html)
    assert sum(tag == "script" for tag, _ in page.tags) == 3
    assert not any(tag == "img" for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "./javascript%3Aalert%281%29" in page.values("href")
    assert "{{ 7*7 }}" in page.text
    # Plotly reads labels as markup, so these are escaped once more.
    assert "<img" not in json.dumps(page.figures)


def test_nothing_but_the_process(report_factory):
    report = report_factory(
        generations=[],
        validation=[],
        parity={},
        composition=[],
        reference_energies=[],
        eos_reference=None,
        eos_potential=None,
        time_shares={},
        warnings=[],
        files={},
        software={},
        method={},
        config_yaml="",
        config_node=None,
        stop_reason="",
        labels=LabelCounts(requested=0, ok=0, rejected=0),
        wall_seconds=float("nan"),
    )
    html = render(report)
    assert len(html) < 100_000  # no plot, no plotly
    text = _Page(html).text
    assert "No potential was trained" in text
    assert "No property was checked" in text
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_stopped_after_one_generation(report_factory, report):
    text = _Page(
        render(
            report_factory(
                generations=report.generations[:1],
                validation=[],
                status="failed",
                failure="pw.x is missing",
                validation_missing="the run ended before",
            )
        )
    ).text
    assert "The run failed" in text
    assert "Reason: pw.x is missing." in text
    assert "No property was checked: the run ended before." in text


def test_nan_values_are_shown_as_not_available(report_factory, report):
    nan = float("nan")
    rows = [
        row.model_copy(update={"potential": nan, "relative_error": nan, "passed": True})
        for row in report.validation
    ]
    last = report.final.model_copy(
        update={
            "test": report.final.test.model_copy(update={"energy_rmse_per_atom": nan}),
            "survival": nan,
            "gamma_max": float("inf"),
        }
    )
    page = _Page(render(report_factory(validation=rows, generations=[last])))
    assert page.text.count("not checked") == len(rows)
    assert "0 of 6 properties" in page.text


def test_incomplete_simulation_is_not_called_completed(report_factory, report):
    run = Simulation(temperature_K=300, ensemble="nvt", steps_done=10, steps_asked=20)
    last = report.final.model_copy(update={"simulations": [run]})
    text = _Page(render(report_factory(generations=[last]))).text
    assert "incomplete" in text
    assert "completed" not in text
    assert "No extrapolation grade was recorded over time." in text


def test_cards_show_the_headline_numbers(report):
    values = {card.title: card.value for card in cards(report)}
    assert values == {
        "Validation": "5 / 6",
        "Largest property error": "−15.0 %",
        "Labels": "61",
        "Held-out energy error": "1.05",
        "Held-out force error": "17.0",
        "Wall time": "21 min 24 s",
    }


def test_time_that_was_not_recorded_is_shown(report):
    shares, overlap = time_shares(report)
    assert not overlap
    assert [share.what for share in shares] == ["pw.x", "AiiDA", "MD", "training", "not recorded"]
    assert sum(share.share for share in shares) == pytest.approx(1.0)


def test_parts_that_ran_side_by_side_share_their_sum(report_factory):
    report = report_factory(time_shares={"pw.x": 3000.0, "MD": 1000.0}, wall_seconds=2000.0)
    shares, overlap = time_shares(report)
    assert overlap
    assert [share.share for share in shares] == [0.75, 0.25]
    assert "side by side" in _Page(render(report)).text
