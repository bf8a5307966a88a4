"""Numbers as text: what the reader sees on the page."""

import math
from urllib.parse import quote

MISSING = "n/a"
_MINUS = "\u2212"


def finite(value: float | None) -> float | None:
    """The value, or None where it is missing, NaN or infinite."""
    return None if value is None or not math.isfinite(value) else float(value)


def number(value: float | None, digits: int = 4) -> str:
    """`value` with `digits` significant digits, without an exponent for everyday magnitudes."""
    value = finite(value)
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 <= magnitude < 7:
        return f"{value:.{digits - 1}e}".replace("-", _MINUS)
    return f"{value:.{max(digits - 1 - magnitude, 0)}f}".replace("-", _MINUS)


def setting(value: float | None) -> str:
    """A value somebody chose, as they would write it: no padding zeros."""
    value = finite(value)
    return MISSING if value is None else f"{value:.6g}".replace("-", _MINUS)


def milli(value: float | None) -> str:
    """A value in eV shown in meV, with three significant digits."""
    value = finite(value)
    return MISSING if value is None else number(1000 * value, 3)


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    value = finite(value)
    return MISSING if value is None else f"{100 * value:.{digits}f} %".replace("-", _MINUS)


def signed_percent(value: float | None) -> str:
    """A relative error as a percentage with its sign."""
    value = finite(value)
    return MISSING if value is None else f"{100 * value:+.1f} %".replace("-", _MINUS)


def tolerance(value: float) -> str:
    """A tolerance as a percentage without trailing zeros."""
    return f"{100 * value:g} %"


def duration(seconds: float | None) -> str:
    """Seconds as hours, minutes and seconds, two units at most."""
    value = finite(seconds)
    if value is None:
        return MISSING
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def count(value: int | None) -> str:
    """A count with thin spaces between thousands."""
    return MISSING if value is None else f"{value:,}".replace(",", "\u202f")


def plural(value: int, noun: str) -> str:
    """`1 structure`, `2 structures`; nouns in -y as `property`, `properties`."""
    if value == 1:
        return f"1 {noun}"
    return f"{count(value)} {noun[:-1]}ies" if noun.endswith("y") else f"{count(value)} {noun}s"


def file_url(path: str) -> str:
    """A relative path as a URL that no browser can read as one with a scheme (`javascript:...`)."""
    return "./" + quote(path.replace("\\", "/"))


def sentence(text: str) -> str:
    """`text` with a full stop, unless it ends like a sentence already."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."
