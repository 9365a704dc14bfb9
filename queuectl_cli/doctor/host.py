"""What this program and the daemon stand on: Python, libraries, kernel, limits."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterator
from typing import Final

from queuectl_cli.doctor.finding import FAIL, OK, WARN, Finding
from queuectld.protocol.words import PROTOCOL, VERSION

# A connection, a worker, a follower: each takes one or a few.
_FEW_FILES: Final = 4096


def program() -> Iterator[Finding]:
    """Look at this program and its Python."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(
        "program",
        OK,
        f"queuectl {VERSION}, protocol {', '.join(map(str, PROTOCOL))}; Python {python}, {sys.executable}",
    )


def libraries() -> Iterator[Finding]:
    """Look whether what the daemon needs is installed beside this program, and new enough."""
    from importlib import metadata  # noqa: PLC0415  (costs more than all other imports together)

    try:
        wanted = [text for text in metadata.requires("queuectl") or () if "extra ==" not in text]
    except metadata.PackageNotFoundError:
        yield Finding("libraries", WARN, "queuectl is not installed as a package, so what it needs is not known")
        return
    found, wrong = [], []
    for text in wanted:
        name, least = _parts(text)
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        found.append(f"{name} {version}")
        if _numbers(version) < _numbers(least):
            wrong.append(f"{name} is {version}, {least} is the least")
    if wrong:
        yield Finding(
            "libraries", FAIL, "; ".join(wrong), f"Install them:  {sys.executable} -m pip install -U queuectl"
        )
    else:
        yield Finding("libraries", OK, ", ".join(found))


def _parts(requirement: str) -> tuple[str, str]:
    """Return the name in ``name>=1.2; …``, and the least version."""
    found = re.match(r"([\w.-]+)[\s(]*(?:>=\s*([\d.]+))?", requirement)
    return (found[1], found[2] or "0") if found else (requirement, "0")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def kernel() -> Iterator[Finding]:
    """Look whether the kernel has what everything leans on."""
    name = f"{os.uname().sysname} {os.uname().release}"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        yield Finding(
            "kernel",
            FAIL,
            f"{name} has no pidfds ({error.strerror})",
            "It takes Linux 5.4, and a sandbox that lets them be.",
        )
    else:
        yield Finding("kernel", OK, f"{name}, pidfds work")


def open_files(pid: int | None) -> Iterator[Finding]:
    """Look how many files the daemon `pid` may open; where there is none, or that is secret, how many we may."""
    whose, hard = "the daemon", None if pid is None else _limit_of(pid)
    if hard is None:
        whose, hard = "a daemon that is started here", resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    text = f"{whose} may open {hard:,} files"
    if hard < _FEW_FILES:
        yield Finding(
            "files", WARN, text, f"Each client takes one. Raise the hard limit (ulimit -Hn) to {_FEW_FILES:,}."
        )
    else:
        yield Finding("files", OK, text)


def _limit_of(pid: int) -> int | None:
    try:
        return resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    except OSError:
        return None
