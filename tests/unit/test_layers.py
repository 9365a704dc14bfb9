"""The layout: who may import whom. Imports go one way, so that a part can be read and tested without those above it."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

GROUND = {"errors", "domain"}
SETTINGS = {"config", "keys", "values"}

# By part of `queuectld` (a package, or a module beside them): the other parts that it may import.
MAY_IMPORT = {
    "errors": set(),
    "exits": {"errors"},
    "domain": {"errors"},
    "protocol": GROUND,
    "durable": set(),
    "keys": GROUND,
    "values": GROUND | {"keys"},
    "config": GROUND | {"protocol", "keys", "values", "durable"},
    "log_events": GROUND,
    "log_line": {"log_events"},
    "log_ecs": set(),
    "log_sink": {"errors"},
    "log": {"log_ecs", "log_line", "log_sink", "protocol"},
    "store": GROUND | {"durable"},
    # Of the store the plain structs alone: what is told of a commit.
    "figures": GROUND | {"store"},
    "worker": {"errors", "protocol"},
    "service": GROUND | SETTINGS | {"protocol", "store", "figures"},
    "host": GROUND | SETTINGS | {"protocol", "store", "durable", "service", "figures"},
    "server": GROUND | SETTINGS | {"durable", "protocol", "store", "figures", "service", "host", "worker"},
    "supervisor": GROUND | SETTINGS | {"protocol", "store", "figures", "service", "host", "worker"},
    "upkeep": GROUND
    | SETTINGS
    | {"exits", "durable", "log", "protocol", "store", "service", "host", "worker", "supervisor"},
}
# The composition root.
EVERYTHING = {"main", "daemon", "parts", "check"}
# What the command line may have of the daemon: plain words, no msgspec.
LIGHT = {
    "queuectld.protocol.words",
    "queuectld.protocol.where",
    "queuectld.domain.durations",
    "queuectld.domain.sizes",
}
ASYNCIO = {"server", "supervisor", "host", "main", "daemon"}
# The domain and the protocol neither read a clock, nor roll dice, nor touch the world.
IMPURE = {
    "asyncio",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
}


def modules(package):
    """Every module of a package: its name and its syntax tree."""
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text()), path


MODULES = {name: tree for package in ("queuectld", "queuectl_cli") for name, tree, _ in modules(package)}


def imports(name):
    """The modules that a module imports, wherever in it."""
    for node in ast.walk(MODULES[name]):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                for alias in node.names:
                    whole = f"{module}.{alias.name}"
                    yield whole if whole in MODULES else module
            case ast.ImportFrom():
                pytest.fail(f"{name} imports relative to itself")


def part(name):
    """Of queuectld.store.sqlite: store."""
    return name.split(".")[1] if "." in name else ""


def parts_imported(name):
    return {part(other) for other in imports(name) if other.split(".")[0] == "queuectld"} - {part(name)}


DAEMON = [name for name in MODULES if name.startswith("queuectld.")]
CLI = [name for name in MODULES if name.split(".")[0] == "queuectl_cli"]


@pytest.mark.parametrize("name", DAEMON)
def test_imports_go_one_way(name):
    if part(name) not in EVERYTHING:
        assert parts_imported(name) <= MAY_IMPORT[part(name)]


@pytest.mark.parametrize("name", DAEMON)
def test_the_daemon_knows_nothing_of_the_command_line(name):
    assert not {other for other in imports(name) if other.split(".")[0] == "queuectl_cli"}


@pytest.mark.parametrize("name", CLI)
def test_the_command_line_imports_only_light_modules_of_the_daemon(name):
    heavy = {other for other in imports(name) if other.split(".")[0] in {"queuectld", "msgspec", "structlog", "psutil"}}

    assert heavy <= LIGHT


@pytest.mark.parametrize("name", sorted(LIGHT))
def test_light_modules_import_only_the_standard_library_and_each_other(name):
    assert not {other.split(".")[0] for other in imports(name)} - {"__future__", "collections", "math", "re", "typing"}


@pytest.mark.parametrize("name", DAEMON)
def test_asyncio_appears_only_where_things_are_done(name):
    if part(name) not in ASYNCIO:
        assert "asyncio" not in {other.split(".")[0] for other in imports(name)}


@pytest.mark.parametrize("name", [name for name in DAEMON if part(name) in {"domain", "protocol", "figures", "errors"}])
def test_domain_and_protocol_are_pure(name):
    assert not {other.split(".")[0] for other in imports(name)} & IMPURE


@pytest.mark.parametrize("name", [name for name in DAEMON if part(name) == "worker"])
def test_a_worker_imports_next_to_nothing(name):
    foreign = {other.split(".")[0] for other in imports(name)}

    assert not foreign & {"asyncio", "apsw", "sqlite3", "structlog", "psutil", "watchdog", "click", "logging"}


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: {other for other in imports(name) if other in MODULES} - {name} for name in MODULES}

    # Raises CycleError, which names the circle.
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)


@pytest.mark.parametrize("name", [name for name, _, path in modules("queuectld") if path.name == "__init__.py"])
def test_packages_are_empty_so_that_importing_one_module_imports_no_other(name):
    assert not list(imports(name))


def test_every_part_has_its_rule():
    assert {part(name) for name in DAEMON} <= set(MAY_IMPORT) | EVERYTHING


def test_no_module_is_a_drawer_for_everything():
    names = {word for name in MODULES for word in name.split(".")}

    assert not names & {"utils", "util", "helpers", "helper", "misc", "common", "manager"}
