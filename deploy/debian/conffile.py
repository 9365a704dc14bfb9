"""Prints the configuration file that the package installs: each key, what it means, and its default in a comment.

What the package decides otherwise is no comment.
"""

from __future__ import annotations

from typing import Any, Final

from queuectld.domain.durations import format_duration
from queuectld.domain.sizes import format_size
from queuectld.keys import KEYS, Key
from queuectld.values import describe

# Members of the group are let in, as the socket of systemd lets them in.
DECIDED: Final[dict[str, Any]] = {"socket_mode": 0o660, "socket_group": "queuectl"}

HEAD: Final = """\
## The configuration of queuectld, the daemon of the system.
##
## A line with one # in front shows a default; remove it to say something else. The daemon reads the file again when it
## changes; what holds from its next start on says so. `queuectl config list --show-origin` tells what is in force, and
## `queuectld --system --check` whether the file is valid.
"""


def written(key: Key, value: Any) -> str:
    """Return a value as it stands in the file."""
    match key.unit, value:
        case _, None:
            text = "none"
        case "mode", int(mode):
            text = f"{mode:04o}"
        case "bytes", int(size):
            text = format_size(size).replace(" ", "")
        case "seconds", int(span) | float(span):
            text = format_duration(span)
        case _, bool():
            return str(value).lower()
        case _, int() | float():
            return f"{value}"
        case _:
            text = value
    return f'"{text}"'


def entry(key: Key) -> str:
    """Return the lines about a key."""
    later = "" if key.live else " From the next start on."
    line = f"{key.name} = {written(key, DECIDED.get(key.field, key.default))}"
    return f"\n## {key.meaning}.{later}\n## Takes {describe(key)}.\n{'' if key.field in DECIDED else '#'}{line}\n"


if __name__ == "__main__":
    print(HEAD + "".join(map(entry, KEYS.values())), end="")
