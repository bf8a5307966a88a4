"""The curated table against the files Debian ships."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from aiida_autopipe.core.errors import InputError
from aiida_autopipe.engines.espresso.pseudos import (
    FUNCTIONALS,
    Pseudo,
    available_pseudos,
    debian_table,
    find_debian_folder,
)

# How the headers spell each functional: components, or a short name.
SPELLINGS = {
    "PZ": {("SLA", "PZ", "NOGX", "NOGC"), ("LDA",), ("PZ",)},
    "PBE": {("SLA", "PW", "PBX", "PBC"), ("SLA", "PW", "PBE", "PBE"), ("PBE",)},
}
ROWS = [pseudo for rows in debian_table().values() for pseudo in rows.values()]


def header(path: Path) -> dict[str, str]:
    match = re.search(r"<PP_HEADER.*?/>", path.read_text(errors="replace"), re.DOTALL)
    assert match is not None, path
    return {key: value.strip() for key, value in ElementTree.fromstring(match.group()).items()}


@pytest.mark.parametrize("pseudo", ROWS, ids=lambda pseudo: pseudo.file)
def test_table_agrees_with_the_header_of_the_file(pseudo: Pseudo, pseudo_folder: Path) -> None:
    found = header(pseudo_folder / pseudo.file)
    assert found["element"] == pseudo.element
    assert found["relativistic"] in ("no", "scalar")
    assert found["has_so"][0].lower() == "f"
    assert tuple(found["functional"].split()) in SPELLINGS[pseudo.functional]
    assert pseudo.cutoff_wfc_Ry >= float(found["wfc_cutoff"])
    # The PZ file of gold states a density cutoff of 297 Ry, others a value for another grid.
    assert pseudo.cutoff_rho_Ry >= 4 * pseudo.cutoff_wfc_Ry or pseudo.cutoff_rho_Ry >= float(
        found["rho_cutoff"]
    )


def test_every_functional_is_in_the_order_of_preference() -> None:
    assert tuple(debian_table()) == FUNCTIONALS


def test_available_pseudos_lists_only_files_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "Si.pz-vbc.UPF").touch()
    assert list(available_pseudos(tmp_path, "PZ")) == ["Si"]
    assert available_pseudos(tmp_path, "PBE") == {}


def test_unknown_functional_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'BLYP' is not one of PZ, PBE"):
        available_pseudos(tmp_path, "BLYP")


def test_first_folder_with_a_known_file_is_found(tmp_path: Path) -> None:
    empty, filled = tmp_path / "empty", tmp_path / "filled"
    empty.mkdir()
    filled.mkdir()
    (filled / "Al.pz-vbc.UPF").touch()
    assert find_debian_folder([empty, tmp_path / "absent", filled]) == filled
    assert find_debian_folder([empty]) is None


def test_chosen_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Al.pz-vbc.UPF").touch()
    monkeypatch.setenv("ESPRESSO_PSEUDO", str(tmp_path))
    assert find_debian_folder() == tmp_path
