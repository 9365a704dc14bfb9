from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from queuectld.store.sqlite import open_store
from queuectld.upkeep.verdict import is_damaged


@pytest.fixture
def path(tmp_path):
    open_store(tmp_path / "queue.db").close()
    return tmp_path / "queue.db"


def test_a_whole_database_is_not_damaged(path):
    assert not is_damaged(path)


def test_one_with_garbage_in_it_is_damaged(path):
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)

    assert is_damaged(path)


def test_one_that_is_cut_off_is_damaged(path):
    with path.open("r+b") as file:
        file.truncate(8192)

    assert is_damaged(path)


def test_one_that_the_disk_does_not_give_is_not_called_damaged(path):
    # No file of its own says EIO as a disk does, but this one, at an address that nobody has mapped.
    code = (
        "import sys; from pathlib import Path; from queuectld.upkeep import verdict\n"
        "def fails(path): verdict._read_(Path('/proc/self/mem'))\n"
        "verdict._read_, verdict._read = verdict._read, fails\n"
        "print(verdict.is_damaged(Path(sys.argv[1])))"
    )

    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)

    assert done.stdout == "False\n", done.stderr


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("when", ["3+", "8+", "8", "15", "24+", "24", "31+"])
def test_one_that_the_disk_gives_no_more_while_it_is_looked_into_is_not_called_damaged(path, when):
    failing = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e", f"inject=pread64:error=EIO:when={when}")
    code = "import sys; from pathlib import Path; from queuectld.upkeep.verdict import is_damaged\n"

    done = subprocess.run(
        [*failing, sys.executable, "-c", f"{code}print(is_damaged(Path(sys.argv[1])))", path],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == "False\n", done.stderr
