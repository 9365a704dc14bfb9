"""Files that are there as a whole or not at all, also after a power cut."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def replace_file(path: Path, data: bytes, mode: int = 0o600, *, lasting: bool = True) -> None:
    """Put `data` in the place of whatever is at `path`; when this returns, it is on disk. Raises `OSError`.

    Without `lasting`, the disk takes its time: for what is of no use after a power cut.
    """
    # A name of its own, so that a leftover of a crash (or a planted link) is in nobody's way.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write(draft, data, mode, lasting=lasting)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if lasting:
        sync_directory(path.parent)


def _write(path: Path, data: bytes, mode: int, *, lasting: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123  (of a descriptor)
        # Whatever the umask is.
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        if lasting:
            os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Make what was created, renamed or removed in a directory last. Raises `OSError`."""
    _sync(path, os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Make what was written to a file last, whoever wrote it. Raises `OSError`."""
    _sync(path, 0)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
