"""File systems that tests mount, and that are gone afterwards, however the test ends."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@contextmanager
def mounted(place: Path, *how: str | Path) -> Iterator[Path]:
    """Mount something at `place`, which is made if need be. Raises `CalledProcessError`."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # Within: who interrupts us may do so when it has just been mounted.
        subprocess.run(["mount", *how, place], check=True, capture_output=True)
        yield place
    finally:
        if place.is_mount():
            # Threads of processes that are dead already may still let go of their files.
            subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Mount a file system of that size, such as `1m`, at `place`. Raises `CalledProcessError`."""
    with mounted(place, "-t", "tmpfs", "-o", f"size={size},mode=700", "none"):
        yield place


@cache
def hindrance() -> str | None:
    """Say why none can be mounted here; None if one can."""
    with tempfile.TemporaryDirectory() as place:
        try:
            with small_disk(Path(place) / "mnt", "64k"):
                return None
        except (OSError, subprocess.CalledProcessError):
            return "may not mount file systems here"
