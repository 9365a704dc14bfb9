from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from queuectld.service.run_spec import account


@pytest.mark.parametrize(("home", "begins"), [("", ""), ("nowhere", "/")])
def test_jobs_begin_in_the_users_home_or_where_a_login_would_if_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str, begins: str
) -> None:
    place = str(tmp_path / home)
    entry = pwd.struct_passwd(("ann", "x", 1000, 1000, "", place, "/bin/bash"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)

    told = account(1000, {"LANG": "C.UTF-8", "SECRET": "1"})

    assert told.home == (begins or place)
    assert (told.environment["HOME"], told.environment["LANG"]) == (place, "C.UTF-8")
    assert "SECRET" not in told.environment


def test_a_user_without_an_entry_has_a_name_a_home_and_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)

    told = account(4242, {})

    assert (told.name, told.home) == ("4242", "/")
    assert "/usr/bin" in told.environment["PATH"]
