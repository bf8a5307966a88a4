"""`mlip-auto init`: a file that `check` takes, never over another."""

from pathlib import Path

import pytest

from aiida_autopipe.cli.main import invoke


def test_init_writes_a_file_that_check_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["init", "copper", "--material", "Cu"]) == 0
    assert "mlip-auto check copper.yaml" in capsys.readouterr().out
    assert invoke(["check", "copper.yaml", "--offline"]) == 0
    assert "material: Cu" in capsys.readouterr().out


def test_init_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("keep me")
    assert invoke(["init", str(path)]) == 1
    assert capsys.readouterr().err.startswith("Error: ")
    assert path.read_text() == "keep me"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["silicon", "--material", "Sj"], "did you mean 'Si'?"),
        (["none/silicon"], "the folder none does not exist"),
    ],
)
def test_init_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["init", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error
    assert list(tmp_path.iterdir()) == []
