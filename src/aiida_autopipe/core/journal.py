"""A file that changes from one consistent state to the next as a whole, whenever the writer dies.

HDF5 changes a file in many small steps; a process killed between two of them leaves something that
cannot be opened. `JournaledFile` is the file object that h5py writes to instead, and keeps what the
last `commit` left:

- Bytes behind the end of the committed state are written to the file at once. Nothing refers to
  them yet: HDF5 files may be longer than they say.
- Bytes inside the committed state are kept in memory, as changed pages. HDF5 changes only
  bookkeeping there, and the last chunk of each array.
- `commit` writes these pages behind the new data, with a checksum (a redo journal), then into their
  places, and then cuts the journal off.

A writer killed before its journal is complete leaves the old state and bytes behind it that do not
count. One killed later leaves a complete journal, from which readers take the changed pages and the
next writer finishes the work. The order is enforced with fsync, so it holds for a loss of power as
well.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aiida_autopipe.core.errors import DataError

PAGE = 4096
MAGIC = b"autopipe-journal"
TRAILER = struct.Struct("<16sQQ32s")
"""Magic, length of the file without the journal, number of pages, SHA-256 of all of it before."""

RECORD = PAGE + 8
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def pending_pages(descriptor: int) -> tuple[int, dict[int, bytearray]] | None:
    """Length of the file, and pages by number, that a complete journal at its end asks for."""
    size = os.fstat(descriptor).st_size
    if size < TRAILER.size:
        return None
    trailer = os.pread(descriptor, TRAILER.size, size - TRAILER.size)
    magic, end, n_pages, digest = TRAILER.unpack(trailer)
    start = size - TRAILER.size - n_pages * RECORD
    if magic != MAGIC or start != end:
        return None
    records = os.pread(descriptor, n_pages * RECORD, start)
    if hashlib.sha256(records + trailer[:-32]).digest() != digest:
        return None
    pages = {}
    for first in range(0, len(records), RECORD):
        number = int.from_bytes(records[first : first + 8], "little")
        pages[number] = bytearray(records[first + 8 : first + RECORD])
    return end, pages


def has_journal(path: Path) -> bool:
    """True when a writer of the file was killed while it committed."""
    with path.open("rb") as file:
        return pending_pages(file.fileno()) is not None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off until the block has ended: in the middle of HDF5 it would break its state."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _frame: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if waiting:
            signal.raise_signal(signal.SIGINT)


class JournaledFile(io.RawIOBase):
    """File object for ``h5py.File``; see the module.

    Raises:
        DataError: another process writes the file, or it is no HDF5 file.
        OSError: the file cannot be opened for what is wanted.
    """

    def __init__(self, path: Path, writable: bool) -> None:
        super().__init__()
        self._path = path
        self._writable = writable
        self._fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        self._pages: dict[int, bytearray] = {}
        self._position = 0
        self._abandoned = False
        self.failure: OSError | None = None
        """Why something could not be written; the file is abandoned then."""
        try:
            if writable:
                self._lock()
            self._recover()
        except BaseException:
            self.close()
            raise
        self._size = self._committed

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"'{self._path}' is in use by another process; wait until it has ended."
            ) from error
        except OSError:  # a file system without locks
            pass

    def _recover(self) -> None:
        found = pending_pages(self._fd)
        if found is None:
            self._committed = _stored_end(self._fd, self._path)
        else:
            self._committed, self._pages = found
            if self._writable:
                self._apply()
        if self._writable:
            os.ftruncate(self._fd, self._committed)

    # ------------------------------------------------------------------ what h5py calls

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True when the file was opened for writing."""
        return self._writable

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position of the next read or write."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Position of the next read or write."""
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the position on; zeros behind the end."""
        start, length = self._position, len(buffer)
        content = os.pread(self._fd, length, start)
        buffer[: len(content)] = content
        buffer[len(content) :] = bytes(length - len(content))
        for number in range(start // PAGE, -(-(start + length) // PAGE)):
            page = self._pages.get(number)
            if page is not None:
                first = max(start, number * PAGE)
                last = min(start + length, (number + 1) * PAGE, self._limit)
                if first < last:
                    piece = page[first - number * PAGE : last - number * PAGE]
                    buffer[first - start : last - start] = piece
        self._position += length
        return length

    def write(self, content: bytes | memoryview) -> int:  # type: ignore[override]
        """Write at the position: into memory what lies in the committed state.

        A failure is kept in `failure`, and never told to HDF5, which does not survive it: it gets
        what it wrote from memory from then on.
        """
        data = memoryview(content).cast("B")
        start, end = self._position, self._position + len(data)
        inside = max(0, min(end, self._limit) - start)
        if inside < len(data):
            try:
                self._write_all(data[inside:], start + inside)
            except OSError as error:
                self.failure = error
                self.abandon()
                inside = len(data)
        self._change(start, data[:inside])
        self._position = end
        self._size = max(self._size, end)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file; it never becomes shorter than the committed state.

        HDF5 asks for that when the last chunk has moved into a gap. What it gives up is still part
        of the state that survives until the next commit; the next writer cuts it off.
        """
        self._size = max(self._committed, self._position if size is None else size)
        return self._size

    def flush(self) -> None:
        """Do nothing: `commit` is what counts."""

    # ------------------------------------------------------------------ states

    @property
    def _limit(self) -> int:
        """Bytes before are changed in memory only."""
        return 1 << 62 if self._abandoned else self._committed

    def _change(self, start: int, data: memoryview) -> None:
        done = 0
        while done < len(data):
            number, first = divmod(start + done, PAGE)
            page = self._pages.get(number)
            if page is None:
                content = os.pread(self._fd, PAGE, number * PAGE)
                page = self._pages[number] = bytearray(content.ljust(PAGE, b"\0"))
            count = min(PAGE - first, len(data) - done)
            page[first : first + count] = data[done : done + count]
            done += count

    def commit(self) -> None:
        """Make everything written so far the state that survives.

        Raises:
            OSError: the disk is full or fails, or did so since the last commit; the state is the
                old one, and `abandon` is next.
        """
        if self.failure is not None:
            raise self.failure
        end = self._size
        os.ftruncate(self._fd, end)
        if self._pages:
            self._complete_last_page()
            records = b"".join(
                number.to_bytes(8, "little") + page for number, page in sorted(self._pages.items())
            )
            head = TRAILER.pack(MAGIC, end, len(self._pages), b"")[:-32]
            journal = records + head + hashlib.sha256(records + head).digest()
            self._write_all(memoryview(journal), end)
            os.fsync(self._fd)
            self._apply()
            os.ftruncate(self._fd, end)
        os.fsync(self._fd)
        self._pages.clear()
        self._committed = end

    def _complete_last_page(self) -> None:
        """The page in which the committed state ends: what follows in it was written directly."""
        number, inside = divmod(self._committed, PAGE)
        page = self._pages.get(number)
        if page is not None:
            content = os.pread(self._fd, PAGE - inside, self._committed)
            page[inside : inside + len(content)] = content

    def _apply(self) -> None:
        """Write the changed pages into their places."""
        for number, page in sorted(self._pages.items()):
            count = min(PAGE, self._committed - number * PAGE)
            if count > 0:
                self._write_all(memoryview(page)[:count], number * PAGE)
        os.fsync(self._fd)
        self._pages.clear()

    def _write_all(self, content: memoryview, start: int) -> None:
        done = 0
        while done < len(content):
            done += os.pwrite(self._fd, content[done:], start + done)

    def abandon(self) -> None:
        """Return to the committed state when closed; what is written until then goes nowhere."""
        self._abandoned = True

    def close(self) -> None:
        """Close the file; what was not committed is cut off."""
        if self.closed:
            return
        super().close()
        try:
            if self._writable and hasattr(self, "_committed"):
                with suppress(OSError):
                    if pending_pages(self._fd) is None:
                        os.ftruncate(self._fd, self._committed)
        finally:
            os.close(self._fd)


def _stored_end(descriptor: int, path: Path) -> int:
    """Length that the superblock of an HDF5 file gives."""
    head = os.pread(descriptor, 64, 0)
    version = head[8] if len(head) == 64 else None
    if head[:8] != SIGNATURE or version not in (0, 1, 2, 3):
        raise DataError(f"'{path}' is not a readable HDF5 file.")
    width, first = (head[13], 40 + 4 * version) if version in (0, 1) else (head[9], 28)
    if width != 8:
        raise DataError(f"'{path}' is an HDF5 file with addresses of {width} bytes, not 8.")
    end = int.from_bytes(head[first : first + 8], "little")
    if end > os.fstat(descriptor).st_size:
        raise DataError(f"'{path}' is truncated: bytes at its end are missing.")
    return end
