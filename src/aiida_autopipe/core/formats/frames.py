"""What the readers of all formats share."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from ase import Atoms

from aiida_autopipe.core.errors import DataError, InputError


class Frame(NamedTuple):
    """One frame of a file.

    Attributes:
        number: its place in the file, from 0.
        atoms: the structure; None where it was not wanted and only passed over.
        progress: what has been read of the file, in bytes or frames.
    """

    number: int
    atoms: Atoms | None
    progress: int


@dataclass(frozen=True)
class FrameRange:
    """Frames start, start+step, ... before stop; all of them by default."""

    start: int = 0
    stop: int | None = None
    step: int = 1

    def __contains__(self, index: int) -> bool:
        return (
            not self.past(index) and index >= self.start and (index - self.start) % self.step == 0
        )

    def past(self, index: int) -> bool:
        """True when neither this frame nor a later one is wanted."""
        return self.stop is not None and index >= self.stop

    def indices(self, length: int) -> range:
        """Wanted frames of a file with so many."""
        return range(length)[self.start : self.stop : self.step]


def frame_range(text: str | None, every: int = 1) -> FrameRange:
    """A range from 'start:stop:step' as in Python, and every n-th frame of it.

    Raises:
        InputError: not of that form, or with negative numbers.
    """
    parts = (text or ":").split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
    except ValueError:
        numbers = []
    if not 2 <= len(numbers) <= 3 or any(n is not None and n < 0 for n in numbers):
        raise InputError(f"the slice '{text}' must be START:STOP or START:STOP:STEP, from 0 on")
    start, stop, step = (*numbers, None)[:3]
    if step == 0 or every < 1:
        raise InputError("the step of a slice must be at least 1")
    return FrameRange(start or 0, stop, (step or 1) * every)


class TextFile:
    """Lines of a text file, also one compressed with gzip, bzip2 or xz, and how far it was read."""

    def __init__(self, path: Path, raw: IO[bytes], lines: IO[bytes]) -> None:
        self.path = path
        self._raw = raw
        self._lines = lines

    def line(self) -> str:
        """The next line; '' at the end.

        Raises:
            DataError: it is not text.
        """
        return self._decoded(self._lines.readline(1 << 24))

    def lines(self, count: int) -> list[str]:
        """The next lines; fewer at the end of the file."""
        lines = self._decoded(b"".join(islice(self._lines, count))).split("\n")
        if not lines[-1]:
            lines.pop()
        return lines

    def skip(self, count: int) -> int:
        """Pass over lines; how many there were."""
        return sum(1 for _ in range(count) if self._lines.readline())

    @property
    def progress(self) -> int:
        """Bytes of the file read so far."""
        return self._raw.tell()

    def _decoded(self, content: bytes) -> str:
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"'{self.path}' is not a text file.") from error


_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


@contextmanager
def open_text(path: Path) -> Iterator[TextFile]:
    """Open a text file.

    Raises:
        DataError: empty, or a damaged compressed file (while it is read).
    """
    if path.stat().st_size == 0:
        raise DataError(f"'{path}' is empty.")
    with path.open("rb") as raw:
        opener = _OPENERS.get(path.suffix.lower())
        try:
            yield TextFile(path, raw, raw if opener is None else opener(raw))
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError) as error:
            raise DataError(f"'{path}' is damaged or truncated: {error}") from error


@contextmanager
def unreadable(path: Path, index: int) -> Iterator[None]:
    """Turn whatever a parser raises at a frame into DataError with the file and the frame."""
    try:
        yield
    except (DataError, InputError) as error:
        raise DataError(f"'{path}', frame {index}: {error}") from error
    # Parsers of damaged files raise whatever they happen to raise: all of it means "unreadable".
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        said = said if len(said.split()) > 1 else f"{type(error).__name__} {said}"
        raise DataError(f"'{path}', frame {index} cannot be read: {said}") from error
