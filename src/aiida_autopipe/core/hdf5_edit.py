"""Changing an HDF5 file so that it is, at every moment, the old file or the new one.

HDF5 has no transactions: adding a dataset overwrites the tree of its group, heaps and the
superblock in several places, and a process that is killed between them leaves a file that no
program opens. A journal beside the file would repair it, but only for programs that know of the
journal. Here a copy is changed, and takes the place of the file by one rename, which the file
system does completely or not at all: whoever opens the file, with whatever program, sees the old or
the new content.

The copy costs space for a second file while it lasts, and the time to write it. File systems with
reflinks (XFS, Btrfs) share the old blocks and copy nothing; elsewhere the copy is small beside the
features that are written, which are usually many times larger than the positions they describe.

A killed process leaves the hidden file `.NAME.edit` behind; the next one overwrites it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from aiida_autopipe.core.errors import DataError, InputError
from aiida_autopipe.core.journal import JournaledFile, has_journal

# ioctl of Linux that lets a file share the blocks of another.
_FICLONE = 0x40049409
_COPY_BLOCK = 1 << 24
# Bytes for what HDF5 writes about a dataset, beside its content.
_SPARE = 1 << 20
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


FileState = tuple[int, ...]


def file_state(path: str | Path) -> FileState:
    """What changes whenever a file is written to or replaced: inode, size and time of change."""
    info = os.stat(path)
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def open_read_only(path: str | Path) -> h5py.File:
    """Open any HDF5 file for reading, with a lock that keeps writers out where there are locks.

    Raises:
        DataError: no such file, not HDF5, truncated, or just being written by another program.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file '{path}'.")
    try:
        return h5py.File(path, "r")
    except BlockingIOError as error:
        raise DataError(
            f"'{path}' is being written by another program; try again when it has ended."
        ) from error
    except OSError as error:
        raise DataError(f"'{path}' is not a readable HDF5 file: {_reason(error)}.") from error


def finish_commit(path: str | Path) -> None:
    """Put the changes in place that a killed writer of a dataset file of ours had in its journal.

    A copy of such a file would else be changed without them; see `aiida_autopipe.core.journal`.

    Raises:
        DataError: another process writes the file.
        InputError: the file is read-only.
    """
    if Path(path).is_file() and has_journal(Path(path)):
        check_writable(path)
        JournaledFile(Path(path), writable=True).close()


def check_writable(path: str | Path) -> None:
    """Refuse a file that must not be changed, before anything is computed.

    Raises:
        InputError: the file or its folder is read-only.
    """
    target = Path(os.path.realpath(path))
    # The superuser may write everything, but whoever took the right away meant something by it.
    if not (os.access(target, os.W_OK) and target.stat().st_mode & stat.S_IWUSR):
        raise InputError(f"'{path}' is read-only; make it writable, or describe a copy of it.")
    if not os.access(target.parent, os.W_OK):
        raise InputError(
            f"The folder of '{path}' is read-only, but the changed file is first written beside "
            "it; make the folder writable, or describe a copy elsewhere."
        )


@contextmanager
def edited(path: str | Path, since: FileState, more_bytes: int = 0) -> Iterator[h5py.File]:
    """A copy of an HDF5 file, open for changes, that replaces the file when the block ends well.

    Mode, owner and extended attributes are kept. A link to the file still leads to it; other hard
    links keep the old content.

    Args:
        path: the file. Keep it open (`open_read_only`) until the block has ended: with locks, no
            other program writes to it meanwhile.
        since: `file_state` of the content that the changes rest on.
        more_bytes: how much the file is going to grow, about.

    Raises:
        InputError: the file is read-only, another process is changing it in the same way, or the
            disk has no room for the copy.
        DataError: the file was changed by another program meanwhile.
    """
    check_writable(path)
    target = Path(os.path.realpath(path))
    with _locked_copy(target, path) as copy:
        _copy_content(target, copy, more_bytes)
        shutil.copystat(target, copy)
        _copy_owner(target, copy)
        with _open_copy(copy, path) as handle:
            yield handle
            handle.flush()
        _to_disk(copy)
        if file_state(path) != since:
            raise DataError(
                f"'{path}' was changed by another program meanwhile; it was left as it is."
            )
        os.replace(copy, target)
        _to_disk(target.parent)


def _open_copy(copy: Path, shown: str | Path) -> h5py.File:
    # The lock of `_locked_copy` is on this very file; HDF5's own would wait for it for ever.
    try:
        return h5py.File(copy, "r+", locking=False)
    except OSError as error:
        raise DataError(
            f"'{shown}' cannot be changed: {_reason(error)}; close it, or let the program that "
            "writes it end."
        ) from error


def _reason(error: OSError) -> str:
    """What HDF5 says, without the name of its function."""
    text = str(error)
    for start in ("Unable to synchronously open file (", "Unable to open file ("):
        if text.startswith(start):
            return text.removeprefix(start).removesuffix(")")
    return text


@contextmanager
def _locked_copy(target: Path, shown: str | Path) -> Iterator[Path]:
    """The path of the copy, locked for this process; removed unless it was renamed."""
    copy = target.with_name(f".{target.name}.edit")
    while True:
        descriptor = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            _lock(descriptor, shown)
            # Another process may have renamed the file between opening and locking: that one is
            # the user's own file now, and must not be touched.
            if _same_file(descriptor, copy):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    try:
        yield copy
    finally:
        if _same_file(descriptor, copy):
            copy.unlink()
        os.close(descriptor)


def _lock(descriptor: int, shown: str | Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"Another process is adding to '{shown}'; try again when it has ended."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # As HDF5 does: without locks where there are none.
            raise


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _copy_content(source: Path, copy: Path, more_bytes: int) -> None:
    with source.open("rb") as reader, copy.open("r+b") as writer:
        writer.truncate(0)
        size = os.fstat(reader.fileno()).st_size
        cloned = _clone(reader.fileno(), writer.fileno())
        _reserve(writer.fileno(), size if cloned else 0, size + more_bytes + _SPARE, source)
        if not cloned and _copy_bytes(reader.fileno(), writer.fileno(), size) != size:
            raise DataError(f"'{source}' changed its size while it was copied.")


def _reserve(descriptor: int, begin: int, end: int, source: Path) -> None:
    """Take the space before anything is written: HDF5 may crash where a disk becomes full.

    What is not used in the end HDF5 gives back when it closes the file.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, begin, end - begin)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise InputError(
                f"Adding to '{source}' needs {(end - begin) / 1e6:.0f} MB of disk beside it, which "
                "are not free; make room, or take a copy on another disk."
            ) from error
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # file systems that cannot
            raise


def _clone(reader: int, writer: int) -> bool:
    """Share all blocks, where the file system can."""
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError:
        return False
    return True


def _copy_bytes(reader: int, writer: int, size: int) -> int:
    """Copy `size` bytes; the number of bytes that were there."""
    done = 0
    try:
        while done < size:
            count = os.copy_file_range(reader, writer, min(_COPY_BLOCK, size - done), done, done)
            if count == 0:
                break
            done += count
    except (OSError, AttributeError):  # Other systems, and file systems that cannot.
        while done < size and (block := os.pread(reader, min(_COPY_BLOCK, size - done), done)):
            done += os.pwrite(writer, block, done)
    return done


def _copy_owner(source: Path, copy: Path) -> None:
    """Owner and group, as far as this user may give them."""
    info = source.stat()
    for owner, group in ((info.st_uid, -1), (-1, info.st_gid)):
        try:
            os.chown(copy, owner, group)
        except PermissionError:
            continue


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
