from __future__ import annotations

import hashlib
import os
import time

import pytest

from queuectld.errors import BadConfigError
from queuectld.server import tokens as server_tokens
from queuectld.server.tokens import MOST, Token, digest_of, holder_of, parse_tokens, read_tokens
from queuectld.server.who import Role
from queuectld.service.owner import user_name

ONE = "a-token-of-more-than-16-characters"
TWO = "another-token-of-enough-characters"
USERS = {"root": 0, "daemon": 1000, "alice": 1001}


def tokens(text, daemon_uid=1000):
    return parse_tokens(text, "/t", daemon_uid, USERS.__getitem__)


@pytest.mark.parametrize(
    ("line", "uid", "role"),
    [
        (f"{ONE} alice", 1001, Role.USER),
        (f"{ONE} root", 0, Role.ADMIN),
        (f"{ONE} daemon", 1000, Role.ADMIN),
        (f"{ONE} alice admin", 1001, Role.ADMIN),
        (f"{ONE} root user", 0, Role.USER),
        (f"\t{ONE}  alice\tobserver # who looks only", 1001, Role.OBSERVER),
    ],
)
def test_a_line_says_who_may_what(line, uid, role):
    user = {number: name for name, number in USERS.items()}[uid]

    assert tokens(line) == (Token(digest_of(ONE), uid, user, role),)


@pytest.mark.parametrize("text", [ONE, f"{ONE}\n", f"# ours\n\n  {ONE}\n# end"])
def test_a_bare_token_is_the_user_of_the_daemon(text):
    (token,) = tokens(text, os.getuid())

    assert token == Token(digest_of(ONE), os.getuid(), user_name(os.getuid()), Role.ADMIN)


def test_a_file_may_know_a_token_by_its_digest_alone():
    digest = hashlib.sha256(ONE.encode()).hexdigest()

    assert tokens(f"sha256:{digest} alice") == tokens(f"sha256:{digest.upper()} alice") == tokens(f"{ONE} alice")
    assert holder_of(tokens(f"sha256:{digest}"), digest_of(f"sha256:{digest}")) is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("short", "at least 16 characters"),
        ("fifteen-letters", "at least 16 characters"),
        (f"{ONE} bob", "no user 'bob'"),
        (f"{ONE} alice king", "no role 'king'; it is one of admin, user, observer"),
        (f"{ONE} alice stranger", "no role 'stranger'"),
        (f"{ONE} alice user more", "no more"),
        ("sha256:abc alice", "64 hexadecimal digits"),
        (f"sha256:{'g' * 64}", "64 hexadecimal digits"),
        (TWO, "stands above already"),
    ],
)
def test_a_bad_line_is_named_without_its_token(line, why):
    with pytest.raises(BadConfigError) as caught:
        tokens(f"# comment\n{TWO} alice\n{line}\n")

    assert caught.value.message.startswith("/t, line 3: ")
    assert why in caught.value.message
    assert line.split()[0] not in caught.value.message
    assert caught.value.path == "token_file"


def test_the_same_token_in_its_two_forms_is_a_duplicate():
    with pytest.raises(BadConfigError, match=r"line 2: .* stands above"):
        tokens(f"{ONE}\nsha256:{digest_of(ONE).hex()} alice")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_a_file_without_a_token_is_refused(text):
    with pytest.raises(BadConfigError, match="no token in /t"):
        tokens(text)


def test_too_many_tokens_are_refused():
    lines = [f"{ONE}-{number}" for number in range(MOST + 1)]

    assert len(tokens("\n".join(lines[:-1]))) == MOST
    with pytest.raises(BadConfigError, match="more than 1,000"):
        tokens("\n".join(lines))


@pytest.mark.parametrize("given", ["", f"{ONE} ", ONE.upper(), ONE[:-1], f"{ONE}\0", "s\udcffcret", "é"])
def test_only_the_very_token_counts(given):
    assert holder_of(tokens(ONE), digest_of(given)) is None


def test_the_right_one_of_many_is_found():
    known = tokens("\n".join(f"{ONE}-{number} alice {role}" for number, role in enumerate(["user", "observer"] * 50)))

    assert [holder_of(known, digest_of(f"{ONE}-{number}")) for number in range(100)] == list(known)


@pytest.mark.slow
def test_where_in_the_file_a_token_stands_cannot_be_measured():
    known = tokens("\n".join(f"{ONE}-{number}" for number in range(MOST)))
    first, last, none = (digest_of(f"{ONE}-{name}") for name in (0, MOST - 1, "x"))

    def seconds(digest):
        begin = time.perf_counter()
        holder_of(known, digest)
        return time.perf_counter() - begin

    taken = {digest: min(seconds(digest) for _ in range(101)) for digest in (first, last, none)}

    # With an exit at the first that fits, the last would take a thousand times as long.
    assert max(taken.values()) < 2 * min(taken.values())


# The file.


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(ONE)
    path.chmod(0o640)
    return path


def test_a_file_is_read(file):
    assert [token.digest for token in read_tokens(str(file), os.getuid())] == [digest_of(ONE)]


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o601])
def test_a_file_that_is_open_to_others_is_refused(file, mode):
    file.chmod(mode)

    with pytest.raises(BadConfigError, match="can be read by everybody"):
        read_tokens(str(file), 0)


def test_what_is_no_file_of_text_is_refused(file, tmp_path):
    file.write_bytes(b"\xff" * 20)
    os.mkfifo(tmp_path / "pipe", 0o600)

    for path, why in ((file, "not text in UTF-8"), (tmp_path / "pipe", "is not a file"), (tmp_path, "Is a directory")):
        with pytest.raises(BadConfigError, match=why):
            read_tokens(str(path), 0)
    with pytest.raises(BadConfigError, match="No such file"):
        read_tokens(str(tmp_path / "none"), 0)


def test_a_file_that_grows_for_ever_is_refused(file):
    file.write_bytes(b"#" * (1 << 20) + b"\n")

    with pytest.raises(BadConfigError, match="larger than"):
        read_tokens(str(file), 0)


def test_the_users_are_those_of_the_host(file):
    file.write_text(f"{ONE} root\n")
    assert read_tokens(str(file), 1000)[0].uid == 0
    file.write_text(f"{ONE} no-such-user\n")
    with pytest.raises(BadConfigError, match="no user 'no-such-user'"):
        read_tokens(str(file), 1000)


def test_whoever_comes_by_a_token_is_called_as_who_comes_by_the_socket(tmp_path, monkeypatch):
    monkeypatch.setattr(server_tokens, "_uid_of", {"1000": 1005}.__getitem__)
    monkeypatch.setattr(server_tokens, "user_name", str)
    path = tmp_path / "tokens"
    path.write_text(f"{ONE} 1000\n")
    path.chmod(0o600)

    (token,) = read_tokens(str(path), 0)

    assert (token.uid, token.user) == (1005, "1005")
