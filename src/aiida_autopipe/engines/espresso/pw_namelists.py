"""The text of a pw.x input taken apart: namelists with Fortran values, cards with their lines.

Nothing is dropped on the way: what pw.x would stumble over or silently ignore is an error.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ase.io.espresso_namelist.keys import pw_keys

from aiida_autopipe.core.errors import InputError

CARDS = (
    "ATOMIC_SPECIES",
    "ATOMIC_POSITIONS",
    "K_POINTS",
    "CELL_PARAMETERS",
    "ATOMIC_FORCES",
    "ATOMIC_VELOCITIES",
    "ADDITIONAL_K_POINTS",
    "CONSTRAINTS",
    "OCCUPATIONS",
    "SOLVENTS",
    "HUBBARD",
)
_OLDER_KEYS = {
    "CONTROL": "ekin_conv_thr isave lecrpa lfcpopt memory point_label_type refg saverho tabps "
    "tefield2 tqmmm use_wannier vdw_table_name",
    "SYSTEM": "a_pen alpha_pen ampre amprp backall fcp_mu hubbard_alpha_back hubbard_beta "
    "hubbard_j hubbard_j0 hubbard_l hubbard_n hubbard_parameters hubbard_u hubbard_u_back "
    "hubbard_v l1back la2f lback lda_plus_u lda_plus_u_kind mbd_vdw multiplicity nelec neldw nelup "
    "nr1b nr2b nr3b reserv reserv_back scdm sigma_pen step_pen ts_vdw u_projection_type use_ace",
    "ELECTRONS": "niter_cg_restart ortho_para",
}
"""Keys of pw.x versions that ASE's list, made for a recent one, does not have."""
NAMELISTS = {
    name.upper(): frozenset(map(str.lower, keys)) | set(_OLDER_KEYS.get(name.upper(), "").split())
    for name, keys in pw_keys.items()
}
"""The keys of each namelist, in lower case."""

_LOGICALS = ("true", "false")

Value = bool | int | float | str


@dataclass(frozen=True)
class Assignment:
    """`name(index) = values`; the index is empty where none was written."""

    index: tuple[int, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Card:
    """A card: the word behind its name (lower case) and its lines as words, with line numbers."""

    name: str
    option: str
    lines: tuple[tuple[int, tuple[str, ...]], ...]


@dataclass(frozen=True)
class PwText:
    """Namelists (upper-case names, lower-case keys) and cards by name."""

    namelists: dict[str, dict[str, list[Assignment]]]
    cards: dict[str, Card]


def split_pw_input(text: str) -> PwText:
    """Take the text of an input apart.

    Raises:
        InputError: with the line and what is wrong in it.
    """
    lines = [strip_comment(line) for line in text.splitlines()]
    reader = _NamelistReader("\n".join(lines) + "\n")
    namelists = reader.read_all()
    first = reader.line_number
    return PwText(namelists, _cards(lines, first))


def strip_comment(line: str) -> str:
    """The line without what stands behind `!`, or `#` at its beginning, outside quotes."""
    if line.lstrip().startswith("#"):
        return ""
    match = re.match(r"""(?:'[^']*'|"[^"]*"|[^!'"]|['"](?=[^'"]*$))*""", line)
    return line if match is None else line[: match.end()].rstrip()


class _NamelistReader:
    """Reads `&NAME key = value, ... /` one after the other from the beginning of a text."""

    NAME = re.compile(r"([A-Za-z]\w*)\s*(?:\(\s*([\d\s,]*)\))?\s*=\s*")
    END = re.compile(r"/|[&$]end\b", re.IGNORECASE)
    STRING = re.compile(r"""'((?:[^'\n]|'')*)'|"((?:[^"\n]|"")*)\"""")
    SEPARATORS = re.compile(r"[\s,;]*")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    @property
    def line_number(self) -> int:
        """Number of the line that is read, from 1."""
        return self.text.count("\n", 0, self.at) + 1

    def read_all(self) -> dict[str, dict[str, list[Assignment]]]:
        """All namelists; the reader then stands behind the last one."""
        found: dict[str, dict[str, list[Assignment]]] = {}
        self._skip(re.compile(r"\s*"))
        if not self.text[self.at :].strip():
            raise InputError("the input is empty")
        while match := re.compile(r"[&$](\w+)").match(self.text, self.at):
            name = match[1].upper()
            if name not in NAMELISTS:
                raise InputError(
                    f"line {self.line_number}: pw.x has no namelist &{name}"
                    f"{_did_you_mean(name, NAMELISTS)}"
                )
            if name in found:
                raise InputError(f"line {self.line_number}: the namelist &{name} is there twice")
            self.at = match.end()
            found[name] = self._read_one(name)
            self._skip(re.compile(r"\s*"))
        if not found:
            line = self.text[self.at :].split("\n", 1)[0].strip()
            raise InputError(
                f"line {self.line_number}: '{line}' stands where &CONTROL should begin; this is "
                "no input of pw.x"
            )
        return found

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        self.at = self.at if match is None else match.end()

    def _read_one(self, namelist: str) -> dict[str, list[Assignment]]:
        keys: dict[str, list[Assignment]] = {}
        while True:
            self._skip(self.SEPARATORS)
            end = self.END.match(self.text, self.at)
            if end:
                self.at = end.end()
                return keys
            match = self.NAME.match(self.text, self.at)
            if match is None:
                raise self._no_assignment(namelist)
            key = match[1].lower()
            self._check_key(namelist, match[1])
            self.at = match.end()
            index = tuple(int(i) for i in re.findall(r"\d+", match[2] or ""))
            values = self._values(f"{match[1]} in &{namelist}")
            keys.setdefault(key, []).append(Assignment(index, tuple(values)))

    def _check_key(self, namelist: str, key: str) -> None:
        if key.lower() in NAMELISTS[namelist]:
            return
        home = [name for name, keys in NAMELISTS.items() if key.lower() in keys]
        if home:
            hint = f"; it belongs into &{home[0]}"
        else:
            hint = _did_you_mean(key.lower(), NAMELISTS[namelist])
        raise InputError(
            f"line {self.line_number}: pw.x has no '{key}' in the namelist &{namelist}{hint}"
        )

    def _no_assignment(self, namelist: str) -> InputError:
        rest = self.text[self.at :].split("\n", 1)[0].strip()
        word = rest.split()[0] if rest else ""
        if not word or word.startswith("&") or word.upper() in CARDS:
            return InputError(
                f"the namelist &{namelist} does not end with '/' before line {self.line_number}"
            )
        return InputError(
            f"line {self.line_number}: '{rest}' in the namelist &{namelist} is not of the form "
            "name = value"
        )

    def _values(self, what: str) -> list[Value]:
        values: list[Value] = []
        while True:
            before = self.at
            self._skip(self.SEPARATORS)
            done = self.END.match(self.text, self.at) or self.NAME.match(self.text, self.at)
            if done or self.at >= len(self.text):
                break
            if values and "\n" in self.text[before : self.at] and self._stray():
                break
            string = self.STRING.match(self.text, self.at)
            if string:
                self.at = string.end()
                single, double = string[1], string[2]
                values.append(
                    single.replace("''", "'") if double is None else double.replace('""', '"')
                )
                continue
            word = re.compile(r"[^\s,;/&]+|&\w+").match(self.text, self.at)
            token = word[0] if word else self.text[self.at]
            values += self._convert(token, what)
            self.at += len(token)
        if not values:
            raise InputError(f"line {self.line_number}: {what} has no value")
        return values

    def _stray(self) -> bool:
        """True before a word that begins a line and is no value: an `=` or the end is missing."""
        word = self.text[self.at :].split(maxsplit=1)[0]
        return re.fullmatch(r"&?[A-Za-z]\w+", word) is not None and word.lower() not in _LOGICALS

    def _convert(self, token: str, what: str) -> list[Value]:
        repeated = re.fullmatch(r"(\d+)\*(.+)", token)
        if repeated:
            return self._convert(repeated[2], what) * min(int(repeated[1]), 1000)
        if re.fullmatch(r"\.?t(rue)?\.?", token, re.IGNORECASE):
            return [True]
        if re.fullmatch(r"\.?f(alse)?\.?", token, re.IGNORECASE):
            return [False]
        if re.fullmatch(r"[-+]?\d+", token):
            return [int(token)]
        value = fortran_float(token)
        if value is None:
            raise InputError(
                f"line {self.line_number}: {what} is {token}; that is no finite number, no "
                ".true. or .false., and no text in quotes"
            )
        return [value]


def fortran_float(word: str) -> float | None:
    """A Fortran number such as 1.5d-3; None for anything else, NaN and infinity included."""
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([edED][-+]?\d+)?", word):
        return None
    value = float(word.lower().replace("d", "e"))
    return value if math.isfinite(value) else None


_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def coordinate(word: str) -> float | None:
    """A number, or an expression such as 1/3, as pw.x allows it in ATOMIC_POSITIONS."""
    plain = fortran_float(word)
    if plain is not None or not re.fullmatch(r"[-+*/^().\d]{1,80}", word):
        return plain
    try:
        value = _evaluate(ast.parse(word.replace("^", "**"), mode="eval").body)
    except (SyntaxError, ArithmeticError, ValueError, TypeError):
        return None
    return value if math.isfinite(value) else None


def _evaluate(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return float(_OPERATORS[type(node.op)](_evaluate(node.left), _evaluate(node.right)))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return float(_OPERATORS[type(node.op)](_evaluate(node.operand)))
    raise ValueError("not arithmetic")


def _cards(lines: list[str], first: int) -> dict[str, Card]:
    """The cards of the lines from number `first` on."""
    found: dict[str, Card] = {}
    current = ""
    for number, line in enumerate(lines[first - 1 :], start=first):
        words = line.replace(",", " ").split()
        if not words:
            continue
        header = re.match(r"\s*([A-Za-z_]+)\s*[({]?\s*([^\s)}]*)(.*)", line)
        name = header[1].upper() if header else ""
        if header and name in CARDS:
            if name in found:
                raise InputError(f"line {number}: the card {name} is there twice")
            if "=" in header[2] + header[3]:
                raise InputError(
                    f"line {number}: '{line.strip()}': give the lattice parameter as celldm(1)"
                )
            current = name
            found[name] = Card(name, header[2].lower(), ())
            continue
        _check_line(number, line.strip(), name, current)
        card = found[current]
        found[current] = Card(current, card.option, (*card.lines, (number, tuple(words))))
    return found


def _check_line(number: int, line: str, name: str, current: str) -> None:
    """Refuse a line that begins no known card and cannot belong to the one before it."""
    if line.startswith("&"):
        raise InputError(f"line {number}: the namelist {line} must stand before the cards")
    # No name of an atom is longer than three letters.
    if not current or len(name) > 3:
        word = line.split()[0]
        raise InputError(
            f"line {number}: pw.x has no card '{word}'{_did_you_mean(word.upper(), CARDS)}"
        )


def _did_you_mean(word: str, known: Any) -> str:
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"; did you mean '{nearest[0]}'?" if nearest else ""
