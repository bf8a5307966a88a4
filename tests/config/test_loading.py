"""YAML as people write it: numbers, repeated keys, broken files."""

from pathlib import Path

import pytest

from aiida_autopipe.config.loading import dump_config, load_input, parse_input
from aiida_autopipe.core.errors import InputError


def test_scalars() -> None:
    text = "a: 1e-6\nb: No\nc: 1:30\nd: null\ne: true\nf: -3\ng: .5\nh: ~\ni: 2.\nj: yes\n"
    assert parse_input(text, "x") == {
        "a": 1e-6, "b": "No", "c": "1:30", "d": None, "e": True,
        "f": -3, "g": 0.5, "h": None, "i": 2.0, "j": "yes",
    }  # fmt: skip


def test_dump_reads_back() -> None:
    data = {"a": 1e-10, "b": [[1, 2, 3]], "c": {"d": "No", "e": None, "f": "1e-6", "g": [1e-7]}}
    text = dump_config(data)
    assert parse_input(text, "x") == data
    assert "b: [[1, 2, 3]]" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2", "x.yaml, line 2: not valid YAML"),
        ("a: 1\nb: 2\na: 3", "x.yaml, line 3: not valid YAML, the key 'a' appears twice"),
        ("a:\n\t- 1", "line 2"),
        ("", "x.yaml is empty"),
        ("# nothing\n", "x.yaml is empty"),
        ("- 1", "must hold keys"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("? [1]\n: 2", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_broken(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_input(text, "x.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_input(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is a folder"):
        load_input(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        load_input(tmp_path / "binary.yaml")
    (tmp_path / "good.yaml").write_text("material: Si\n", encoding="utf-8")
    assert load_input(tmp_path / "good.yaml") == {"material": "Si"}
