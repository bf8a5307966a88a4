"""The commented input file and the reference table are made from the models, and stay true."""

import re
from pathlib import Path

from aiida_autopipe.config.expand import expand
from aiida_autopipe.config.loading import parse_input
from aiida_autopipe.config.template import iter_keys, reference_table, template


def test_every_key_is_documented() -> None:
    for key in iter_keys():
        assert key.description.endswith("."), key.path
        assert len(key.description) < 120, key.path


def test_template_is_the_default_with_and_without_its_comments() -> None:
    text = template("si.yaml", "Si")
    plain = expand(parse_input(text, "si.yaml"), Path(), "si")
    assert plain == expand({"material": "Si", "goal": "elastic"}, Path(), "si")
    uncommented = re.sub(r"^( *)# (\w+:)", r"\1\2", text, flags=re.MULTILINE)
    assert "\n# " not in uncommented
    assert expand(parse_input(uncommented, "si.yaml"), Path(), "si") == plain


def test_template_quotes_a_difficult_material() -> None:
    assert parse_input(template("x.yaml", "my: file.cif"), "x")["material"] == "my: file.cif"


def test_reference_table_has_every_key_with_its_defaults() -> None:
    table = reference_table()
    for key in iter_keys():
        if not key.is_section:
            assert f"| `{'.'.join(key.path)}` |" in table
    assert "| `budget.labels` |" in table
    assert "| `80` | `300` | `1000` |" in table
