"""Reads values of configuration keys, also from the texts that people and environments give, and checks them."""

from __future__ import annotations

import grp
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from queuectld.domain.durations import parse_duration
from queuectld.domain.sizes import parse_size
from queuectld.domain.wording import SHOWN
from queuectld.errors import BadConfigError
from queuectld.keys import Config, Key

_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


def read_value(key: Key, value: Any) -> Any:
    """Return `value`, or what it stands for if it is a text, as the type of the key. Raises `BadConfigError`."""
    try:
        return msgspec.convert(_plain(key, value), key.form)
    except msgspec.ValidationError:
        raise _refusal(key, value) from None
    except ValueError as error:
        raise _refusal(key, value, str(error)) from None


def _refusal(key: Key, value: Any, reason: str = "") -> BadConfigError:
    because = f" ({reason})" if reason else ""
    return BadConfigError(
        f"`{key.name}` cannot be {repr(value)[:200]}: it takes {describe(key)}{because}", path=key.name
    )


def _plain(key: Key, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if key.optional and text.lower() in {"", "none", "null"}:
        return None
    if key.unit is not None:
        return _READERS[key.unit](text)
    kind = type(key.default)
    if kind is bool:
        return text.lower() in _TRUE if text.lower() in _TRUE | _FALSE else value
    if kind in {int, float} or key.field == "workers":
        return _number(text)
    return value


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _mode(text: str) -> int:
    try:
        return int(text.removeprefix("0o"), 8)
    except ValueError:
        raise ValueError("it is written in octal") from None


_READERS: Final[Mapping[str, Callable[[str], float]]] = {
    "seconds": parse_duration,
    "bytes": parse_size,
    "mode": _mode,
}


def describe(key: Key) -> str:
    """Return for people what a key takes: ``a whole number, 0 to 1000000``."""
    words = [*_choices(key), *([] if _only_choices(key) else [_kind(key) + _range(key)])]
    return " or ".join(words) + (", or none" if key.optional else "")


def _choices(key: Key) -> list[str]:
    forms = (key.form, *get_args(key.form))
    return [str(word) for form in forms if get_origin(form) is Literal for word in get_args(form)]


def _only_choices(key: Key) -> bool:
    return bool(_choices(key)) and key.field != "workers"


_PLACES: Final[Mapping[str, str]] = {
    "tcp": "HOST:PORT, such as 127.0.0.1:7000",
    "metrics": "127.0.0.1:PORT or [::1]:PORT (the loopback alone), or the absolute path of a Unix socket",
    "metrics_file": "an absolute path that ends in .prom",
    "spool": "auto, off or an absolute path",
}


def _kind(key: Key) -> str:
    if key.unit is not None:
        return {
            "seconds": "a time such as 90, 500ms, 5m or 2d",
            "bytes": "a size such as 4096, 64K or 1.5GiB",
            "mode": "permissions in octal such as 0660",
        }[key.unit]
    if key.field in _PLACES:
        return _PLACES[key.field]
    if key.meta.pattern is not None:
        return "an absolute path"
    kinds = {bool: "true or false", float: "a number", int: "a whole number"}
    return "a whole number" if key.field == "workers" else kinds.get(type(key.default), "a text")


def _range(key: Key) -> str:
    least, most = key.meta.ge, key.meta.le
    show = SHOWN.get(key.unit or "", str)
    if least is None and most is None:
        return ""
    if most is None or (key.unit == "seconds" and most > 1e9):
        return f", at least {show(least)}" if least else ""
    return f", {show(least)} to {show(most)}"


def check_config(config: Config) -> None:
    """Refuse values that do not go together, or name what is not there. Raises `BadConfigError` naming the key."""
    group_id(config.admin_group, "admin_group")
    group_id(config.observer_group, "observer_group")
    if config.metrics is not None and not config.metrics.startswith("/"):
        metrics_port(config.metrics)
    # The key alone does no harm, and `config set` takes one after the other.
    if config.tls_cert is not None and config.tls_key is None:
        raise BadConfigError("`tls_cert` needs `tls_key`, its private key", path="tls_cert")
    if config.tls_client_ca is not None and config.tls_cert is None:
        raise BadConfigError("`tls_client_ca` needs `tls_cert` and `tls_key`", path="tls_client_ca")
    if config.tcp is None:
        return
    host, _ = split_address(config.tcp)
    if config.token_file is None:
        raise BadConfigError("`tcp` needs `token_file`: whoever reaches the port has to show a token", path="tcp")
    if config.tls_cert is None and not is_loopback(host):
        raise BadConfigError(
            f"`tcp` cannot be {config.tcp!r} without TLS, because others can listen on the way: set `tls_cert` and "
            "`tls_key`, or take a loopback address (127.0.0.1, ::1, localhost)",
            path="tcp",
        )


def group_id(name: str | None, key: str) -> int | None:
    """Return the number of the group that a key names, if it does. Raises `BadConfigError` if there is none."""
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise BadConfigError(f"there is no group '{name}'", path=key) from None


def metrics_port(address: str) -> tuple[str, int]:
    """Return host and port of where figures are offered; raise `BadConfigError` where there can be none."""
    host, _, port = address.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    if not is_loopback(host):
        raise BadConfigError(f"`metrics` cannot be {address!r}: {host} is no address of the loopback", path="metrics")
    if not 0 < int(port) <= 65535:
        raise BadConfigError(f"`metrics` cannot be {address!r}: ports are 1 to 65535", path="metrics")
    return host, int(port)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[::1]:PORT``. Raises `BadConfigError`."""
    host, _, port = address.rpartition(":")
    if int(port) > 65535:
        raise BadConfigError(f"`tcp` cannot be {address!r}: ports end at 65535", path="tcp")
    return "127.0.0.1" if host == "localhost" else host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this host reaches; of a name nobody knows."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
