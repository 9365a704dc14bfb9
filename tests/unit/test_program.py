from __future__ import annotations

import pytest

from queuectld.host.program import command_line, for_others

PYTHON = "/venv/bin/python3"


@pytest.fixture
def script(tmp_path):
    """Make a script of this first line; return its path."""

    def make(first_line):
        path = tmp_path / "queuectld"
        path.write_text(f"{first_line}\nfrom queuectld.main import run\n")
        return str(path)

    return make


@pytest.mark.parametrize("options", [[], ["-sP"]])
def test_what_was_started_as_a_script_is_so_again(script, options):
    path = script(" ".join([f"#!{PYTHON}", *options]))

    assert command_line([PYTHON, *options, path, "--user"], PYTHON, "/") == (path, "--user")


def test_a_script_is_found_from_where_it_was_started(script, tmp_path):
    path = script(f"#!{PYTHON}")

    assert command_line([PYTHON, "./queuectld"], PYTHON, str(tmp_path)) == (path,)


@pytest.mark.parametrize(
    "argv",
    [
        ["python3", "-P", "-m", "queuectld.main", "--system"],
        ["python3", "-c", "from queuectld.main import run; run()"],
        ["python3"],
    ],
)
def test_a_module_is_started_by_the_same_python(argv):
    assert command_line(argv, PYTHON, "/") == (PYTHON, *argv[1:])


def test_a_script_that_was_given_to_another_python_is_so_again(script):
    path = script("#!/usr/bin/python3")

    assert command_line([PYTHON, "-X", "dev", path], PYTHON, "/") == (PYTHON, "-X", "dev", path)


def test_others_are_not_told_what_is_meant_for_us_alone():
    environ = {
        "HOME": "/root",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
        "LISTEN_FDNAMES": "x",
        "QUEUECTL_HANDOVER": "{}",
    }

    assert for_others(environ) == {"HOME": "/root"}
