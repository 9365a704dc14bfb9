"""Where things are: state directory, configuration file, socket. Pure, and light: the client asks here too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

SYSTEM_STATE: Final = "/var/lib/queuectl"
SYSTEM_SOCKET: Final = "/run/queuectl/queuectl.sock"
SYSTEM_CONFIG: Final = "/etc/queuectl/queuectld.toml"
SYSTEM_SPOOL: Final = "/var/spool/queuectl"

# In a state directory: the file that records where the socket is.
SOCKET_RECORD: Final = "socket"


class Places(NamedTuple):
    """`scope` is ``system``, ``user``, or ``private`` where QUEUECTL_STATE_DIR sets a queue of its own apart."""

    scope: str
    state: str
    config: str
    # Where the daemon listens unless it is configured otherwise.
    socket: str

    @property
    def spool(self) -> str:
        """Where files with jobs are dropped unless the daemon is configured otherwise."""
        return SYSTEM_SPOOL if self.scope == "system" else f"{self.state}/spool"


def places(env: Mapping[str, str], uid: int, scope: str | None, is_dir: Callable[[str], bool]) -> Places:
    """Return where the queue of this user is; `scope` forces ``user`` or ``system``; root means the system's."""
    if (state := env.get("QUEUECTL_STATE_DIR")) and scope is None:
        return Places("private", state, _config(env, f"{state}/queuectld.toml"), f"{state}/queuectl.sock")
    if scope == "system" or (scope is None and uid == 0):
        return Places("system", SYSTEM_STATE, _config(env, SYSTEM_CONFIG), SYSTEM_SOCKET)
    home = env.get("HOME") or "/"
    state = f"{env.get('XDG_STATE_HOME') or f'{home}/.local/state'}/queuectl"
    config = f"{env.get('XDG_CONFIG_HOME') or f'{home}/.config'}/queuectl/queuectld.toml"
    # cron and sudo lose XDG_RUNTIME_DIR, while the directory is there.
    runtime = env.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    socket = f"{runtime}/queuectl/queuectl.sock" if is_dir(runtime) else f"{state}/queuectl.sock"
    return Places("user", state, _config(env, config), socket)


def _config(env: Mapping[str, str], usual: str) -> str:
    return env.get("QUEUECTL_CONFIG") or usual
