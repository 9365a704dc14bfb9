"""Sockets to listen on: made with the right mode before anybody can connect, and never over a living daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from queuectld.config import Config
from queuectld.errors import BadConfigError, StoreLockedError
from queuectld.host.handover import Listener
from queuectld.values import group_id, is_loopback, split_address

BACKLOG: Final = 1024


class UnixListener(NamedTuple):
    """A bound socket, where it is, and which file that is."""

    sock: socket.socket
    path: str
    inode: int

    @property
    def in_place(self) -> bool:
        """Whether the file is there, and its own."""
        try:
            return Path(self.path).lstat().st_ino == self.inode
        except FileNotFoundError:
            return False

    @property
    def gid(self) -> int:
        """The group of the file. Raises `OSError`."""
        return file_gid(self.path)

    def unlink(self) -> None:
        """Remove the file, unless another daemon has put its own there."""
        # On a disk that has failed it stays; the next daemon replaces it, and why this one ends is told elsewhere.
        with contextlib.suppress(OSError):
            if self.in_place:
                Path(self.path).unlink()


def file_gid(path: str) -> int:
    """Return the group that a file belongs to."""
    return Path(path).lstat().st_gid


def unheeded(path: str, config: Config) -> Sequence[str]:
    """Return the keys which ask that a socket, made by somebody else, were another one. Raises `OSError`."""
    found = Path(path).lstat()
    wanted = {
        "socket": config.socket not in {None, path},
        "socket_mode": config.socket_mode not in {None, stat.S_IMODE(found.st_mode)},
        "socket_group": group_id(config.socket_group, "socket_group") not in {None, found.st_gid},
    }
    return [key for key, differs in wanted.items() if differs]


def listen_unix(path: str, *, mode: int, group: str | None, key: str = "socket") -> UnixListener:
    """Listen on a Unix socket with this mode and group; the path may be longer than a socket's address.

    Replaces what a dead daemon left. Raises `StoreLockedError` if somebody listens there, `BadConfigError`, which names
    `key`, if the path cannot be used.
    """
    gid = group_id(group, "socket_group")
    try:
        _make_directory(path, private=gid is None and not mode & 0o077)
        _refuse_occupied(path, key)
        return _listen(path, mode, gid)
    except OSError as error:
        raise BadConfigError(f"cannot listen on {path}: {error.strerror or error}", path=key) from None


def go_on_listening(inherited: Listener, path: str, *, mode: int, group: str | None) -> UnixListener | None:
    """Return the socket on which this process listened when it was another program, with this mode and group now.

    None if it is not at that path, because another one is configured now, or somebody has replaced or removed it.
    Raises `BadConfigError`.
    """
    sock = socket.socket(fileno=inherited.descriptor)
    listener = UnixListener(sock, inherited.where, inherited.inode)
    gid = group_id(group, "socket_group")
    try:
        if inherited.where != path or not listener.in_place:
            listener.unlink()
            sock.close()
            return None
        if gid is not None:
            os.chown(path, -1, gid, follow_symlinks=False)
        Path(path).chmod(mode)
    except OSError as error:
        raise BadConfigError(f"cannot listen on {path}: {error.strerror or error}", path="socket") from None
    sock.setblocking(False)
    return listener


def _make_directory(path: str, *, private: bool) -> None:
    Path(path).parent.mkdir(mode=0o700 if private else 0o755, parents=True, exist_ok=True)


def _refuse_occupied(path: str, key: str) -> None:
    try:
        # The file itself by its descriptor: neither the length of its path nor a swap behind our back matters.
        found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISSOCK(os.fstat(found).st_mode):
            raise BadConfigError(f"{path} exists and is not a socket", path=key)
        if _answers(f"/proc/self/fd/{found}"):
            raise StoreLockedError(f"another daemon listens on {path}")
    finally:
        os.close(found)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    # EAGAIN: so busy that its queue of connections is full, but alive.
    return code in {0, errno.EAGAIN, errno.EINPROGRESS}


def _listen(path: str, mode: int, gid: int | None) -> UnixListener:
    # Bound under another name and renamed: whoever finds the socket finds it ready, and a stale one is replaced in one
    # step. The directory goes by its descriptor, because a socket's address holds 107 bytes.
    directory = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f".queuectld.{os.getpid()}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # On Linux the mode of the file is that of the unbound socket, less the umask: never wider than this.
        os.fchmod(sock.fileno(), 0o600)
        _remove(name, directory)
        sock.bind(f"/proc/self/fd/{directory}/{name}")
        if gid is not None:
            os.chown(name, -1, gid, dir_fd=directory)
        os.chmod(name, mode, dir_fd=directory)
        sock.listen(BACKLOG)
        inode = os.stat(name, dir_fd=directory).st_ino
        os.rename(name, Path(path).name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        sock.close()
        _remove(name, directory)
        raise
    finally:
        os.close(directory)
    return UnixListener(sock, path, inode)


def _remove(name: str, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


def listen_tcp(address: str) -> socket.socket:
    """Listen on ``HOST:PORT`` or ``[::1]:PORT``; of a name, on the first of its addresses. Raises `BadConfigError`."""
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise BadConfigError(f"cannot listen on {address}: {error.strerror}", path="tcp") from None
    family, _, _, _, where = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `[::]` means everything, whatever the host's own idea of that is.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise BadConfigError(f"cannot listen on {address}: {error.strerror}", path="tcp") from None
    return sock


def on_loopback(sock: socket.socket) -> bool:
    """Whether only this host reaches a socket that listens on TCP."""
    return is_loopback(str(sock.getsockname()[0]))
