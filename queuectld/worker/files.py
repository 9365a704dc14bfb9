"""Files that a worker leaves in the state directory for a daemon to come: complete or not there at all."""

from __future__ import annotations

import contextlib
import os


def leave(directory: str, name: str, data: bytes, *, on_disk: bool) -> None:
    """Write a file under a temporary name, which begins with a dot, and rename it; make the directory if need be.

    With `on_disk` it outlives a power cut when this returns. Raises `OSError`, and has then removed what it wrote, as
    far as possible.
    """
    temporary = os.path.join(directory, f".{name}")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    try:
        _write(temporary, data, on_disk=on_disk)
        os.rename(temporary, os.path.join(directory, name))
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if on_disk:
        _sync_directory(directory)


def _write(path: str, data: bytes, *, on_disk: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        # A full disk may take a part and refuse the rest only in the next call.
        while data:
            data = data[os.write(descriptor, data) :]
        if on_disk:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
