"""What a user asks of a job. What happened to it is in `queuectld.domain.job`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from queuectld.domain.attempt import Reason
from queuectld.domain.durations import enc_hook, parse_duration
from queuectld.domain.wording import Terms, in_words, nearest
from queuectld.errors import BadRequestError, UnsupportedError

# Names that users choose: ids, queues, keys of tags.
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
# "$" alone would let a newline at the end through.
_WHOLE_NAME: Final = f"^{NAME}$(?!\n)"
_NAME_IN_WORDS: Final = "letters, digits and . _ : - ; at most 128 characters, beginning with a letter or digit"
Name = Annotated[str, Meta(pattern=_WHOLE_NAME, min_length=1, description=_NAME_IN_WORDS)]
_ABSOLUTE: Final = r"^/[^\x00]*$"
Path = Annotated[str, Meta(pattern=_ABSOLUTE, max_length=4096, description="an absolute path")]
_TERMS: Final = Terms(
    patterns={_WHOLE_NAME: _NAME_IN_WORDS, _ABSOLUTE: "an absolute path, without NUL bytes"},
    units={"$.limits.memory": "bytes", "$.limits.output": "bytes", "$.umask": "mode"},
)

# stdin and script of a job, together with what is staged for them.
INPUT_LIMIT: Final = 64 * 1024 * 1024

# What a process takes before its program does anything; and what a shell takes, which puts descriptors aside above 10.
LEAST_MEMORY: Final = 1 << 20
LEAST_FILES: Final = 16


class Duration(float):
    """Seconds; in JSON a number or a text such as ``"5m"``."""

    __slots__ = ()


class Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes that are no UTF-8, or that were staged in requests before."""

    b64: bytes | None = None
    staged: str | None = None


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Bounds on what a command may use."""

    # Bytes of resident memory over all processes. Less than the least is a unit that was forgotten.
    memory: Annotated[int, Meta(ge=LEAST_MEMORY, le=1 << 50)] | None = None
    # Seconds of processor time over all processes, those that have ended included.
    cpu: Duration | None = None
    # Descriptors that each process may have open.
    files: Annotated[int, Meta(ge=LEAST_FILES, le=1 << 30)] | None = None
    # Bytes of output that are kept: the first and the last half of them, unless more than that ends the command.
    output: Annotated[int, Meta(ge=0)] | None = None
    output_action: Literal["trim", "end"] = "trim"


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One job as it was asked for. ``None`` means: what the queue or the configuration says when it matters."""

    id: Name | None = None
    command: str | None = None
    argv: tuple[str, ...] | None = None
    script: str | Blob | None = None
    shell: str | None = None

    queue: Name = "default"
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    # ISO 8601 with a zone, or seconds since the epoch.
    run_at: str | float | None = None
    delay: Duration | None = None

    max_retries: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    retry_for: Duration | None = None
    backoff_base: Annotated[float, Meta(ge=0, le=86400)] | None = None
    backoff_max: Duration | None = None
    # A share of the delay that is added at random, so that jobs that failed together do not come back together.
    jitter: Annotated[float, Meta(ge=0, le=1)] | None = None
    success_codes: tuple[Annotated[int, Meta(ge=0, le=255)], ...] = (0,)
    no_retry_on: tuple[Annotated[int, Meta(ge=0, le=255)] | str, ...] = ()
    rerun: Literal["always", "never"] = "always"

    timeout: Duration | None = None
    # Without a byte on stdout or stderr.
    silent_timeout: Duration | None = None
    kill_after: Duration | None = None
    # What becomes of processes that the command leaves running.
    leftovers: Literal["end", "keep"] = "end"

    cwd: Path | None = None
    env: dict[str, str] = {}
    env_mode: Literal["capture", "clean"] | None = None
    umask: Annotated[int, Meta(ge=0, le=0o777)] | None = None
    nice: Annotated[int, Meta(ge=-20, le=19)] | None = None
    # Whose job it is, and as whom it runs; ``as`` is a word of Python's.
    as_: Annotated[str, Meta(min_length=1, max_length=256)] | None = msgspec.field(name="as", default=None)
    stdin: str | Blob | None = None
    limits: Limits = Limits()

    tags: dict[str, str] = {}
    note: Annotated[str, Meta(max_length=4096)] | None = None


_REASONS: Final = tuple(reason.value for reason in Reason)

# Fields that the language of jobs has and this version does not do yet: refused by name, never ignored.
PLANNED: Final = frozenset(
    {
        "slots",
        "lock",
        "expires_at",
        "expires_in",
        "hold",
        "after",
        "pty",
        "unique_key",
        "on_conflict",
    }
)

_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(?P<name>.*?)`(?: - at `(?P<path>[^`]*)`)?$")


def dec_hook(kind: type, value: Any) -> Any:
    """Decode the custom types of specs and requests, for `msgspec`. Raises `ValueError` with a message for people."""
    if kind is Duration:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError('write a number of seconds, or a text such as "5m"')
        return Duration(parse_duration(value))
    raise NotImplementedError(kind)


_decoder: Final = msgspec.json.Decoder(JobSpec, dec_hook=dec_hook)
_encoder: Final = msgspec.json.Encoder(enc_hook=enc_hook)


def encode_spec(spec: JobSpec) -> bytes:
    """Return JSON of what differs from the defaults."""
    return _encoder.encode(spec)


def decode_spec(raw: bytes | msgspec.Raw, *, hints: bool = True) -> JobSpec:
    """Read one job. Raises `BadRequestError` or `UnsupportedError` with the path of what is wrong.

    `hints` tell what an unknown field may have meant, which costs more than to read a hundred jobs.
    """
    try:
        spec = _decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise explain(error, JobSpec, hints=hints) from None
    check(spec)
    return spec


def explain(error: Exception, form: type[msgspec.Struct], *, hints: bool = True) -> BadRequestError | UnsupportedError:
    """Turn what `msgspec` says of a request of this `form` into an error for its sender."""
    text = str(error)
    if unknown := _UNKNOWN_FIELD.search(text):
        return _unknown_field(unknown["name"], unknown["path"] or "$", form, hints=hints)
    message, _, path = text.partition(" - at `")
    path = path.rstrip("`")
    return BadRequestError(
        in_words(message, path, "a job" if form is JobSpec else "a request", _TERMS), path=path or None
    )


def _unknown_field(
    name: str, path: str, form: type[msgspec.Struct], *, hints: bool
) -> BadRequestError | UnsupportedError:
    where = f"{path}.{name}"
    if form is JobSpec and (whole := where.removeprefix("$.")) in PLANNED:
        return UnsupportedError(f"field `{whole}` is not supported by this version", path=where)
    near = nearest(name, [field.encode_name for field in msgspec.structs.fields(form)]) if hints else None
    hint = f" (did you mean `{near}`?)" if near else ""
    return BadRequestError(f"unknown field `{name}`{hint}", path=where)


def check(spec: JobSpec) -> None:
    """Refuse what the types alone let through. Raises `BadRequestError` naming the field."""
    _check_command(spec)
    for name, rule in _RULES.items():
        value = _value(spec, name)
        if value is not None and (complaint := rule(value)):
            shown = name.rstrip("_")
            raise BadRequestError(f"`{shown}` {complaint}", path=f"$.{shown}")
    if spec.run_at is not None and spec.delay is not None:
        raise BadRequestError("`run_at` and `delay` exclude each other", path="$.run_at")


def _value(spec: JobSpec, name: str) -> Any:
    outer, _, inner = name.partition(".")
    value = getattr(spec, outer)
    return getattr(value, inner) if inner else value


def _check_command(spec: JobSpec) -> None:
    given = [name for name in ("command", "argv", "script") if getattr(spec, name) is not None]
    if not given:
        raise BadRequestError("a job needs a `command` (or `argv`, or `script`)", path="$.command")
    if len(given) > 1:
        raise BadRequestError(f"`{given[0]}` and `{given[1]}` exclude each other", path=f"$.{given[1]}")
    if spec.command is not None and not spec.command.strip():
        raise BadRequestError("`command` is empty", path="$.command")
    if spec.argv is not None and not (spec.argv and spec.argv[0]):
        raise BadRequestError("`argv` needs a program as its first word", path="$.argv")
    if spec.argv is not None and spec.shell is not None:
        raise BadRequestError("`argv` runs without a shell; use `command` with `shell`", path="$.shell")


def _no_nul(text: str) -> str | None:
    return "contains a NUL byte" if "\0" in text else None


def _shell(text: str) -> str | None:
    return _no_nul(text) if text.strip() else "is empty"


def _positive(seconds: float) -> str | None:
    return None if seconds > 0 else "must be more than 0"


def _argv(words: tuple[str, ...]) -> str | None:
    return next((complaint for word in words if (complaint := _no_nul(word))), None)


def _environment(env: Mapping[str, str]) -> str | None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name:
            return f"has {name!r}, which cannot be the name of a variable"
        if "\0" in value:
            return f"has a NUL byte in the value of {name}"
    return None


def _tags(tags: Mapping[str, str]) -> str | None:
    for key, value in tags.items():
        if not re.fullmatch(NAME, key) or not re.fullmatch(NAME, value):
            return f"has {key}={value}; both sides are {_NAME_IN_WORDS}"
    return None


def _retry_words(words: tuple[int | str, ...]) -> str | None:
    bad = next((word for word in words if isinstance(word, str) and word not in _REASONS), None)
    return None if bad is None else f"has {bad!r}; allowed are exit codes and {', '.join(_REASONS)}"


def _input(value: str | Blob) -> str | None:
    if isinstance(value, Blob):
        return None if (value.b64 is None) != (value.staged is None) else "needs either `b64` or `staged`"
    return None


def _instant(value: str | float) -> str | None:
    try:
        instant(value)
    except ValueError as error:
        return str(error)
    return None


_YEAR_3000: Final = 32_503_680_000


def instant(value: str | float) -> float:
    """Return seconds since the epoch of an ISO 8601 text with a zone, or of a number. Raises `ValueError`."""
    seconds = float(value) if isinstance(value, int | float) else _seconds(value)
    if not 0 <= seconds < _YEAR_3000:
        raise ValueError("must lie between 1970 and 3000")
    return seconds


def _seconds(text: str) -> float:
    try:
        moment = msgspec.convert(text, Annotated[datetime, Meta(tz=True)])
    except msgspec.ValidationError:
        raise ValueError("must be an instant such as 2026-12-01T09:00:00Z, with a zone") from None
    return float(moment.timestamp())


_RULES: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "command": _no_nul,
    "argv": _argv,
    "as_": _no_nul,
    "shell": _shell,
    "script": _input,
    "timeout": _positive,
    "silent_timeout": _positive,
    "limits.cpu": _positive,
    "note": _no_nul,
    "env": _environment,
    "tags": _tags,
    "no_retry_on": _retry_words,
    "stdin": _input,
    "run_at": _instant,
}
