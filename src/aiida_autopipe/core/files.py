"""Files that appear only when they are complete, and hashes of files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """The path to write to instead of ``path``, which is replaced when the block ends well.

    After an error or Ctrl-C what stood there is unchanged. A pipe or device is written to directly.
    An OSError without the name of a file gets that of ``path``.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    partial = target.with_name(target.name + ".partial")
    try:
        yield partial
        partial.replace(target)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON to a file that appears only when it is complete."""
    with complete_file(path) as target:
        target.write_text(json.dumps(content, indent=1), encoding="utf-8")


def file_sha256(path: Path) -> str:
    """SHA-256 of the content of a file, in hexadecimal digits."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
