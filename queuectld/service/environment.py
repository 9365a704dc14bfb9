"""Which variables of a submitter's environment go along with a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

# They tell of the terminal or the login session of the submitter; in a job they would be lies.
_LEFT_OUT: Final = frozenset(
    {
        "TERM",
        "TERMCAP",
        "COLORTERM",
        "COLUMNS",
        "LINES",
        "WINDOWID",
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "XAUTHORITY",
        "SHLVL",
        "PPID",
        "_",
        "OLDPWD",
        "TMUX",
        "TMUX_PANE",
        "STY",
        "WINDOW",
    }
)
# What systemd and supervisord tell one process about itself: a job that believed it would speak for that process, take
# its sockets, or write where it was not asked to.
_OF_SERVICE: Final = frozenset(
    {
        "NOTIFY_SOCKET",
        "MAINPID",
        "MAINPIDFDID",
        "MANAGERPID",
        "MANAGERPIDFDID",
        "SYSTEMD_EXEC_PID",
        "INVOCATION_ID",
        "DEBUG_INVOCATION",
        "JOURNAL_STREAM",
        "LOG_NAMESPACE",
        "CREDENTIALS_DIRECTORY",
        "ENCRYPTED_CREDENTIALS_DIRECTORY",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "CACHE_DIRECTORY",
        "LOGS_DIRECTORY",
        "CONFIGURATION_DIRECTORY",
        "FDSTORE",
    }
)
_OF_SERVICE_PREFIXES: Final = ("LISTEN_", "WATCHDOG_", "MEMORY_PRESSURE_", "SUPERVISOR_")
# QUEUECTL_ATTEMPT_TOKEN and its like belong to the job that submits this one.
_LEFT_OUT_PREFIXES: Final = (
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "XDG_SESSION_",
    "XDG_SEAT",
    "XDG_VTNR",
    "QUEUECTL_JOB_ID",
    "QUEUECTL_ATTEMPT",
    "QUEUECTL_QUEUE",
    "QUEUECTL_WORKER",
    "QUEUECTL_SLOT",
)

_encoder: Final = msgspec.json.Encoder(order="deterministic")
_decoder: Final = msgspec.json.Decoder(dict[str, str])


def captured(env: Mapping[str, str]) -> dict[str, str]:
    """Return what of a submitter's environment a job takes along; what no process could be given is left out too."""
    return {name: value for name, value in env.items() if not _left_out(name) and _possible(name, value)}


def _left_out(name: str) -> bool:
    return name in _LEFT_OUT or name.startswith(_LEFT_OUT_PREFIXES) or of_service(name)


def of_service(name: str) -> bool:
    """Whether a variable is how a service manager tells one process about itself."""
    return name in _OF_SERVICE or name.startswith(_OF_SERVICE_PREFIXES)


def _possible(name: str, value: str) -> bool:
    return bool(name) and "=" not in name and "\0" not in name and "\0" not in value


def pack_environment(env: Mapping[str, str]) -> bytes:
    """Return the blob under which an environment is stored: equal ones give equal bytes."""
    return _encoder.encode(env)


def unpack_environment(blob: bytes) -> dict[str, str]:
    """Read such a blob."""
    return _decoder.decode(blob)
