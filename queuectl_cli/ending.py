"""Ending a daemon, and waiting until its process is gone."""

from __future__ import annotations

import os
import select

from queuectl_cli.client import Client
from queuectl_cli.errors import CliError, LostError
from queuectl_cli.target import Target

# Seconds between the end of its last connection and the end of its process.
_EXIT_PATIENCE = 30.0


def end(client: Client, mode: str) -> None:
    """Ask for the end and wait until the process is gone, so that the next daemon finds the state free."""
    process = _process(client)
    try:
        client.request("shutdown", mode=mode)
        while True:
            client.receive(None)
    except LostError:
        client.close()
    if process is None:
        return
    try:
        if not select.select([process], [], [], _EXIT_PATIENCE)[0]:
            raise CliError(f"queuectld let go of its socket and does not end within {_EXIT_PATIENCE:g} s")
    finally:
        os.close(process)


def _process(client: Client) -> int | None:
    if not client.target.local:
        return None
    pid = client.request("ping")["pid"]
    # It may live in another namespace of processes. Where systemd listens, it is systemd that is at the other end.
    if pid not in {client.peer_pid(), _named_in_lock(client.target)}:
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _named_in_lock(target: Target) -> int | None:
    """Return the process that has left its number in the lock of the state directory, where we may look there."""
    if target.explicit:
        return None
    try:
        with open(f"{target.places.state}/lock", encoding="ascii") as file:  # noqa: PTH123  (pathlib costs 3 ms)
            return int(file.read(32))
    except (OSError, ValueError):
        return None
