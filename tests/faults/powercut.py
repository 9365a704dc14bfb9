"""A disk whose power can be cut: an ext4 file system in a loop-mounted file."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from tests.disks import mounted
from tests.system.waiting import wait_for

_EXT4_IOC_SHUTDOWN: Final = 0x8004587D  # _IOR('X', 125, __u32), linux/ext4.h
# The journal is dropped as well, as a power cut does: what was fsynced is whole afterwards, everything else is gone.
_NOLOGFLUSH: Final = 2


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Disk:
    """Mounted at `place`."""

    def __init__(self, image: Path, place: Path) -> None:
        self._image, self._place, self._number = image, place, 0

    def cut(self) -> None:
        """Stop it without flushing: what was not fsynced is gone, and writes fail."""
        directory = os.open(self._place, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(directory)

    def again(self) -> None:
        """Mount it as after the power came back.

        A copy is mounted, since mount namespaces of others may hold the old mount, and with it what was never written.
        """
        # Threads of processes that are dead already may still let go of their files.
        wait_for(self._unmounted, "the disk is in use no more")
        self._number += 1
        copy = self._image.with_name(f"image-{self._number}")
        _run("cp", "--sparse=always", self._image, copy)
        # What still holds the old one keeps its blocks.
        self._image.unlink()
        self._image = copy
        _run("mount", "-o", "loop", copy, self._place)

    def _unmounted(self) -> bool:
        return subprocess.run(["umount", self._place], capture_output=True, check=False).returncode == 0


@contextmanager
def disk(place: Path, mebibytes: int = 96) -> Iterator[Disk]:
    """Make a file system and mount it at `place`, which is made too. Raises `CalledProcessError`."""
    with tempfile.TemporaryDirectory(prefix="queuectl-disk-") as elsewhere:
        image = Path(elsewhere) / "image"
        _run("truncate", "-s", f"{mebibytes}M", image)
        _run("mkfs.ext4", "-q", "-F", image)
        with mounted(place, "-o", "loop", image):
            place.chmod(0o700)
            yield Disk(image, place)


@cache
def hindrance() -> str | None:
    """Say why there can be no such disk here; None if there can."""
    if os.geteuid():
        return "needs root"
    if missing := [tool for tool in ("mkfs.ext4", "mount", "unshare") if shutil.which(tool) is None]:
        return f"needs {', '.join(missing)}"
    with tempfile.TemporaryDirectory(prefix="queuectl-disk-") as place:
        try:
            with disk(Path(place) / "mnt", 16) as tried:
                tried.cut()
        except (OSError, subprocess.CalledProcessError):
            return "cannot mount a file system here, or not cut its power"
    return None
