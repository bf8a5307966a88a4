"""The pseudopotentials of a run: which family, which functional, which cutoffs."""

from __future__ import annotations

import difflib
import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida_autopipe.config.loading import load_input
from aiida_autopipe.config.models import Config
from aiida_autopipe.core.errors import InputError

SETUP_HINT = "type 'mlip-auto setup' to create what is missing"

# In this order: the LDA set needs the smallest cutoffs, and one functional serves a whole run.
PREFERRED_FAMILIES = (
    r"autopipe/debian/PZ",
    r"autopipe/debian/PBE",
    r"SSSP/.*/PBE/efficiency",
    r"SSSP/.*",
)

_FUNCTIONALS = {"PZ": ("PZ", "LDA"), "PBE": ("PBE",)}

_FOLDER_PREFIX = "autopipe/folder/"
CUTOFFS_FILE = "cutoffs.yaml"
CUTOFF_KEYS = ("cutoff_wfc_Ry", "cutoff_rho_Ry")


@dataclass(frozen=True)
class PseudoChoice:
    """The pseudopotentials of a run.

    :param family: label of a pseudopotential family of the loaded profile.
    :param functional: ``PZ``, ``PBE``, or what the family's label says.
    :param cutoff_wfc_Ry: plane-wave cutoff of wavefunctions, Ry: the user's, else the recommended.
    :param cutoff_rho_Ry: plane-wave cutoff of the density, Ry.
    """

    family: str
    functional: str
    cutoff_wfc_Ry: float
    cutoff_rho_Ry: float


def resolve_pseudos(config: Config, elements: Sequence[str]) -> PseudoChoice:
    """Choose the family, functional and cutoffs that a configuration means; needs a loaded profile.

    A folder of UPF files becomes a family of the profile the first time.

    :raises InputError: an element without pseudopotential, an unknown family, no cutoffs.
    """
    asked = config.label.pseudopotentials
    if asked == "auto":
        family = _first_complete_family(elements, config.label.functional)
    elif Path(asked).is_absolute():
        family = _family_from_folder(Path(asked), elements)
    else:
        family = _family(asked)
        lacking = [element for element in elements if element not in family.elements]
        if lacking:
            raise InputError(
                f"label.pseudopotentials: the family '{asked}' has no pseudopotential for "
                f"{', '.join(lacking)}; choose another family or 'auto'"
            )
    functional = _functional_of(family, elements)
    wanted = config.label.functional
    if wanted not in ("auto", functional):
        raise InputError(
            f"label.functional: '{wanted}' was asked for, but the pseudopotentials of "
            f"'{family.label}' are made for '{functional}'"
        )
    wfc, rho = _cutoffs(config, family, elements)
    return PseudoChoice(str(family.label), functional, wfc, rho)


def pseudo_facts(config: Config, elements: Sequence[str]) -> dict[str, Any]:
    """What the cost preview asks of the pseudopotentials: ``cutoff_wfc_Ry`` and ``valence``.

    :raises InputError: as `resolve_pseudos`.
    """
    choice = resolve_pseudos(config, elements)
    pseudos = _family(choice.family).get_pseudos(elements=tuple(elements))
    valence = {e: float(pseudo.z_valence) for e, pseudo in pseudos.items() if pseudo.z_valence}
    return {"cutoff_wfc_Ry": choice.cutoff_wfc_Ry, "valence": valence}


def _families() -> list[Any]:
    """All pseudopotential families of the profile, the preferred ones first."""
    from aiida.orm import QueryBuilder
    from aiida_pseudo.groups.family import PseudoPotentialFamily

    found = QueryBuilder().append(PseudoPotentialFamily, subclassing=True).all(flat=True)

    def rank(family: Any) -> tuple[int, str]:
        for place, pattern in enumerate(PREFERRED_FAMILIES):
            if re.fullmatch(pattern, family.label):
                return place, family.label
        return len(PREFERRED_FAMILIES), family.label

    return sorted(found, key=rank)


def _family(label: str) -> Any:
    families = {str(family.label): family for family in _families()}
    if label not in families:
        nearest = difflib.get_close_matches(label, list(families), n=1)
        suggestion = f"did you mean '{nearest[0]}'? " if nearest else ""
        listed = ", ".join(families) or "none; " + SETUP_HINT
        raise InputError(
            f"label.pseudopotentials: '{label}' is neither a folder nor an installed family; "
            f"{suggestion}installed: {listed}"
        )
    return families[label]


def _first_complete_family(elements: Sequence[str], functional: str) -> Any:
    """The first preferred family, then any with recommended cutoffs, that has all the elements."""
    from aiida_pseudo.groups.mixins import RecommendedCutoffMixin

    families = [
        family
        for family in _families()
        if isinstance(family, RecommendedCutoffMixin)
        and not family.label.startswith(_FOLDER_PREFIX)
        and (functional == "auto" or _functional_in(family.label) == functional)
    ]
    for family in families:
        if set(elements) <= set(family.elements):
            return family
    kind = "" if functional == "auto" else f" for {functional}"
    if not families:
        raise InputError(
            f"label.pseudopotentials: no pseudopotential family{kind} is installed; {SETUP_HINT}"
        )
    everywhere = {element for family in families for element in family.elements}
    lacking = [element for element in elements if element not in everywhere]
    what = (
        f"no pseudopotential{kind} for {', '.join(lacking)}"
        if lacking
        else f"no family{kind} has pseudopotentials for all of {', '.join(elements)}"
    )
    listed = ", ".join(family.label for family in families)
    raise InputError(
        f"label.pseudopotentials: {what} in the installed families ({listed}); install one with "
        "'aiida-pseudo install sssp' or name a folder of UPF files"
    )


def _family_from_folder(folder: Path, elements: Sequence[str]) -> Any:
    """The family of a folder's files for ``elements``; its label is made from their content."""
    from aiida.orm import QueryBuilder
    from aiida_pseudo.data.pseudo import UpfData
    from aiida_pseudo.groups.family import PseudoPotentialFamily

    if not folder.is_dir():
        raise InputError(f"label.pseudopotentials: the folder {folder} does not exist")
    files = [_upf_file(folder, element) for element in elements]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    label = f"{_FOLDER_PREFIX}{digest[:16]}"
    query = QueryBuilder().append(PseudoPotentialFamily, filters={"label": label})
    known = query.first(flat=True)
    if known is not None:
        return known
    with tempfile.TemporaryDirectory() as chosen:
        for path in files:
            shutil.copy(path, chosen)
        try:
            return PseudoPotentialFamily.create_from_folder(
                Path(chosen), label, pseudo_type=UpfData, description=f"Files of {folder}"
            )
        except ValueError as error:
            raise InputError(
                f"label.pseudopotentials: the files of {folder} cannot be used: {error}"
            ) from error


def _upf_file(folder: Path, element: str) -> Path:
    pattern = re.compile(rf"{element}(?:[._-].*)?\.upf", re.IGNORECASE)
    files = sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
    if not files:
        raise InputError(
            f"label.pseudopotentials: no pseudopotential for {element} in {folder}; its name must "
            f"be like {element}.something.UPF"
        )
    if len(files) > 1:
        names = ", ".join(path.name for path in files[:4])
        raise InputError(
            f"label.pseudopotentials: {len(files)} pseudopotentials for {element} in {folder} "
            f"({names}); leave one in the folder"
        )
    return files[0]


def _functional_in(text: str) -> str | None:
    words = re.split(r"[^A-Za-z0-9]+", text.upper())
    found = [name for name, tokens in _FUNCTIONALS.items() if any(t in words for t in tokens)]
    return found[0] if found else None


def _functional_of(family: Any, elements: Sequence[str]) -> str:
    """From the family's label (aiida-pseudo's labels carry it), else from the files."""
    in_label = _functional_in(family.label)
    if in_label:
        return in_label
    found = {element: _header_functional(family.get_pseudo(element)) for element in elements}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{element}: {name}" for element, name in found.items())
        raise InputError(
            f"label.pseudopotentials: '{family.label}' mixes functionals ({listed}); use one only"
        )
    return next(iter(found.values()))


def _header_functional(pseudo: Any) -> str:
    text = pseudo.get_content()
    match = re.search(r'functional\s*=\s*"([^"]*)"', text) or re.search(
        r"^\s*(\S.*?)\s+Exchange-Correlation functional", text, re.MULTILINE
    )
    named = " ".join(match.group(1).split()) if match else "unknown"
    # "SLA PW PBX PBC" is Quantum ESPRESSO's long name of PBE.
    return "PBE" if "PBX PBC" in named else _functional_in(named) or named


def _cutoffs_of_table(path: Path, elements: Sequence[str]) -> tuple[float, float]:
    """The largest cutoffs of some elements, of a table {Si: {cutoff_wfc_Ry: 26, ...}}."""
    table = load_input(path)
    found: list[list[float]] = []
    for element in elements:
        row = table.get(element)
        values = row if isinstance(row, dict) else {}
        numbers = [values.get(key, 0) for key in CUTOFF_KEYS]
        given = [float(v) for v in numbers if type(v) in (int, float) and v > 0]
        if len(given) != len(CUTOFF_KEYS):
            raise InputError(
                f"label.pseudopotentials: '{path}' must hold {element}: {{cutoff_wfc_Ry: ..., "
                f"cutoff_rho_Ry: ...}} in Ry, not {row}"
            )
        found.append(given)
    return max(wfc for wfc, _ in found), max(rho for _, rho in found)


def _cutoffs(config: Config, family: Any, elements: Sequence[str]) -> tuple[float, float]:
    from aiida_pseudo.groups.mixins import RecommendedCutoffMixin

    wfc, rho = config.label.cutoff_wfc_Ry, config.label.cutoff_rho_Ry
    if wfc is not None and rho is not None:
        return wfc, rho
    table = Path(config.label.pseudopotentials) / CUTOFFS_FILE
    if table.is_absolute() and table.is_file():
        best_wfc, best_rho = _cutoffs_of_table(table, elements)
        wfc = best_wfc if wfc is None else wfc
        return wfc, max(best_rho, 4 * wfc) if rho is None else rho
    if not isinstance(family, RecommendedCutoffMixin) or not family.get_cutoff_stringencies():
        raise InputError(
            f"label.cutoff_wfc_Ry: the pseudopotentials '{family.label}' come without recommended "
            f"cutoffs; set cutoff_wfc_Ry and cutoff_rho_Ry, or put a {CUTOFFS_FILE} into the folder"
        )
    best_wfc, best_rho = family.get_recommended_cutoffs(elements=tuple(elements), unit="Ry")
    if wfc is None:
        wfc = best_wfc if rho is None else min(best_wfc, rho / 4)
    return float(wfc), float(rho if rho is not None else max(best_rho, 4 * wfc))
