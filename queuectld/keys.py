"""The table of configuration keys. Validation, listings and the schema are made from it; nothing else names a default.

A key is a field of `Config`: its type holds the range, its ``Meta`` the line of meaning, the unit, and whether a change
waits for the next start. Users write ``retention.finished`` for ``retention_finished``, and dashes as they like.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Meta

from queuectld.domain.durations import LONGEST
from queuectld.domain.wording import nearest
from queuectld.errors import NoSuchKeyError

_MIB: Final = 1024 * 1024
_DAY: Final = 86400.0


def _key(meaning: str, unit: str | None = None, *, live: bool = True, **bounds: Any) -> Meta:
    return Meta(description=meaning, extra={"unit": unit, "live": live}, **bounds)


def _span(meaning: str, *, least: float = 0.0, most: float = LONGEST, live: bool = True) -> Meta:
    return _key(meaning, "seconds", live=live, ge=least, le=most)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon goes by. Times in seconds, sizes in bytes."""

    workers: (
        Annotated[int, _key("How many jobs run at once; auto: as many as CPUs, at most 8", ge=0, le=10_000)]
        | Literal["auto"]
    ) = "auto"

    max_retries: Annotated[int, _key("Retries after the first run of a job", ge=0, le=1_000_000)] = 3
    backoff_base: Annotated[float, _key("The n-th retry waits this to the power of n seconds", ge=0, le=86400)] = 2.0
    backoff_max: Annotated[float, _span("No retry waits longer")] = 3600.0
    jitter: Annotated[float, _key("Share of the wait that is added at random", ge=0, le=1)] = 0.0
    max_lost: Annotated[int, _key("A job that loses its worker so often in a row is dead", ge=1, le=1000)] = 3

    priority_step: Annotated[float, _span("A step of priority is worth so much waiting")] = 3600.0
    max_priority: Annotated[int, _key("The highest priority that a job may ask for", ge=-1000, le=1000)] = 1000

    shell: Annotated[str, _key("The program that runs commands, as SHELL -c COMMAND", pattern="^/[^\x00]*$")] = (
        "/bin/sh"
    )
    queues: Annotated[
        Literal["declared", "open"], _key("Whether a job for an unknown queue is refused, or makes it")
    ] = "declared"
    capture_env: Annotated[bool, _key("Whether jobs get the environment of who submits them")] = True
    timeout: Annotated[float, _span("A job that says nothing else is ended after that", least=0.001)] | None = None
    kill_after: Annotated[float, _span("From SIGTERM to SIGKILL, unless a job says otherwise")] = 5.0
    output_limit: Annotated[int, _key("Output kept of an attempt: its first and last half", "bytes", ge=0)] = 64 * _MIB

    shutdown_grace: Annotated[float, _span("Running jobs may go on for so long when the daemon stops")] = 30.0
    max_kill_after: Annotated[float, _span("When the daemon stops, SIGKILL comes no later than that")] = 30.0

    spool: Annotated[
        str,
        _key(
            "Files with jobs are dropped here; auto: `spool` in the state directory, the system's: /var/spool/queuectl",
            pattern="^(auto|off|/[^\x00]*)$",
        ),
    ] = "auto"

    socket: (
        Annotated[
            str, _key("The Unix socket; none: the usual place", live=False, pattern="^/[^\x00]*$", max_length=107)
        ]
        | None
    ) = None
    socket_mode: (
        Annotated[
            int,
            _key(
                "Permissions of the socket; none: 0600, or 0660 with a `socket_group` on root's daemon",
                "mode",
                live=False,
                ge=0,
                le=0o777,
            ),
        ]
        | None
    ) = None
    socket_group: (
        Annotated[
            str,
            _key("Group of the socket, whose members are users; none: the daemon's", live=False, min_length=1),
        ]
        | None
    ) = None
    admin_group: Annotated[str, _key("Its members may do everything, as root may", min_length=1)] | None = None
    observer_group: (
        Annotated[str, _key("Its members may look at listings and figures, unless they are users", min_length=1)] | None
    ) = None
    tcp: (
        Annotated[
            str,
            _key(
                "Also listen here: 127.0.0.1:PORT; off the loopback only with TLS",
                live=False,
                pattern=r"^(\[[^\]]+\]|[^:]+):\d{1,5}$",
            ),
        ]
        | None
    ) = None
    token_file: (
        Annotated[str, _key("File with the tokens that clients over TCP have to show", pattern="^/[^\x00]*$")] | None
    ) = None
    tls_cert: (
        Annotated[str, _key("Certificate for TLS over TCP, in PEM, with those above it", pattern="^/[^\x00]*$")] | None
    ) = None
    tls_key: Annotated[str, _key("The private key of that certificate, in PEM", pattern="^/[^\x00]*$")] | None = None
    tls_client_ca: (
        Annotated[str, _key("Clients over TCP need a certificate that one of these has signed", pattern="^/[^\x00]*$")]
        | None
    ) = None

    metrics: (
        Annotated[
            str,
            _key(
                "Figures for Prometheus over HTTP, on the loopback or a Unix socket: 127.0.0.1:PORT or a path",
                live=False,
                pattern=r"^(/[^\x00]{1,106}|(\[::1\]|127(\.\d{1,3}){3}|localhost):\d{1,5})$",
            ),
        ]
        | None
    ) = None
    metrics_file: (
        Annotated[
            str,
            _key(
                "The same as a file for the textfile collector of node_exporter, which reads *.prom",
                live=False,
                pattern=r"^/[^\x00]*\.prom$",
            ),
        ]
        | None
    ) = None
    metrics_interval: Annotated[float, _span("How often that file is written", least=1, most=3600)] = 15.0

    cgroups: Annotated[
        Literal["auto", "off"],
        _key("auto: jobs run in cgroups (version 2) where they can be used", live=False),
    ] = "auto"
    adopt_timeout: Annotated[float, _span("A living worker that does not report for so long is killed", least=0.1)] = (
        10.0
    )
    orphan_timeout: Annotated[float, _span("An idle worker without a daemon ends after that", least=0.1)] = 60.0
    heartbeat_timeout: Annotated[float, _span("A worker that is silent for so long is replaced", least=1)] = 15.0
    vitals_interval: Annotated[float, _span("How often the workers' health is read", least=0.1, most=3600)] = 5.0
    worker_idle: Annotated[float, _span("A worker without work ends after that; one stays", least=0.1)] = 600.0
    worker_max_memory: Annotated[
        int, _key("A worker that uses more is replaced after its job", "bytes", ge=16 * _MIB)
    ] = 256 * _MIB
    worker_max_files: Annotated[
        int, _key("A worker with more open files is replaced after its job", ge=32, le=1_000_000)
    ] = 256

    retention_finished: Annotated[float, _span("Completed, cancelled and seen dead jobs are kept so long")] = 7 * _DAY
    retention_count: Annotated[int, _key("No more finished jobs than this are kept", ge=0)] = 1_000_000
    retention_deleted: Annotated[float, _span("Discarded jobs can be brought back so long")] = _DAY
    retention_events: Annotated[float, _span("Events are kept so long")] = 7 * _DAY
    retention_output: Annotated[int, _key("All output together takes up no more; the oldest goes", "bytes", ge=0)] = (
        10 * 1024 * _MIB
    )
    retention_requests: Annotated[float, _span("A resent request is recognised so long")] = _DAY

    watch_config: Annotated[bool, _key("Whether a changed configuration file is read by itself")] = True
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _key("Nothing less important is logged")] = (
        "info"
    )
    log_format: Annotated[
        Literal["auto", "json", "ecs", "console"],
        _key("auto: for people on a terminal, else JSON; ecs: with the names of Elastic", live=False),
    ] = "auto"
    log_file: (
        Annotated[
            str,
            _key("Log to this file, opened anew at SIGUSR1; none: standard error", live=False, pattern="^/[^\x00]*$"),
        ]
        | None
    ) = None
    log_file_mode: Annotated[
        int, _key("Permissions of a log file that we make", "mode", live=False, ge=0, le=0o777)
    ] = 0o600


class Key(NamedTuple):
    """One row of the table."""

    # What users see.
    name: str
    # The attribute of `Config`.
    field: str
    form: Any
    default: Any
    meta: Meta
    # ``seconds``, ``bytes`` or ``mode``.
    unit: str | None
    # Whether a change takes effect at once.
    live: bool
    meaning: str
    # Whether it may be without a value.
    optional: bool


def _meta(form: Any) -> Meta:
    # Where the type is a union, the first member is the one with the bounds.
    found = next((arg for arg in get_args(form) if isinstance(arg, Meta)), None)
    return found or _meta(get_args(form)[0])


def _row(field: msgspec.structs.FieldInfo, form: Any) -> Key:
    meta = _meta(form)
    extra = meta.extra or {}
    return Key(
        name=field.name.replace("retention_", "retention."),
        field=field.name,
        form=form,
        default=field.default,
        meta=meta,
        unit=extra["unit"],
        live=extra["live"],
        meaning=meta.description or "",
        optional=type(None) in get_args(form),
    )


def _table() -> dict[str, Key]:
    forms = get_type_hints(Config, include_extras=True)
    return {field.name: _row(field, forms[field.name]) for field in msgspec.structs.fields(Config)}


# By field, in the order of the table.
KEYS: Final[Mapping[str, Key]] = _table()


def find_key(name: str) -> Key:
    """Return the key of that name, however it is spelt. Raises `NoSuchKeyError` that suggests the nearest."""
    plain = name.strip().lower().replace("-", "_").replace(".", "_")
    if plain in KEYS:
        return KEYS[plain]
    near = nearest(plain, KEYS)
    hint = f"; did you mean `{KEYS[near].name}`?" if near else ""
    raise NoSuchKeyError(f"there is no configuration key `{name}`{hint}", path=name)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the keys as a flat object; texts such as ``5m`` and ``64MiB`` are accepted besides."""
    return msgspec.json.schema(Config)
