"""Where configuration comes from: environment, overrides by ``config set``, the administrator's file, defaults.

What stands earlier in that list wins. The keys themselves are in `queuectld.keys`.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from queuectld.domain.policy import Policy
from queuectld.durable import replace_file
from queuectld.errors import BadConfigError, NoSuchKeyError
from queuectld.keys import KEYS, Config, Key, find_key
from queuectld.protocol.replies import Setting
from queuectld.values import check_config, read_value

__all__ = ["Config", "Holder", "Loaded", "Origin", "Sources", "load", "policy", "restore", "worker_limit"]

Origin = Literal["environment", "override", "file", "default"]

# The client has its own variables (QUEUECTL_HOST, QUEUECTL_TOKEN_FILE, …); the daemon's keys begin unlike them.
PREFIX: Final = "QUEUECTLD_"
# The name of the credential with the tokens for TCP.
CREDENTIAL: Final = "tcp-token"
MOST_WORKERS: Final = 8


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A value set by ``config set``, by whom, and when (wall clock, seconds)."""

    value: Any
    by: str
    at: float
    # The value that comes back when the workers are started again.
    paused: Any = None

    @property
    def source(self) -> str:
        """Who and when, for people."""
        return f"{self.by}, {datetime.fromtimestamp(self.at, UTC):%Y-%m-%dT%H:%M:%SZ}"


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What was read, by the names of the keys, but for the environment: enough to be in force again without files."""

    config_file: str | None
    file: dict[str, Any]
    overrides: dict[str, Override]


class Given(NamedTuple):
    """A value as one source gives it; ``source`` is the variable, the file, or who set it."""

    value: Any
    source: str


Layer = Mapping[str, Given]


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration, and where each of its values comes from. Mappings are by field of `Config`."""

    config: Config
    environment: Layer
    overrides: Mapping[str, Override]
    file: Layer
    # The file that was read, if there is one.
    config_file: str | None

    def origin(self, field: str) -> tuple[Origin, str | None]:
        """Return where a value comes from, and from which variable, person or file."""
        if field in self.environment:
            return "environment", self.environment[field].source
        if field in self.overrides:
            return "override", self.overrides[field].source
        if field in self.file:
            return "file", self.file[field].source
        return "default", None

    def settings(self, names: tuple[str, ...] = ()) -> tuple[Setting, ...]:
        """Return rows for the named keys, or for all. Raises `NoSuchKeyError`."""
        return tuple(self._setting(key) for key in (map(find_key, names) if names else KEYS.values()))

    def _setting(self, key: Key) -> Setting:
        origin, source = self.origin(key.field)
        return Setting(
            key=key.name,
            value=getattr(self.config, key.field),
            origin=origin,
            source=source,
            default=key.default,
            unit=key.unit,
            meaning=key.meaning,
            live=key.live,
        )

    def traced(self, error: BadConfigError, overrides_file: str | os.PathLike[str]) -> BadConfigError:
        """Return the error about a value with where that is, if it is not in the file that people look into."""
        field = next((key.field for key in KEYS.values() if key.name == error.path), "")
        origin, who = self.origin(field)
        if origin != "override":
            return error
        said = f"{error.message}; it was set with `queuectl config set` by {who}, and is kept in {overrides_file}"
        return BadConfigError(f"{said}, from which it can be removed while no daemon runs", path=error.path)

    def hidden(self) -> tuple[str, ...]:
        """Return the names of the keys whose value in the file something else hides."""
        return tuple(KEYS[field].name for field in self.file if self.origin(field)[0] != "file")

    def with_override(self, name: str, value: Any, who: str, when: float) -> Loaded:
        """Return the configuration with one more override. Raises `NoSuchKeyError`, `BadConfigError`."""
        key = find_key(name)
        if key.field in self.environment:
            variable = self.environment[key.field].source
            raise BadConfigError(
                f"`{key.name}` is set by {variable} in the daemon's environment, which an override cannot change",
                path=key.name,
            )
        override = Override(read_value(key, value), who, when)
        return _combine(self, overrides={**self.overrides, key.field: override})

    def without_override(self, name: str) -> Loaded:
        """Return the configuration without that override, if there was one. Raises as `with_override`."""
        field = find_key(name).field
        return _combine(self, overrides={kept: value for kept, value in self.overrides.items() if kept != field})

    def paused(self, who: str, when: float) -> Loaded:
        """Return the configuration with no worker, and what was set before kept in mind. Raises as `with_override`."""
        before = self.overrides.get("workers")
        kept = None if before is None else before.paused if before.value == 0 else before.value
        stopped = self.with_override("workers", 0, who, when)
        override = msgspec.structs.replace(stopped.overrides["workers"], paused=kept)
        return msgspec.structs.replace(stopped, overrides={**stopped.overrides, "workers": override})

    def resumed(self, who: str, when: float) -> Loaded:
        """Return the configuration with as many workers as before `paused`. Raises as `with_override`."""
        override = self.overrides.get("workers")
        if override is None or override.paused is None:
            return self.without_override("workers")
        return self.with_override("workers", override.paused, who, when)

    def sources(self) -> Sources:
        """Return what `restore` takes."""
        file = {KEYS[field].name: given.value for field, given in self.file.items()}
        overrides = {KEYS[field].name: override for field, override in self.overrides.items()}
        return Sources(config_file=self.config_file, file=file, overrides=overrides)

    def write_overrides(self, path: str | os.PathLike[str]) -> None:
        """Store the overrides; when this returns they are on disk. Raises `OSError`."""
        by_name = msgspec.to_builtins(self.sources().overrides)
        replace_file(Path(path), json.dumps(by_name, indent=2, ensure_ascii=False).encode() + b"\n")


def load(
    config_file: str | os.PathLike[str],
    overrides_file: str | os.PathLike[str],
    environ: Mapping[str, str],
    *,
    required: bool = False,
) -> Loaded:
    """Read all sources. Raises `BadConfigError` that names key, reason and source.

    The configuration file may be missing unless it is `required`, because somebody named it; the overrides may always.
    """
    file = _read_file(Path(config_file), required=required)
    overrides = _read_overrides(Path(overrides_file))
    return _layered(environ, overrides, file or {}, None if file is None else os.fspath(config_file))


def restore(sources: Sources, environ: Mapping[str, str]) -> Loaded:
    """Return what was in force, be it with an earlier version, without a look at files. Raises `BadConfigError`."""
    file = _layer(sources.file.items(), lambda _: str(sources.config_file))
    return _layered(environ, _by_field(sources.overrides, "config set"), file, sources.config_file)


def _layered(
    environ: Mapping[str, str], overrides: Mapping[str, Override], file: Layer, config_file: str | None
) -> Loaded:
    environment = _read_environment(environ)
    if "token_file" not in {**environment, **overrides, **file}:
        environment |= _credential(environ)
    bare = Loaded(config=Config(), environment=environment, overrides=overrides, file=file, config_file=config_file)
    return _combine(bare, overrides=overrides)


def _combine(loaded: Loaded, *, overrides: Mapping[str, Override]) -> Loaded:
    layers = (loaded.file, overrides, loaded.environment)
    config = Config(**{field: given.value for layer in layers for field, given in layer.items()})
    combined = msgspec.structs.replace(loaded, config=config, overrides=overrides)
    try:
        check_config(config)
    except BadConfigError as error:
        origin, source = combined.origin(error.path or "")
        where = f"{source}: " if origin in {"environment", "file"} else ""
        raise BadConfigError(f"{where}{error.message}", path=error.path) from None
    return combined


def _layer(pairs: Iterable[tuple[str, Any]], source: Callable[[str], str]) -> dict[str, Given]:
    layer: dict[str, Given] = {}
    for name, value in pairs:
        try:
            key = find_key(name)
            given = Given(read_value(key, value), source(name))
        except (NoSuchKeyError, BadConfigError) as error:
            raise BadConfigError(f"{source(name)}: {error.message}", path=error.path) from None
        if key.field in layer:
            raise BadConfigError(f"{source(name)}: `{key.name}` is set twice", path=key.name)
        layer[key.field] = given
    return layer


def _read_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    named = ((name.removeprefix(PREFIX), value) for name, value in sorted(environ.items()) if name.startswith(PREFIX))
    return _layer(named, lambda name: PREFIX + name)


def _credential(environ: Mapping[str, str]) -> dict[str, Given]:
    """Return the file of tokens that a service manager gives to us alone, if it does (``LoadCredential=``)."""
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(directory, CREDENTIAL)
    return {"token_file": Given(str(path), "CREDENTIALS_DIRECTORY")} if directory and path.exists() else {}


def _read_file(path: Path, *, required: bool) -> dict[str, Given] | None:
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except FileNotFoundError:
        if required:
            raise BadConfigError(f"{path}: there is no such file") from None
        return None
    except OSError as error:
        raise BadConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfigError(f"{path}: not TOML: {error}") from None
    return _layer(_flat(tables), lambda _: str(path))


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tables.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read_overrides(path: Path) -> dict[str, Override]:
    try:
        overrides = msgspec.json.decode(path.read_bytes(), type=dict[str, Override])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadConfigError(f"{path}: not what `config set` writes: {error}; repair or remove it") from None
    return _by_field(overrides, str(path))


def _by_field(overrides: Mapping[str, Override], source: str) -> dict[str, Override]:
    checked = _layer(((name, override.value) for name, override in overrides.items()), lambda _: source)
    by_field = {find_key(name).field: override for name, override in overrides.items()}
    return {field: msgspec.structs.replace(by_field[field], value=given.value) for field, given in checked.items()}


def policy(config: Config) -> Policy:
    """Return what concerns retries and order."""
    return Policy(**{field: getattr(config, field) for field in Policy.__struct_fields__})


def worker_limit(config: Config) -> int:
    """Return how many jobs may run at once."""
    if config.workers == "auto":
        return _as_many_as_cpus()
    return config.workers


@cache
def _as_many_as_cpus() -> int:
    # Asked once: every end of an attempt wants to know, and CPUs do not come and go.
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)))


class Holder:
    """The configuration in force, for everybody who has to see a change at once. Belongs to the loop's thread."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._at_start = loaded.config
        self._listeners: list[Callable[[Config], None]] = []

    @property
    def config(self) -> Config:
        """The values."""
        return self.loaded.config

    def listen(self, listener: Callable[[Config], None]) -> None:
        """Call `listener` with every later configuration, before anybody is told that it is in force."""
        self._listeners.append(listener)

    def replace(self, loaded: Loaded) -> None:
        """Take up a new configuration."""
        self.loaded = loaded
        for listener in self._listeners:
            listener(loaded.config)

    def waiting(self) -> tuple[str, ...]:
        """Return the names of keys whose value takes effect with the next start only."""
        return tuple(key.name for key in differing(self._at_start, self.config) if not key.live)


def differing(one: Config, other: Config) -> Iterator[Key]:
    """Return the keys whose values are not the same."""
    return (key for key in KEYS.values() if getattr(one, key.field) != getattr(other, key.field))
