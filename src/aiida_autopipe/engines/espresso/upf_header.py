"""What the header of a UPF file says, in both versions of the format."""

from __future__ import annotations

import re
from dataclasses import dataclass

SPELLINGS = {
    "SLA PZ NOGX NOGC": "PZ",
    "LDA": "PZ",
    "PZ": "PZ",
    "SLA PW NOGX NOGC": "PW",
    "SLA PW PBE PBE": "PBE",
    "SLA PW PBX PBC": "PBE",
    "PBE": "PBE",
    "SLA PW PSX PSC": "PBESOL",
    "PBESOL": "PBESOL",
    "SLA LYP B88 BLYP": "BLYP",
    "BLYP": "BLYP",
    "SLA PW TPSS TPSS": "TPSS",
    "TPSS": "TPSS",
}
"""Long and short names of one functional; others are compared as they are written."""


@dataclass(frozen=True)
class UpfHeader:
    """The part of a pseudopotential's header that the checks need.

    Attributes:
        element: chemical symbol.
        functional: short name where it is known, empty where the header has none.
        ultrasoft: ultrasoft or PAW, so that the density needs more than four times the cutoff.
        fully_relativistic: made with spin-orbit coupling.
        z_valence: number of valence electrons, 0 where the header has none.
        cutoff_wfc_Ry: the header's own suggestion, 0 where there is none.
    """

    element: str
    functional: str
    ultrasoft: bool
    fully_relativistic: bool
    z_valence: float
    cutoff_wfc_Ry: float


def read_header(text: str) -> UpfHeader | None:
    """The header of a UPF file, None where there is none."""
    modern = re.search(r"<PP_HEADER\s([^>]*?)/?>", text)
    if modern:
        return _modern(dict(re.findall(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']", modern.group(1))))
    old = re.search(r"<PP_HEADER>(.*?)</PP_HEADER>", text, re.DOTALL)
    return _old(old.group(1)) if old else None


def _modern(values: dict[str, str]) -> UpfHeader:
    def true(key: str) -> bool:
        return values.get(key, "").strip(" .").lower() in ("t", "true")

    return UpfHeader(
        element=values.get("element", "").strip(),
        functional=spell(values.get("functional", "")),
        ultrasoft=true("is_ultrasoft") or true("is_paw"),
        fully_relativistic=true("has_so"),
        z_valence=_number(values.get("z_valence", "")),
        cutoff_wfc_Ry=_number(values.get("wfc_cutoff", "")),
    )


def _old(text: str) -> UpfHeader:
    def before(label: str) -> str:
        found = re.search(rf"^(.*?)\s+{label}", text, re.MULTILINE | re.IGNORECASE)
        return found.group(1).strip() if found else ""

    return UpfHeader(
        element=before("Element"),
        functional=spell(" ".join(before("Exchange-Correlation").split()[:4])),
        ultrasoft=before(r"(?:Norm|Ultrasoft|Projector)\b").split()[:1] in (["US"], ["PAW"]),
        fully_relativistic="<PP_ADDINFO>" in text,
        z_valence=_number(before("Z valence")),
        cutoff_wfc_Ry=_number(before("Suggested cutoff for wfc").split(" ")[0]),
    )


def spell(functional: str) -> str:
    """One spelling for the names of a functional."""
    name = " ".join(functional.upper().replace("+", " ").replace("-", " ").split())
    return SPELLINGS.get(name, name)


def _number(word: str) -> float:
    try:
        return float(word.lower().replace("d", "e"))
    except ValueError:
        return 0.0
